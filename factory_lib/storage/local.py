"""Files on a local disk: positioned reads, no caches of our own (the page cache is one)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from factory_lib.filelocks import exclusive
from factory_lib.owners import is_unfinished, unfinished, write_whole
from factory_lib.storage.files import ChangedError, FileInfo, is_state


class LocalFiles:
    """Storage backend for absolute paths."""

    def info(self, uri: str) -> FileInfo:
        """Describe one file."""
        status = os.stat(uri)
        if not os.path.isfile(uri):
            raise IsADirectoryError(uri)
        return FileInfo(uri, status.st_size, etag_of(status))

    def find(self, uri: str, odd: dict[str, str] | None = None) -> list[FileInfo]:
        """All files below a folder, following links, or the file itself.

        Args:
            odd: gets the path of what is there and is no file that can be read, and why.
        """
        odd = {} if odd is None else odd
        if os.path.isfile(uri):
            return [self.info(uri)]
        found: list[FileInfo] = []
        folders, seen = [uri], set[tuple[int, int]]()
        while folders:
            folder = folders.pop()
            try:
                status = os.stat(folder)
                if (status.st_dev, status.st_ino) in seen:
                    odd[folder] = "a link to a folder that is read already"
                    continue
                seen.add((status.st_dev, status.st_ino))
                entries = os.scandir(folder)
            except OSError as error:
                if folder == uri:
                    raise
                odd[folder] = f"a folder that cannot be read: {error.strerror}"
                continue
            with entries:
                for entry in entries:
                    if _is_folder(entry):
                        folders.append(entry.path)
                    elif about := _described(entry, odd):
                        found.append(about)
        return found

    def stream(self, uri: str, offset: int, chunk_size: int, etag: str | None) -> Iterator[bytes]:
        """Read from `offset` to the end by positioned reads."""
        descriptor = os.open(uri, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(uri, descriptor, etag)
            while chunk := os.pread(descriptor, chunk_size, offset):
                yield chunk
                offset += len(chunk)
        finally:
            os.close(descriptor)

    def spans(self, uri: str, spans: Sequence[tuple[int, int | None]], etag: str | None) -> list[bytes | memoryview]:
        """Read each (start, end)."""
        descriptor = os.open(uri, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = _check(uri, descriptor, etag)
            return [_pread(descriptor, start, (status.st_size if end is None else end) - start) for start, end in spans]
        finally:
            os.close(descriptor)

    def write(self, uri: str, data: bytes) -> None:
        """Write to a temporary name in the same folder, then rename."""
        os.makedirs(os.path.dirname(uri), exist_ok=True)
        write_whole(Path(uri), data)

    def staged(self, uri: str) -> Path:
        """A name in the same folder."""
        os.makedirs(os.path.dirname(uri), exist_ok=True)
        return unfinished(Path(uri))

    def publish(self, path: Path, uri: str) -> None:
        """Rename it: its bytes are on the medium before its name."""
        _flush(path)
        path.replace(uri)
        _flush(Path(uri).parent)

    def create(self, uri: str, data: bytes) -> bool:
        """Write to a temporary name, then link: that fails where the name is taken."""
        os.makedirs(os.path.dirname(uri), exist_ok=True)
        beside = unfinished(Path(uri))
        try:
            beside.write_bytes(data)
            os.link(beside, uri)
        except FileExistsError:
            return False
        finally:
            beside.unlink(missing_ok=True)
        return True

    def replace(self, uri: str, data: bytes, etag: str) -> bool:
        """Rename over the file, alone among those who replace files of that folder."""
        folder = os.open(os.path.dirname(uri), os.O_RDONLY | os.O_CLOEXEC)
        try:
            with exclusive(folder):
                if not os.path.exists(uri) or etag_of(os.stat(uri)) != etag:
                    return False
                write_whole(Path(uri), data)
                return True
        finally:
            os.close(folder)

    def remove(self, uri: str) -> None:
        """Unlink one file; who has it open goes on reading."""
        os.unlink(uri)

    def names(self, uri: str) -> list[str]:
        """Names in a folder, but for files that are being written."""
        try:
            return [name for name in os.listdir(uri) if not is_unfinished(name)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def siblings(self, uri: str) -> list[str]:
        """Names in the nearest folder above `uri` that exists."""
        folder = os.path.dirname(uri)
        return os.listdir(folder) if os.path.isdir(folder) else []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _described(entry: os.DirEntry[str], odd: dict[str, str]) -> FileInfo | None:
    """The file; None for what is none, which is noted."""
    try:
        if entry.is_file():
            about = entry.stat()
            return FileInfo(entry.path, about.st_size, etag_of(about))
        odd[entry.path] = "a broken link" if entry.is_symlink() else "no regular file"
    except OSError as error:
        odd[entry.path] = f"cannot be read: {error.strerror}"
    return None


def sync(path: str) -> None:
    """Flush a file and its entry in its folder to the disk."""
    _flush(Path(path))
    _flush(Path(path).parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _pread(descriptor: int, start: int, size: int) -> bytes:
    """Read exactly `size` bytes unless the file ends before: the kernel may return less than asked for."""
    data = os.pread(descriptor, size, start)
    if len(data) == size or not data:
        return data
    parts = [data]
    missing = size - len(data)
    while missing > 0 and (data := os.pread(descriptor, missing, start + size - missing)):
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)


def etag_of(status: os.stat_result) -> str:
    """The state of a file, as `FileInfo.etag` says it."""
    # Whoever copies with the times of the original, or sets them, cannot set the time of the change itself.
    return f"{status.st_mtime_ns}-{status.st_size}-{status.st_ctime_ns}-{status.st_ino}"


def _check(uri: str, descriptor: int, etag: str | None) -> os.stat_result:
    status = os.fstat(descriptor)
    if etag is not None and not is_state(etag_of(status), etag):
        raise ChangedError(uri)
    return status
