"""Expressions over columns, as users write them: `C.width > 1000`, `fn.lower(C.caption)`, `case((C.a > 1, "x"))`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from factory_lib.errors import QueryError
from factory_lib.plan.operators import Call, Column, Expr, Literal, Scope, Window, column_of, lift
from factory_lib.plan.sqltext import identifiers


@dataclass(frozen=True, eq=False)
class CosineDistance(Expr):
    """1 - cosine similarity, NULL where a vector is empty; a dot product where both are of unit length."""

    left: Expr
    right: Expr

    def render(self, scope: Scope) -> str:
        left, right = (_as_vector(e) for e in (self.left, self.right))
        if isinstance(left, Literal):
            left, right = right, left
        unit = _is_unit(left, scope) and (isinstance(right, Literal) or _is_unit(right, scope))
        if isinstance(right, Literal) and unit and (norm := np.linalg.norm(right.value)) > 0:
            right = Literal((right.value / norm).astype(np.float32))
        a = left.render(scope)
        b = _bind_like(left, right, scope) if unit else right.render(scope)
        # A vector is empty where a signal failed, and vectors of different lengths are an error. Where `if` evaluates
        # both branches, an empty one is compared with itself, at the price of a copy of all vectors.
        missing = f"empty({a})" if isinstance(right, Literal) else f"empty({a}) OR empty({b})"
        if not scope.lazily():
            a, b = a if isinstance(right, Literal) else f"if(empty({b}), {b}, {a})", f"if(empty({a}), {a}, {b})"
        distance = f"1 - dotProduct({a}, {b})" if unit else f"cosineDistance({a}, {b})"
        return f"if({missing}, NULL, {distance})"


@dataclass(frozen=True, eq=False)
class SqlText(Expr):
    """SQL written by hand. Identifiers that name columns are replaced like those of any other expression."""

    text: str
    names: tuple[str, ...] = ()
    values: tuple[Expr, ...] = ()

    def render(self, scope: Scope) -> str:
        given = dict(zip(self.names, self.values, strict=True))
        text = "".join(given[t].render(scope) if t in given else raw for t, raw in identifiers(self.text))
        # A comment to the end of the line would take the bracket with it.
        return f"({text}\n)" if any(mark in text for mark in ("--", "//", "#")) else f"({text})"

    def bound_to(self, columns: Mapping[str, Expr]) -> SqlText:
        """The same text with its identifiers bound to the expressions of an input."""
        names = tuple(dict.fromkeys(t for t, _ in identifiers(self.text) if t in columns))
        return SqlText(self.text, names, tuple(columns[n] for n in names))


class _Columns:
    """`C.name` or `C["any name"]`: a column."""

    def __getattr__(self, name: str) -> Column:
        if name.startswith("__"):
            raise AttributeError(name)
        return Column(name)

    def __getitem__(self, name: str) -> Column:
        return Column(name)


class _Functions:
    """`fn.<name>(…)`: any ClickHouse function, by its own name; keyword `parameters=` for parametric aggregates."""

    def __getattr__(self, name: str) -> Callable[..., Expr]:
        if not re.fullmatch(r"[A-Za-z]\w*", name):
            raise AttributeError(name)

        def call(*args: Any, parameters: Sequence[Any] = ()) -> Expr:
            return Call(name, tuple(lift(a) for a in args), tuple(lift(p) for p in parameters))

        call.__name__ = name
        return call


C = _Columns()


fn = _Functions()


def lit(value: Any) -> Expr:
    """A value as an expression, where a text would be taken for the name of a column: `select(kind=lit("photo"))`."""
    return lift(value)


def sql_text(text: str) -> SqlText:
    """An expression written as SQL: `sql_text("row_number() OVER (PARTITION BY label ORDER BY score DESC)")`."""
    return SqlText(text)


def case(*whens: tuple[Any, Any], default: Any = None) -> Expr:
    """The value of the first pair whose condition holds, else `default`."""
    if not whens:
        raise QueryError("case() needs at least one (condition, value) pair.")
    parts = [lift(x) for pair in whens for x in pair]
    return Call("multiIf", (*parts, lift(default)))


def cosine_distance(left: Any, right: Any) -> Expr:
    """1 - cosine similarity of two vectors, each a column (or its name) or a sequence of numbers.

    Columns that a signal stored as unit vectors are compared by dot product, which is the same number and faster.
    """
    return CosineDistance(column_of(left), column_of(right))


def has_direction(vector: Expr) -> Expr:
    """Whether a vector can be compared by cosine: its length is a number that the engine can hold, and not 0."""
    length = Call("L2Norm", (vector,))
    return (length > 0) & Call("isFinite", (length,))


def spans_rows(expr: Expr) -> bool:
    """Whether a value depends on other rows than its own, or makes several rows of one."""
    return any(
        isinstance(e, Window)
        or (isinstance(e, Call) and e.name in _ROWS_OF_ARRAYS)
        or (isinstance(e, SqlText) and _SPANS_ROWS.search(e.text))
        for e in expr.walk()
    )


def is_deterministic(expr: Expr) -> bool:
    """Whether evaluating twice gives the same values."""
    words = (
        {e.name.lower()} if isinstance(e, Call) else {w.lower() for w in re.findall(r"\w+", e.text)}
        for e in expr.walk()
        if isinstance(e, Call | SqlText)
    )
    return not any(w in _VOLATILE or w.startswith(("rand", "generate")) for group in words for w in group)


_ROWS_OF_ARRAYS = ("arrayJoin", "unnest")
_SPANS_ROWS = re.compile(r"\bover\s*(\(|\w)|\b(arrayJoin|unnest)\s*\(", re.IGNORECASE)


_VOLATILE = frozenset(
    [
        "now",
        "now64",
        "nowinblock",
        "today",
        "yesterday",
        "rownumberinallblocks",
        "rownumberinblock",
        "fuzzbits",
        "runningaccumulate",
    ]
)


def _as_vector(expr: Expr) -> Expr:
    # A list of Python floats would be bound as doubles, which slows the distance down by half.
    if isinstance(expr, Literal):
        return Literal(np.asarray(expr.value, dtype=np.float32))
    return expr


def _is_unit(expr: Expr, scope: Scope) -> bool:
    return isinstance(expr, Column) and scope.is_unit(expr.name)


def _bind_like(column: Expr, other: Expr, scope: Scope) -> str:
    """A vector bound with the element type of the column, which keeps the product in the engine's fast path."""
    if isinstance(other, Literal) and isinstance(column, Column):
        return scope.bind(other.value, scope.type_of(column.name) or "Array(Float32)")
    return other.render(scope)
