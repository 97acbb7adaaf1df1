"""HTTP content encodings, both ways, in pieces of bounded size: a small body cannot unpack into the memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from factory_lib.engine.failure import failure

PIECE = 1 << 20
# Content-Encoding -> pyarrow's name of the codec, whose streams read in pieces and refuse truncated input.
_CODECS = {"gzip": "gzip", "x-gzip": "gzip", "br": "brotli", "lz4": "lz4", "zstd": "zstd", "bz2": "bz2"}
_OFFERED = ("zstd", "lz4", "gzip", "deflate")


class Compressor(Protocol):
    """Compresses a stream piece by piece."""

    def compress(self, data: bytes) -> bytes: ...
    def flush(self) -> bytes: ...


def decompress(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The decoded body.

    Args:
        chunks: the body as it arrives.
        encoding: value of the Content-Encoding header; empty or "identity" passes through.

    Raises:
        EngineFailure: an unknown encoding (code 48), or a body that is damaged or cut short (code 271).
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        yield from chunks
    elif name == "deflate":
        yield from _inflate(chunks)
    elif name in _CODECS:
        yield from _decode(chunks, _CODECS[name])
    else:
        known = ", ".join(sorted({*_CODECS, "deflate"}))
        raise failure(48, "NOT_IMPLEMENTED", f"Content-Encoding {encoding!r} is not supported. Known: {known}")


def _decode(chunks: Iterable[bytes], codec: str) -> Iterator[bytes]:
    import pyarrow as pa

    stream = pa.CompressedInputStream(pa.PythonFile(_ChunkReader(chunks), mode="r"), codec)
    try:
        while piece := stream.read(PIECE):
            yield piece
    except OSError as error:
        raise failure(271, "CANNOT_DECOMPRESS", f"The {codec} body cannot be decompressed: {error}") from None


def _inflate(chunks: Iterable[bytes]) -> Iterator[bytes]:
    decoder = zlib.decompressobj()
    try:
        for chunk in chunks:
            data = chunk
            while data and not decoder.eof:
                if piece := decoder.decompress(data, PIECE):
                    yield piece
                data = decoder.unconsumed_tail
        if piece := decoder.flush():
            yield piece
    except zlib.error as error:
        raise failure(271, "CANNOT_DECOMPRESS", f"The deflate body cannot be decompressed: {error}") from None
    if not decoder.eof:
        raise failure(271, "CANNOT_DECOMPRESS", "The deflate body is cut short")


class _ChunkReader:
    """A file over chunks, as pyarrow reads it."""

    closed = False

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = chunk
        size = len(self._rest) if size < 0 else size
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


def accepted(header: str) -> str | None:
    """The encoding to answer with, from an Accept-Encoding header; None for none."""
    weights: dict[str, float] = {}
    for item in header.lower().split(","):
        name, _, parameters = item.strip().partition(";")
        _, _, weight = parameters.partition("q=")
        try:
            weights[name.strip()] = float(weight) if weight else 1.0
        except ValueError:
            continue
    offered = [name for name in _OFFERED if weights.get(name, weights.get("*", 0.0)) > 0]
    return max(offered, key=lambda name: weights.get(name, weights.get("*", 0.0)), default=None)


def compressor(encoding: str) -> Compressor:
    """A compressor for one answer, at a speed that suits results read once."""
    if encoding in ("gzip", "deflate"):
        return zlib.compressobj(3, wbits=31 if encoding == "gzip" else 15)
    if encoding == "lz4":
        return _Lz4()
    import zstandard

    zstd: Compressor = zstandard.ZstdCompressor(level=1).compressobj()
    return zstd


class _Lz4:
    def __init__(self) -> None:
        import lz4.frame  # type: ignore[import-untyped]

        self._frame: Any = lz4.frame.LZ4FrameCompressor()
        self._begun = False

    def compress(self, data: bytes) -> bytes:
        head = b"" if self._begun else self._frame.begin()
        self._begun = True
        return bytes(head + self._frame.compress(data))

    def flush(self) -> bytes:
        return bytes((b"" if self._begun else self._frame.begin()) + self._frame.flush())
