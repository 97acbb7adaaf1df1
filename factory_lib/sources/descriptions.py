"""Tables that describe pictures which lie beside them.

`metadata.csv` and `metadata.jsonl` of Hugging Face's image folders, a CSV of paths and captions, img2dataset's parquet
beside its folders of files, COCO's JSON: each has a column with names of pictures (see `picture_names`). A picture gets
the values of the first row that names it; where several do, their captions become a list as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.errors import SourceError
from factory_lib.sources.account import ABOUT_OTHERS, extension_of
from factory_lib.sources.columns import column_name, settled_type
from factory_lib.sources.entries import split_path
from factory_lib.sources.keyindex import CAPTIONS
from factory_lib.sources.layout import IMAGES
from factory_lib.sources.parallel import folders_beside, named_by
from factory_lib.sources.picture_names import Naming, PictureNames
from factory_lib.sources.shards import ShardReport, count_failures, failed_rows
from factory_lib.sources.surviving import reading, worded
from factory_lib.sources.tablefiles import DOCUMENT_SUFFIXES
from factory_lib.sources.tables import TablePair, pair_files
from factory_lib.storage.store import FileInfo

CAPTION = "caption"
OF_PICTURES = frozenset({"image", "folder"})
"""Columns that pictures have whatever describes them."""
NAMES_NONE = "a table that names no picture that is there"
TABLES_TRIED = 16
"""Tables that are looked into; the others are taken to be alike."""
TEXTS_TRIED = 8
"""More texts than these are no tables."""


@dataclass(frozen=True)
class DescribingTable:
    """One table whose rows describe pictures.

    Attributes:
        table: the table.
        naming: how they name them.
        listed: whether several of its rows may name one picture.
        caption: column of captions.
    """

    table: TablePair
    naming: Naming
    listed: bool
    caption: str = CAPTION

    @property
    def schema(self) -> pa.Schema:
        """Columns that pictures get from it."""
        fields = [
            (_named(name), settled_type(name, [kind]))
            for name, (_, kind) in self.table.fields.items()
            if name != self.naming.column
        ]
        names = [name for name, _ in fields]
        if self.listed and self.caption in names and CAPTIONS not in names:
            fields.append((CAPTIONS, pa.list_(pa.string())))
        return pa.schema(fields)

    def rows_of(self, paths: pa.Array) -> pa.RecordBatch:
        """The row of each picture, all null for one that the table does not name.

        Raises:
            SourceError: the table cannot be read.
        """
        loaded = _load(self)
        return loaded.rows.take(pc.index_in(self.naming.pictures(paths), value_set=loaded.names))

    def account(self, paths: pa.Array, report: ShardReport) -> None:
        """Count what of the table is used by no picture, out of those that are in its scope."""
        loaded = _load(self)
        for kind, number in loaded.report.counts.items():
            report.count(kind, number)
        for problem in loaded.report.problems:
            report.problem(problem)
        missing = pc.invert(pc.is_in(loaded.names, value_set=self.naming.pictures(paths)))
        number = int(pc.sum(missing).as_py() or 0)
        if number:
            first = ", ".join(map(repr, loaded.names.filter(missing)[:3].to_pylist()))
            report.count("missing_pictures", number)
            report.problem(f"{self.table.name}: {number} pictures that it names are not there, such as {first}")


def tables_among(files: Sequence[FileInfo]) -> list[TablePair]:
    """The tables among some files: also those in JSON, unless it is a picture's own, as an array may be, too."""
    files = [file for file in files if "/_delta_log/" not in file.path]
    others = _no_pictures_own(files)
    documents = [
        TablePair(file, None)
        for file in others
        if file.path.lower().endswith(DOCUMENT_SUFFIXES) and not file.path.endswith(ABOUT_OTHERS)
    ]
    own = {file.uri for file in files} - {file.uri for file in others}
    tables = [pair for pair in pair_files(files) if pair.table or (pair.arrays and pair.arrays.uri not in own)]
    return [*tables, *documents]


def texts_among(files: Sequence[FileInfo]) -> list[TablePair]:
    """Texts that may be tables under a name that does not say so, as Flickr8k's captions.txt; of many, none."""
    texts = [file for file in _no_pictures_own(files) if file.path.lower().endswith((".txt", ".token"))]
    return [TablePair(file, None) for file in texts] if len(texts) <= TEXTS_TRIED else []


def _no_pictures_own(files: Sequence[FileInfo]) -> list[FileInfo]:
    """Files that have the name of no picture, beside them or in a folder of their own."""
    pictures = {split_path(file.path)[0] for file in files if split_path(file.path)[1] in IMAGES}
    beside = folders_beside(file.path for file in files)
    return [file for file in files if named_by(file.path, beside)[0] not in pictures]


def describe(
    tables: Sequence[TablePair], names: PictureNames, caption: str | None, others: dict[str, str] | None = None
) -> list[DescribingTable]:
    """Find out which tables describe pictures.

    Args:
        caption: column of captions; None for `caption`.
        others: gets the uri of each table that does not, and why.
    """
    found: list[DescribingTable] = []
    named = column_name(caption) if caption else CAPTION
    for number, pair in enumerate(tables):
        if pair.table is None:
            continue
        last = found[-1] if found else None
        if number >= TABLES_TRIED and last and extension_of(pair.table.path) == extension_of(last.table.files[0].path):
            found.append(DescribingTable(pair, names.alike(pair, last.table, last.naming), last.listed, named))
            continue
        try:
            with reading(pair.table.uri):
                naming = names.find(pair.fresh())
                if naming is not None:
                    repeated = _load(DescribingTable(pair, naming, False, named)).repeated > 0
                    found.append(DescribingTable(pair, naming, repeated, named))
                    continue
            reason = NAMES_NONE
        except SourceError as error:
            reason = worded(error)
        if others is not None:
            others[pair.table.uri] = reason
    # What the table nearest to a picture says of it counts.
    return sorted(found, key=lambda one: -len(one.naming.scope.split("/")) if one.naming.scope else 0)


def settled_schema(tables: Iterable[DescribingTable]) -> pa.Schema:
    """Columns that pictures get from several tables, as the first of them say."""
    kinds: dict[str, list[pa.DataType]] = {}
    for one in islice(tables, TABLES_TRIED):
        for field in one.schema:
            kinds.setdefault(field.name, []).append(field.type)
    return pa.schema([(name, settled_type(name, found)) for name, found in kinds.items()])


@dataclass(frozen=True)
class _Loaded:
    """A table in memory.

    Attributes:
        names: of the pictures, all different.
        rows: the first row of each picture.
        repeated: rows that name a picture that another row named before.
        report: what was odd.
    """

    names: pa.Array
    rows: pa.RecordBatch
    repeated: int
    report: ShardReport


@lru_cache(maxsize=TABLES_TRIED)
def _load(described: DescribingTable) -> _Loaded:
    pair, naming, report = described.table.fresh(), described.naming, ShardReport("")
    if naming.column not in pair.fields:
        raise SourceError(
            f"{pair.name} has no column {naming.column!r}, by which the tables before it name pictures.",
            f"It has {', '.join(pair.fields)}.",
        )
    kinds = {name: settled_type(name, [kind]) for name, (_, kind) in pair.fields.items()}
    batch = pair.read(pa.schema(kinds | {naming.column: pa.string()}), report)
    failed = failed_rows(batch)
    if failed is not None:
        count_failures(batch.filter(failed), report)
        batch = batch.filter(pc.invert(failed))
    names = naming.values(batch.column(naming.column))
    batch, names = batch.filter(names.is_valid()), names.drop_null()
    encoded = names.dictionary_encode()
    codes = encoded.indices.to_numpy()
    first = np.unique(codes, return_index=True)[1]
    repeated = len(codes) - len(first)
    rows = batch.select([name for name in batch.schema.names if name != naming.column]).take(pa.array(first))
    rows = rows.rename_columns(list(map(_named, rows.schema.names)))
    if described.listed and described.caption in kinds and CAPTIONS not in kinds:
        rows = rows.append_column(CAPTIONS, _grouped(batch.column(described.caption), codes, len(first)))
    elif repeated and described.caption not in kinds:
        report.count("repeated_rows", repeated)
        report.problem(
            f"{pair.name}: {repeated} rows name a picture that a row before them named, which counts; of captions, all "
            "are kept (--caption says which column has them)"
        )
    return _Loaded(encoded.dictionary, rows, repeated, report)


def _named(column: str) -> str:
    """What a column is called beside those that pictures have themselves."""
    return f"{column}_2" if column in OF_PICTURES else column


def _grouped(values: pa.Array, codes: npt.NDArray[np.int32], groups: int) -> pa.ListArray:
    """Values of each group as a list, nulls left out."""
    present = values.is_valid().to_numpy(zero_copy_only=False)
    values, codes = values.drop_null(), codes[present]
    ends = np.cumsum(np.bincount(codes, minlength=groups))
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values.take(pa.array(np.argsort(codes, kind="stable"))))
