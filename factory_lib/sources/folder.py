"""A folder of plain image files, with captions or JSON in files of the same name, and tables that describe them.

A sample is a file name without its last extension. Each folder of images is a shard, unless there are many small ones,
as of classes: then neighbours share a shard. `folder` says which one a sample is in, which is its label in layouts such
as ImageNet's. Tables beside the pictures are told by their content (see `descriptions`): `metadata.csv`, img2dataset's
parquet files, COCO's JSON and others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice

import numpy as np
import pyarrow as pa

from factory_lib.sources.account import Account, extension_of
from factory_lib.sources.classes import find_classes
from factory_lib.sources.descriptions import (
    NAMES_NONE,
    OF_PICTURES,
    TABLES_TRIED,
    DescribingTable,
    describe,
    settled_schema,
    texts_among,
)
from factory_lib.sources.entries import Entry, beginning, entries_below, is_lfs_pointer, picture_format, split_path
from factory_lib.sources.img2dataset import join_rows, joined_schema
from factory_lib.sources.layout import IMAGES, Layout, LayoutBuilder, may_be_labels
from factory_lib.sources.members import Members
from factory_lib.sources.parallel import ARRAYS, SIDECARS, CompanionFolder, folders_beside, named_by
from factory_lib.sources.picture_names import PictureNames
from factory_lib.sources.shards import ShardReport, SourceShard, name_shards
from factory_lib.sources.streams import MAGIC_BYTES, refuse_lfs
from factory_lib.sources.surviving import survived
from factory_lib.sources.tables import TablePair, fitted
from factory_lib.sources.webdataset import build_samples
from factory_lib.storage.files import path_of
from factory_lib.storage.store import FileInfo

FOLDERS_APART = 64
"""Up to this many folders are a shard each; of more, small neighbours share one."""
SHARD_FILES = 2_000
"""A folder with as many files is a shard by itself; smaller ones are gathered to at least so many."""
MAX_SHARD_FILES = 20_000
_FILES_AT_ONCE = 20_000
_SCHEMA_FILES = 200
_SNIFFED_FILES = 1_000
"""Files without a known extension that are looked into for being pictures."""
_FIRST = 20


@dataclass(frozen=True)
class Pictures:
    """What pictures and the files beside them become.

    Attributes:
        layout: what extensions and JSON fields become.
        tables: that describe them.
        extensions: path -> extension by its content, of pictures whose name has no known one.
        beside: folders of files about the pictures of another one.
        classes: files that name the classes of labels.
        bare_keys: whether keys are names without their folder, as img2dataset's are.
        settled: columns where others like it settled them; None for those of its own.
    """

    layout: Layout
    tables: tuple[DescribingTable, ...] = ()
    extensions: tuple[tuple[str, str], ...] = ()
    beside: tuple[CompanionFolder, ...] = ()
    classes: tuple[Entry, ...] = ()
    bare_keys: bool = False
    settled: pa.Schema | None = None

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of every batch."""
        if self.settled is not None:
            return self.settled
        return joined_schema(self.layout.schema.append(pa.field("folder", pa.string())), settled_schema(self.tables))

    @cached_property
    def _by_content(self) -> dict[str, str]:
        return dict(self.extensions)

    @cached_property
    def _beside(self) -> dict[str, CompanionFolder]:
        return {one.folder: one for one in self.beside}

    def extension(self, entry: Entry) -> str:
        """What kind of file it is."""
        known = self._by_content.get(entry.path)
        return known or named_by(entry.path, self._beside)[1]

    def stem(self, entry: Entry) -> str:
        """The path of its picture without what says the format."""
        return entry.path if entry.path in self._by_content else named_by(entry.path, self._beside)[0]

    def key(self, entry: Entry) -> str:
        """The key of its sample."""
        stem = self.stem(entry)
        return stem.rpartition("/")[2] if self.bare_keys else stem

    def rows(self, entries: Sequence[Entry], report: ShardReport) -> Iterator[pa.RecordBatch]:
        """Samples of some entries, by their names."""
        entries = sorted(entries, key=self.stem)  # in which those of one sample stand together
        start = 0
        while start < len(entries):
            stop = min(start + _FILES_AT_ONCE, len(entries))
            while stop < len(entries) and self.stem(entries[stop]) == self.stem(entries[stop - 1]):
                stop += 1
            batch = self._batch(entries[start:stop], report)
            report.samples += len(batch)
            yield batch
            start = stop

    def _batch(self, entries: Sequence[Entry], report: ShardReport) -> pa.RecordBatch:
        batch = build_samples(self._members(entries, report), "", self.layout, report)
        by_key: dict[str, Entry] = {}
        for entry in entries:
            if self.extension(entry) in IMAGES:
                by_key.setdefault(self.key(entry), entry)
        chosen = [by_key[key] for key in batch.column("key").to_pylist()]
        batch = batch.append_column("folder", pa.array([entry.folder for entry in chosen], pa.string()))
        paths = pa.array([entry.path for entry in chosen], pa.string())
        for table in self.tables:
            if any(table.naming.is_below(folder) for folder in {entry.folder for entry in chosen}):
                read = partial(table.rows_of, paths)
                rows = survived(read, table.table.files[0].uri, "unreadable_tables", report)
                batch = batch if rows is None else self._joined(batch, rows, table, report)
        return join_rows(batch, batch, self.schema)

    def _joined(
        self, batch: pa.RecordBatch, rows: pa.RecordBatch, table: DescribingTable, report: ShardReport
    ) -> pa.RecordBatch:
        fields = [self.schema.field(name) for name in rows.schema.names if name in self.schema.names]
        if unknown := [name for name in rows.schema.names if name not in self.schema.names]:
            report.count("unknown_columns", len(unknown))
            report.problem(f"{table.table.name}: {', '.join(unknown)} are in no column: the first tables lack them")
        arrays = [fitted(rows.column(field.name), field, table.table.name, report) for field in fields]
        rows = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
        return join_rows(batch, rows, joined_schema(batch.schema, rows.schema))

    def _members(self, entries: Sequence[Entry], report: ShardReport) -> Members:
        codes = {extension: code for code, extension in enumerate(self.layout.extensions)}
        extensions = [self.extension(entry) for entry in entries]
        pointers = [is_lfs_pointer(entry) for entry in entries]
        if any(pointers):
            first = entries[pointers.index(True)].path
            report.count("lfs_pointers", sum(pointers))
            report.problem(
                f"{sum(pointers)} pictures were not downloaded, such as {first!r}: what is there is what Git LFS or "
                "git-annex keeps in their place; run `git lfs pull` (or `git annex get`) and ingest again"
            )
        return Members(
            pa.array([self.key(entry) for entry in entries], pa.string()),
            np.array([codes.get(extension, -1) for extension in extensions], np.int32),
            np.array([max(entry.offset, 0) for entry in entries], np.uint64),
            np.array([0 if lfs else entry.size for entry, lfs in zip(entries, pointers, strict=True)], np.uint64),
            [
                small(entry, report) if extension in self.layout.textual else None
                for entry, extension in zip(entries, extensions, strict=True)
            ],
            pa.array(
                ["" if lfs else entry.file.uri for entry, lfs in zip(entries, pointers, strict=True)], pa.string()
            ),
        )


def small(entry: Entry, report: ShardReport) -> bytes | None:
    """The bytes of a small file; None where they cannot be read, which is reported."""
    where = entry.file.uri if entry.packed is None else f"{entry.file.uri}/{entry.path}"
    return survived(entry.small, where, "unreadable_members", report)


@dataclass(frozen=True)
class ImageFolder:
    """Plain image files below a folder.

    Attributes:
        uri: the folder.
        files: images and their sidecars, sorted by uri.
        pictures: what they become.
        format: `folder`, `coco`, or `img2dataset` for its output of files.
    """

    uri: str
    files: tuple[FileInfo, ...]
    pictures: Pictures
    format: str = "folder"

    @property
    def schema(self) -> pa.Schema:
        """Columns of every batch."""
        return self.pictures.schema

    def shards(self) -> list[SourceShard]:
        """One a folder that has files of its own, or small neighbours together; with the tables that describe them."""
        root = path_of(self.uri).rstrip("/")
        moved = {
            f"{root}/{one.folder}".rstrip("/"): f"{root}/{one.pictures}".rstrip("/") for one in self.pictures.beside
        }
        found: dict[str, list[FileInfo]] = {}
        for file in self.files:
            folder = file.path.rsplit("/", 1)[0]
            found.setdefault(moved.get(folder, folder), []).append(file)
        by_folder = dict(sorted(found.items())) if moved else found
        groups: list[tuple[str, tuple[FileInfo, ...]]] = []
        for folders in [[f] for f in by_folder] if len(by_folder) <= FOLDERS_APART else gathered(by_folder):
            files = tuple(file for folder in folders for file in by_folder[folder])
            below = [folder.removeprefix(root).strip("/") for folder in folders]
            tables = (t.table.files for t in self.pictures.tables if any(map(t.naming.is_below, below)))
            about = tuple(entry.file for entry in self.pictures.classes)
            groups.append((folders[0], files + tuple(file for some in tables for file in some) + about))
        return name_shards(self.uri, groups)

    def read(self, shard: SourceShard, report: ShardReport) -> Iterator[pa.RecordBatch]:
        """Rows of a shard, by path."""
        files = [file for file in shard.files if file.uri in self._own]
        yield from self.pictures.rows(entries_below(self.uri, files), report)
        for table in self._accounted.get(shard.name, ()):
            tell = partial(table.account, self._paths, report)
            survived(tell, table.table.files[0].uri, "unreadable_tables", report)

    @cached_property
    def _own(self) -> set[str]:
        return {file.uri for file in self.files}

    @cached_property
    def _accounted(self) -> dict[str, list[DescribingTable]]:
        """The first shard that each table describes pictures of: its report says what is odd about the table."""
        found: dict[str, list[DescribingTable]] = {}
        shards = self.shards()
        for table in self.pictures.tables:
            uris = {file.uri for file in table.table.files}
            first = next((s for s in shards if uris & {file.uri for file in s.files}), None)
            if first is not None:
                found.setdefault(first.name, []).append(table)
        return found

    @cached_property
    def _paths(self) -> pa.StringArray:
        return pa.array([entry.path for entry in entries_below(self.uri, self.files)], pa.string())


def gathered(by_folder: dict[str, list[FileInfo]]) -> Iterator[list[str]]:
    """Neighbouring folders together, so that each group has some thousand files.

    Where a group ends depends on the names of its folders, so that a folder that comes or goes changes few groups.
    """
    group: list[str] = []
    held = 0
    for folder, files in by_folder.items():
        large = len(files) >= SHARD_FILES
        ends = hashlib.sha256(folder.rsplit("/", 1)[-1].encode()).digest()[0] % 8 == 0
        if group and (large or (held >= SHARD_FILES and ends) or held + len(files) > MAX_SHARD_FILES):
            yield group
            group, held = [], 0
        group.append(folder)
        held += len(files)
        if large:
            yield group
            group, held = [], 0
    if group:
        yield group


def open_folder(
    uri: str, files: Sequence[FileInfo], tables: Sequence[TablePair], caption: str | None, account: Account
) -> ImageFolder | None:
    """The image files below a folder, or a single one; None when there are none.

    Args:
        tables: files there that may describe the images.
        caption: their column of captions; None for `caption`.
        account: gets those of them that do not.
    """
    if files and uri == files[0].uri:
        uri = uri.rsplit("/", 1)[0]
    entries = entries_below(uri, files)
    kept, extensions = belonging(entries)
    if not kept:
        return None
    paths = paths_of(kept, extensions)
    first = set(paths[:_FIRST])
    _refuse_undownloaded([entry for entry in kept if entry.path in first])
    others: dict[str, str] = {}
    names = PictureNames(uri, paths)
    described = [*describe(tables, names, caption, others), *describe(texts_among(files), names, caption)]
    if not described and sum(_is_of_others(one, others) for one in tables) >= len(paths):
        return None  # a picture or two beside tables of something else
    for table, reason in others.items():
        name = path_of(table).removeprefix(path_of(uri).rstrip("/") + "/")
        account.leave_out("files", extension_of(name), name, reason)
    by_uri = {entry.file.uri for entry in kept}
    pictures = settle_pictures(kept, extensions, described, entries)
    return ImageFolder(uri, tuple(file for file in files if file.uri in by_uri), pictures, _format(described))


def _is_of_others(pair: TablePair, reasons: dict[str, str]) -> bool:
    """Whether a table has rows, which are of something else than the pictures."""
    return pair.table is None or (reasons.get(pair.table.uri) == NAMES_NONE and pair.fresh().rows > 0)


def belonging(entries: Sequence[Entry]) -> tuple[list[Entry], list[tuple[str, str]]]:
    """The entries that are pictures or belong to one, and path and extension of those pictures that are such by their
    content alone."""
    extensions = _by_content(entries)
    known = dict(extensions)
    beside = folders_beside((entry.path for entry in entries), known)
    stems = {path if path in known else split_path(path)[0] for path in paths_of(entries, extensions)}
    kept = [
        entry
        for entry in entries
        if entry.path in known
        or (ending := split_path(entry.path)[1]) in IMAGES
        or (ending in (*SIDECARS, *ARRAYS) and named_by(entry.path, beside)[0] in stems)
    ]
    return kept, extensions


def settle_pictures(
    kept: Sequence[Entry],
    extensions: Sequence[tuple[str, str]],
    described: Sequence[DescribingTable],
    entries: Sequence[Entry],
) -> Pictures:
    """What pictures become.

    Args:
        kept, extensions: as `belonging` gives them.
        described: tables that describe them.
        entries: all that is there, among which may be what names the classes of labels.
    """
    downloads = any(map(is_download, described[:1]))
    naming, classes = find_classes(entries)
    builder = LayoutBuilder(parse_json=not downloads, texts=frozenset({"xml"}), classes=classes, reserved=OF_PICTURES)
    beside = folders_beside((entry.path for entry in kept), dict(extensions))
    pictures = Pictures(Layout(), tuple(described), tuple(extensions), tuple(beside.values()), bare_keys=downloads)
    builder.extensions |= dict.fromkeys(pictures.extension(entry) for entry in kept)
    builder.add_images([pictures.key(entry) for entry in kept], [pictures.extension(entry) for entry in kept])
    if not downloads:
        builder.add_json(_first_contents(kept, pictures, "json"))
        for extension in filter(may_be_labels, builder.extensions):
            builder.add_labels(extension, _first_contents(kept, pictures, extension))
    layout = builder.build()
    named = any(slot.boxes is not None and slot.boxes.kind == "yolo" for slot in layout.slots)
    return replace(pictures, layout=layout, classes=tuple(naming) if named else ())


def _first_contents(kept: Sequence[Entry], pictures: Pictures, extension: str) -> list[bytes | None]:
    of_extension = (entry for entry in kept if pictures.extension(entry) == extension)
    return [small(entry, ShardReport("")) for entry in islice(of_extension, _SCHEMA_FILES)]  # reading the shard reports


def paths_of(kept: Sequence[Entry], extensions: Sequence[tuple[str, str]]) -> list[str]:
    """Paths of the pictures among them."""
    known = dict(extensions)
    return [entry.path for entry in kept if entry.path in known or split_path(entry.path)[1] in IMAGES]


def _format(described: Sequence[DescribingTable]) -> str:
    if any(map(is_download, described[:1])):
        return "img2dataset"
    return "coco" if any(map(_is_coco, described[:TABLES_TRIED])) else "folder"


def is_download(table: DescribingTable) -> bool:
    """Whether a table is one that img2dataset wrote."""
    names = table.table.fields
    return table.naming.column == "key" and {"status", "error_message"} <= names.keys()


def _is_coco(table: DescribingTable) -> bool:
    from factory_lib.sources.coco import CocoTable

    return isinstance(table.table._table, CocoTable)


def _by_content(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Pictures whose name does not say so."""
    unknown = [entry for entry in entries if not split_path(entry.path)[1]]
    found = ((entry.path, picture_format(beginning(entry, MAGIC_BYTES))) for entry in unknown[:_SNIFFED_FILES])
    return [(path, extension) for path, extension in found if extension]


def _refuse_undownloaded(first: Sequence[Entry]) -> None:
    """Raise where none of the first pictures was downloaded."""
    if all(is_lfs_pointer(entry) for entry in first):
        refuse_lfs(first[0].read(MAGIC_BYTES), first[0].file.uri)
