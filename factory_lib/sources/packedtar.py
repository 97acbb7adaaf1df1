"""Compressed tars: read as a stream, their members copied into plain tars that can be pointed into."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from factory_lib.errors import SourceError, StoreError
from factory_lib.redaction import redact
from factory_lib.sources.shards import ShardReport
from factory_lib.sources.streams import STREAM_ERRORS, SalvagedStream, open_stream
from factory_lib.sources.tar import TarBlock, TarReader
from factory_lib.sources.unpack import Samples, Unpacking, UnpackNotes, key_of, readable, told
from factory_lib.storage.store import FileInfo, store

MAX_MEMBER_BYTES = 2 * 2**30
"""The largest member that is copied."""
READ_ERRORS = (tarfile.TarError, *STREAM_ERRORS)
_FIRST_BYTES = 64 * 2**20


def unpacked_blocks(file: FileInfo, to: str, report: ShardReport) -> Iterator[tuple[FileInfo, TarBlock]]:
    """The members of a compressed tar, out of its unpacked copy, which is made where it is not there.

    Raises:
        SourceError: it is no tar.
    """
    copy = Unpacking(file, to)
    if copy.is_done:
        UnpackNotes.read(copy.recorded()).tell(report)
        for part in copy.parts:
            for block in TarReader(store(), part, report.problem).blocks():
                yield part, block
        return
    noted = UnpackNotes()
    with told(file) as progress:
        for sample in samples_of(file, noted):
            if copy.is_full:
                yield copy.end_part()
            for name, data in sample:
                copy.add(name, data)
            progress()
    if copy.has_members:
        yield copy.end_part()
    copy.finish(**noted.record())
    noted.tell(report)


def first_members(file: FileInfo, members: int) -> TarBlock:
    """The first members of a compressed tar, with their bytes.

    Raises:
        SourceError: it is no tar.
    """
    names: list[str] = []
    pieces: list[bytes] = []
    for sample in samples_of(file, UnpackNotes()):
        names += [name for name, _ in sample]
        pieces += [data for _, data in sample]
        if len(names) >= members or sum(map(len, pieces)) >= _FIRST_BYTES:
            break
    sizes = np.array([len(piece) for piece in pieces], np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64) if len(sizes) else sizes
    shown = pa.array(map(readable, names), pa.string())
    return TarBlock(shown, starts.astype(np.uint64), sizes.astype(np.uint64), b"".join(pieces), starts)


def samples_of(file: FileInfo, noted: UnpackNotes) -> Samples:
    """Samples of a compressed tar, as far as it is whole; damage is noted and ends it.

    Raises:
        SourceError: it is no tar at all.
    """
    name = redact(file.uri).rsplit("/", 1)[-1]
    held: list[tuple[str, bytes]] = []
    links = members = 0
    watch = _Watch()
    try:
        with open_stream(file) as stream, _opened(SalvagedStream(stream), watch) as archive:
            while (about := archive.next()) is not None:
                if about.isdir() or not about.isreg():
                    links += about.issym() or about.islnk()
                    continue
                if about.size > MAX_MEMBER_BYTES:
                    noted.count("oversized_members")
                    noted.problems.append(f"{name}: {about.name} has {about.size} bytes and is left out")
                    continue
                content = archive.extractfile(about)
                data = content.read() if content is not None else b""
                members += 1
                if held and key_of(held[-1][0]) != key_of(about.name):
                    yield held
                    held = []
                held.append((about.name, data))
                archive.members.clear()  # type: ignore[attr-defined]  # which would grow with every member
            while stream.read(2**20):  # to the end, where the checksum of the whole stands
                pass
    except StoreError:
        raise
    except READ_ERRORS as error:
        watch.damage = watch.damage or str(error) or type(error).__name__
    if held:
        yield held
    if watch.damage and not members:
        raise SourceError(f"{redact(file.uri)} holds no tar that can be read: {watch.damage}.")
    if watch.damage:
        noted.count("damaged_tars")
        noted.problems.append(f"{name}: damaged: {watch.damage}; what follows is left out")
    if links:
        noted.count("links", links)
        noted.problems.append(f"{name}: {links} links are left out: they have no bytes of their own to point at")


def _opened(stream: Any, watch: _Watch) -> tarfile.TarFile:
    return tarfile.open(fileobj=stream, mode="r|", tarinfo=watch.kind())


class _Watch:
    """Notices a bad header, which Python's tarfile takes for the end of the archive."""

    damage = ""

    def kind(self) -> type[tarfile.TarInfo]:
        """A class for `tarfile.open` that tells this object."""
        watch = self

        class Watched(tarfile.TarInfo):
            @classmethod
            def fromtarfile(cls, archive: tarfile.TarFile) -> Any:
                try:
                    return super().fromtarfile(archive)
                except tarfile.HeaderError as error:
                    if not isinstance(error, tarfile.EOFHeaderError | tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
                        watch.damage = str(error)
                    raise

        return Watched
