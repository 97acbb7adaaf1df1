"""Whatever fsspec opens (gs, az, http, memory, …), with whole requests planned by us instead of by a file object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from factory_lib.storage.files import ChangedError, FileInfo
from factory_lib.storage.retry import with_retries

_IDENTITY = (
    "ETag", "etag", "content_md5", "md5Hash", "checksum", "generation", "mtime", "LastModified", "last_modified",
    "updated", "created",
)  # fmt: skip


class RemoteFiles:
    """Storage backend over one fsspec file system.

    Args:
        filesystem: an fsspec file system made in this process and not shared with others, its listing cache off.
    """

    def __init__(self, filesystem: Any) -> None:
        self.filesystem = filesystem

    def info(self, uri: str) -> FileInfo:
        """Describe one file."""
        about = with_retries(lambda: self.filesystem.info(self._path(uri)))
        if about.get("type") == "directory":
            raise IsADirectoryError(uri)
        return self._described(about)

    def find(self, uri: str) -> list[FileInfo]:
        """All files below a folder, or the file itself."""
        found = with_retries(lambda: self.filesystem.find(self._path(uri), detail=True))
        return [self._described(about) for about in found.values() if about.get("type") == "file"]

    def stream(self, uri: str, offset: int, chunk_size: int, etag: str | None) -> Iterator[bytes]:
        """Read by one range request a chunk: fsspec has no streamed body that all its file systems share."""
        size = self._checked(uri, etag).size
        path = self._path(uri)
        while offset < size:
            bounds = {"start": offset, "end": min(offset + chunk_size, size)}
            chunk = with_retries(partial(self.filesystem.cat_file, path, **bounds))
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
        parts = with_retries(lambda: fetch([path] * len(spans), starts, ends, on_error="raise"))
        return [bytes(part) for part in parts]

    def write(self, uri: str, data: bytes) -> None:
        """Put one object."""
        path = self._path(uri)
        self.filesystem.makedirs(self.filesystem._parent(path), exist_ok=True)
        with_retries(lambda: self.filesystem.pipe_file(path, data))

    def create(self, uri: str, data: bytes) -> bool:
        """Put one object unless there is one; storages without conditional writes may tell two writers that they
        wrote.
        """
        path = self._path(uri)
        if with_retries(lambda: self.filesystem.exists(path)):
            return False
        self.write(uri, data)
        return True

    def remove(self, uri: str) -> None:
        """Remove one object."""
        path = self._path(uri)
        with_retries(lambda: self.filesystem.rm_file(path))

    def siblings(self, uri: str) -> list[str]:
        """Names in the folder of `uri`."""
        found = self.filesystem.ls(self.filesystem._parent(self._path(uri)), detail=False)
        return [str(name).rstrip("/").rsplit("/", 1)[-1] for name in found]

    def _path(self, uri: str) -> str:
        return str(self.filesystem._strip_protocol(uri))

    def _described(self, about: dict[str, Any]) -> FileInfo:
        # Where the storage names no identity at all, the size is the little that can be compared.
        identity = next((about[name] for name in _IDENTITY if about.get(name)), None)
        size = int(about["size"])
        etag = f"size-{size}" if identity is None else str(identity).strip('"')
        return FileInfo(str(self.filesystem.unstrip_protocol(about["name"])), size, etag)

    def _checked(self, uri: str, etag: str | None) -> FileInfo:
        found = self.info(uri)
        if etag is not None and found.etag != etag:
            raise ChangedError(uri)
        return found
