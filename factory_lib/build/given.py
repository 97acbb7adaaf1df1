"""Columns whose values were computed elsewhere and arrive as Arrow: they are looked up by position, without a join."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from factory_lib.build.pending import Ledger, Origin, as_reader, settle
from factory_lib.errors import QueryError, nearest
from factory_lib.plan.sql import ROW_ID, Block, Rendering
from factory_lib.warehouse.arrow_types import clickhouse_type
from factory_lib.warehouse.client import Warehouse, warehouse
from factory_lib.warehouse.derive import SYSTEM, derive
from factory_lib.warehouse.filling import fill_columns
from factory_lib.warehouse.given_values import MatchedValues, RunsOfValues
from factory_lib.warehouse.names import STAGING
from factory_lib.warehouse.stage import Stage


class GivenColumns(Origin):
    """The rows of a query with columns from an Arrow table; rows without a value get NULL.

    Args:
        data: Arrow table or reader with the columns of `on` and the new ones.
        on: columns that tell which row a value is for, such as shard and position, sample_id, or key.
    """

    def __init__(self, block: Block, data: Any, on: Sequence[str]) -> None:
        self.block = block
        self.reader = as_reader(data)
        self.on = tuple(on)
        names = self.reader.schema.names
        for name in self.on:
            block.column(name)
            if name not in names:
                raise QueryError(f"The table has no column {name!r} to match rows by.", nearest(name, names))
        self.types = {
            f.name: clickhouse_type(f.with_nullable(True)) for f in self.reader.schema if f.name not in self.on
        }
        if not self.types:
            raise QueryError(f"The table has no columns besides {', '.join(self.on)}.")

    def __str__(self) -> str:
        return f"columns {', '.join(self.types)} from Arrow, by {', '.join(self.on)}"

    def sql(self, rendering: Rendering) -> str:
        return f"({rendering.select(self.block)}) /* with {self} */"

    def write(self, ledger: Ledger) -> Stage:
        stage, how, added = derive(warehouse(), STAGING, settle(self.block, ledger))
        with stage.dropped_on_error():
            self._fill(stage)
        ledger.bytes += added + stage.bytes(self.types)
        ledger.storage += [*([how.kind] if how.kind != "clone" else []), "columns"]
        return stage

    def _fill(self, stage: Stage) -> None:
        values = self._values(stage.warehouse)
        try:
            values.write(self.reader)
            own = stage.columns()
            stage.drop_columns(n for n in self.types if n in own)
            stage.add_columns(self.types)
            names = {name: name for name in self.types}
            fill_columns(stage, lambda shard: values.rows(stage, shard), names, values.shards(stage))
        finally:
            values.drop()

    def _values(self, wh: Warehouse) -> RunsOfValues | MatchedValues:
        if set(self.on) == set(ROW_ID):
            return RunsOfValues(wh, self.types)
        keys = {f.name: clickhouse_type(f.with_nullable(False)) for f in self.reader.schema if f.name in self.on}
        return MatchedValues(wh, self.types, keys | {name: t for name, t in SYSTEM.items() if name in keys})
