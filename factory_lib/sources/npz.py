"""Arrays in npz and npy files, read without loading what is not asked for, and without trusting what they claim.

An npz is a zip of npy files. Members that are stored uncompressed (numpy's `savez`) have a fixed byte range for each
row, which is read as such; deflated ones (`savez_compressed`) are inflated whole, up to a limit. Pickled objects are
refused.
Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html and PKWARE's APPNOTE, section 4.3.
"""

from __future__ import annotations

import io
import lzma
import math
import shutil
import struct
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from factory_lib.errors import SourceError
from factory_lib.redaction import redact
from factory_lib.sources.streams import MAGIC_BYTES, refuse_lfs
from factory_lib.storage.store import FileInfo, Store

MAX_MEMBERS = 1_000
MAX_INFLATED_BYTES = 4 * 2**30
"""The largest deflated member that is inflated, whatever it claims."""
WHOLE_SHARE = 0.25
"""From this share of the rows between the first and the last on, they are read in one piece rather than row by row."""
_HEADER_BYTES = 16 * 2**10
ARCHIVE_ERRORS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, ValueError, KeyError, EOFError, OverflowError,
    NotImplementedError, RuntimeError, OSError,
)  # fmt: skip
"""What Python's zipfile raises on damaged archives."""


@dataclass(frozen=True)
class ArrayMember:
    """One array in a file.

    Attributes:
        name: of the member, without `.npy`.
        dtype: never an object type.
        shape: rows first.
        offset: of the first byte of the data in the file; -1 when the member is compressed.
        fortran: whether columns come first in memory.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    fortran: bool

    @property
    def rows(self) -> int:
        """Length of the first axis."""
        return self.shape[0] if self.shape else 0

    @property
    def is_tensor(self) -> bool:
        """Whether a row has axes of its own, as pictures have: it is pointed at, not copied into a column."""
        return len(self.shape) > 2

    @property
    def has_places(self) -> bool:
        """Whether each row is one run of bytes in the file."""
        return self.offset >= 0 and not self.fortran

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dtype.itemsize * math.prod(self.shape[1:])


def array_members(origin: Store, file: FileInfo) -> dict[str, ArrayMember]:
    """The arrays of an npz, or the one of an npy (named after its file).

    Raises:
        SourceError: the file is neither, is damaged, or holds Python objects.
    """
    magic = origin.read(file.uri, 0, MAGIC_BYTES, etag=file.etag or None)
    refuse_lfs(magic, file.uri)
    if magic.startswith(b"\x93NUMPY"):
        name = file.uri.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        return {name: _npy_member(origin, file, name, 0, file.size)}
    try:
        with zipfile.ZipFile(io.BufferedReader(origin.open(file), 64 * 2**10)) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
    except ARCHIVE_ERRORS as error:
        raise SourceError(f"{redact(file.uri)} is not an npz: {error}.", "Was its upload interrupted?") from error
    if len(entries) > MAX_MEMBERS:
        raise SourceError(f"{redact(file.uri)} has {len(entries)} arrays; at most {MAX_MEMBERS} are read.")
    found = (_zip_member(origin, file, entry) for entry in entries)
    return {member.name: member for member in found}


def read_rows(
    origin: Store, file: FileInfo, member: ArrayMember, rows: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[Any]:
    """Some rows of an array, or all of them.

    Args:
        rows: indices in any order; None for all.

    Returns:
        (len(rows), …) in the dtype of the file. May be read-only.

    Raises:
        SourceError: the file is damaged, or a deflated member is larger than `MAX_INFLATED_BYTES`.
    """
    if rows is None:
        return _whole(origin, file, member)
    if member.offset < 0 or member.fortran:
        return np.asarray(_kept(origin, file, member)[rows])
    first, last = (int(rows.min()), int(rows.max()) + 1) if len(rows) else (0, 0)
    size = member.row_bytes
    if len(rows) >= WHOLE_SHARE * (last - first):
        data = _bytes(origin, file, member, member.offset + first * size, (last - first) * size)
        span = np.frombuffer(data, member.dtype).reshape(last - first, *member.shape[1:])
        return span if len(rows) == last - first and (np.diff(rows) == 1).all() else span[rows - first]
    ranges = [(member.offset + row * size, size) for row in rows.tolist()]
    data = b"".join(origin.read_ranges(file.uri, ranges, etag=file.etag or None))
    return np.frombuffer(data, member.dtype).reshape(len(rows), *member.shape[1:])


def _whole(origin: Store, file: FileInfo, member: ArrayMember) -> npt.NDArray[Any]:
    size = member.rows * member.row_bytes
    if not size:
        return np.zeros(member.shape, member.dtype)
    if member.offset < 0:
        return _shaped(_inflated(origin, file, member), member)
    return _shaped(np.frombuffer(_bytes(origin, file, member, member.offset, size), np.uint8), member)


@lru_cache(maxsize=2)
def _kept(origin: Store, file: FileInfo, member: ArrayMember) -> npt.NDArray[Any]:
    """The whole array, of the few that are read row by row and have no byte range for each: inflated once."""
    return _whole(origin, file, member)


def _bytes(origin: Store, file: FileInfo, member: ArrayMember, offset: int, size: int) -> bytes:
    data = origin.read(file.uri, offset, size, etag=file.etag or None)
    if len(data) != size:
        raise SourceError(f"{redact(file.uri)} ends within its array {member.name!r}.", "Was it cut off?")
    return data


def _shaped(data: npt.NDArray[np.uint8], member: ArrayMember) -> npt.NDArray[Any]:
    flat = data.view(member.dtype)
    return flat.reshape(member.shape[::-1]).T if member.fortran else flat.reshape(member.shape)


def _inflated(origin: Store, file: FileInfo, member: ArrayMember) -> npt.NDArray[np.uint8]:
    """The bytes of an array, in a file without a name that is mapped: what is not used for a while takes no memory."""
    size = member.rows * member.row_bytes
    try:
        with (
            zipfile.ZipFile(io.BufferedReader(origin.open(file), 2**20)) as archive,
            archive.open(f"{member.name}.npy") as source,
            tempfile.TemporaryFile() as kept,
        ):
            source.read(archive.getinfo(f"{member.name}.npy").file_size - size)  # the header
            shutil.copyfileobj(source, kept, 2**20)
            kept.flush()
            if kept.tell() != size:
                raise SourceError(f"{redact(file.uri)} ends within its array {member.name!r}.", "Was it cut off?")
            return np.memmap(kept, np.uint8, "r", shape=(size,))
    except ARCHIVE_ERRORS as error:
        raise SourceError(f"{redact(file.uri)}: array {member.name!r} cannot be inflated: {error}.") from error


def _zip_member(origin: Store, file: FileInfo, entry: zipfile.ZipInfo) -> ArrayMember:
    name = entry.filename.removesuffix(".npy")
    where = f"{redact(file.uri)}: array {name!r}"
    if entry.flag_bits & 1:
        raise SourceError(f"{where} is encrypted.")
    if entry.compress_type == zipfile.ZIP_STORED:
        head = origin.read(file.uri, entry.header_offset, 30, etag=file.etag or None)
        if len(head) < 30 or head[:4] != b"PK\x03\x04":
            raise SourceError(f"{where} has no header at offset {entry.header_offset}.", "Was the file cut off?")
        # The local header may be longer than the central directory says: its extra field is its own.
        start = entry.header_offset + 30 + sum(struct.unpack("<HH", head[26:30]))
        if start + entry.file_size > file.size:
            raise SourceError(f"{where} ends beyond the end of the file.", "Was the file cut off?")
        return _npy_member(origin, file, name, start, entry.file_size)
    if entry.file_size > MAX_INFLATED_BYTES:
        raise SourceError(
            f"{where} would inflate to {entry.file_size} bytes; at most {MAX_INFLATED_BYTES} are.",
            "Write it with numpy.savez (uncompressed): its rows are then read by byte range.",
        )
    try:
        with zipfile.ZipFile(io.BufferedReader(origin.open(file), 64 * 2**10)) as archive, archive.open(entry) as data:
            header = data.read(_HEADER_BYTES)
    except ARCHIVE_ERRORS as error:
        raise SourceError(f"{where} cannot be inflated: {error}.") from error
    return _parsed(where, name, header, entry.file_size, -1)


def _npy_member(origin: Store, file: FileInfo, name: str, start: int, size: int) -> ArrayMember:
    header = origin.read(file.uri, start, min(size, _HEADER_BYTES), etag=file.etag or None)
    return _parsed(f"{redact(file.uri)}: array {name!r}", name, header, size, start)


def _parsed(where: str, name: str, header: bytes, size: int, start: int) -> ArrayMember:
    """Read an npy header and hold it against the bytes that are there."""
    stream = io.BytesIO(header)
    try:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = cast(Any, readers[version])(stream, max_header_size=_HEADER_BYTES)
    except (
        Exception
    ) as error:  # numpy evaluates the header as a literal: damaged ones raise whatever Python's parser does
        raise SourceError(f"{where} has no valid npy header: {str(error)[:100]}.") from error
    if dtype.hasobject:
        raise SourceError(f"{where} holds Python objects, which are not unpickled.", "Save it as numbers or strings.")
    if any(length < 0 for length in shape) or stream.tell() + math.prod(shape) * dtype.itemsize != size:
        raise SourceError(
            f"{where} claims {math.prod(shape) * dtype.itemsize} bytes (shape {shape}, {dtype}); "
            f"{size - stream.tell()} are there.",
            "Was the file cut off?",
        )
    return ArrayMember(name, dtype, tuple(shape), start + stream.tell() if start >= 0 else -1, bool(fortran))
