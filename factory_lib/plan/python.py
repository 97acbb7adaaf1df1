"""A plan as the Python that makes it: for provenance and for people. Long vectors and lists are shortened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np

from factory_lib.plan.expressions import CosineDistance, SqlText
from factory_lib.plan.nodes import (
    ROW_ID,
    Arrow,
    Columns,
    Derived,
    Join,
    NewSamples,
    Plan,
    Signals,
    Storage,
    Table,
    Union,
)
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
from factory_lib.plan.select import Select, said_order

LONG = 8
"""Longer vectors and lists of values are shortened."""
_OPERATORS = {"=": "==", "AND": "&", "OR": "|"}


def python_of(value: Any) -> str:
    """A plan, an expression or a value as Python text."""
    return Printer().text(value)


@dataclass(frozen=True)
class Printer:
    """Prints plans.

    Attributes:
        long: vectors and lists with more values are shortened; None: none is.
        constants: print constants; otherwise all look alike.
        lookups: print queries that expressions look up; otherwise all look alike.
    """

    long: int | None = LONG
    constants: bool = True
    lookups: bool = True

    def text(self, value: Any) -> str:
        """A plan, an expression or a value as Python text."""
        match value:
            case Plan():
                return "".join(self._calls(value))
            case Ordering(expr, descending):
                return self.text(expr) + (".desc()" if descending else "")
            case Expr():
                return self._expression(value)
        return self._value(value)

    def _value(self, value: Any) -> str:
        if not self.constants:
            return "…"
        is_long = self.long is not None and isinstance(value, list | tuple | np.ndarray) and len(value) > self.long
        match value:
            case np.ndarray():
                return f"<vector of {len(value)}>" if is_long and value.ndim == 1 else repr(value.tolist())
            case list() | tuple():
                return f"<{len(value)} values>" if is_long else f"[{', '.join(map(self.text, value))}]"
            case np.generic():
                return repr(value.item())
        return repr(value)

    def _calls(self, plan: Plan) -> Iterator[str]:
        """A chain of calls that makes a plan."""
        match plan:
            case Table(name, shards):
                yield _call("DatasetQuery", repr(name), *self._named(shards=shards))
            case Storage():
                shards = None if plan.whole else tuple(shard.name for shard in plan.shards)
                yield _call("DatasetQuery.from_source", repr(plan.uri), *self._named(shards=shards))
            case Arrow():
                yield _call("DatasetQuery.from_arrow", "…", *self._named(shard=plan.shard))
            case Signals():
                yield from self._calls(plan.input)
                on_error = None if plan.on_error == "null" else plan.on_error
                yield "." + _call(
                    "add_signals", *(signal.name for signal in plan.signals), *self._named(on_error=on_error)
                )
            case Columns():
                yield from self._calls(plan.input)
                yield "." + _call("add_columns", "…", *self._named(on=_one_or_all(plan.on)))
            case Derived():
                yield _call(plan.function.verb, self.text(plan.input), *self._named(**plan.options))
            case NewSamples():
                made = (str(plan.augmentation), *self._named(into=plan.into, suffix=plan.suffix))
                yield _call("make_samples", self.text(plan.input), *made)
            case Join():
                yield from self._calls(plan.left)
                on = _one_or_all([a for a, _ in plan.on]) if all(a == b for a, b in plan.on) else dict(plan.on)
                how = None if plan.how == "inner" else plan.how
                yield "." + _call("join", self.text(plan.right), f"on={on!r}", *self._named(how=how))
            case Union():
                first, *others = plan.queries
                yield from self._calls(first)
                yield "." + _call("union", *map(self.text, others))
            case Select():
                yield from self._calls(plan.source)
                yield from self._verbs(plan)

    def _verbs(self, query: Select) -> Iterator[str]:
        """The verbs of one SELECT, in an order in which they make the same one again."""
        if query.where:
            yield "." + _call("filter", *map(self.text, query.where))
        ordered = [self.text(key) for key in said_order(query)]
        if ordered == self._inherited_order(query.source):
            ordered = []
        if query.group_by is None:
            if ordered:
                yield "." + _call("order_by", *ordered)
            yield from self._columns(query)
        else:
            yield from self._groups(query, query.group_by)
            if ordered:
                yield "." + _call("order_by", *ordered)
        if query.distinct or query.limit_by:
            keys = {self.text(e): name for name, e in query.columns.items()}
            yield "." + _call("distinct", *(repr(keys.get(self.text(e), self.text(e))) for e in query.limit_by))
        if query.offset:
            yield f".offset({query.offset})"
        if query.limit is not None:
            yield f".limit({query.limit})"

    def _inherited_order(self, source: Plan) -> list[str]:
        """The order in which a SELECT reads another one, as far as the columns of that can tell it."""
        if not isinstance(source, Select):
            return []
        names = {self.text(e): name for name, e in source.columns.items()}
        keys = takewhile(lambda key: self.text(key.expr) in names, source.order_by)
        outer = [(names[self.text(key.expr)], key.descending) for key in keys]
        return [self.text(Ordering(Column(name), descending)) for name, descending in outer if name not in ROW_ID]

    def _groups(self, query: Select, keys: tuple[Expr, ...]) -> Iterator[str]:
        texts = {self.text(key) for key in keys}
        grouped = {name: e for name, e in query.columns.items() if self.text(e) in texts}
        if keys:
            yield "." + _call("group_by", *self._selected(grouped))
        yield "." + _call(
            "agg", *(f"{name}={self.text(e)}" for name, e in query.columns.items() if name not in grouped)
        )

    def _columns(self, query: Select) -> Iterator[str]:
        """The verbs that make the columns of a SELECT of those of its source."""
        own, names = query.columns, query.source.names
        changed = {name: e for name, e in own.items() if query.passed(name) != name}
        dropped = [name for name in names if name not in own]
        kept = [name for name in names if name in own]
        if [query.passed(name) for name in own] == list(names):
            yield from (["." + _call("rename", *self._selected(changed))] if changed else [])
        elif list(own)[: len(kept)] != kept or len(dropped) > len(own):
            yield "." + _call("select", *self._selected(own))
        else:
            if changed:
                yield "." + _call("mutate", *(f"{_keyword(name)}={self.text(e)}" for name, e in changed.items()))
            if dropped:
                yield "." + _call("drop", *map(repr, dropped))

    def _selected(self, columns: Mapping[str, Expr]) -> list[str]:
        """Columns as arguments where a text is the name of a column: names, `new='old'` and `name=expression`."""
        plain = [repr(name) for name, e in columns.items() if isinstance(e, Column) and e.name == name]
        named = {name: e for name, e in columns.items() if not (isinstance(e, Column) and e.name == name)}
        return [*plain, *(f"{_keyword(name)}={self._argument(e)}" for name, e in named.items())]

    def _argument(self, e: Expr) -> str:
        if isinstance(e, Column):
            return repr(e.name)
        is_text = isinstance(e, Literal) and isinstance(e.value, str)
        return f"lit({self.text(e)})" if is_text else self.text(e)

    def _lookup(self, plan: Plan) -> str:
        return self.text(plan) if self.lookups else "<query>"

    def _named(self, **arguments: Any) -> list[str]:
        return [f"{name}={self.text(value)}" for name, value in arguments.items() if value is not None]

    def _expression(self, e: Expr) -> str:  # noqa: PLR0912 - one line a kind of node
        match e:
            case Column(name):
                return f"C.{name}" if name.isidentifier() else f"C[{name!r}]"
            case Literal(value):
                return self.text(value)
            case Infix(op, left, right):
                return f"({self._expression(left)} {_OPERATORS.get(op, op)} {self._expression(right)})"
            case Call("in", (base, Call("tuple", items))):
                values = [item.value if isinstance(item, Literal) else item for item in items]
                return f"{self._expression(base)}.isin({self._value(values)})"
            case Call(name, args, parameters):
                extra = [f"parameters=[{', '.join(map(self._expression, parameters))}]"] if parameters else []
                return f"fn.{name}({', '.join([*map(self._expression, args), *extra])})"
            case Field(base, name):
                return f"{self._expression(base)}.{name}"
            case Item(base, key):
                return f"{self._expression(base)}[{self._expression(key)}]"
            case Length(base):
                return f"{self._expression(base)}.length()"
            case Cast(base, ch_type):
                return f"{self._expression(base)}.cast({ch_type!r})"
            case Window(base, partition_by, order_by):
                partition, order = (", ".join(map(self.text, part)) for part in (partition_by, order_by))
                return f"{self._expression(base)}.over([{partition}], [{order}])"
            case CosineDistance(left, right):
                return f"cosine_distance({self._expression(left)}, {self._expression(right)})"
            case SqlText(text):
                return f"sql_text({text!r})"
            case InQuery(base, plan, negated):
                return f"{'~' if negated else ''}{self._expression(base)}.isin({self._lookup(plan)})"
        raise AssertionError(f"{type(e).__name__} has no Python text")


def _keyword(name: str) -> str:
    return name if name.isidentifier() else f"**{{{name!r}}}"


def _call(name: str, *arguments: str) -> str:
    return f"{name}({', '.join(arguments)})"


def _one_or_all(names: Any) -> Any:
    names = list(names)
    return names[0] if len(names) == 1 else names
