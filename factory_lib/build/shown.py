"""Queries in notebooks. What is shown is only read: nothing is computed, ingested or written to show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from factory_lib.build.ledger import Ledger
from factory_lib.build.session import ledger_of, settled
from factory_lib.errors import EngineError, FactoryError
from factory_lib.plan.nodes import Table, leaves
from factory_lib.plan.select import Select
from factory_lib.plan.sql import Rendering
from factory_lib.view.html import Markup, bad, code, counted, head, note, page
from factory_lib.view.rows import SHOWN, rows_table
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.derive import naming_columns
from factory_lib.warehouse.shown import TOO_SLOW, first_rows

_SECONDS = 1
"""The engine counts rows for so long."""


def query_page(plan: Select, python: str, columns: Callable[[], Mapping[str, str]]) -> str:
    """A query as HTML: how it is written, its columns, and its first rows where they can be had by reading alone.

    Args:
        python: how it is written.
        columns: gives the columns and their ClickHouse types.
    """
    first = [node.label for node in leaves(plan) if not isinstance(node, Table) and ledger_of(node) is None]
    try:
        if first:
            rows = rows_table(columns(), [], [])
            said = f"Not run yet: it needs {', then '.join(dict.fromkeys(first))}."
            return page(code(python), rows, note(f"{said} show() runs it, explain() says what that takes."))
        read = settled(plan, Ledger())
        with naming_columns(plan):
            return page(code(python), first_rows(warehouse(), read, columns()), _counted(read))
    except FactoryError as error:
        return page(code(python), head(bad(error.message)), note(error.hint))


def _counted(plan: Select) -> Markup:
    rendering = Rendering()
    text = f"SELECT count() FROM ({rendering.select(plan)})"
    try:
        count = int(warehouse().scalar(text, rendering.params, {**rendering.settings, "max_execution_time": _SECONDS}))
    except EngineError as error:
        if error.code != TOO_SLOW:
            raise
        return note(f"the first {SHOWN} rows; to count all takes longer than {_SECONDS} s: count() does it")
    return note(f"the first {SHOWN} of {count:,} rows" if count > SHOWN else counted(count, "row"))
