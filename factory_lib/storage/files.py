"""What the storage backends have in common: the description of a file, and the protocol each of them fulfils."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file as it was when it was listed.

    Attributes:
        uri: an absolute path, or a URI such as ``s3://bucket/key``.
        size: bytes.
        etag: identity of the content. On S3 the ETag; on a local disk ``mtime_ns-size-ctime_ns-inode``, which changes
            whenever bytes may have changed, and sometimes where they did not (other permissions, a copy put in place):
            hashes of the bytes decide then what is computed. Empty where unknown.
    """

    uri: str
    size: int
    etag: str

    @property
    def path(self) -> str:
        """The URI as it names the file (see `path_of`)."""
        return path_of(self.uri)


def path_of(uri: str) -> str:
    """A URI as it names a file: of http(s) without the query, as presigned ones have it, and `a%20b` as `a b`."""
    if not uri.startswith(("http://", "https://")):
        return uri
    return unquote(uri.partition("#")[0].partition("?")[0])


class Files(Protocol):
    """One kind of storage. Methods raise `OSError` or what the client library raises; `Store` explains."""

    def info(self, uri: str) -> FileInfo:
        """Describe one file; `FileNotFoundError` when there is none."""

    def find(self, uri: str, odd: dict[str, str] | None = None) -> list[FileInfo]:
        """All files below a folder, or the file itself; empty when there are none.

        Args:
            odd: gets the path of what is there and is no file that can be read, and why.
        """

    def stream(self, uri: str, offset: int, chunk_size: int, etag: str | None) -> Iterator[bytes]:
        """The bytes from `offset` to the end in pieces of `chunk_size`, in as few requests as the storage allows."""

    def spans(self, uri: str, spans: Sequence[tuple[int, int | None]], etag: str | None) -> list[bytes | memoryview]:
        """The bytes of each (start, end); an end of None is the file's end. Short only where the file is."""

    def write(self, uri: str, data: bytes) -> None:
        """Write one file whole: readers see the old bytes or the new ones, never a mixture."""

    def staged(self, uri: str) -> Path:
        """A path on this machine at which a file may grow until `publish` makes it `uri`."""

    def publish(self, path: Path, uri: str) -> None:
        """Make what was written at a staged path the file `uri`, whole and on the medium."""

    def create(self, uri: str, data: bytes) -> bool:
        """Write one file unless there is one of that name; whether it was written. At most one of several writers is
        told so.
        """

    def replace(self, uri: str, data: bytes, etag: str) -> bool:
        """Write one file in place of the one with that etag; whether it was that one, and is written. At most one of
        several writers is told so.
        """

    def remove(self, uri: str) -> None:
        """Remove one file; `FileNotFoundError` when there is none."""

    def names(self, uri: str) -> list[str]:
        """Names in a folder; none where there is no such folder."""

    def siblings(self, uri: str) -> list[str]:
        """Names in the folder of `uri`, for the hint of an error."""


def is_state(now: str, recorded: str) -> bool:
    """Whether a file is in the state that was recorded, by the etags.

    Local etags of the first releases were ``mtime_ns-size`` alone: such a record says nothing of the rest.
    """
    return now == recorded or (recorded.count("-") == 1 and now.startswith(f"{recorded}-"))


class ChangedError(Exception):
    """Raised by a backend when a file is no longer the one that the etag names."""
