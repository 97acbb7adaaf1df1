"""The tree behind expressions: nodes that know their SQL, and the Python operators that build them.

Nothing is evaluated in Python: `Expr.render` turns a tree into SQL, with every Python value bound as a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from factory_lib.errors import QueryError
from factory_lib.plan.sqltext import literal, quote, type_of_value


class Scope(Protocol):
    """What rendering needs to know of the input of an expression."""

    def type_of(self, column: str) -> str:
        """ClickHouse type of a column of the input, or an empty string when it is not known."""

    def is_unit(self, column: str) -> bool:
        """Whether a column holds vectors of unit length."""

    def bind(self, value: Any, ch_type: str) -> str:
        """SQL that stands for a Python value: a parameter placeholder or a literal."""

    def subquery(self, plan: Any) -> str:
        """SQL of a nested query."""

    def places(self) -> Sequence[Expr]:
        """Columns that tell the rows of the input apart, in row order; none where there are no such."""

    def lazily(self) -> bool:
        """Have `if` evaluate a branch only where it is taken; False where the statement cannot ask for that."""


@dataclass(frozen=True, eq=False)
class Expr:
    """A value computed from columns. Compare with `==`, combine with `&`, `|` and `~`."""

    def render(self, scope: Scope) -> str:
        """SQL text of the expression."""
        raise NotImplementedError

    def children(self) -> Iterator[Expr]:
        """Direct sub-expressions."""
        for f in fields(self):
            yield from _exprs(getattr(self, f.name))

    def replace(self, change: Callable[[Expr], Expr | None]) -> Expr:
        """A copy in which `change` replaced every node for which it returned something, top down; itself where none."""
        changed = change(self)
        if changed is not None:
            return changed
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        values = {name: _map_exprs(part, lambda e: e.replace(change)) for name, part in parts.items()}
        return self if all(values[name] is part for name, part in parts.items()) else type(self)(**values)

    def walk(self) -> Iterator[Expr]:
        """The expression and everything below it."""
        yield self
        for child in self.children():
            yield from child.walk()

    # Arithmetic and comparison. `==` builds an expression, so nodes compare and hash by identity.
    def __eq__(self, other: object) -> Expr:  # type: ignore[override]
        if other is None:
            return self.is_null()
        return Infix("=", self, lift(other))

    def __ne__(self, other: object) -> Expr:  # type: ignore[override]
        if other is None:
            return ~self.is_null()
        return Infix("!=", self, lift(other))

    __hash__ = object.__hash__

    def __lt__(self, other: Any) -> Expr:
        return Infix("<", self, lift(other))

    def __le__(self, other: Any) -> Expr:
        return Infix("<=", self, lift(other))

    def __gt__(self, other: Any) -> Expr:
        return Infix(">", self, lift(other))

    def __ge__(self, other: Any) -> Expr:
        return Infix(">=", self, lift(other))

    def __add__(self, other: Any) -> Expr:
        return Infix("+", self, lift(other))

    def __radd__(self, other: Any) -> Expr:
        return Infix("+", lift(other), self)

    def __sub__(self, other: Any) -> Expr:
        return Infix("-", self, lift(other))

    def __rsub__(self, other: Any) -> Expr:
        return Infix("-", lift(other), self)

    def __mul__(self, other: Any) -> Expr:
        return Infix("*", self, lift(other))

    def __rmul__(self, other: Any) -> Expr:
        return Infix("*", lift(other), self)

    def __truediv__(self, other: Any) -> Expr:
        return Infix("/", self, lift(other))

    def __rtruediv__(self, other: Any) -> Expr:
        return Infix("/", lift(other), self)

    def __floordiv__(self, other: Any) -> Expr:
        """Division rounded down, as in Python, also for negative numbers."""
        return Call("floor", (Infix("/", self, lift(other)),))

    def __mod__(self, other: Any) -> Expr:
        """Remainder with the sign of the divisor, as in Python."""
        return Call("positiveModulo", (self, lift(other)))

    def __pow__(self, other: Any) -> Expr:
        return Call("pow", (self, lift(other)))

    def __neg__(self) -> Expr:
        return Call("negate", (self,))

    def __abs__(self) -> Expr:
        return Call("abs", (self,))

    def __and__(self, other: Any) -> Expr:
        return Infix("AND", self, lift(other))

    def __rand__(self, other: Any) -> Expr:
        return Infix("AND", lift(other), self)

    def __or__(self, other: Any) -> Expr:
        return Infix("OR", self, lift(other))

    def __ror__(self, other: Any) -> Expr:
        return Infix("OR", lift(other), self)

    def __xor__(self, other: Any) -> Expr:
        return Call("xor", (self, lift(other)))

    def __invert__(self) -> Expr:
        return Call("not", (self,))

    def __bool__(self) -> bool:
        raise QueryError(
            "An expression has no truth value in Python.",
            "Combine with & | ~ and parentheses, not with and/or/not/in.",
        )

    def __iter__(self) -> Iterator[Expr]:
        raise QueryError("An expression cannot be iterated.", "Use fn.arrayMap and its kin on array columns.")

    def __getattr__(self, name: str) -> Expr:
        if name.startswith("_"):
            raise AttributeError(name)
        return Field(self, name)

    def __getitem__(self, item: Any) -> Expr:
        """An element: of an array by its position (from 0, negative from the end), of a map or tuple by its key."""
        if isinstance(item, slice):
            start, stop = item.start or 0, item.stop
            if item.step is not None or start < 0 or (stop is not None and stop < start):
                raise QueryError("Only slices [a:b] with 0 <= a <= b are supported.", "Use fn.arraySlice for others.")
            length = () if stop is None else (lift(stop - start),)
            return Call("arraySlice", (self, lift(start + 1), *length))
        return Item(self, item if isinstance(item, Expr) else Literal(item))

    def isin(self, values: Iterable[Any] | Any) -> Expr:
        """Whether the value is one of `values`: a list, or a query with one column."""
        if isinstance(values, Expr | str | bytes):
            raise QueryError("isin() takes a list of values or a query.", "For an array column: fn.has(array, value).")
        if (plan := getattr(values, "plan", None)) is not None:
            chosen: Expr = InQuery(self, plan)
            return chosen
        items = tuple(lift(v) for v in values)
        return Call("in", (self, Call("tuple", items))) if items else Literal(False)

    def is_null(self) -> Expr:
        """Whether there is no value."""
        return Call("isNull", (self,))

    def not_null(self) -> Expr:
        """Whether there is a value."""
        return Call("isNotNull", (self,))

    def fill_null(self, value: Any) -> Expr:
        """The value, or `value` where there is none."""
        return Call("ifNull", (self, lift(value)))

    def between(self, low: Any, high: Any) -> Expr:
        """Whether `low <= value <= high`."""
        return Infix("AND", self >= low, self <= high)

    def like(self, pattern: str) -> Expr:
        """SQL's LIKE: `%` any text, `_` any character."""
        return Call("like", (self, lift(pattern)))

    def ilike(self, pattern: str) -> Expr:
        """LIKE without regard to case."""
        return Call("ilike", (self, lift(pattern)))

    def matches(self, pattern: str) -> Expr:
        """Whether a regular expression (RE2) matches somewhere."""
        return Call("match", (self, lift(pattern)))

    def cast(self, ch_type: str) -> Expr:
        """The value as another ClickHouse type, such as `Float32` or `Nullable(String)`."""
        return Cast(self, ch_type)

    def length(self) -> Expr:
        """Length of an array or map, or of a text in code points."""
        return Length(self)

    def over(self, partition_by: Sequence[Any] | Any = (), order_by: Sequence[Any] | Any = ()) -> Expr:
        """The expression, an aggregate or window function, over a window of rows."""
        return Window(self, _exprs_of(partition_by), tuple(ordering(o) for o in _listed(order_by)))

    def desc(self) -> Ordering:
        """For `order_by`: largest first, nulls last."""
        return Ordering(self, True)

    def asc(self) -> Ordering:
        """For `order_by`: smallest first, nulls last."""
        return Ordering(self, False)


@dataclass(frozen=True, eq=False)
class Ordering:
    """A key of `order_by`."""

    expr: Expr
    descending: bool = False


@dataclass(frozen=True, eq=False)
class Column(Expr):
    """A column of the input, by name."""

    name: str

    def render(self, scope: Scope) -> str:
        return quote(self.name)


@dataclass(frozen=True, eq=False)
class Literal(Expr):
    """A Python value."""

    value: Any

    def render(self, scope: Scope) -> str:
        if self.value is None:
            return "NULL"
        return scope.bind(self.value, type_of_value(self.value))


@dataclass(frozen=True, eq=False)
class Infix(Expr):
    """A binary operator."""

    op: str
    left: Expr
    right: Expr

    def render(self, scope: Scope) -> str:
        return f"({self.left.render(scope)} {self.op} {self.right.render(scope)})"


@dataclass(frozen=True, eq=False)
class Call(Expr):
    """A ClickHouse function; `parameters` are those of parametric aggregates, as in `quantile(0.9)(x)`."""

    name: str
    args: tuple[Expr, ...] = ()
    parameters: tuple[Expr, ...] = ()

    def render(self, scope: Scope) -> str:
        parameters = f"({', '.join(p.render(scope) for p in self.parameters)})" if self.parameters else ""
        return f"{self.name}{parameters}({', '.join(a.render(scope) for a in self.args)})"


@dataclass(frozen=True, eq=False)
class Field(Expr):
    """An element of a tuple, by name."""

    base: Expr
    name: str

    def render(self, scope: Scope) -> str:
        if isinstance(self.base, Column | Field) and _is_path(self.base):
            return f"{self.base.render(scope)}.{quote(self.name)}"
        return f"tupleElement({self.base.render(scope)}, {literal(self.name)})"

    def __call__(self, *args: Any, **kwargs: Any) -> Expr:
        raise QueryError(
            f"Expressions have no method {self.name!r}.",
            f"ClickHouse functions are called as fn.{self.name}(column, …).",
        )


@dataclass(frozen=True, eq=False)
class Item(Expr):
    """An element of an array by position (from 0), of a map or tuple by key."""

    base: Expr
    key: Expr

    def render(self, scope: Scope) -> str:
        base = self.base.render(scope)
        if isinstance(self.key, Literal) and isinstance(self.key.value, int):
            position = self.key.value
            return f"arrayElement({base}, {position + 1 if position >= 0 else position})"
        if isinstance(self.key, Literal) and isinstance(self.key.value, str):
            if isinstance(self.base, Column) and scope.type_of(self.base.name).startswith("Tuple("):
                return Field(self.base, self.key.value).render(scope)
            return f"{base}[{self.key.render(scope)}]"
        return f"arrayElement({base}, {self.key.render(scope)} + 1)"


@dataclass(frozen=True, eq=False)
class Length(Expr):
    """Length in elements, or in code points."""

    base: Expr

    def render(self, scope: Scope) -> str:
        ch_type = scope.type_of(self.base.name) if isinstance(self.base, Column) else ""
        function = "lengthUTF8" if "String" in ch_type and not ch_type.startswith(("Array", "Map")) else "length"
        return f"{function}({self.base.render(scope)})"


@dataclass(frozen=True, eq=False)
class Cast(Expr):
    """A conversion to a ClickHouse type."""

    base: Expr
    ch_type: str

    def render(self, scope: Scope) -> str:
        return f"CAST({self.base.render(scope)}, {literal(self.ch_type)})"


@dataclass(frozen=True, eq=False)
class Window(Expr):
    """A function over a window of rows."""

    base: Expr
    partition_by: tuple[Expr, ...]
    order_by: tuple[Ordering, ...]

    def render(self, scope: Scope) -> str:
        partition = f"PARTITION BY {', '.join(e.render(scope) for e in self.partition_by)}" if self.partition_by else ""
        keys = (*self.order_by, *self._tie_breakers(scope))
        order = f"ORDER BY {', '.join(render_ordering(o, scope) for o in keys)}" if keys else ""
        return f"{self.base.render(scope)} OVER ({f'{partition} {order}'.strip()})"

    def _tie_breakers(self, scope: Scope) -> list[Ordering]:
        """Row order behind the order of the window, for functions that tell equal rows apart."""
        name = self.base.name if isinstance(self.base, Call) else ""
        if name in _NUMBERING or (name in _CHOOSING and self.order_by):
            return [Ordering(e) for e in scope.places()]
        return []


_NUMBERING = frozenset(["row_number", "ntile", "lag", "lead", "lagInFrame", "leadInFrame"])
_CHOOSING = frozenset(["first_value", "last_value", "nth_value", "any", "anyLast"])
"""Functions over windows whose value hangs on the order of rows; ranks and sums take equal rows together."""


@dataclass(frozen=True, eq=False)
class InQuery(Expr):
    """Whether a value, or a tuple of values, is among the rows of a query."""

    base: Expr
    plan: Any
    negated: bool = False

    def render(self, scope: Scope) -> str:
        return f"({self.base.render(scope)} {'NOT IN' if self.negated else 'IN'} ({scope.subquery(self.plan)}))"


def lift(value: Any) -> Expr:
    """A Python value as an expression; expressions pass through."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, Ordering):
        raise QueryError("asc() and desc() are only for order_by.")
    return Literal(value)


def column_of(value: Any) -> Expr:
    """Where a text stands for a column: the column of that name; anything else as `lift` has it."""
    return Column(value) if isinstance(value, str) else lift(value)


def column_name(column: str | Expr) -> str:
    """The name of the column that a text or an expression names.

    Raises:
        QueryError: the expression has no name of its own.
    """
    if isinstance(column, str):
        return column
    if isinstance(column, Column | Field):
        return column.name
    raise QueryError("An expression needs a name here.", "Write name=expression.")


def ordering(key: Any) -> Ordering:
    """A key of `order_by`: an expression, `expr.desc()`, a column name, or a column name with a minus in front."""
    if isinstance(key, Ordering):
        return key
    if isinstance(key, str):
        return Ordering(Column(key.removeprefix("-")), key.startswith("-"))
    return Ordering(lift(key))


def render_ordering(key: Ordering, scope: Scope) -> str:
    """SQL of one key of ORDER BY; nulls come last."""
    return f"{key.expr.render(scope)} {'DESC' if key.descending else 'ASC'} NULLS LAST"


def _is_path(expr: Expr) -> bool:
    return isinstance(expr, Column) or (isinstance(expr, Field) and _is_path(expr.base))


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else (value,)


def _exprs_of(value: Any) -> tuple[Expr, ...]:
    return tuple(column_of(v) for v in _listed(value))


def _exprs(value: Any) -> Iterator[Expr]:
    if isinstance(value, Expr):
        yield value
    elif isinstance(value, Ordering):
        yield value.expr
    elif isinstance(value, tuple):
        for v in value:
            yield from _exprs(v)


def _map_exprs(value: Any, change: Callable[[Expr], Expr]) -> Any:
    if isinstance(value, Expr):
        return change(value)
    if isinstance(value, Ordering):
        expr = change(value.expr)
        return value if expr is value.expr else Ordering(expr, value.descending)
    if isinstance(value, tuple):
        changed = tuple(_map_exprs(v, change) for v in value)
        return value if all(a is b for a, b in zip(changed, value, strict=True)) else changed
    return value
