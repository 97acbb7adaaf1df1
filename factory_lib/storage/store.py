"""The store: every byte that is read from or written to storage goes through here.

Local paths are read by `pread`; everything else goes through fsspec, with requests planned by us: many small ranges
become few larger ones (`read_ranges`), whole files are streamed (`chunks`). A read may be pinned to the etag that a
file had when it was listed; a file that was overwritten since is then an error and never wrong bytes.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import BinaryIO, TypeVar

from factory_lib.errors import FileChanged, FileDamaged, FileMissing, StorageAway, StoreError
from factory_lib.redaction import quiet, redact
from factory_lib.storage.files import ChangedError, FileInfo, Files
from factory_lib.storage.missing import what_is_there
from factory_lib.storage.retry import is_transient, shown
from factory_lib.storage.spans import plan_spans

__all__ = ["FileInfo", "Store", "StoreFile", "is_local", "store"]

CHUNK_BYTES = 4 * 2**20
MAX_SPAN_BYTES = 8 * 2**20
LOCAL_GAP_BYTES = 16 * 2**10
REMOTE_GAP_BYTES = 256 * 2**10

T = TypeVar("T")


def is_local(uri: str) -> bool:
    """Whether `uri` is a path on this machine rather than something that fsspec opens."""
    return "://" not in uri or uri.startswith(("file://", "local://"))


class Store:
    """Reads and writes files, wherever they are. Usable from any thread, and in a forked process: clients are made
    lazily for each process. Holds no state of its own, so it may be pickled."""

    def resolve(self, uri: str) -> str:
        """The one spelling of a URI that is kept: an absolute path for local files, no trailing slash."""
        if is_local(uri):
            return os.path.abspath(os.path.expanduser(uri.partition("://")[2] if "://" in uri else uri))
        return uri.rstrip("/")

    def info(self, uri: str) -> FileInfo:
        """Describe one file.

        Raises:
            FileMissing: there is no such file; the hint names the nearest one in its folder.
            StoreError: the storage cannot be read.
        """
        uri = self.resolve(uri)
        return self._guarded(uri, lambda files: files.info(uri))

    def list(
        self, uri: str, suffixes: tuple[str, ...] = (), *, odd: dict[str, str] | None = None
    ) -> builtins.list[FileInfo]:
        """All files below a folder, recursively, sorted by uri; a file lists itself.

        Args:
            suffixes: lower-case endings such as ``".tar"``; empty for all files.
            odd: gets the path of what is there and is no file that can be read (a broken link), and why.

        Raises:
            FileMissing: neither a file nor a folder is there.
        """
        uri = self.resolve(uri)
        found = self._guarded(uri, lambda files: files.find(uri, odd))
        if not found and not is_local(uri):
            raise self._missing(uri)
        if suffixes:
            found = [file for file in found if file.uri.lower().endswith(suffixes)]
        return sorted(found, key=lambda file: file.uri)

    def chunks(
        self, uri: str, chunk_size: int = CHUNK_BYTES, *, offset: int = 0, etag: str | None = None
    ) -> Iterator[bytes]:
        """Stream a file from `offset` to its end, in constant memory; on S3 by one GET.

        Closing the iterator early ends the request.

        Raises:
            FileChanged: `etag` is given and the file is no longer that one.
        """
        uri = self.resolve(uri)
        stream = self._guarded(uri, lambda files: files.stream(uri, offset, chunk_size, etag))
        try:
            while True:
                try:
                    chunk = next(stream)
                except StopIteration:
                    return
                except Exception as error:
                    raise self._explained(uri, error) from quiet(error, uri)
                yield chunk
        finally:
            stream.close()  # type: ignore[attr-defined]

    def read(self, uri: str, offset: int = 0, size: int | None = None, *, etag: str | None = None) -> bytes:
        """Read `size` bytes from `offset`, or to the end; shorter where the file ends before."""
        uri = self.resolve(uri)
        if size is not None and size <= 0:
            return b""
        end = None if size is None else offset + size
        return bytes(self._guarded(uri, lambda files: files.spans(uri, [(offset, end)], etag)[0]))

    def read_ranges(
        self, uri: str, ranges: Sequence[tuple[int, int]], *, etag: str | None = None
    ) -> builtins.list[memoryview]:
        """Read many byte ranges of one file in few requests.

        Ranges that lie near each other are read together (holes of at most 16 KiB locally and 256 KiB remotely, at most
        8 MiB a request and twice the bytes asked for) and cut apart without copying.

        Args:
            ranges: (offset, size) in bytes, in any order, overlapping or not.
            etag: of the file as listed; a file that changed since is an error.

        Returns:
            One view for each range, in the order asked for. Views of one request share its buffer.

        Raises:
            FileChanged: the file is no longer the one that `etag` names.
            FileDamaged: a range ends beyond the end of the file.
        """
        uri = self.resolve(uri)
        gap = LOCAL_GAP_BYTES if is_local(uri) else REMOTE_GAP_BYTES
        spans = plan_spans(ranges, max_gap=gap, max_span=MAX_SPAN_BYTES)
        views = [memoryview(b"")] * len(ranges)
        if not spans:
            return views
        bounds: list[tuple[int, int | None]] = [(span.start, span.end) for span in spans]
        parts = self._guarded(uri, lambda files: files.spans(uri, bounds, etag))
        for span, part in zip(spans, parts, strict=True):
            if len(part) != span.end - span.start:
                raise FileDamaged(
                    f"{redact(uri)} ends before byte {span.end}: {len(part)} of the {span.end - span.start} bytes from "
                    f"{span.start} are there.",
                    "The file was truncated or replaced since it was ingested; ingest the shard again.",
                )
            view = memoryview(part)
            for index in span.ranges:
                offset, size = ranges[index]
                views[index] = view[offset - span.start : offset - span.start + size]
        return views

    def open(self, file: FileInfo) -> StoreFile:
        """A seekable file for libraries that want one (Parquet); reads are pinned to the etag of `file`."""
        return StoreFile(self, file)

    def write(self, uri: str, data: bytes) -> None:
        """Write one file whole; a reader sees the old bytes or the new ones."""
        uri = self.resolve(uri)
        self._guarded(uri, lambda files: files.write(uri, data))

    @contextlib.contextmanager
    def writing(self, uri: str) -> Iterator[BinaryIO]:
        """A file to write from its start to its end, of any size; it is there whole when the block ends, and durable.

        After an error, or the end of the process, what was there before is there still.
        """
        uri = self.resolve(uri)
        path = self._guarded(uri, lambda files: files.staged(uri))
        try:
            with open(path, "xb") as file:
                yield file
            self._guarded(uri, lambda files: files.publish(path, uri))
        except OSError as error:
            raise self._explained(uri, error) from quiet(error, uri)
        finally:
            path.unlink(missing_ok=True)

    def sync(self, uri: str) -> None:
        """Wait until a file that was written is on the medium; elsewhere than on a local disk it is."""
        uri = self.resolve(uri)
        if is_local(uri):
            from factory_lib.storage.local import sync

            sync(uri)

    def create(self, uri: str, data: bytes) -> bool:
        """Write one file whole unless there is one of that name; whether it was written."""
        uri = self.resolve(uri)
        return self._guarded(uri, lambda files: files.create(uri, data))

    def replace(self, uri: str, data: bytes, etag: str) -> bool:
        """Write one file whole in place of the one that `etag` names; whether that one was there, and this written."""
        uri = self.resolve(uri)
        return self._guarded(uri, lambda files: files.replace(uri, data, etag))

    def s3_address(self, uri: str) -> tuple[str, str]:
        """The URL of the server behind an `s3://` URI, and the region that requests to it are signed for.

        Raises:
            StoreError: it is no such URI, or no credentials are found.
        """
        from factory_lib.storage.s3 import S3Files

        def address(files: Files) -> tuple[str, str]:
            if not isinstance(files, S3Files):
                raise StoreError(f"{redact(uri)} is not in S3.", "Name it as s3://bucket/prefix.")
            return files.address()

        return self._guarded(uri, address)

    def names(self, uri: str) -> builtins.list[str]:
        """The names of what is in a folder, of files and folders alike, sorted; none where there is no such folder."""
        uri = self.resolve(uri)
        return sorted(self._guarded(uri, lambda files: files.names(uri)))

    def remove(self, uri: str) -> None:
        """Remove one file; one that is not there is fine."""
        uri = self.resolve(uri)
        with contextlib.suppress(FileMissing):
            self._guarded(uri, lambda files: files.remove(uri))

    def exists(self, uri: str) -> bool:
        """Whether there is such a file."""
        uri = self.resolve(uri)
        return self._guarded(uri, lambda files: _is_there(files, uri))

    def instead_of(self, uri: str) -> str:
        """What is there instead of a file or folder that does not exist: a hint, or an empty string."""
        uri = self.resolve(uri)
        try:
            files = _files(uri)
        except Exception:  # nothing can be opened there
            return ""
        return what_is_there(uri, files.siblings, local=is_local(uri))

    def _guarded(self, uri: str, action: Callable[[Files], T]) -> T:
        try:
            return action(_files(uri))
        except Exception as error:
            raise self._explained(uri, error) from quiet(error, uri)

    def _explained(self, uri: str, error: Exception) -> StoreError:
        where, said = redact(uri), redact(shown(error), uri)
        if isinstance(error, StoreError):
            return error
        if isinstance(error, ChangedError):
            return FileChanged(
                f"{where} was overwritten since it was listed: its etag is no longer the one recorded.",
                "Ingest the shard again, then derive what depends on it: what has the same bytes keeps its values.",
            )
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return self._missing(uri)
        if isinstance(error, IsADirectoryError):
            return StoreError(f"{where} is a folder, not a file.")
        if isinstance(error, PermissionError):
            return StoreError(f"{where} may not be read or written: {said}", "Check the credentials and rights.")
        if isinstance(error, ImportError | ValueError) and not is_local(uri):
            return StoreError(f"{where} cannot be opened: {said}", "Is its fsspec package installed?")
        hint = "Give the credentials that its store wants, or check them." if "Credentials" in said else ""
        kind = StorageAway if is_transient(error) else StoreError
        return kind(f"{where} cannot be read or written: {said}", hint)

    def _missing(self, uri: str) -> FileMissing:
        return FileMissing(f"{redact(uri)} does not exist.", self.instead_of(uri))


class StoreFile(io.RawIOBase):
    """A read-only, seekable file over `Store.read`. Each read is one request: readers should ask for large pieces."""

    def __init__(self, origin: Store, file: FileInfo) -> None:
        self._store, self._file, self._at = origin, file, 0

    def readable(self) -> bool:
        """Always True."""
        return True

    def seekable(self) -> bool:
        """Always True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a byte offset."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def tell(self) -> int:
        """The byte offset of the next read."""
        return self._at

    def size(self) -> int:
        """Bytes in the file."""
        return self._file.size

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` from the current offset."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int | None = -1) -> bytes:
        """Read `size` bytes, or to the end."""
        left = max(self._file.size - self._at, 0)
        size = left if size is None or size < 0 else min(size, left)
        data = self._store.read(self._file.uri, self._at, size, etag=self._file.etag or None)
        self._at += len(data)
        return data


_clients: dict[tuple[int, str, str], Files] = {}
_clients_lock = threading.Lock()
_store = Store()


def store() -> Store:
    """The store of this process."""
    return _store


def _is_there(files: Files, uri: str) -> bool:
    try:
        files.info(uri)
    except FileNotFoundError:
        return False
    return True


def _files(uri: str) -> Files:
    """The backend for `uri`, made on first use in each process: clients don't survive a fork."""
    key = (os.getpid(), *_server(uri))
    found = _clients.get(key)
    if found is None:
        with _clients_lock:
            found = _clients.get(key)
            if found is None:
                found = _clients[key] = _connect(uri)
    return found


def _server(uri: str) -> tuple[str, str]:
    """Protocol and server of a URI: what one client speaks to. A bucket is no server, the host of ftp:// is."""
    if is_local(uri):
        return "file", ""
    protocol, _, rest = uri.partition("://")
    if "::" in uri:  # one file system inside another, such as zip://a.jpg::ftp://host/a.zip
        return protocol, uri.partition("::")[2]
    return protocol, _server_options(protocol, rest.partition("/")[0])


@lru_cache(maxsize=10_000)
def _server_options(protocol: str, authority: str) -> str:
    """What the part of a URI before its path says about the server; empty where it is a part of the path."""
    import fsspec

    try:
        options = fsspec.get_filesystem_class(protocol)._get_kwargs_from_urls(f"{protocol}://{authority}/")
    except (ImportError, ValueError):  # connecting says what is missing
        return ""
    return repr(sorted(options.items(), key=str))


def _connect(uri: str) -> Files:
    if is_local(uri):
        from factory_lib.storage.local import LocalFiles

        return LocalFiles()
    import fsspec
    from fsspec.config import conf

    from factory_lib.storage.http import HttpFiles
    from factory_lib.storage.hub import HubFiles
    from factory_lib.storage.remote import RemoteFiles
    from factory_lib.storage.s3 import S3Files, s3_options

    private = {"skip_instance_cache": True, "use_listings_cache": False}
    if uri.startswith(("s3://", "s3a://")):
        filesystem, _ = fsspec.url_to_fs(uri, **private, **s3_options(conf.get("s3", {})))
        return S3Files(filesystem)
    filesystem, _ = fsspec.url_to_fs(uri, **private)
    if uri.startswith("hf://"):
        return HubFiles(filesystem)
    return HttpFiles(filesystem) if uri.startswith(("http://", "https://")) else RemoteFiles(filesystem)


def _after_fork() -> None:
    global _clients_lock
    _clients_lock = threading.Lock()
    _clients.clear()


os.register_at_fork(after_in_child=_after_fork)
