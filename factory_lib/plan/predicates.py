"""What a plan asks of the rows that it begins with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from factory_lib.plan.nodes import Over, Plan
from factory_lib.plan.operators import Call, Column, Expr, Infix, Literal
from factory_lib.plan.python import python_of
from factory_lib.plan.select import Select
from factory_lib.plan.sql import Rendering


def predicates(query: Select) -> list[dict[str, Any]]:
    """What a query asks of the rows of the table that it begins with, one condition after the other.

    Returns:
        `{"python", "sql", "columns"}` each: the condition over the columns of that table, and the names of these. `sql`
        is empty where the condition is about values that only came about in the query.
    """
    source, found = query.source, []
    below: Plan | None = source.input if isinstance(source, Over) else source
    if isinstance(below, Select):
        found = predicates(below)
    made = source.written if isinstance(source, Over) else frozenset()
    for condition in (one for e in query.where for one in _conditions(e)):
        columns = sorted({e.name for e in condition.walk() if isinstance(e, Column)})
        known = not isinstance(source, Select) and not made & set(columns)
        text = Rendering(inline=True).expression(condition, source) if known else ""
        found.append({"python": python_of(condition), "sql": text, "columns": columns})
    return found


def _conditions(e: Expr) -> Iterator[Expr]:
    """The parts of a predicate that all have to hold; NULL counts as not."""
    match e:
        case Infix("AND", left, right):
            yield from _conditions(left)
            yield from _conditions(right)
        case Call("ifNull", (inner, Literal(False))):
            yield from _conditions(inner)
        case _:
            yield e
