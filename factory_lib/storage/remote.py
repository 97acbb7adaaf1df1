"""Whatever fsspec opens (gs, az, http, memory, …), with whole requests planned by us instead of by a file object."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from factory_lib.home import private_folder
from factory_lib.owners import unfinished
from factory_lib.settings import settings
from factory_lib.storage.files import ChangedError, FileInfo
from factory_lib.storage.retry import with_retries

T = TypeVar("T")
_IDENTITY = (
    "ETag", "etag", "content_md5", "md5Hash", "checksum", "generation", "mtime", "LastModified", "last_modified",
    "Last-Modified", "updated", "modify", "created", "blob_id",
)  # fmt: skip


def identity_of(about: Mapping[str, Any]) -> str:
    """What identifies the content among the properties of a file; empty where nothing does."""
    return str(next((about[name] for name in _IDENTITY if about.get(name)), "")).strip('"')


class RemoteFiles:
    """Storage backend over one fsspec file system.

    Args:
        filesystem: an fsspec file system made in this process and not shared with others, its listing cache off.
    """

    def __init__(self, filesystem: Any) -> None:
        self.filesystem = filesystem
        # ftplib speaks over one connection, which two threads must not use at once.
        self._turn = threading.Lock() if hasattr(filesystem, "ftp") else contextlib.nullcontext()

    def info(self, uri: str) -> FileInfo:
        """Describe one file."""
        self.filesystem.invalidate_cache()  # some keep listings although told not to
        about = self._retried(lambda: self.filesystem.info(self._path(uri)))
        if about.get("type") == "directory":
            raise IsADirectoryError(uri)
        return self._described(about, uri)

    def find(self, uri: str, odd: dict[str, str] | None = None) -> list[FileInfo]:
        """All files below a folder, or the file itself."""
        self.filesystem.invalidate_cache()
        found = self._retried(lambda: self.filesystem.find(self._path(uri), detail=True))
        return [self._described(about, uri) for about in found.values() if about.get("type") == "file"]

    def stream(self, uri: str, offset: int, chunk_size: int, etag: str | None) -> Iterator[bytes]:
        """Read by one range request a chunk: fsspec has no streamed body that all its file systems share."""
        size = self._checked(uri, etag).size
        path = self._path(uri)
        while offset < size:
            bounds = {"start": offset, "end": min(offset + chunk_size, size)}
            chunk = self._retried(partial(self.filesystem.cat_file, path, **bounds))
            if not chunk:
                return
            yield chunk
            offset += len(chunk)

    def spans(self, uri: str, spans: Sequence[tuple[int, int | None]], etag: str | None) -> list[bytes | memoryview]:
        """Read each (start, end); the file system fetches them at once where it can."""
        if etag is not None:
            self._checked(uri, etag)
        path = self._path(uri)
        starts, ends = [start for start, _ in spans], [end for _, end in spans]
        fetch = self.filesystem.cat_ranges
        parts = self._retried(lambda: fetch([path] * len(spans), starts, ends, on_error="raise"))
        return [bytes(part) for part in parts]

    def write(self, uri: str, data: bytes) -> None:
        """Put one object."""
        path = self._path(uri)
        self._make_folder(path)
        self._retried(lambda: self.filesystem.pipe_file(path, data))

    def staged(self, uri: str) -> Path:
        """A file beside the cache."""
        return unfinished(private_folder(settings().cache / "uploads") / uri.rsplit("/", 1)[-1])

    def publish(self, path: Path, uri: str) -> None:
        """Upload it, in parts where the file system knows of parts: one object at its end, none after an error."""
        target = self._path(uri)
        self._make_folder(target)
        self._retried(lambda: self.filesystem.put_file(str(path), target))

    def create(self, uri: str, data: bytes) -> bool:
        """Put one object unless there is one; storages without conditional writes may tell two writers that they
        wrote.
        """
        path = self._path(uri)
        if self._retried(lambda: self.filesystem.exists(path)):
            return False
        self.write(uri, data)
        return True

    def replace(self, uri: str, data: bytes, etag: str) -> bool:
        """Put one object where the etag is that one; storages without conditional writes may tell two writers so."""
        try:
            self._checked(uri, etag)
        except (ChangedError, FileNotFoundError):
            return False
        self.write(uri, data)
        return True

    def remove(self, uri: str) -> None:
        """Remove one object."""
        path = self._path(uri)
        self._retried(lambda: self.filesystem.rm_file(path))

    def names(self, uri: str) -> list[str]:
        """Names in a folder."""
        self.filesystem.invalidate_cache()
        try:
            return self._retried(lambda: self._listed(self._path(uri)))
        except FileNotFoundError:
            return []

    def siblings(self, uri: str) -> list[str]:
        """Names in the folder of `uri`."""
        return self._listed(self.filesystem._parent(self._path(uri)))

    def _listed(self, path: str) -> list[str]:
        found = self.filesystem.ls(path, detail=False)
        return [str(name).rstrip("/").rsplit("/", 1)[-1] for name in found]

    def _make_folder(self, path: str) -> None:
        """The folder of a path, where there are folders."""
        self.filesystem.makedirs(self.filesystem._parent(path), exist_ok=True)

    def _retried(self, request: Callable[[], T]) -> T:
        def in_turn() -> T:
            with self._turn:
                return request()

        return with_retries(in_turn)

    def _path(self, uri: str) -> str:
        return str(self.filesystem._strip_protocol(uri))

    def _described(self, about: dict[str, Any], asked: str) -> FileInfo:
        """A file as the file system describes it.

        Args:
            asked: the URI that was asked for, whose server the file is on.
        """
        name, size = str(about["name"]), about.get("size")
        if size is None:
            raise OSError(f"the storage does not say how large {name} is")
        # Where the storage names no identity at all, the size is the little that can be compared.
        return FileInfo(self._uri(name, asked), int(size), identity_of(about) or f"size-{size}")

    def _uri(self, name: str, asked: str) -> str:
        """The URI of a path: what the file system cut off the URI that was asked for (its host, say) belongs to it."""
        path = self._path(asked)
        if asked.endswith(path) and "::" not in asked:
            uri = asked[: len(asked) - len(path)] + name
            if self._path(uri) == name:
                return uri
        return str(self.filesystem.unstrip_protocol(name))

    def _checked(self, uri: str, etag: str | None) -> FileInfo:
        found = self.info(uri)
        if etag is not None and found.etag != etag:
            raise ChangedError(uri)
        return found
