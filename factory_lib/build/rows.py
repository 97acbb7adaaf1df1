"""Rows that come as Arrow are written into a staging table: in large inserts, with what every row of a version has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from factory_lib.bounded import split
from factory_lib.names import STAGING
from factory_lib.plan.sqltext import literal, quote
from factory_lib.progress import track
from factory_lib.warehouse.arrow_types import POINTER_TYPE
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.filling import ShardValues, fill_columns
from factory_lib.warehouse.incoming_values import check_written
from factory_lib.warehouse.staging import StagingTable, create_stage

INSERT_ROWS = 1 << 12
"""Rows of an insert, at least; it ends where a shard ends."""

MAX_INSERT_ROWS = 1 << 18
MAX_INSERT_BYTES = 128 << 20


def stage_of_rows(
    columns: Mapping[str, str], batches: Iterable[pa.RecordBatch], what: str, places: Sequence[str] | None = None
) -> StagingTable:
    """A staging table of rows; where they cannot all be written, none is left.

    Args:
        columns: column name -> ClickHouse type, with those that every version has.
        batches: with a column `shard`; position, sample_id and key are filled in. Position is the number of a row
            in its shard, the id of a sample a hash of where it is stored and its key.
        what: goes on, for the progress.
        places: pointers of which the first that points somewhere says where a sample is stored; None for the first one,
            whether it does or not.
    """
    pointers = next(([name] for name, t in columns.items() if t == POINTER_TYPE), []) if places is None else places
    stage = create_stage(warehouse(), STAGING, columns, defaults={"sample_id": _sample_id_expression(pointers)})
    with stage.dropped_on_error():
        _write(stage, batches, what)
    return stage


def _write(stage: StagingTable, batches: Iterable[pa.RecordBatch], what: str) -> None:
    counters: dict[str, int] = {}
    rows = inserts = 0
    # One insert runs while the rows of the next one are read.
    with track(what) as progress, ThreadPoolExecutor(1) as inserting:
        before: Future[int] | None = None
        for batch in _gathered(batches):
            table = _with_positions(batch, counters)
            if "key" not in table.schema.names:
                table = table.append_column("key", table.column("position").cast(pa.string()))
            if before is not None:
                progress.advance(before.result())
            before = inserting.submit(stage.warehouse.insert, stage.name, table)
            rows += table.num_rows
            inserts += 1
        if before is not None:
            progress.advance(before.result())
    check_written(stage.warehouse, stage.name, rows)
    stage.remove_defaults(["sample_id"])
    tell_apart(stage)
    if inserts > 1:
        stage.optimize()


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Small batches together: each insert makes a part a shard, and whole shards need no merge.

    Where shards come mixed, none ends, and inserts are as large as they may be.
    """
    held: list[pa.RecordBatch] = []
    shards: set[str] = set()
    rows = size = 0
    for batch in (piece for whole in batches for piece in split(whole)):
        if not batch.num_rows:
            continue
        here = set(batch.column("shard").unique().to_pylist())
        full = rows >= MAX_INSERT_ROWS or size >= MAX_INSERT_BYTES
        if full or (rows >= INSERT_ROWS and not here & shards):
            yield pa.Table.from_batches(held)
            held, shards, rows, size = [], set(), 0, 0
        held.append(batch)
        shards |= here
        rows += batch.num_rows
        size += batch.nbytes
    if rows:
        yield pa.Table.from_batches(held)


def _with_positions(table: pa.Table, counters: dict[str, int]) -> pa.Table:
    if "position" in table.schema.names:
        return table
    encoded = table.column("shard").combine_chunks().dictionary_encode()
    codes = np.asarray(encoded.indices)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(encoded.dictionary)))
    rank = np.empty(len(codes), np.int64)
    rank[order] = np.arange(len(codes)) - starts[codes[order]]
    names = encoded.dictionary.to_pylist()
    rank += np.array([counters.get(name, 0) for name in names], np.int64)[codes]
    for name, count in zip(names, np.bincount(codes, minlength=len(names)), strict=True):
        counters[name] = counters.get(name, 0) + int(count)
    return table.append_column("position", pa.array(rank.astype(np.uint32)))


def _sample_id_expression(pointers: Sequence[str]) -> str:
    place = "toString(shard)"
    for pointer in reversed(pointers):
        uri = f"tupleElement({quote(pointer)}, 'uri')"
        place = f"if({uri} = '', {place}, toString({uri}))"
    return f"xxHash64(concat({place}, '\\n', key))"


def tell_apart(stage: StagingTable) -> None:
    """Give rows of one shard that have the same id ids of their own: the first keeps it, the n-th is hashed with n."""
    shards = stage.warehouse.rows(
        f"SELECT DISTINCT toString(shard) AS shard FROM (SELECT shard, sample_id FROM {stage.name}"
        " GROUP BY shard, sample_id HAVING count() > 1)"
    )

    def renumbered(shard: str) -> str:
        nth = "row_number() OVER (PARTITION BY sample_id ORDER BY position)"
        rows = f"SELECT position, sample_id, {nth} AS nth FROM {stage.name} WHERE shard = {literal(shard)}"
        other = "xxHash64(concat(toString(sample_id), '\\n', toString(nth)))"
        return f"SELECT position, if(nth = 1, sample_id, {other}) AS own_id FROM ({rows})"

    if shards:
        values = {row["shard"]: ShardValues(0) for row in shards}
        fill_columns(stage, renumbered, {"sample_id": "own_id"}, values)
