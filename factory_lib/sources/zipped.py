"""Zip archives: pictures in folders as anywhere else, or members of any kind, grouped as in WebDataset's tars.

Members that are stored uncompressed are pointed at where they are. An archive with a compressed picture is unpacked
once into tars (see `unpack`). Tables inside an archive describe its pictures, as tables beside it do; an archive
without pictures, as COCO's of annotations, describes those of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from factory_lib.errors import SourceError
from factory_lib.redaction import redact
from factory_lib.sources.account import Account
from factory_lib.sources.classes import NamedClasses, find_classes
from factory_lib.sources.descriptions import DescribingTable, describe, tables_among
from factory_lib.sources.entries import Entry, split_path
from factory_lib.sources.folder import Pictures, belonging, paths_of, settle_pictures, small
from factory_lib.sources.layout import Layout, LayoutBuilder, with_classes
from factory_lib.sources.members import Members, split_names
from factory_lib.sources.parallel import SIDECARS, folders_beside
from factory_lib.sources.picture_names import PictureNames
from factory_lib.sources.shards import ShardReport, SourceShard, name_shards
from factory_lib.sources.surviving import reading, surviving, worded
from factory_lib.sources.tables import TablePair
from factory_lib.sources.unpack import need_place
from factory_lib.sources.webdataset import built_samples
from factory_lib.sources.zipentries import (
    account_members,
    entries_of,
    is_table,
    name_of,
    tables_in,
    tell_left_out,
    unpacked,
)
from factory_lib.storage.store import FileInfo

_SCHEMA_FILES = 200
_LOOKED_INTO = 64
"""Archives whose members are listed, to tell those of tables from those of samples."""


@dataclass(frozen=True)
class Zips:
    """Zip archives, each of which is a shard.

    Attributes:
        uri: a folder, or one archive.
        archives: with samples, sorted by uri.
        beside: files that describe pictures: tables, and archives of tables.
        pictures: what pictures become; None where there are none.
        layout: what members become where there are no pictures.
        unpack_to: where compressed members are unpacked to.
        caption: column of captions of tables; None for `caption`.
        accounted: uris of archives whose members stand in the account since they were looked into.
    """

    uri: str
    archives: tuple[FileInfo, ...]
    beside: tuple[FileInfo, ...] = ()
    pictures: Pictures | None = None
    layout: Layout = field(default_factory=Layout)
    unpack_to: str | None = None
    accounted: frozenset[str] = frozenset()
    caption: str | None = None
    format: str = "zip"

    @property
    def schema(self) -> pa.Schema:
        """Columns of every batch."""
        return self.layout.schema if self.pictures is None else self.pictures.schema

    def shards(self) -> list[SourceShard]:
        """One an archive."""
        return name_shards(self.uri, [(archive.path, (archive, *self.beside)) for archive in self.archives])

    def read(self, shard: SourceShard, report: ShardReport) -> Iterator[pa.RecordBatch]:
        """Rows of an archive, by the names of its members."""
        archive = shard.files[0]
        yield from surviving(self._rows(archive, report), archive.uri, "unreadable_archives", report)

    def _rows(self, archive: FileInfo, report: ShardReport) -> Iterator[pa.RecordBatch]:
        entries = entries_of(archive, report)
        if archive.uri in self.accounted:
            report.account = Account()
        if self.pictures is None:
            self._tell(archive, entries, _in_columns(entries, self.layout), report)
            placed = self._placed(archive, entries, report)
            for batch in built_samples(_members(placed, self.layout, report), archive.uri, self.layout, report):
                report.samples += len(batch)
                yield batch
            return
        kept, extensions = belonging(entries)
        tables = _described(self.uri, archive, entries, paths_of(kept, extensions), self.beside, self.caption)
        naming, classes = find_classes(entries) if self.pictures.classes else ([], NamedClasses())
        self._tell(archive, entries, _used(entries, [*kept, *naming], tables), report)
        beside = tuple(folders_beside((entry.path for entry in kept), dict(extensions)).values())
        own: dict[str, Any] = {"tables": tuple(tables), "extensions": tuple(extensions), "beside": beside}
        if naming:
            own["layout"] = with_classes(self.pictures.layout, classes)
        yield from replace(self.pictures, **own, settled=self.pictures.schema).rows(
            self._placed(archive, kept, report), report
        )
        paths = pa.array(paths_of(kept, extensions), pa.string())
        for table in tables if len(self.archives) == 1 else ():  # of several, each has a part of the pictures
            table.account(paths, report)

    def _tell(self, archive: FileInfo, entries: Sequence[Entry], used: set[str], report: ShardReport) -> None:
        tell_left_out(entries, used, report)
        if archive.uri not in self.accounted:
            account_members(archive, entries, used, report.account)

    def _placed(self, archive: FileInfo, entries: Sequence[Entry], report: ShardReport) -> list[Entry]:
        """Entries whose bytes can be pointed at: where they are, or in an unpacked copy."""
        if not any(map(_is_packed, entries)):
            return list(entries)
        return unpacked(archive, entries, _place(archive, self.unpack_to), report)


def open_zips(
    uri: str,
    archives: Sequence[FileInfo],
    files: Sequence[FileInfo],
    first: int,
    unpack_to: str | None,
    caption: str | None,
    account: Account,
) -> Zips | None:
    """Zip archives below a folder, or one of them; None where none holds samples.

    Args:
        files: all that is there, among which may be tables that describe what is in the archives.
        first: how many archives are looked into for the columns.
        caption: column of captions of tables; None for `caption`.
        account: gets the members of these, and of archives of tables; of the others they are accounted for as they are
            read.

    Raises:
        SourceError: none of them can be read, or they have compressed members and nowhere to go.
    """
    looked: dict[FileInfo, list[Entry]] = {}
    noted: dict[FileInfo, ShardReport] = {}
    errors: list[SourceError] = []
    for archive in archives[:_LOOKED_INTO]:
        try:
            with reading(archive.uri):
                looked[archive] = entries_of(archive, noted.setdefault(archive, ShardReport("")))
        except SourceError as error:
            errors.append(error)
    if not looked and errors:
        raise errors[0]
    describing = {archive for archive, entries in looked.items() if entries and all(map(is_table, entries))}
    samples = tuple(archive for archive in archives if archive not in describing)
    settling = [archive for archive in samples if looked.get(archive)][:first]
    entries = [entry for archive in settling for entry in looked[archive]]
    if not entries:
        return None
    kept, extensions = belonging(entries)
    packed = next((entry for entry in kept or entries if _is_packed(entry)), None)
    if packed is not None:
        _place(packed.file, unpack_to)
    seen = [*settling, *describing]
    for archive in seen:
        account.take(noted[archive].account)
    accounted = frozenset(archive.uri for archive in seen)
    if not kept:
        layout = _layout(entries)
        for archive in seen:
            used = _in_columns(looked[archive], layout) if archive in settling else set()
            account_members(archive, looked[archive], used, account)
        return Zips(uri, samples, layout=layout, unpack_to=unpack_to, accounted=accounted)
    tables = {file for pair in tables_among(files) for file in pair.files}
    beside = tuple(file for file in files if file in describing or file in tables)
    described: list[DescribingTable] = []
    for archive in settling:
        own = [entry for entry in kept if entry.file == archive]
        described += _described(uri, archive, looked[archive], paths_of(own, extensions), beside, caption)
    pictures = settle_pictures(kept, extensions, described, entries)
    for archive in seen:
        own = [entry for entry in [*kept, *pictures.classes] if entry.file == archive]
        account_members(archive, looked[archive], _used(looked[archive], own, described), account)
    return Zips(uri, samples, beside, pictures, unpack_to=unpack_to, accounted=accounted, caption=caption)


def tables_of_zips(files: Sequence[FileInfo], account: Account) -> list[TablePair]:
    """Tables of archives that hold nothing else, copied into the data folder.

    Args:
        account: gets the members of the archives.
    """
    found: list[TablePair] = []
    for archive in (file for file in files if file.path.lower().endswith(".zip")):
        try:
            with reading(archive.uri):
                entries = entries_of(archive, ShardReport(""))
                tables = tables_in(archive, entries)[1] if all(map(is_table, entries)) else []
        except SourceError as error:
            account.leave_out("files", ".zip", name_of(archive), worded(error))
            continue
        if tables:
            account.use("files", ".zip", name_of(archive))
            copies = [file for pair in tables for file in pair.files]
            account_members(archive, entries, _copied(entries, copies), account)
        found += tables
    return found


def _described(
    uri: str,
    archive: FileInfo,
    entries: Sequence[Entry],
    paths: Sequence[str],
    beside: Sequence[FileInfo],
    caption: str | None,
) -> list[DescribingTable]:
    """Tables that describe the pictures of an archive: its own, those beside it, and those in archives beside it."""
    folder, tables = tables_in(archive, entries)
    found = describe(tables, PictureNames(folder, paths), caption)
    loose = [file for file in beside if not file.path.lower().endswith(".zip")]
    found += describe(tables_among(loose), PictureNames(uri, paths), caption)
    for other in (file for file in beside if file not in loose):
        folder, tables = tables_in(other, entries_of(other, ShardReport("")))
        found += describe(tables, PictureNames(folder, paths), caption)
    return found


def _used(entries: Sequence[Entry], kept: Sequence[Entry], tables: Sequence[DescribingTable]) -> set[str]:
    """Paths of members that are in samples, or are tables that describe some: these were copied out of the archive."""
    return {entry.path for entry in kept} | _copied(entries, [file for one in tables for file in one.table.files])


def _copied(entries: Sequence[Entry], copies: Sequence[FileInfo]) -> set[str]:
    """Paths of members that were copied out of their archive."""
    return {entry.path for entry in entries if any(copy.uri.endswith(f"/{entry.path}") for copy in copies)}


def _in_columns(entries: Sequence[Entry], layout: Layout) -> set[str]:
    """Paths of members that are no pictures and are in a column: the names of others have no known extension."""
    _, extensions = split_names(pa.array([entry.path for entry in entries], pa.string()))
    known = set(layout.extensions)
    return {entry.path for entry, name in zip(entries, extensions.to_pylist(), strict=True) if name in known}


def _is_packed(entry: Entry) -> bool:
    """Whether a member is to be pointed at and cannot be: those beside a picture are read."""
    return entry.packed is not None and split_path(entry.path)[1] not in SIDECARS


def _place(archive: FileInfo, unpack_to: str | None) -> str:
    return need_place(f"{redact(archive.uri)} has compressed members", unpack_to)


def _layout(entries: Sequence[Entry]) -> Layout:
    """What members become that are no pictures."""
    builder = LayoutBuilder()
    _, extensions = split_names(pa.array([entry.path for entry in entries], pa.string()))
    names = extensions.to_pylist()
    builder.extensions |= dict.fromkeys(name for name in names if name)
    documents = [entry for entry, name in zip(entries, names, strict=True) if name == "json"][:_SCHEMA_FILES]
    builder.add_json([small(entry, ShardReport("")) for entry in documents])
    return builder.build()


def _members(entries: Sequence[Entry], layout: Layout, report: ShardReport) -> Members:
    """Members as a tar would have them."""
    keys, encoded = split_names(pa.array([entry.path for entry in entries], pa.string()))
    names = encoded.to_pylist()
    known = {extension: code for code, extension in enumerate(layout.extensions)}
    rows = [row for row, name in enumerate(names) if name is not None]
    return Members(
        keys.take(pa.array(rows, pa.int64())),
        np.array([known.get(names[row], -1) for row in rows], np.int32),
        np.array([max(entries[row].offset, 0) for row in rows], np.uint64),
        np.array([entries[row].size for row in rows], np.uint64),
        [small(entries[row], report) if names[row] in layout.textual else None for row in rows],
        pa.array([entries[row].file.uri for row in rows], pa.string()),
    )
