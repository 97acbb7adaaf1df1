"""Tables of metadata: a file of rows, an npz or npy with vectors, or both, row i of one being row i of the other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.bounded import rows_within
from factory_lib.errors import SourceError, nearest
from factory_lib.redaction import redact
from factory_lib.sources.account import Account
from factory_lib.sources.coerce import array_column, array_type, coerced, one_batch
from factory_lib.sources.columns import TYPES, became, column_name, name_columns, settled_type, shown_type
from factory_lib.sources.media import files_left_out, holds_media, main_picture, may_hold_media
from factory_lib.sources.npz import ArrayMember, array_members, read_rows
from factory_lib.sources.shards import POINTER, ShardReport
from factory_lib.sources.tablefiles import TABLE_SUFFIXES, TableFile, has_null_elements, open_table, table_stem
from factory_lib.storage.store import FileInfo, store
from factory_lib.warehouse.byte_lists import is_bytes
from factory_lib.warehouse.null_elements import (
    keeps_null_elements,
    nan_for_null,
    number_of_null_elements,
    with_null_elements,
)

_ROWS_TRIED, _PIECES_TRIED = 8, 1_000
"""Rows that are looked at to tell what a column of bytes holds, and how often as many where they have none."""
KEYS = ("key", "uid", "hash", "source_id", "url")
"""Columns that can name a row, in order of preference."""
ARRAY_SUFFIXES = (".npz", ".npy")
PANDAS_INDEX = "the index of pandas"
_KINDS = "biufSU"
"""Of numpy's types those that have a column."""


@dataclass(frozen=True)
class Partition:
    """A column of one value, which the name of a folder has (see `partitions`).

    Attributes:
        name: as the folder has it.
        value: as text; None for null.
        type: int64 or text.
    """

    name: str
    value: str | None
    type: pa.DataType

    def column(self, rows: int) -> pa.Array:
        """The value of some rows."""
        return pa.repeat(pa.scalar(self.value, pa.string()).cast(self.type), rows)


@dataclass(frozen=True)
class TablePair:
    """Files with one stem, that is one table.

    What is read of the files' headers is kept with the object: use a `fresh` one for each use, or files stay open.

    Attributes:
        table: attributes, in any format of `tablefiles`; None when there are only arrays.
        arrays: an npz or npy; None when there is none. Row i of it belongs to row i of the table, unless both name
            their rows by a column of `KEYS`: then that decides.
        partitions: columns in the names of their folders; one that a file has itself counts.
    """

    table: FileInfo | None
    arrays: FileInfo | None
    partitions: tuple[Partition, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {"table": self.table, "arrays": self.arrays, "partitions": self.partitions}

    def fresh(self) -> TablePair:
        """The same table with nothing open."""
        return replace(self)

    @property
    def files(self) -> tuple[FileInfo, ...]:
        """Those that are there."""
        return tuple(file for file in (self.table, self.arrays) if file is not None)

    @property
    def name(self) -> str:
        """For messages: the file names."""
        return " + ".join(redact(file.uri).rsplit("/", 1)[-1] for file in self.files)

    @cached_property
    def members(self) -> dict[str, ArrayMember]:
        """Arrays by their names in the file; scalars are none."""
        found = array_members(store(), self.arrays) if self.arrays else {}
        return {name: member for name, member in found.items() if member.shape}

    @cached_property
    def _table(self) -> TableFile | None:
        return open_table(self.table) if self.table else None

    @cached_property
    def rows(self) -> int:
        """Rows of the table.

        Raises:
            SourceError: its files disagree.
        """
        counts = {name: member.rows for name, member in self.members.items()}
        if self._table is None:
            if len(set(counts.values())) != 1:
                raise SourceError(
                    f"{self.name} is no table: its arrays have these lengths: {counts}.",
                    "With format='zip' each array is a sample, and is pointed at.",
                )
            return next(iter(counts.values()))
        rows = self._table.rows
        different = [f"{count} in {name!r}" for name, count in counts.items() if count != rows]
        if different and self._shared_key is None:
            table, arrays = (redact(file.uri) for file in self.files)
            raise SourceError(
                f"{table} has {rows} rows, but {arrays} has {', '.join(different)}: row i of one must be row i of "
                "the other.",
                "They are not of the same run, or one of them was cut off.",
            )
        return rows

    @cached_property
    def fields(self) -> dict[str, tuple[str, pa.DataType]]:
        """Column -> (name in the file, type in the file), but for those that are `left_out`."""
        found: dict[str, pa.DataType] = {}
        if self._table is not None:
            for field in self._table.schema:
                if field.name not in self._media and field.name not in self.left_out:
                    marked = has_null_elements(self._table, field)
                    found[field.name] = with_null_elements(field.type) if marked else field.type
        for name, member in self.members.items():
            if name not in found and name not in self.left_out:
                found[name] = POINTER if member.is_tensor else array_type(member.dtype, member.shape)
        for one in self.partitions:
            found.setdefault(one.name, one.type)
        taken = ("image",) if self._media else ()
        return {column: (name, found[name]) for name, column in name_columns(found, taken).items()}

    @cached_property
    def left_out(self) -> dict[str, tuple[str, str]]:
        """Columns and arrays that are not taken: name in the file -> its type, and why it is left out."""
        found = {}
        for field in self._table.schema if self._table is not None else ():
            if is_bytes(field.type) and field.name not in self._media:
                found[field.name] = str(field.type), "holds raw bytes that are no file"
            elif re.fullmatch(r"__index_level_\d+__", field.name):
                found[field.name] = str(field.type), PANDAS_INDEX
        for name, member in self.members.items():
            if member.dtype.kind not in _KINDS:
                found.setdefault(name, (str(member.dtype), "an array of a type that no column has"))
            elif member.is_tensor and not member.has_places:
                reason = "an array of more than two axes whose rows have no byte ranges: write it with numpy.savez"
                found.setdefault(name, (f"{member.dtype}{list(member.shape)}", reason))
        return found

    def tell(self, account: Account) -> None:
        """Say what is left out, and what became something else than it is in the file."""
        for name, (kind, reason) in self.left_out.items():
            account.leave_out("columns", kind, name, reason, loss=reason != PANDAS_INDEX)
        for name in self._media:
            for part in files_left_out(self._table.schema.field(name).type if self._table else pa.null()):
                account.leave_out("columns", str(part.type), f"{name}.{part.name}", "stands beside the bytes of files")
        for column, (name, kind) in self.fields.items():
            words = became(kind) if column not in TYPES else ""
            if name in self.members and kind.equals(POINTER):
                member = self.members[name]
                words = f"pointers to rows of {list(member.shape[1:])} {member.dtype}, without a header"
            elif name in self._partitions:
                words = "in the names of folders"
            elif not name.isascii():  # little or nothing of it is left
                words = f"{words}; " * bool(words) + f"called {name!r} there"
            elif column != column_name(name):
                words = words or f"a second column called {name!r}"
            if words:
                account.use("columns", shown_type(settled_type(column, [kind])), column, words)

    @cached_property
    def media(self) -> dict[str, str]:
        """Columns of the table that hold the bytes of files: column -> name in the file."""
        main = main_picture(self._media)
        others = name_columns([name for name in self._media if name != main], taken={"image", "key", *self.fields})
        return ({"image": main} if main else {}) | {column: name for name, column in others.items()}

    def media_batches(self, size: int) -> Iterator[pa.RecordBatch]:
        """Columns with the bytes of files, in pieces of at most `size` rows."""
        assert self._table is not None
        yield from self._table.batches(size, list(self.media.values()))

    @cached_property
    def _media(self) -> list[str]:
        if self._table is None:
            return []
        names = [field.name for field in self._table.schema if may_hold_media(field.type)]
        return [name for name in names if self._holds_media(name)]

    def _holds_media(self, name: str) -> bool:
        """Whether a column holds files, as its first value that is there says: a download that failed has none."""
        assert self._table is not None
        pieces = (piece.column(0) for piece in self._table.batches(_ROWS_TRIED, [name]))
        first: pa.Array | None = None
        for piece in islice(pieces, _PIECES_TRIED):
            first = piece if first is None or piece.null_count < len(piece) else first
            if first.null_count < len(first):
                break
        return first is not None and holds_media(first)

    def read(self, schema: pa.Schema, report: ShardReport) -> pa.RecordBatch:
        """Columns of the whole table (see `batches`)."""
        return one_batch(pa.Table.from_batches(list(self.batches(schema, max(self.rows, 1), report)), schema))

    def batches(self, schema: pa.Schema, size: int, report: ShardReport) -> Iterator[pa.RecordBatch]:
        """The table in pieces of at most `size` rows, and of bounded bytes.

        Args:
            schema: columns by their settled names and types; one that the table lacks is null.

        Raises:
            SourceError: a file is damaged, or the files disagree.
        """
        wanted = {column: self.fields[column][0] for column in schema.names if column in self.fields}
        names = [name for name in wanted.values() if self._is_in_table(name)]
        size = min(size, rows_within(sum(self.members[wanted[c]].row_bytes for c in self.array_columns(schema))))
        start = 0
        for piece in self._pieces(names, size) if self.rows else ():
            columns = []
            for field in schema:
                name = wanted.get(field.name)
                if name is None:
                    columns.append(pa.nulls(len(piece), field.type))
                    continue
                if name in self._partitions:
                    columns.append(fitted(self._partitions[name].column(len(piece)), field, self.name, report))
                elif self._is_in_table(name):
                    columns.append(fitted(piece.column(name), field, self.name, report))
                else:
                    columns.append(self.take_array(field, np.arange(start, start + len(piece))))
            yield pa.RecordBatch.from_arrays(columns, schema=schema)
            start += len(piece)
        if self._table is not None and self._table.skipped:
            report.count("malformed_rows", self._table.skipped)
            report.problem(f"{self.name}: {self._table.skipped} lines are no rows of the table: left out")

    def array_columns(self, schema: pa.Schema) -> list[str]:
        """Columns of `schema` that are in the npz or npy."""
        return [name for name in schema.names if name in self.fields and self.fields[name][0] in self._own_arrays]

    def take_array(self, field: pa.Field, rows: npt.NDArray[np.int64]) -> pa.Array:
        """Some rows of an array as a column.

        Args:
            rows: of the table; -1 for none, which gives null. So does a row whose key the array does not have.
        """
        assert self.arrays is not None
        if self._order is not None:
            rows = np.where(rows < 0, -1, self._order[rows])
        present = None if (rows >= 0).all() else rows >= 0
        member = self.members[self.fields[field.name][0]]
        if member.is_tensor:
            return _places(self.arrays.uri, member, rows)
        wanted = rows if present is None else np.maximum(rows, 0)
        return array_column(read_rows(store(), self.arrays, member, wanted), present).cast(field.type)

    @cached_property
    def _own_arrays(self) -> set[str]:
        return {name for name in self.members if not self._is_in_table(name)}

    @cached_property
    def _partitions(self) -> dict[str, Partition]:
        """Those that no file has itself."""
        return {
            one.name: one for one in self.partitions if one.name not in self.members and not self._is_in_table(one.name)
        }

    def _is_in_table(self, name: str) -> bool:
        return self._table is not None and name in self._table.schema.names

    def _pieces(self, names: list[str], size: int) -> Iterator[Any]:
        """Columns of the table piece by piece; without a table, only the number of rows of each."""
        if self._table is None or not (names or self._media):
            for start in range(0, self.rows, size):
                yield range(start, min(start + size, self.rows))
            return
        yield from self._table.batches(size, names)

    @cached_property
    def _shared_key(self) -> str | None:
        return next((name for name in KEYS if name in self.members and self._is_in_table(name)), None)

    @cached_property
    def _order(self) -> npt.NDArray[np.int64] | None:
        """Row of the arrays for each row of the table, -1 for none; None when they are the same."""
        key = self._shared_key
        if key is None or self.arrays is None:
            return None
        theirs = array_column(read_rows(store(), self.arrays, self.members[key]))
        ours = pa.chunked_array([piece.column(key) for piece in self._pieces([key], 2**20)])
        ours = coerced(ours, theirs.type)[0]
        if ours.equals(theirs):
            return None
        found = pc.fill_null(pc.index_in(ours, value_set=theirs), -1)
        return np.asarray(found, np.int64)


def pair_files(files: Sequence[FileInfo]) -> list[TablePair]:
    """Pair tables and array files by their path without extension; sorted by it.

    Where several tables have one path (`00000.csv` beside `00000.parquet`), each is a pair, the parquet with the
    arrays.
    """
    tables: dict[str, list[FileInfo]] = {}
    for file in files:
        if file.path.lower().endswith(TABLE_SUFFIXES):
            tables.setdefault(table_stem(file.path), []).append(file)
    arrays = {_stem(file.path): file for file in files if file.path.lower().endswith(ARRAY_SUFFIXES)}
    pairs: list[TablePair] = []
    for stem in sorted(tables.keys() | arrays.keys()):
        here = sorted(tables.get(stem, ()), key=lambda file: not file.path.lower().endswith(".parquet"))
        pairs.append(TablePair(here[0] if here else None, arrays.get(stem)))
        pairs.extend(TablePair(other, None) for other in here[1:])
    return pairs


def settle_schema(pairs: Sequence[TablePair], vectors: Sequence[str] | None = None) -> pa.Schema:
    """One schema for tables of the same kind.

    Args:
        pairs: those to look into.
        vectors: which arrays become columns, by their names; None for all.

    Raises:
        SourceError: an array in `vectors` is in none of them; or one of them cannot be read.
    """
    kinds: dict[str, list[pa.DataType]] = {}
    arrays: set[str] = set()
    for pair in map(TablePair.fresh, pairs):
        arrays |= pair.members.keys()
        for column, (name, kind) in pair.fields.items():
            if vectors is None or name in vectors or name not in pair.members:
                kinds.setdefault(column, []).append(kind)
    for name in vectors or ():
        if name not in arrays:
            raise SourceError(f"There is no array {name!r} in {pairs[0].name}.", nearest(name, arrays))
    return pa.schema([(column, settled_type(column, found)) for column, found in kinds.items()])


def fitted(column: Any, field: pa.Field, where: str, report: ShardReport) -> pa.Array:
    """A column in the type of its field; what does not fit is counted."""
    found, misfits = coerced(column, field.type)
    if misfits:
        report.count("misfit_values", misfits)
        report.problem(f"{where}: {misfits} values of {field.name!r} do not fit {field.type}: left null")
    nulls = 0 if keeps_null_elements(field.type) else number_of_null_elements(found)
    if nulls:
        report.count("null_elements", nulls)
        report.problem(f"{where}: {nulls} elements of vectors in {field.name!r} are null: they became NaN")
        found = nan_for_null(found)
    return found


def check_keys(keys: Any, where: str, report: ShardReport) -> None:
    """Count rows without a key, and keys that occur twice."""
    missing = keys.null_count
    repeated = len(keys) - missing - pc.count_distinct(keys).as_py()
    report.count("rows_without_key", missing)
    report.count("repeated_rows", repeated)
    if missing:
        report.problem(f"{where}: {missing} rows have no key")
    if repeated:
        report.problem(f"{where}: {repeated} rows have the key of a row before them, which counts")


def _places(uri: str, member: ArrayMember, rows: npt.NDArray[np.int64]) -> pa.StructArray:
    """Where rows of an array are; -1 is nowhere."""
    there = rows >= 0
    offsets = np.where(there, member.offset + rows * member.row_bytes, 0).astype(np.uint64)
    sizes = np.where(there, member.row_bytes, 0).astype(np.uint64)
    uris = pa.array(np.where(there, uri, "").tolist(), pa.string())
    return pa.StructArray.from_arrays([uris, pa.array(offsets), pa.array(sizes)], fields=list(POINTER))


def _stem(uri: str) -> str:
    return uri.rsplit(".", 1)[0]
