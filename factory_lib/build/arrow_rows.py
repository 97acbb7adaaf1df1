"""Rows in memory: an Arrow table, or a reader of batches."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from factory_lib.build.ledger import Ledger
from factory_lib.build.rows import stage_of_rows
from factory_lib.errors import QueryError, nearest
from factory_lib.plan.nodes import Arrow
from factory_lib.plan.storing import SINGLE_SHARD, SYSTEM
from factory_lib.warehouse.arrow_types import clickhouse_type
from factory_lib.warehouse.byte_lists import without_bytes
from factory_lib.warehouse.null_elements import marked
from factory_lib.warehouse.staging import StagingTable


def arrow_rows(data: Any, shard: str | None) -> Arrow:
    """The plan of rows in memory.

    Args:
        data: what has a schema and gives record batches.
        shard: the column that says which shard a row belongs to; without it all rows are one shard.

    Raises:
        QueryError: there is no such column, or the data is of another kind.
    """
    reader = as_reader(marked(data) if isinstance(data, pa.Table) else data)
    if shard is not None and shard not in reader.schema.names:
        raise QueryError(f"The table has no column {shard!r}.", nearest(shard, reader.schema.names))
    fields = {f.name: f for f in reader.schema}
    reserved = {"shard": SYSTEM["shard"], "position": SYSTEM["position"], "sample_id": SYSTEM["sample_id"]}
    values = {n: clickhouse_type(f) for n, f in fields.items() if n not in reserved and n != shard}
    return Arrow(reader, shard, columns={**reserved, "key": SYSTEM["key"], **values, **{"key": SYSTEM["key"]}})


def write_arrow(node: Arrow, ledger: Ledger) -> StagingTable:
    """Write rows in memory into a staging table."""
    assert node.reader is not None
    stage = stage_of_rows(node.columns, (_with_shard(batch, node.shard) for batch in node.reader), node.label)
    ledger.bytes += stage.bytes()
    ledger.storage.append("insert")
    return stage


def _with_shard(batch: pa.RecordBatch, column: str | None) -> pa.RecordBatch:
    if column is None:
        shard = pa.array([SINGLE_SHARD] * batch.num_rows, pa.string())
        return batch if "shard" in batch.schema.names else batch.append_column("shard", shard)
    values = batch.column(column).cast(pa.string())
    return batch.set_column(batch.schema.get_field_index(column), "shard", values)


def as_reader(data: Any) -> pa.RecordBatchReader:
    """An Arrow table, batch, reader, or whatever speaks Arrow's stream protocol, as a reader of batches; bytes in it
    are lists of numbers.

    Raises:
        QueryError: it is none of these.
    """
    if isinstance(data, pa.RecordBatchReader):
        return without_bytes(data)
    if isinstance(data, pa.Table):
        return without_bytes(data.to_reader())
    if isinstance(data, pa.RecordBatch):
        return without_bytes(pa.Table.from_batches([data]).to_reader())
    if hasattr(data, "__arrow_c_stream__"):
        return without_bytes(pa.RecordBatchReader.from_stream(data))
    raise QueryError(
        f"from_arrow() takes an Arrow table or reader, not {type(data).__name__}.",
        "pandas: pyarrow.Table.from_pandas(df); rows: pyarrow.Table.from_pylist(rows).",
    )
