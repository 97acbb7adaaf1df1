"""Finds rows of many tables by key, without loading the tables for each shard.

Samples and their metadata often don't share shards (DataComp's are shuffled), so the rows of one tar lie in any of the
tables. The index is built once for a set of files, under `FACTORY_HOME/sources`, and memory-mapped by whoever reads:
`hashes.npy` (sorted 64-bit hashes of the keys), `places.npy` (table << 32 | row of each) and, a table, its attributes
as uncompressed Arrow IPC, from which rows are taken at random. Vectors stay where they are: an uncompressed npz is read
by byte range.

Cost: 16 bytes a row for the index, the parquet's uncompressed size for the attributes, and while building about 40
bytes of memory a row. It is meant for up to `MAX_ROWS` rows; larger pools are joined in the warehouse instead.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.errors import SourceError
from factory_lib.filelocks import exclusive
from factory_lib.home import private_folder
from factory_lib.owners import building
from factory_lib.sources.coerce import one_batch
from factory_lib.sources.keyhash import hash_strings, key_texts
from factory_lib.sources.picture_names import normal
from factory_lib.sources.sample_names import SampleNames
from factory_lib.sources.shards import ShardReport
from factory_lib.sources.surviving import surviving
from factory_lib.sources.tables import TablePair

MAX_ROWS = 200_000_000
_FORMAT = 5
_REPORT = "report.json"
CAPTIONS = "captions"
"""Column of all captions of a picture, where it has several."""
_ROWS_AT_ONCE = 100_000
_OLD_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class KeyedTables:
    """Tables whose rows are found by a key.

    Attributes:
        pairs: the tables.
        on: column that holds the key.
        schema: settled columns of all tables, `on` among them.
        home: folder in which indexes are kept.
        numbers: whether keys are compared as the numbers that they are: `0007` is 7.
        names: how the column names samples by their files; None where it holds what a column of theirs holds.
        listed: a column of which samples get the values of all rows that have their key, as `captions`.
    """

    pairs: tuple[TablePair, ...]
    on: str
    schema: pa.Schema
    home: Path
    numbers: bool = False
    names: SampleNames | None = None
    listed: str | None = None

    @property
    def columns(self) -> pa.Schema:
        """Columns that samples get."""
        return self.schema if self.listed is None else self.schema.append(pa.field(CAPTIONS, pa.list_(pa.string())))

    @property
    def on_samples(self) -> str:
        """The column of samples that holds the key."""
        return self.on if self.names is None else "key"

    def keys_of_samples(self, column: pa.Array) -> pa.StringArray:
        """Keys of samples as they are compared."""
        return self.keys(column) if self.names is None else self.names.of_samples(column)

    def keys(self, column: pa.Array) -> pa.StringArray:
        """Keys of the tables as they are compared."""
        if self.names is not None:
            return self.names.of_table(column)
        texts = normal(key_texts(column))
        return pc.replace_substring_regex(texts, r"^0+([0-9])", r"\1") if self.numbers else texts

    def attributes(self, pair: TablePair) -> pa.Schema:
        """Columns of a table that the index holds; vectors in an npz stay there, those in a parquet do not.

        Raises:
            SourceError: the table has no keys, or its files disagree.
        """
        if self.on not in pair.fields:
            raise SourceError(f"{pair.name} has no column {self.on!r} to join by.", f"It has {', '.join(pair.fields)}.")
        arrays = pair.array_columns(self.schema) if pair.rows else ()
        vectors = [name for name in arrays if pa.types.is_fixed_size_list(self.schema.field(name).type)]
        return pa.schema([field for field in self.schema if field.name not in vectors])

    @property
    def fingerprint(self) -> str:
        """Of the files, the columns and the format of the index: 32 hex digits."""
        how = f"{self.on} {self.numbers} {self.names or ''}"
        lines = [f"{_FORMAT} {how} {self.schema.to_string(show_schema_metadata=False)}"]
        lines += [f"{file.uri}\t{file.etag}\t{file.size}" for pair in self.pairs for file in pair.files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]

    def find(self, keys: pa.Array, report: ShardReport) -> pa.RecordBatch:
        """The row of each key, all null for a key that is nowhere (counted as `no_metadata`).

        Builds the index when it is not there yet. Of several rows with one key the first counts; of what is `listed`,
        all do.

        Args:
            keys: a column of samples as it is.

        Raises:
            SourceError: there is no index to be had of the tables.
        """
        opened = open_index(self)
        wanted = self.keys_of_samples(keys)
        tables, rows = opened.places(wanted)
        report.count("no_metadata", int((tables < 0).sum()))
        found = opened.take(tables, rows)
        return found if self.listed is None else found.append_column(CAPTIONS, opened.lists(wanted, self.listed))

    def nulls(self, rows: int) -> pa.RecordBatch:
        """Rows that are in no table."""
        return _nulls(self.columns, rows)


def open_index(tables: KeyedTables) -> KeyIndex:
    """The index of these tables, built if need be."""
    return _opened(tables.home / _folder_name(tables), tables)


@dataclass(frozen=True)
class KeyIndex:
    """An index on disk."""

    folder: Path
    tables: KeyedTables

    @cached_property
    def _hashes(self) -> npt.NDArray[np.uint64]:
        return np.load(self.folder / "hashes.npy", mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]

    @cached_property
    def _places(self) -> npt.NDArray[np.uint64]:
        return np.load(self.folder / "places.npy", mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]

    @cached_property
    def _attributes(self) -> list[_Attributes]:
        return [_Attributes(self.folder / f"{number:05d}.arrow") for number in range(len(self.tables.pairs))]

    @cached_property
    def _pairs(self) -> list[TablePair]:
        return [pair.fresh() for pair in self.tables.pairs]

    def tell(self, report: ShardReport) -> None:
        """Say what was odd about the tables."""
        told = json.loads((self.folder / _REPORT).read_text())
        for kind, number in told["counts"].items():
            report.count(kind, number)
        for problem in told["problems"]:
            report.problem(problem)
        if told["repeated"] and self.tables.listed is None:
            report.count("repeated_rows", told["repeated"])
            report.problem(
                f"{told['repeated']} rows have the {self.tables.on!r} of a row before them, which counts; of captions, "
                "all are kept where the first tables have several of a sample (--caption says which column has them)"
            )

    def first_key(self) -> str | None:
        """One of the keys, as the tables write it."""
        column = (a.take(np.zeros(1, np.int64), [self.tables.on]).column(0) for a in self._attributes if len(a))
        return next((str(keys[0].as_py()) for keys in column), None)

    def places(self, keys: pa.StringArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Number of the table and row in it of each key; -1 where it is in none."""
        table = np.full(len(keys), -1, np.int64)
        row = np.full(len(keys), -1, np.int64)
        for found, tables, rows in self._matches(keys, every=False):
            table[found], row[found] = tables, rows
        return table, row

    def lists(self, keys: pa.StringArray, column: str) -> pa.ListArray:
        """The values of a column in all rows of each key, as text, in the order of the tables; null for none."""
        nowhere = np.zeros(0, np.int64)
        matches = [(nowhere, nowhere, nowhere), *self._matches(keys, every=True)]
        which, tables, rows = (np.concatenate(part) for part in zip(*matches, strict=True))
        values = pa.nulls(len(which), pa.string())
        for number in np.unique(tables).tolist():
            here = np.flatnonzero(tables == number)
            taken = self._attributes[number].take(rows[here], [column]).column(0).cast(pa.string())
            values = pc.replace_with_mask(values, pa.array(tables == number), taken)
        present = values.is_valid().to_numpy(zero_copy_only=False)
        order = np.argsort(which[present], kind="stable")
        ends = np.cumsum(np.bincount(which[present], minlength=len(keys)))
        offsets = pa.array(
            np.concatenate([[0], ends]), pa.int32(), mask=np.append(np.diff(ends, prepend=0) == 0, False)
        )
        return pa.ListArray.from_arrays(offsets, values.filter(pa.array(present)).take(pa.array(order)))

    def _matches(
        self, keys: pa.StringArray, every: bool
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Some of the keys, the number of the table and the row in it of each; of a key the first rows come first.

        Args:
            every: all rows of a key, not only the first.
        """
        hashes = hash_strings(keys)
        at = np.searchsorted(self._hashes, hashes)
        open_ = np.flatnonzero(keys.is_valid().to_numpy(zero_copy_only=False))
        while len(open_):
            # Equal hashes stand next to each other, in the order of their rows: look at one after the other.
            inside = at[open_] < len(self._hashes)
            open_ = open_[inside]
            open_ = open_[self._hashes[at[open_]] == hashes[open_]]
            place = self._places[at[open_]]
            tables, rows = (place >> np.uint64(32)).astype(np.int64), (place & np.uint64(0xFFFFFFFF)).astype(np.int64)
            equal = self._keys_equal(keys, open_, tables, rows)
            yield open_[equal], tables[equal], rows[equal]
            open_ = open_ if every else open_[~equal]
            at[open_] += 1

    def take(self, tables: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> pa.RecordBatch:
        """Rows by table and number; null where the table is -1."""
        order = np.argsort(tables, kind="stable")
        bounds = np.searchsorted(tables[order], np.arange(-1, len(self._pairs) + 1))
        parts = [_nulls(self.tables.schema, int(bounds[1] - bounds[0]))]
        for number in range(len(self._pairs)):
            wanted = rows[order[bounds[number + 1] : bounds[number + 2]]]
            if len(wanted):
                parts.append(self._take_from(number, wanted))
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return one_batch(pa.Table.from_batches(parts)).take(pa.array(back))

    def _take_from(self, number: int, rows: npt.NDArray[np.int64]) -> pa.RecordBatch:
        attributes = self._attributes[number].take(rows)
        pair = self._pairs[number]
        columns = []
        for field in self.tables.schema:
            if field.name in attributes.schema.names:
                columns.append(attributes.column(field.name))
            elif field.name in pair.fields:
                columns.append(pair.take_array(field, rows))
            else:
                columns.append(pa.nulls(len(rows), field.type))
        return pa.RecordBatch.from_arrays(columns, schema=self.tables.schema)

    def _keys_equal(
        self,
        keys: pa.StringArray,
        wanted: npt.NDArray[np.int64],
        tables: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.bool_]:
        equal = np.zeros(len(wanted), np.bool_)
        for number in np.unique(tables).tolist():
            here = np.flatnonzero(tables == number)
            theirs = self._attributes[number].take(rows[here], [self.tables.on]).column(0)
            ours = keys.take(pa.array(wanted[here]))
            same = pc.fill_null(pc.equal(self.tables.keys(theirs), ours), False)
            equal[here] = same.to_numpy(zero_copy_only=False)
        return equal


class _Attributes:
    """Rows of one table, memory-mapped: taking some of them reads only their pages."""

    def __init__(self, path: Path) -> None:
        file = pa.ipc.open_file(pa.memory_map(str(path)))
        self._schema = file.schema
        self._batches = [file.get_batch(number) for number in range(file.num_record_batches)]
        self._ends = np.cumsum([len(batch) for batch in self._batches])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def take(self, rows: npt.NDArray[np.int64], columns: list[str] | None = None) -> pa.RecordBatch:
        """Rows by number, in any order."""
        schema = self._schema if columns is None else pa.schema([self._schema.field(name) for name in columns])
        batch_of = np.searchsorted(self._ends, rows, side="right")
        order = np.argsort(batch_of, kind="stable")
        parts = []
        for number in np.unique(batch_of).tolist():
            batch = self._batches[number].select(schema.names)
            first = int(self._ends[number]) - len(batch)
            parts.append(batch.take(pa.array(rows[order[batch_of[order] == number]] - first)))
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return one_batch(pa.Table.from_batches(parts, schema)).take(pa.array(back))


def _nulls(schema: pa.Schema, rows: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(rows, field.type) for field in schema], schema=schema)


@lru_cache(maxsize=8)
def _opened(folder: Path, tables: KeyedTables) -> KeyIndex:
    if not (folder / "places.npy").exists():
        private_folder(folder.parent)
        with (folder.parent / f".{folder.name[:12]}.lock").open("w") as lock, exclusive(lock):
            # of several readers one builds, be they threads or processes
            if not (folder / "places.npy").exists():
                _build(folder, tables)
    return KeyIndex(folder, tables)


def _build(folder: Path, tables: KeyedTables) -> None:
    """Build in a folder of its own and rename it, so that nobody sees half an index.

    A table that cannot be read gives the rows before its damage; that is kept beside the index (see `KeyIndex.tell`).
    """
    report = ShardReport("")
    with building(folder) as beside:
        hashes: list[npt.NDArray[np.uint64]] = []
        places: list[npt.NDArray[np.uint64]] = []
        for number, pair in enumerate(tables.pairs):
            found = _write_attributes(beside / f"{number:05d}.arrow", pair.fresh(), tables, report)
            hashes.append(found)
            places.append(np.arange(len(found), dtype=np.uint64) + (np.uint64(number) << np.uint64(32)))
            _refuse_many(sum(map(len, hashes)))
        every = np.concatenate(hashes)
        order = np.argsort(every, kind="stable")
        repeated = int((np.diff(every[order]) == 0).sum())
        np.save(beside / "hashes.npy", every[order])
        np.save(beside / "places.npy", np.concatenate(places)[order])
        told = {"counts": report.counts, "problems": report.problems, "repeated": repeated}
        (beside / _REPORT).write_text(json.dumps(told))
    remove_older(folder)


def _refuse_many(rows: int) -> None:
    if rows > MAX_ROWS:
        raise SourceError(
            f"The tables have more than {MAX_ROWS} rows, which is what an index holds.",
            "Ingest the metadata as a dataset of its own and join in the warehouse, or name fewer files.",
        )


def _write_attributes(path: Path, pair: TablePair, tables: KeyedTables, report: ShardReport) -> npt.NDArray[np.uint64]:
    """Write all columns but vectors; returns the hashes of the keys."""
    hashes: list[npt.NDArray[np.uint64]] = []
    where, kind = pair.files[0].uri, "unreadable_tables"
    schema = next(surviving(map(tables.attributes, [pair]), where, kind, report), None)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema or tables.schema) as writer:
        for batch in surviving(pair.batches(schema, _ROWS_AT_ONCE, report), where, kind, report) if schema else ():
            writer.write_batch(batch)
            hashes.append(hash_strings(tables.keys(batch.column(tables.on))))
    return np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)


def _folder_name(tables: KeyedTables) -> str:
    uris = "\n".join(file.uri for pair in tables.pairs for file in pair.files)
    return f"{hashlib.sha256(uris.encode()).hexdigest()[:12]}-{tables.fingerprint}"


def remove_older(folder: Path) -> None:
    """Remove what was made of the same files as they were before, unless somebody may still read it.

    Args:
        folder: what is made of them as they are now; its name is 12 digits for which files, `-`, and which state.
    """
    for other in folder.parent.glob(f"{folder.name[:12]}-*"):
        if other != folder and time.time() - other.stat().st_mtime > _OLD_SECONDS:
            shutil.rmtree(other, ignore_errors=True)
