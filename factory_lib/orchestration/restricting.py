"""A query over fewer shards than it was written for: what is left of a run when some of its shards cannot be made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from factory_lib.build.computing import SignalRows
from factory_lib.build.pending import ShardRows
from factory_lib.plan.sql import Block, PendingSource, TableSource, map_sources
from factory_lib.query import DatasetQuery


def restricted(query: DatasetQuery, shards: Sequence[str]) -> DatasetQuery:
    """The same query with everything that was restricted to shards restricted to these.

    Args:
        shards: shards to keep; inputs that are read as a whole stay whole.
    """
    kept = set(shards)

    def change(source: Any) -> Any:
        if isinstance(source, TableSource) and source.shards is not None:
            return replace(source, shards=tuple(shard for shard in source.shards if shard in kept))
        if isinstance(source, PendingSource) and isinstance(source.origin, ShardRows):
            names = [shard.name for shard in source.origin.shards if shard.name in kept]
            return replace(source, origin=ShardRows(source.origin.source, names))
        if isinstance(source, PendingSource) and isinstance(source.origin, SignalRows):
            rows = source.origin
            return replace(source, origin=SignalRows(narrow(rows.block), rows.signals, rows.on_error))
        return source

    def narrow(block: Block) -> Block:
        return map_sources(block, change)

    return DatasetQuery._of(narrow(query.block), query.python)
