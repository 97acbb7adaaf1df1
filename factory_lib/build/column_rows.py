"""Columns whose values were computed elsewhere and arrive as Arrow: they are looked up by position, without a join."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from factory_lib.build.arrow_rows import as_reader
from factory_lib.build.ledger import Ledger
from factory_lib.errors import QueryError, nearest
from factory_lib.names import STAGING
from factory_lib.plan.nodes import ROW_ID, Columns
from factory_lib.plan.select import Select
from factory_lib.plan.storing import SYSTEM, with_system_columns
from factory_lib.warehouse.arrow_types import clickhouse_type
from factory_lib.warehouse.client import Warehouse, warehouse
from factory_lib.warehouse.derive import derive
from factory_lib.warehouse.filling import fill_columns
from factory_lib.warehouse.incoming_values import MatchedValues, RunsOfValues
from factory_lib.warehouse.staging import StagingTable


def column_rows(query: Select, types: Mapping[str, str], data: Any, on: Sequence[str]) -> Columns:
    """The plan of a query's rows with columns from Arrow.

    Args:
        types: column -> ClickHouse type of the query.
        data: Arrow table or reader with the columns of `on` and the new ones.
        on: columns that tell which row a value is for, such as shard and position, sample_id, or key.

    Raises:
        QueryError: a column of `on` is missing on one side, or there are no others.
    """
    query = with_system_columns(query)
    reader, names = (made := as_reader(data)), made.schema.names
    for name in on:
        query.column(name)
        if name not in names:
            raise QueryError(f"The table has no column {name!r} to match rows by.", nearest(name, names))
    new = {f.name: clickhouse_type(f.with_nullable(True)) for f in reader.schema if f.name not in on}
    if not new:
        raise QueryError(f"The table has no columns besides {', '.join(on)}.")
    columns = {**{n: t for n, t in types.items() if n not in new}, **new}
    unit = frozenset(n for n in columns if n not in new and query.is_unit(n))
    return Columns(query, reader, tuple(on), new, columns=columns, unit=unit)


def write_columns(node: Columns, rows: Select, ledger: Ledger) -> StagingTable:
    """Write the rows of a query with the new columns into a staging table.

    Args:
        rows: the query, all of whose rows are in tables.
    """
    stage, how, added = derive(warehouse(), STAGING, rows)
    with stage.dropped_on_error():
        _fill(stage, node)
    ledger.bytes += added + stage.bytes(node.types)
    ledger.storage += [*([how.kind] if how.kind != "clone" else []), "columns"]
    return stage


def _fill(stage: StagingTable, node: Columns) -> None:
    values = _values(stage.warehouse, node)
    try:
        values.write(node.reader)
        own = stage.columns()
        stage.drop_columns(n for n in node.types if n in own)
        stage.add_columns(node.types)
        names = {name: name for name in node.types}
        fill_columns(stage, lambda shard: values.rows(stage, shard), names, values.shards(stage))
    finally:
        values.drop()


def _values(wh: Warehouse, node: Columns) -> RunsOfValues | MatchedValues:
    if set(node.on) == set(ROW_ID):
        return RunsOfValues(wh, node.types)
    assert node.reader is not None
    keys = {f.name: clickhouse_type(f.with_nullable(False)) for f in node.reader.schema if f.name in node.on}
    return MatchedValues(wh, node.types, keys | {name: t for name, t in SYSTEM.items() if name in keys})
