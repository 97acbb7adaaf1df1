"""Expressions and values as Python text, for provenance: what was written, or could have been."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from factory_lib.plan.expressions import CosineDistance, SqlText
from factory_lib.plan.operators import (
    Call,
    Cast,
    Column,
    Expr,
    Field,
    Infix,
    InQuery,
    Item,
    Length,
    Literal,
    Ordering,
    Window,
)
from factory_lib.plan.sql import Block, PendingSource, Rendering, describe

_OPERATORS = {"=": "==", "AND": "&", "OR": "|"}
LONG = 8
"""Longer vectors and lists of values are shortened in the Python text of a query."""


def python_of(value: Any) -> str:
    """A value as Python text. Long vectors are shortened: their values stand in the SQL beside it."""
    if isinstance(value, Ordering):
        return python_of(value.expr) + (".desc()" if value.descending else "")
    if isinstance(value, Literal) and isinstance(value.value, str):
        return f"lit({value.value!r})"
    if isinstance(value, Expr):
        return _expression(value)
    if isinstance(value, np.ndarray):
        return f"<vector of {len(value)}>" if value.ndim == 1 and len(value) > LONG else repr(value.tolist())
    if isinstance(value, list | tuple) and len(value) > LONG:
        return f"<{len(value)} values>"
    if hasattr(value, "reads") and hasattr(value, "fingerprint"):
        return str(value.name)
    return repr(value)


def predicates(block: Block) -> list[dict[str, Any]]:
    """What a query asks of the rows of the table that it begins with, one condition after the other.

    Returns:
        `{"python", "sql", "columns"}` each: the condition over the columns of that table, and the names of these. `sql`
        is empty where the condition is about values that only came about in the query.
    """
    source, found = block.source, []
    made: set[str] = set()
    if isinstance(source, Block):
        found = predicates(source)
    elif isinstance(source, PendingSource) and isinstance(inner := getattr(source.origin, "block", None), Block):
        found = predicates(inner)
        made = set(source.columns) - set(inner.columns)
        made |= {name for signal in getattr(source.origin, "signals", ()) for name in signal.columns}
        made |= set(getattr(source.origin, "types", ()))
    for condition in (one for e in block.where for one in _conditions(e)):
        columns = sorted({e.name for e in condition.walk() if isinstance(e, Column)})
        known = not isinstance(source, Block) and not made & set(columns)
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


def _expression(e: Expr) -> str:  # noqa: PLR0912 - one line a kind of node
    match e:
        case Column(name):
            return f"C.{name}" if name.isidentifier() else f"C[{name!r}]"
        case Literal(value):
            return python_of(value)
        case Infix(op, left, right):
            return f"({_expression(left)} {_OPERATORS.get(op, op)} {_expression(right)})"
        case Call(name, args, parameters):
            extra = [f"parameters=[{', '.join(map(_expression, parameters))}]"] if parameters else []
            return f"fn.{name}({', '.join([*map(_expression, args), *extra])})"
        case Field(base, name):
            return f"{_expression(base)}.{name}"
        case Item(base, key):
            return f"{_expression(base)}[{_expression(key)}]"
        case Length(base):
            return f"{_expression(base)}.length()"
        case Cast(base, ch_type):
            return f"{_expression(base)}.cast({ch_type!r})"
        case Window(base, partition_by, order_by):
            partition, order = (", ".join(map(python_of, part)) for part in (partition_by, order_by))
            return f"{_expression(base)}.over([{partition}], [{order}])"
        case CosineDistance(left, right):
            return f"cosine_distance({_expression(left)}, {_expression(right)})"
        case SqlText(text):
            return f"sql_text({text!r})"
        case InQuery(base, block, negated):
            return f"{'~' if negated else ''}{_expression(base)}.isin(<query of {describe(block.source)}>)"
        case _:
            return "<query>"
