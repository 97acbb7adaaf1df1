"""Zip archives: their members, and where the bytes of those that are stored uncompressed begin.

The directory at the end of an archive says where the header of each member is, and only that header, how long it is
itself. It is asked for where the room before the next member leaves open how long.
Format: PKWARE's APPNOTE, sections 4.3 and 4.4.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Sequence
from functools import lru_cache

from factory_lib.errors import SourceError
from factory_lib.redaction import redact
from factory_lib.sources.npz import ARCHIVE_ERRORS
from factory_lib.sources.streams import MAGIC_BYTES, refuse_lfs
from factory_lib.storage.store import FileInfo, store

_HEADER = struct.Struct("<4s22xHH")
"""Of a member's header: its mark, and the lengths of the name and of what follows it."""
_MARK = b"PK\x03\x04"
_ENCRYPTED = 1
_BUFFER = 64 * 2**10


@lru_cache(maxsize=8)
def opened(file: FileInfo) -> zipfile.ZipFile:
    """An archive whose directory was read; its members may be read by several threads at once.

    Raises:
        SourceError: it is none, or is damaged.
    """
    try:
        refuse_lfs(store().read(file.uri, 0, MAGIC_BYTES, etag=file.etag or None), file.uri)
        return zipfile.ZipFile(io.BufferedReader(store().open(file), _BUFFER))
    except ARCHIVE_ERRORS as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(
            f"{redact(file.uri)} is not a zip archive: {error}.", "Was its upload interrupted?"
        ) from error


def members(file: FileInfo, overwritten: list[str] | None = None) -> list[zipfile.ZipInfo]:
    """The files in an archive, by name; of several with one name the last, which unpacking would leave.

    Args:
        overwritten: gets the names of the others.

    Raises:
        SourceError: it is no archive, or is damaged.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    for about in opened(file).infolist():
        if about.is_dir():
            continue
        if about.filename in found and overwritten is not None:
            overwritten.append(about.filename)
        found[about.filename] = about
    return sorted(found.values(), key=lambda about: about.filename)


def is_stored(about: zipfile.ZipInfo) -> bool:
    """Whether the bytes of a member are in the archive as they are."""
    plain = about.compress_type == zipfile.ZIP_STORED and about.compress_size == about.file_size
    return plain and not is_encrypted(about)


def is_encrypted(about: zipfile.ZipInfo) -> bool:
    """Whether a member cannot be read without a password."""
    return bool(about.flag_bits & _ENCRYPTED)


def offsets(file: FileInfo, stored: Sequence[zipfile.ZipInfo]) -> list[int]:
    """Where the bytes of stored members begin.

    Raises:
        SourceError: a header is not where the directory says.
    """
    archive = opened(file)
    starts = sorted(about.header_offset for about in archive.infolist())
    following = dict(zip(starts, [*starts, archive.start_dir][1:], strict=True))
    found = [_tight(about, following[about.header_offset]) for about in stored]
    open_ = [number for number, offset in enumerate(found) if offset is None]
    ranges = [(stored[number].header_offset, _HEADER.size) for number in open_]
    for number, header in zip(open_, store().read_ranges(file.uri, ranges, etag=file.etag or None), strict=True):
        mark, name, extra = _HEADER.unpack(header)
        if mark != _MARK:
            raise SourceError(f"{redact(file.uri)} has no member at {stored[number].header_offset}.", "Is it whole?")
        found[number] = stored[number].header_offset + _HEADER.size + name + extra
    return [offset for offset in found if offset is not None]


def _tight(about: zipfile.ZipInfo, following: int) -> int | None:
    """Where the bytes of a member begin whose header has no room for anything but its name; None for any other."""
    name = about.orig_filename.encode("utf-8" if about.flag_bits & 0x800 else "cp437")
    start = about.header_offset + _HEADER.size + len(name)
    return start if start + about.compress_size == following else None
