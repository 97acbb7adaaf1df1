"""Reads the headers of a tar in one pass over its bytes, without unpacking it.

The pass hops from header to header in Python (the only sequential part: each header says where the next one is) and
does the rest for a whole window at once with numpy and Arrow: the checksum of every header, the names, the offsets.

Understood: v7, ustar (with prefix), GNU (long names `L` and `K`, base-256 numbers), PAX (`x` and `g`: path and size),
concatenated archives. Left out: directories, links, devices, and sparse members, whose bytes are not stored in one run.
Format: POSIX.1-2017 "pax", section "ustar Interchange Format", and the GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.errors import FileChanged, SourceError
from factory_lib.redaction import redact
from factory_lib.sources.streams import refuse_lfs
from factory_lib.storage.store import FileInfo, Store, is_local

BLOCK = 512
LOCAL_WINDOW_BYTES = 2**20
REMOTE_WINDOW_BYTES = 4 * 2**20
"""How much of the tar is looked at in one go: locally what stays in the processor's cache."""
SKIP_BYTES = 2 * 2**20
"""A payload that reaches further than this beyond the window is not read but skipped, by a new request behind it."""
INLINE_BYTES = 2**20
"""Members up to this size are guaranteed to lie in the window of their header, so that sidecars can be parsed there."""

_FIELDS = struct.Struct("B 123x 11s B 20x B")
"""Of a header: the first byte of the name, the size without its terminator, the terminator, the type."""
_SIZE_DIGITS, _BEYOND = 19, 2**63
"""A PAX size of more digits is larger than any file: the member is truncated, then."""
_ZEROS = bytes(BLOCK)
_TERMINATORS = frozenset(b"\0 ")
_REGULAR = frozenset(b"07\0")
_WITHOUT_PAYLOAD = frozenset(b"123456")
_LINKS = frozenset(b"12")
_SPARSE, _LONG_NAME, _PAX_GLOBAL = b"SLg"
_PAX = frozenset(b"xXg")
_EXTENDED = frozenset(b"LKxXg")
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gzip -d"),
    b"BZh": ("bzip2", "bzip2 -d"),
    b"\xfd7zXZ\0": ("xz", "xz -d"),
    b"\x28\xb5\x2f\xfd": ("zstandard", "zstd -d"),
    b"\x04\x22\x4d\x18": ("lz4", "lz4 -d"),
    b"PK\x03\x04": ("zip", "unzip, then tar -cf"),
}


class CompressedTar(SourceError):
    """A tar is compressed, or is no tar but another kind of archive."""


@dataclass(frozen=True)
class TarBlock:
    """Consecutive regular members of a tar, in their order.

    Attributes:
        names: string array, as stored (no normalization).
        offsets: uint64, first byte of each member's data, from the start of the tar.
        sizes: uint64, bytes of each member's data.
        window: bytes of the tar around them.
        starts: int64, where each member's data starts in `window`.
    """

    names: pa.StringArray
    offsets: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.uint64]
    window: bytes
    starts: npt.NDArray[np.int64]

    def payloads(self, rows: npt.NDArray[np.int64]) -> list[bytes | None]:
        """Data of some members; None for one that is larger than `INLINE_BYTES`."""
        window = self.window
        bounds = zip(self.starts[rows].tolist(), self.sizes[rows].tolist(), strict=True)
        return [window[start : start + size] if size <= INLINE_BYTES else None for start, size in bounds]


@dataclass
class _Hop:
    """What one walk over the headers in a window found; positions count from the window's start."""

    heads: list[int] = field(default_factory=list)
    members: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)  # index of the member -> name that replaces the header's
    next: int = 0
    needed: int = BLOCK
    damage: str = ""


@dataclass(frozen=True, slots=True)
class _Pending:
    """What extended headers say about the header that follows them."""

    path: str | None = None
    size: int | None = None
    sparse: bool = False


_NOTHING = _Pending()


class TarReader:
    """One pass over one tar.

    Args:
        origin: where bytes come from.
        file: the tar as listed; reads are pinned to its etag.
        problem: called with a message for whatever is odd but does not stop the pass.

    Attributes:
        damaged: after the pass, whether members were lost to truncation or corruption.
        unfinished: whether its end is missing: nobody knows whether members are.
        sparse: members that were left out because their bytes are not stored in one run.
        links: hard and symbolic links that were left out.
    """

    def __init__(self, origin: Store, file: FileInfo, problem: Callable[[str], None]) -> None:
        self._window = _Window(origin, file)
        self._uri, self._size = file.uri, file.size
        self._problem = problem
        self._everywhere = self._pending = _NOTHING
        self._marker_at: int | None = None
        self.damaged = self.unfinished = False
        self.links = self.sparse = 0

    def blocks(self) -> Iterator[TarBlock]:
        """Yield the members, window by window.

        Raises:
            SourceError: this is no tar, or a compressed one.
            FileChanged: the tar was overwritten since it was listed.
        """
        try:
            yield from self._blocks()
        finally:
            self._window.close()

    def _blocks(self) -> Iterator[TarBlock]:
        self._refuse_other_formats(self._window.move(0, BLOCK))
        position, needed = 0, BLOCK
        while position < self._size:
            data = self._window.move(position, needed)
            if not data[:BLOCK].strip(b"\0"):
                position = self._skip_zeros(position)
                continue
            if len(data) < BLOCK:
                self._damage(f"truncated at offset {self._size}: in the middle of the header at {position}")
                return
            hop = self._hop(data, position)
            block, bad = _assemble(hop, data, position)
            if bad == 0 and self._marker_at is not None:
                self._damage(
                    f"{self._size - position} bytes at offset {position}, behind the end of the tar, are no tar"
                )
                return
            if bad == 0 and position == 0:
                raise SourceError(f"{redact(self._uri)} is not a tar: the checksum of its first header is wrong.")
            if self._marker_at is not None:
                self._problem(f"goes on at offset {position}, behind an end marker: concatenated tars, read to the end")
                self._marker_at = None
            if len(block.names):
                yield block
            if bad is not None:
                self._damage(f"corrupt header at offset {position + bad}: wrong checksum; what follows is left out")
                return
            if hop.damage:
                self._damage(hop.damage)
                return
            position, needed = position + hop.next, hop.needed
        if self._marker_at is None:
            self.unfinished = True
            self._problem(f"no end marker at offset {self._size}: the writer may have been interrupted")

    def _hop(self, data: bytes, base: int) -> _Hop:
        """Walk from header to header until the window, or the archive, ends."""
        hop = _Hop()
        heads, members, sizes = hop.heads, hop.members, hop.sizes
        at, end = 0, len(data)
        fields = _FIELDS.unpack_from
        while at + BLOCK <= end:
            first, digits, terminator, kind = fields(data, at)
            if first == 0 and data[at : at + BLOCK] == _ZEROS:
                break
            size = _size(digits, terminator)
            if size is None:
                heads.append(at)
                hop.damage = f"corrupt header at offset {base + at}: its size is not a number; what follows is left out"
                break
            start = at + BLOCK
            plain = kind in _REGULAR and self._pending is _NOTHING
            if not plain:
                size = self._payload_size(kind, size)
                start = _after_sparse_map(data, at) if kind == _SPARSE else start
            following = start + (size + BLOCK - 1) // BLOCK * BLOCK
            if following > end:
                if base + start + size > self._size:
                    heads.append(at)
                    hop.damage = (
                        f"truncated at offset {self._size}: the member whose header is at {base + at} needs bytes up "
                        f"to {base + start + size}"
                    )
                    break
                needed = start - at + (size if size <= INLINE_BYTES else 0)
                if at + needed > end:
                    hop.needed = needed
                    break  # the next window starts at this header and holds all that is needed of it
            heads.append(at)
            if not plain:
                self._special(hop, data, base, at, kind, size)
            elif kind != 0 or not _is_old_directory(data, at):
                members.append(at)
                sizes.append(size)
            at = following
        hop.next = at
        return hop

    def _payload_size(self, kind: int, size: int) -> int:
        if kind in _WITHOUT_PAYLOAD:
            return 0
        if kind in _EXTENDED or self._pending.size is None:
            return size
        return self._pending.size

    def _special(self, hop: _Hop, data: bytes, base: int, at: int, kind: int, size: int) -> None:
        """Handle an extended header, or a header that one of them precedes, or one that is no regular file."""
        if kind in _EXTENDED:
            if size > INLINE_BYTES:
                self._problem(f"extended header of {size} bytes at offset {base + at} is ignored: over {INLINE_BYTES}")
                return
            payload = data[at + BLOCK : at + BLOCK + size]
            if kind in _PAX:
                self._read_pax(payload, everywhere=kind == _PAX_GLOBAL)
            elif kind == _LONG_NAME and self._pending.path is self._everywhere.path:
                self._pending = replace(self._pending, path=_text(payload.partition(b"\0")[0]))
            return
        pending, self._pending = self._pending, self._everywhere
        if kind == _SPARSE or pending.sparse:
            self.sparse += 1
            self._problem(
                f"sparse member {pending.path or _header_name(data, at)!r} at offset {base + at} is left out: its "
                "bytes are not stored in one run. Write the tar again without --sparse."
            )
        elif kind in _LINKS:
            self.links += 1
        elif kind in _REGULAR and (kind != 0 or not _is_old_directory(data, at)):
            if pending.path is not None:
                hop.names[len(hop.members)] = pending.path
            hop.members.append(at)
            hop.sizes.append(size)

    def _read_pax(self, payload: bytes, everywhere: bool) -> None:
        """Take path, size and the mark of a sparse file from PAX records; times and owners are of no use here."""
        if b"path=" not in payload and b"size=" not in payload and b"GNU.sparse." not in payload:
            return
        found = self._everywhere if everywhere else self._pending
        for keyword, value in _pax_records(payload):
            if keyword == b"path" and (everywhere or found.path is self._everywhere.path):
                found = replace(found, path=_text(value))
            elif keyword == b"size" and value.isdigit():
                found = replace(found, size=int(value) if len(value) < _SIZE_DIGITS else _BEYOND)
            elif keyword.startswith(b"GNU.sparse."):
                found = replace(found, sparse=True, path=_text(value) if keyword.endswith(b".name") else found.path)
        self._pending = found
        if everywhere:
            self._everywhere = found

    def _skip_zeros(self, position: int) -> int:
        """Pass over zero blocks, which end an archive; returns where something else starts, or the end of the file."""
        self._marker_at = position
        while position < self._size:
            data = self._window.move(position, BLOCK)
            zeros = len(data) - len(data.lstrip(b"\0"))
            position += zeros // BLOCK * BLOCK if zeros < len(data) else zeros
            if zeros < len(data):
                break
        return position

    def _refuse_other_formats(self, data: bytes) -> None:
        where = redact(self._uri)
        if not data:
            raise SourceError(f"{where} is empty (0 bytes): not a tar.", "Was its upload interrupted?")
        refuse_lfs(data, self._uri)
        for magic, (name, command) in _COMPRESSED.items():
            if data.startswith(magic):
                raise CompressedTar(
                    f"{where} is compressed with {name}: its members have no byte ranges that could be pointed at.",
                    "Name a folder or bucket for unpacked copies with --unpack-to (unpack_to=…, FACTORY_UNPACK_TO), or "
                    f"unpack it first ({command}); images are compressed already, so the tar hardly grows.",
                )

    def _damage(self, message: str) -> None:
        self.damaged = True
        self._problem(message)


class _Window:
    """A stretch of the file that slides forward, fed by one streamed read as long as no large payload is skipped."""

    def __init__(self, origin: Store, file: FileInfo) -> None:
        self._origin, self._file = origin, file
        self._stream: Iterator[bytes] = iter(())
        self._stream_at = -1
        self._at = 0
        self.data = b""

    def move(self, position: int, need: int) -> bytes:
        """Make the window start at `position` and hold at least `need` bytes, or all that is left."""
        kept = self.data[position - self._at :] if position < self._at + len(self.data) else b""
        behind = position + len(kept)
        if self._stream_at < 0 or behind - self._stream_at > SKIP_BYTES:
            self.close()
            size = LOCAL_WINDOW_BYTES if is_local(self._file.uri) else REMOTE_WINDOW_BYTES
            self._stream = self._origin.chunks(self._file.uri, size, offset=behind, etag=self._file.etag or None)
            self._stream_at = behind
        parts = [kept]
        have = len(kept)
        while have < need:
            chunk = next(self._stream, b"")
            if not chunk:
                break
            skipped = max(behind - self._stream_at, 0)
            self._stream_at += len(chunk)
            if skipped < len(chunk):
                parts.append(chunk[skipped:] if skipped else chunk)
                have += len(chunk) - skipped
                behind = self._stream_at
        if have < min(need, self._file.size - position):
            raise FileChanged(
                f"{redact(self._file.uri)} ended at byte {behind}; it had {self._file.size} when it was listed.",
                "Something truncated it meanwhile; list the source again.",
            )
        self.data = parts[0] if len(parts) == 1 else parts[1] if len(parts) == 2 and not kept else b"".join(parts)
        self._at = position
        return self.data

    def close(self) -> None:
        """End the request in flight."""
        close = getattr(self._stream, "close", None)
        if close is not None:
            close()


def _assemble(hop: _Hop, data: bytes, base: int) -> tuple[TarBlock, int | None]:
    """Check all headers of a window and make arrays of its members.

    Returns:
        The members before the first bad header, and where in the window that one is (None: all are good).
    """
    whole = np.frombuffer(data, np.uint8, len(data) // BLOCK * BLOCK).reshape(-1, BLOCK)
    heads = np.asarray(hop.heads, np.int64)
    good = _checksums_hold(whole[heads // BLOCK])
    bad = None if good.all() else int(heads[int(np.argmin(good))])
    starts = np.asarray(hop.members, np.int64)
    count = len(starts) if bad is None else int(np.searchsorted(starts, bad))
    starts = starts[:count]
    names = _names(whole[starts // BLOCK], {row: name for row, name in hop.names.items() if row < count})
    sizes = np.asarray(hop.sizes[:count], np.uint64)
    return TarBlock(names, (starts + (base + BLOCK)).astype(np.uint64), sizes, data, starts + BLOCK), bad


def _checksums_hold(headers: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Compare each header's checksum with the sum of its bytes, its own field counted as spaces.

    Args:
        headers: (n, 512). Some old writers summed signed bytes; both sums are accepted.
    """
    stored = np.zeros(len(headers), np.int64)
    started = np.zeros(len(headers), np.bool_)
    ended = np.zeros(len(headers), np.bool_)
    for column in range(148, 156):
        digit = headers[:, column].astype(np.int64) - 48
        octal = (digit >= 0) & (digit <= 7)
        ended |= started & ~octal
        started |= octal
        stored = np.where(octal & ~ended, stored * 8 + digit, stored)
    spaces = 8 * 32
    sums = headers.sum(1, dtype=np.int64) - headers[:, 148:156].sum(1, dtype=np.int64) + spaces
    good: npt.NDArray[np.bool_] = started & (sums == stored)
    if not good.all():
        signed = headers.view(np.int8)
        sums = signed.sum(1, dtype=np.int64) - signed[:, 148:156].sum(1, dtype=np.int64) + spaces
        good |= started & (sums == stored)
    return good


def _names(headers: npt.NDArray[np.uint8], replaced: dict[int, str]) -> pa.StringArray:
    """Names of members: the header's name, behind its prefix in POSIX ustar, or what an extended header says."""
    names = _strings(headers[:, :100])
    prefixed = (headers[:, 257:263] == np.frombuffer(b"ustar\0", np.uint8)).all(1) & (headers[:, 345] != 0)
    if prefixed.any():
        joined = pc.binary_join_element_wise(_strings(headers[:, 345:500]), names, "/")
        names = pc.if_else(pa.array(prefixed), joined, names)
    if replaced:
        values = names.to_pylist()
        for row, name in replaced.items():
            values[row] = name
        names = pa.array(values, pa.string())
    return names


def _strings(columns: npt.NDArray[np.uint8]) -> pa.StringArray:
    """NUL-terminated byte columns (n, width) as strings; bytes that are no UTF-8 are shown as escapes."""
    fixed = np.ascontiguousarray(columns).view(f"S{columns.shape[1]}").ravel()
    binary = pa.array(fixed, pa.binary())
    try:
        return binary.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([_text(value) for value in binary.to_pylist()], pa.string())


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _size(digits: bytes, terminator: int) -> int | None:
    """The size in a header, from the first 11 bytes of its field and the last; None when they are no number."""
    if terminator in _TERMINATORS:
        try:
            size = int(digits, 8)
        except ValueError:
            return _number(digits + bytes([terminator]))
        return size if size >= 0 else None
    return _number(digits + bytes([terminator]))


def _number(value: bytes) -> int | None:
    """A number of a header: octal digits, or base-256 with the top bit of the first byte set."""
    if value[0] == 0x80:
        return int.from_bytes(value[1:], "big")
    digits = value.partition(b"\0")[0].strip()
    if not digits:
        return 0
    return int(digits, 8) if not digits.strip(b"01234567") else None


def _pax_records(payload: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Records ``LENGTH KEYWORD=VALUE\\n`` of a PAX header; stops at the first malformed one."""
    at = 0
    while at < len(payload):
        length, _, _ = payload[at : at + 20].partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(payload) - at:
            return
        record = payload[at + len(length) + 1 : at + int(length) - 1]
        keyword, _, value = record.partition(b"=")
        yield keyword, value
        at += int(length)


def _after_sparse_map(data: bytes, at: int) -> int:
    """Where the data of an old GNU sparse member starts: behind the blocks that continue its map."""
    start, more = at + BLOCK, data[at + 482]
    while more and start + BLOCK <= len(data):
        more = data[start + 504]
        start += BLOCK
    return start + BLOCK if more else start


def _is_old_directory(data: bytes, at: int) -> bool:
    """Whether a v7 header (type NUL) names a directory, which v7 marks only by the slash at the end of its name."""
    return data[at : at + 100].partition(b"\0")[0].endswith(b"/")


def _header_name(data: bytes, at: int) -> str:
    return _text(data[at : at + 100].partition(b"\0")[0])
