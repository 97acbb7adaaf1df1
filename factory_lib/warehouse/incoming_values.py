"""Values that came as Arrow, in tables of their own until a column of a version holds them.

Values given by shard and position travel as runs: a row holds the values of consecutive positions as an array, so that
ten million values in their order are a few hundred rows. Values given by other columns travel row by row and are
matched in the engine. Both know how to give `fill_columns` what it asks for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from factory_lib.errors import CommitError, QueryError
from factory_lib.plan.sqltext import literal, quote
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.filling import ShardValues
from factory_lib.warehouse.scratch import scratch_table
from factory_lib.warehouse.staging import StagingTable


class RunsOfValues:
    """Values by shard and position.

    Args:
        types: name -> ClickHouse type of the values.
    """

    def __init__(self, wh: Warehouse, types: Mapping[str, str]) -> None:
        self.warehouse, self.types = wh, types
        self._tables = contextlib.ExitStack()
        self._runs = self._whole = ""

    def write(self, reader: pa.RecordBatchReader) -> None:
        """Send the values: batches with `shard`, `position` and a column of each name.

        Raises:
            QueryError: a row has no shard or no position.
        """
        arrays = ", ".join(f"values_{i} Array({t})" for i, t in enumerate(self.types.values()))
        declared = f"shard LowCardinality(String), start UInt32, {arrays}"
        self._runs = self._tables.enter_context(scratch_table(self.warehouse, "runs", declared))
        first = next(batches := self._batches(reader), None)
        if first is None:
            return
        sent = self.warehouse.insert(
            self._runs,
            pa.RecordBatchReader.from_batches(first.schema, (b for part in ([first], batches) for b in part)),
        )
        check_written(self.warehouse, self._runs, sent)

    def shards(self, stage: StagingTable) -> dict[str, ShardValues]:
        """What is known of the values of each shard of a table; those without gaps are joined to one array a shard."""
        lengths = "groupArray(length(values_0))"
        nulls = [f"countIf(has(values_{i}, NULL))" for i, t in enumerate(self.types.values()) if is_nullable(t)]
        arrays = ", ".join(
            f"groupArrayArray({_not_null(f'runs.values_{i}', t)}) AS values_{i}"
            for i, t in enumerate(self.types.values())
        )
        select = (
            "SELECT shard,"
            f" groupArray(toUInt64(start)) = arrayPopBack(arrayPushFront(arrayCumSum({lengths}), 0))"
            f" AND {' + '.join(nulls) or '0'} = 0 AS whole, {arrays}"
            f" FROM (SELECT * FROM {self._runs} ORDER BY shard, start) AS runs GROUP BY shard"
        )
        # One thread keeps the rows in their order; names are those of the columns.
        settings = {"max_threads": 1, "prefer_column_name_to_alias": 1}
        packed = scratch_table(self.warehouse, "packed", select=select, settings=settings)
        self._whole = self._tables.enter_context(packed)
        named = ", ".join(f"values_{i} AS {quote(name)}" for i, name in enumerate(self.types))
        sizes = " + ".join(f"byteSize(values_{i})" for i in range(len(self.types)))
        known = {
            row["shard"]: ShardValues(
                row["size"], f"SELECT {named} FROM {self._whole} WHERE shard = {literal(row['shard'])}" * row["whole"]
            )
            for row in self.warehouse.rows(f"SELECT shard, whole, {sizes} AS size FROM {self._whole}")
        }
        return {shard: known.get(shard, ShardValues(0)) for shard in stage.shard_rows()}

    def rows(self, stage: StagingTable, shard: str) -> str:
        """SELECT of the values of a shard, with their positions."""
        named = ", ".join(f"value_{i} AS {quote(name)}" for i, name in enumerate(self.types))
        joined = ", ".join(f"values_{i} AS value_{i}" for i in range(len(self.types)))
        return (
            f"SELECT start + nth - 1 AS position, {named} FROM {self._runs}"
            f" ARRAY JOIN arrayEnumerate(values_0) AS nth, {joined} WHERE shard = {literal(shard)}"
        )

    def drop(self) -> None:
        """Remove the tables."""
        self._tables.close()

    def _batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        return (_runs(batch, list(self.types)) for batch in reader if batch.num_rows)


class MatchedValues:
    """Values by other columns than shard and position.

    Args:
        types: name -> ClickHouse type of the values.
        keys: name -> ClickHouse type of the columns that tell which row a value is for.
    """

    def __init__(self, wh: Warehouse, types: Mapping[str, str], keys: Mapping[str, str]) -> None:
        self.warehouse, self.types, self.keys = wh, types, keys
        self._tables = contextlib.ExitStack()
        self._table = ""

    def write(self, reader: pa.RecordBatchReader) -> None:
        """Send the values: batches with the keys and a column of each name."""
        columns = ", ".join(f"{quote(n)} {t}" for n, t in {**self.keys, **self.types}.items())
        self._table = self._tables.enter_context(scratch_table(self.warehouse, "values", columns))
        check_written(self.warehouse, self._table, self.warehouse.insert(self._table, reader))

    def shards(self, stage: StagingTable) -> dict[str, ShardValues]:
        """What is known of the values of each shard of a table: about how many bytes they are."""
        shards = stage.shard_rows()
        size = self.warehouse.scalar(f"SELECT sum(byteSize({', '.join(map(quote, self.types))})) FROM {self._table}")
        return {shard: ShardValues(int(size or 0) // len(shards)) for shard in shards}

    def rows(self, stage: StagingTable, shard: str) -> str:
        """SELECT of the values of a shard, with their positions."""
        using = ", ".join(map(quote, self.keys))
        wanted = f"SELECT position, {using} FROM {stage.name} WHERE shard = {literal(shard)}"
        named = ", ".join(map(quote, self.types))
        return f"SELECT position, {named} FROM ({wanted}) AS wanted INNER JOIN {self._table} AS given USING ({using})"

    def drop(self) -> None:
        """Remove the table."""
        self._tables.close()


def check_written(wh: Warehouse, table: str, rows: int) -> None:
    """Make sure that a new table holds the rows that were sent to it: chDB drops an error of an insert's last block.

    Raises:
        CommitError: it does not.
    """
    found = int(wh.scalar(f"SELECT count() FROM {table}"))
    if found != rows:
        raise CommitError(
            f"Of {rows:,} rows that were sent to the warehouse, {found:,} are there.", "Is the disk full? Run it again."
        )


def is_nullable(ch_type: str) -> bool:
    """Whether a column of a type can hold NULL."""
    return ch_type.startswith(("Nullable(", "LowCardinality(Nullable("))


def _runs(batch: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
    """Rows of consecutive positions of a shard together: shard, the first position, an array for each column."""
    shards, positions = _plain(batch, "shard"), _plain(batch, "position")
    if shards.null_count or positions.null_count:
        raise QueryError("A row of the table has no shard or no position.")
    codes = np.asarray(shards.dictionary_encode().indices)
    places = np.asarray(positions.cast(pa.int64()))
    breaks = np.flatnonzero((np.diff(codes) != 0) | (np.diff(places) != 1)) + 1
    starts = np.concatenate([[0], breaks])
    offsets = pa.array(np.append(starts, batch.num_rows).astype(np.int32))
    arrays = [pa.ListArray.from_arrays(offsets, _plain(batch, name)) for name in names]
    first = pa.array(places[starts].astype(np.uint32))
    return pa.RecordBatch.from_arrays(
        [shards.take(pa.array(starts)), first, *arrays], ["shard", "start", *(f"values_{i}" for i in range(len(names)))]
    )


def _not_null(array: str, ch_type: str) -> str:
    return f"arrayMap(x -> assumeNotNull(x), {array})" if is_nullable(ch_type) else array


def _plain(batch: pa.RecordBatch, name: str) -> pa.Array:
    column = batch.column(name)
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
