"""Files as streams of bytes from their first to their last, uncompressed on the way where their content says so."""

from __future__ import annotations

import io
import lzma
import zlib
from typing import Any, BinaryIO, cast

import zstandard

from factory_lib.errors import SourceError
from factory_lib.redaction import redact
from factory_lib.storage.store import FileInfo, store

COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"\x04\x22\x4d\x18": "lz4",
}
"""First bytes of a file -> what it is compressed with."""
LFS = b"version https://git-lfs.github.com/spec/"
MAGIC_BYTES = 64
STREAM_ERRORS = (EOFError, OSError, RuntimeError, zlib.error, lzma.LZMAError, zstandard.ZstdError)
"""What reading from `open_stream` raises where the compressed bytes are damaged."""


def compression_of(head: bytes) -> str | None:
    """What a file is compressed with, by its first bytes; None when it is not."""
    return next((name for magic, name in COMPRESSIONS.items() if head.startswith(magic)), None)


def refuse_lfs(head: bytes, uri: str) -> None:
    """Raise where a file is not the file, but what git keeps in its place.

    Raises:
        SourceError: these are the first bytes of a pointer of Git LFS, or of git-annex.
    """
    if head.startswith(LFS):
        raise SourceError(
            f"{redact(uri)} is a Git LFS pointer: the file itself was not downloaded.",
            "Run `git lfs pull` in the repository, then ingest again.",
        )
    if head.startswith(b"/annex/objects/"):
        raise SourceError(
            f"{redact(uri)} is a git-annex pointer: the file itself was not downloaded.",
            "Run `git annex get` in the repository, then ingest again.",
        )


def first_bytes(file: FileInfo) -> bytes:
    """The first `MAGIC_BYTES` of a file.

    Raises:
        SourceError: it is a pointer of Git LFS or git-annex.
    """
    head = store().read(file.uri, 0, MAGIC_BYTES, etag=file.etag or None)
    refuse_lfs(head, file.uri)
    return head


def open_stream(file: FileInfo) -> BinaryIO:
    """A file as it would be uncompressed, read once from front to back; by one request where the storage allows."""
    raw = io.BufferedReader(_Chunks(file), 2**20)
    found = compression_of(raw.peek(8)[:8])
    if found is None:
        return cast(BinaryIO, raw)
    return cast(BinaryIO, io.BufferedReader(_uncompressed(found, raw), 2**20))


class SalvagedStream:
    """What a damaged stream still gives: `read` returns the bytes before the damage before it raises."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._error: Exception | None = None

    def read(self, size: int) -> bytes:
        """`size` bytes; less only at the end, or at the damage."""
        parts: list[bytes] = []
        missing = size
        while missing > 0:
            try:
                if self._error is not None:
                    raise self._error
                part = self._stream.read1(missing)
            except STREAM_ERRORS as error:
                if not parts:
                    raise
                self._error = error
                break
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)


def _uncompressed(compression: str, raw: Any) -> Any:
    if compression == "gzip":
        import gzip

        return gzip.GzipFile(fileobj=raw)
    if compression == "bzip2":
        import bz2

        return bz2.BZ2File(raw)
    if compression == "xz":
        return lzma.LZMAFile(raw)
    if compression == "lz4":
        import lz4.frame  # type: ignore[import-untyped]

        return lz4.frame.LZ4FrameFile(raw)
    return zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)


class _Chunks(io.RawIOBase):
    """Chunks of one file as a raw stream.

    Attributes:
        position: bytes taken so far.
    """

    def __init__(self, file: FileInfo) -> None:
        self._chunks = store().chunks(file.uri, etag=file.etag or None)
        self._left = memoryview(b"")
        self.position = 0

    def readable(self) -> bool:
        """Always True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what is there."""
        if not self._left:
            self._left = memoryview(next(self._chunks, b""))
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        self.position += size
        return size

    def close(self) -> None:
        """End the request."""
        if not self.closed:
            self._chunks.close()  # type: ignore[attr-defined]
        super().close()
