"""Where the columns of a query come from: for the column lineage that Dagster draws."""

from __future__ import annotations

from typing import Any

from factory_lib.build.computing import SignalRows
from factory_lib.plan.expressions import SqlText
from factory_lib.plan.operators import Column, Expr
from factory_lib.plan.sql import Block, JoinSource, PendingSource, TableSource, UnionSource

Place = tuple[str, str]
"""A version's name and a column of it."""


def column_lineage(block: Block) -> dict[str, set[Place]]:
    """The columns of versions that each column of a query is computed from.

    Returns:
        Column name to the places its values come from; empty for what comes from storage or from a constant.
    """
    return {name: _of_expression(expr, block.source) for name, expr in block.columns.items()}


def _of_expression(expr: Expr, source: Any) -> set[Place]:
    names = {e.name for e in expr.walk() if isinstance(e, Column)}
    names |= {name for e in expr.walk() if isinstance(e, SqlText) for name in e.names}
    return {place for name in names for place in _of_column(name, source)}


def _of_column(name: str, source: Any) -> set[Place]:
    if isinstance(source, TableSource):
        return {(source.name, name)}
    if isinstance(source, JoinSource):
        side, inner = source.columns[name]
        return _of_column(inner, source.left if side == "l" else source.right)
    if isinstance(source, UnionSource):
        return {place for block in source.blocks if name in block.columns for place in _of_column(name, block)}
    if isinstance(source, Block):
        return _of_expression(source.columns[name], source.source) if name in source.columns else set()
    if isinstance(source, PendingSource) and isinstance(source.origin, SignalRows):
        block = source.origin.block
        for signal in source.origin.signals:
            if name in signal.columns:
                return {place for read in signal.reads for place in _of_column(read, block)}
        return _of_column(name, block)
    return set()
