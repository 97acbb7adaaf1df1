"""Columns whose values were computed elsewhere and arrive as Arrow: they are looked up by position, without a join."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from factory_lib.errors import QueryError, nearest
from factory_lib.pending import Ledger, Origin, as_reader, check_written, settle
from factory_lib.sql import ROW_ID, Block, Rendering
from factory_lib.sqltext import literal, quote
from factory_lib.warehouse.arrow_types import clickhouse_type
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.derive import SYSTEM, derive
from factory_lib.warehouse.filling import ShardValues, fill_columns
from factory_lib.warehouse.names import STAGING
from factory_lib.warehouse.stage import Stage, owner


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
        wh = stage.warehouse
        values = f"{STAGING}.{quote(f'_stage_values_{uuid.uuid4().hex[:16]}')}"
        keys = {f.name: clickhouse_type(f.with_nullable(False)) for f in self.reader.schema if f.name in self.on}
        keys |= {name: t for name, t in SYSTEM.items() if name in keys}
        declared = ", ".join(f"{quote(n)} {t}" for n, t in {**keys, **self.types}.items())
        wh.execute(f"CREATE TABLE {values} ({declared}) ENGINE = Memory COMMENT {literal(owner())}")
        try:
            check_written(wh, values, wh.insert(values, self.reader))
            own = stage.columns()
            stage.drop_columns(n for n in self.types if n in own)
            stage.add_columns(self.types)
            names = {name: name for name in self.types}
            fill_columns(stage, lambda shard: self._rows(stage, values, shard), names, self._facts(stage, values))
        finally:
            wh.execute(f"DROP TABLE IF EXISTS {values} SYNC")
        ledger.bytes += added + stage.bytes(self.types)
        ledger.storage += [*([how.kind] if how.kind != "clone" else []), "columns"]
        return stage

    def _rows(self, stage: Stage, values: str, shard: str) -> str:
        columns = ", ".join(map(quote, self.types))
        where = f"shard = {literal(shard)}"
        if set(self.on) == set(ROW_ID):
            return f"SELECT position, {columns} FROM {values} WHERE {where}"
        using = ", ".join(map(quote, self.on))
        wanted = f"SELECT position, {using} FROM {stage.name} WHERE {where}"
        return f"SELECT position, {columns} FROM ({wanted}) AS wanted INNER JOIN {values} AS given USING ({using})"

    def _facts(self, stage: Stage, values: str) -> dict[str, ShardValues]:
        """Size of the values of each shard, and whether they are complete where positions are given."""
        wh = stage.warehouse
        shards = stage.shard_rows()
        if set(self.on) != set(ROW_ID):
            size = f"SELECT sum(byteSize({', '.join(map(quote, self.types))})) FROM {values}"
            share = int(wh.scalar(size) or 0) // max(1, len(shards))
            return {shard: ShardValues(share) for shard in shards}
        nulls = " + ".join(f"countIf({quote(n)} IS NULL)" for n, t in self.types.items() if t.startswith("Nullable("))
        rows = wh.rows(
            f"SELECT shard, count() = max(position) + 1 AND {nulls or '0'} = 0 AS complete,"
            f" sum(byteSize({', '.join(map(quote, self.types))})) AS size FROM {values} GROUP BY shard"
        )
        known = {row["shard"]: ShardValues(row["size"], bool(row["complete"])) for row in rows}
        return {shard: known.get(shard, ShardValues(0)) for shard in shards}
