"""Files of a folder, or members of an archive that have bytes of their own: what samples are put together from."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

from factory_lib.errors import SourceError
from factory_lib.pictures import EXTENSIONS
from factory_lib.sources.streams import LFS
from factory_lib.sources.surviving import reading
from factory_lib.sources.tar import INLINE_BYTES
from factory_lib.sources.ziparchives import opened
from factory_lib.storage.files import path_of
from factory_lib.storage.store import FileInfo, store

_MAGIC = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"II*\0": "tif",
    b"MM\0*": "tif",
    b"\0\0\0\x0cjP  ": "jp2",
}
_POINTER_BYTES = 1024
"""What git keeps in place of a large file is smaller than this."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file.

    Attributes:
        path: below the root of its source, with `/`.
        file: that holds its bytes: itself, or an archive.
        size: of its bytes, uncompressed.
        offset: of its first byte in `file`; -1 where they are compressed.
        packed: how to get at compressed bytes.
    """

    path: str
    file: FileInfo
    size: int
    offset: int = 0
    packed: zipfile.ZipInfo | None = None

    @property
    def folder(self) -> str:
        """Path of its folder, empty for the root."""
        return self.path.rpartition("/")[0]

    def read(self, size: int | None = None) -> bytes:
        """Its bytes, or the first of them."""
        if self.packed is not None:
            with opened(self.file).open(self.packed) as stream:
                return stream.read(-1 if size is None else size)
        wanted = self.size if size is None else min(size, self.size)
        return store().read(self.file.uri, self.offset, wanted, etag=self.file.etag or None)

    def small(self) -> bytes | None:
        """Its bytes unless there are more than 1 MiB of them."""
        return self.read() if self.size <= INLINE_BYTES else None


def entries_below(root: str, files: Sequence[FileInfo]) -> list[Entry]:
    """Plain files as entries."""
    prefix = path_of(root).rstrip("/") + "/"
    return [Entry(file.path.removeprefix(prefix), file, file.size) for file in files]


def split_path(path: str) -> tuple[str, str]:
    """Path without its last extension, and that extension in lower case."""
    folder, slash, name = path.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    return (folder + slash + stem, extension.lower()) if dot and stem else (path, "")


def picture_format(head: bytes) -> str | None:
    """The extension of the picture whose first bytes these are; None when they are of none."""
    for magic, extension in _MAGIC.items():
        if head.startswith(magic):
            return extension
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "bmp"
    return "avif" if head[4:12] in (b"ftypavif", b"ftypavis") else None


def is_lfs_pointer(entry: Entry) -> bool:
    """Whether a picture is not there, but what git keeps in its place."""
    if entry.size >= _POINTER_BYTES or split_path(entry.path)[1] not in EXTENSIONS:
        return False
    return beginning(entry, len(LFS)).startswith((LFS, b"/annex/objects/"))


def beginning(entry: Entry, size: int) -> bytes:
    """The first bytes of a file; none where it alone cannot be read, which shows again when it is used."""
    try:
        with reading(entry.file.uri):
            return entry.read(size)
    except SourceError:
        return b""
