"""In what two queries differ: which condition, constant, column, order, limit, input or join, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from factory_lib.names import is_version_name
from factory_lib.plan.nodes import Arrow, Columns, Derived, Join, NewSamples, Plan, Signals, Storage, Table, Union, walk
from factory_lib.plan.operators import Expr, Literal, Ordering
from factory_lib.plan.python import LONG, Printer, python_of
from factory_lib.plan.select import Select, said_order

_EXACT = Printer(long=None, lookups=False)
_SHAPE = Printer(constants=False, lookups=False)


@dataclass(frozen=True)
class Change:
    """One thing in which two queries differ.

    Attributes:
        text: what it is.
        before, after: how it was written in each of them; empty where one has no such thing.
    """

    text: str
    before: str
    after: str


def changes(before: Select, after: Select) -> list[Change]:
    """In what two queries differ, over whatever versions and shards they were run on."""
    parts = list(_parts(before)), list(_parts(after))
    counts = [Counter(part.exact for part in side) for side in parts]
    gone, come = (_more(side, other) for side, other in ((parts[0], counts[1]), (parts[1], counts[0])))
    found = [change for what in dict.fromkeys(p.what for p in [*gone, *come]) for change in _of(what, gone, come)]
    told = {part.what for part in [*gone, *come]}
    names = before.names, after.names
    found += [Change(f"column {n} is gone", n, "") for n in names[0] if n not in names[1] and f"column {n}" not in told]
    found += [Change(f"column {n} is new", "", n) for n in names[1] if n not in names[0] and f"column {n}" not in told]
    return found


@dataclass(frozen=True, eq=False)
class _Part:
    """Something that a query says: what it is, and an expression or a text."""

    what: str
    value: Any

    @property
    def exact(self) -> tuple[str, str]:
        return self.what, self.value if isinstance(self.value, str) else _EXACT.text(self.value)

    @property
    def text(self) -> str:
        return self.value if isinstance(self.value, str) else python_of(self.value)

    @property
    def shape(self) -> str:
        return self.value if isinstance(self.value, str) else _SHAPE.text(self.value)


def _parts(query: Select) -> Iterator[_Part]:
    for plan in walk(query):
        yield from _own_parts(plan)


def _own_parts(plan: Plan) -> Iterator[_Part]:
    match plan:
        case Select():
            yield from _select_parts(plan)
        case Table():
            yield _Part("what is read", plan.name.partition(".")[0] if is_version_name(plan.name) else plan.name)
        case Storage() | Arrow() | Columns():
            yield _Part("what is read", plan.label)
        case Join():
            yield _Part("the join", f"{plan.how}, on {', '.join(a if a == b else f'{a} = {b}' for a, b in plan.on)}")
        case Union():
            yield _Part("the union", f"of {len(plan.queries)} queries")
        case Signals():
            yield from (_Part(f"signal {signal.name}", "computed") for signal in plan.signals)
        case NewSamples():
            yield _Part("the operation", str(plan.augmentation))
        case Derived():
            code = plan.function.remembered_by
            yield _Part(f"{plan.function.verb}()", f"called, code {code()[:16]}" if code else "called")
            for name, value in plan.options.items():
                yield _Part(f"{plan.function.verb}({name}=…)", Literal(value))


def _select_parts(query: Select) -> Iterator[_Part]:
    yield from (_Part("the condition", e) for e in query.where)
    for name, e in query.columns.items():
        if query.passed(name) != name:
            yield _Part(f"column {name}", e)
    yield from (_Part("the grouping", e) for e in query.group_by or ())
    if query.group_by is None:
        yield from (_Part("the order", key) for key in said_order(query))
    yield from (_Part("what is distinct", e) for e in query.limit_by)
    if query.distinct:
        yield _Part("what is distinct", "whole rows")
    if query.limit is not None:
        yield _Part("the limit", Literal(query.limit))
    if query.offset:
        yield _Part("the offset", Literal(query.offset))


def _more(parts: Sequence[_Part], others: Counter[tuple[str, str]]) -> list[_Part]:
    """Those parts that the other query does not have, or not as often."""
    left, found = Counter(others), []
    for part in parts:
        if left[part.exact]:
            left[part.exact] -= 1
        else:
            found.append(part)
    return found


def _of(what: str, gone: Sequence[_Part], come: Sequence[_Part]) -> Iterator[Change]:
    """The changes of one kind: parts that are built alike are taken for the same."""
    old, new = ([part for part in side if part.what == what] for side in (gone, come))
    for part in [one for one in old if any(one.shape == other.shape for other in new)]:
        other = next((one for one in new if one.shape == part.shape), None)
        if other is not None:
            old.remove(part)
            new.remove(other)
            yield _changed(part, other)
    for part, other in zip(old, new, strict=False):
        yield Change(f"{what} differs", part.text, other.text)
    yield from (Change(f"{what} is gone", part.text, "") for part in old[len(new) :])
    yield from (Change(f"{what} is new", "", part.text) for part in new[len(old) :])


def _changed(before: _Part, after: _Part) -> Change:
    """What differs between two parts that are built alike: their constants."""
    pairs = zip(_constants(before.value), _constants(after.value), strict=True)
    different = [(a, b) for a, b in pairs if _EXACT.text(a) != _EXACT.text(b)]
    if len(different) == 1 and (said := _difference(*different[0])):
        return Change(f"{before.what} {before.text} differs in {said[0]}", said[1], said[2])
    constants = "a constant" if len(different) == 1 else f"{len(different)} constants"
    if before.text != after.text:
        return Change(f"{before.what} differs in {constants}", before.text, after.text)
    shown = (", ".join(python_of(pair[side]) for pair in different[:LONG]) for side in (0, 1))
    return Change(f"{before.what} {before.text} differs in {constants}", *shown)


def _constants(value: Any) -> list[Any]:
    expr = value.expr if isinstance(value, Ordering) else value
    return [e.value for e in expr.walk() if isinstance(e, Literal)] if isinstance(expr, Expr) else []


def _difference(before: Any, after: Any) -> tuple[str, str, str] | None:
    """What differs between two long lists or vectors: in words, and the first of each; None where they are short."""
    one, other = (list(v) if isinstance(v, list | tuple | np.ndarray) else [] for v in (before, after))
    if max(len(one), len(other)) <= LONG:
        return None
    kind = "vector" if isinstance(after, np.ndarray) else "list"
    if len(one) != len(other):
        return f"the length of a {kind}", f"{len(one)} values", f"{len(other)} values"
    places = [i for i, (a, b) in enumerate(zip(one, other, strict=True)) if _EXACT.text(a) != _EXACT.text(b)]
    where = f"{len(places)} of the {len(one)} values of a {kind}, first in place {places[0] + 1}"
    return where, _EXACT.text(one[places[0]]), _EXACT.text(other[places[0]])
