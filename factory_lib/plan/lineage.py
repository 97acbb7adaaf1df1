"""Where the columns of a plan come from: for the column lineage that Dagster draws."""

from __future__ import annotations

from factory_lib.plan.expressions import SqlText
from factory_lib.plan.nodes import Join, NewSamples, Plan, Signals, Table, Union
from factory_lib.plan.operators import Column, Expr
from factory_lib.plan.select import Select

_MADE = ("image", "width", "height")
"""Columns of new samples that come of the picture."""

ColumnPlace = tuple[str, str]
"""A version's name and a column of it."""


def column_lineage(query: Select) -> dict[str, set[ColumnPlace]]:
    """The columns of versions that each column of a query is computed from.

    Returns:
        Column name to the places its values come from; empty for what comes from storage or from a constant.
    """
    return {name: _of_column(name, query) for name in query.columns}


def _of_column(name: str, plan: Plan) -> set[ColumnPlace]:
    match plan:
        case Table():
            return {(plan.name, name)}
        case Join():
            side, inner = plan.side(name)
            return _of_column(inner, side)
        case Union():
            return {place for query in plan.queries if name in query.columns for place in _of_column(name, query)}
        case Select():
            return _of_expression(plan.columns[name], plan.source) if name in plan.columns else set()
        case Signals():
            read = next((signal.reads for signal in plan.signals if name in signal.columns), (name,))
            return {place for column in read for place in _of_column(column, plan.input)}
        case NewSamples():
            read = plan.signal.reads if name in (*_MADE, "caption") else (name,)
            return {place for column in read if column in plan.input.names for place in _of_column(column, plan.input)}
    return set()


def _of_expression(expr: Expr, source: Plan) -> set[ColumnPlace]:
    names = {e.name for e in expr.walk() if isinstance(e, Column)}
    names |= {name for e in expr.walk() if isinstance(e, SqlText) for name in e.names}
    return {place for name in names for place in _of_column(name, source)}
