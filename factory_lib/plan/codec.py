"""A plan as JSON, and back: written from the fields of the nodes, each node once.

What a plan holds that is no data (signals, sources, Arrow readers) is written by whoever knows these things, as a
description; `build.recipes` makes live objects of it again, `plan.recorded` what is enough to look at a plan.
"""

from __future__ import annotations

import base64
import datetime as dt
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, Protocol

import numpy as np

from factory_lib.errors import FactoryError
from factory_lib.plan.expressions import CosineDistance, SqlText
from factory_lib.plan.nodes import Join, Plan, Rows, Table, Union
from factory_lib.plan.operators import (
    Call,
    Cast,
    Column,
    Expr,
    Infix,
    InQuery,
    Item,
    Length,
    Literal,
    Ordering,
    Window,
)
from factory_lib.plan.operators import Field as TupleField
from factory_lib.plan.select import Select

FORMAT = 2
Data = dict[str, Any]

_EXPRESSIONS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        Call, Cast, Column, CosineDistance, TupleField, Infix, InQuery, Item, Length, Literal, Ordering,
        SqlText, Window,
    )
}  # fmt: skip
_PLANS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Join, Select, Union)}


class UnknownRecipe(FactoryError):
    """A recipe holds what this release does not know."""


class Opened(Protocol):
    """Makes what is no data of its description."""

    def table(self, data: Data) -> Table:
        """A table of the warehouse."""

    def rows(self, data: Data, query: Select | None) -> Rows:
        """Other rows, with the query that they are made over."""

    def expression(self, made: Expr) -> None:
        """Called with each expression."""


def encode(plan: Select, describe: Callable[[Rows], Data], uuids: Mapping[str, str]) -> Data:
    """A plan as JSON.

    Args:
        describe: says of rows that are in no table what they are, as JSON.
        uuids: name of a version -> UUID of its table, for all that the plan reads.
    """
    writer = _Writer(describe, uuids)
    root = writer.number(plan)
    return {"format": FORMAT, "nodes": writer.nodes, "root": root}


class _Writer:
    def __init__(self, describe: Callable[[Rows], Data], uuids: Mapping[str, str]) -> None:
        self.describe, self.uuids = describe, uuids
        self.nodes: list[Data] = []
        self._numbers: dict[Plan, int] = {}

    def number(self, plan: Plan) -> int:
        """The number of a node, which is written behind those that it is made of."""
        if plan not in self._numbers:
            written = self.node(plan)
            self.nodes.append(written)
            self._numbers[plan] = len(self.nodes) - 1
        return self._numbers[plan]

    def node(self, plan: Plan) -> Data:
        if isinstance(plan, Table):
            return {**self.fields(plan), "uuid": self.uuids.get(plan.name, "")}
        if isinstance(plan, Rows):
            return {**self.fields(plan, ("columns", "unit", "input")), **self.describe(plan)}
        return self.fields(plan)

    def fields(self, one: Any, names: Collection[str] | None = None) -> Data:
        """The fields of a node or an expression that are not as they would be unsaid."""
        parts = {f.name: getattr(one, f.name) for f in fields(one) if names is None or f.name in names}
        said = {f.name: parts[f.name] for f in fields(one) if f.name in parts and not _is_default(f, parts[f.name])}
        return {"is": type(one).__name__, **{name: self.part(part) for name, part in said.items()}}

    def part(self, value: Any) -> Any:
        match value:
            case Plan():
                return {"node": self.number(value)}
            case Literal():
                return {"is": "Literal", "value": _written(value.value)}
            case Expr() | Ordering():
                return self.fields(value)
            case tuple():
                return [self.part(one) for one in value]
            case frozenset():
                return sorted(value)
            case Mapping():
                return {"map": [[name, self.part(one)] for name, one in value.items()]}
        return value


def _is_default(f: Field[Any], value: Any) -> bool:
    return f.default is not MISSING and type(value) is type(f.default) and value == f.default


def decode(data: Mapping[str, Any], opened: Opened) -> Select:
    """The plan that JSON describes.

    Raises:
        UnknownRecipe: it holds what this release does not know.
    """
    if data.get("format") != FORMAT:
        raise UnknownRecipe(
            f"Its recipe is of format {data.get('format')!r}, this release of the factory reads {FORMAT}."
        )
    plan = _Reader(data["nodes"], opened).node(int(data["root"]))
    assert isinstance(plan, Select)
    return plan


class _Reader:
    def __init__(self, nodes: list[Data], opened: Opened) -> None:
        self.written, self.opened = nodes, opened
        self.plans: dict[int, Plan] = {}

    def node(self, number: int) -> Plan:
        if number not in self.plans:
            self.plans[number] = self._node(self.written[number])
        return self.plans[number]

    def _node(self, data: Data) -> Plan:
        if data["is"] in _PLANS:
            made: Plan = _PLANS[data["is"]](**self.fields(data))
            return made
        plain = {**data, **self.fields({name: data[name] for name in ("columns", "unit") if name in data})}
        if data["is"] == "Table":
            return self.opened.table(plain)
        below = self.node(data["input"]["node"]) if "input" in data else None
        assert below is None or isinstance(below, Select)
        return self.opened.rows(plain, below)

    def fields(self, data: Data) -> Data:
        return {name: self.part(part) for name, part in data.items() if name != "is"}

    def part(self, data: Any) -> Any:
        if isinstance(data, list):
            return tuple(self.part(one) for one in data)
        if not isinstance(data, dict):
            return data
        if "node" in data:
            return self.node(data["node"])
        if "map" in data:
            return {name: self.part(one) for name, one in data["map"]}
        return self._expression(data)

    def _expression(self, data: Data) -> Any:
        kind = _EXPRESSIONS.get(data.get("is", ""))
        if kind is None:
            raise UnknownRecipe(
                f"Its recipe holds {data.get('is')!r}, which this release of the factory does not know."
            )
        if kind is Literal:
            return Literal(_read(data["value"]))
        made = kind(**self.fields(data))
        if isinstance(made, Expr):
            self.opened.expression(made)
        return made


def _written(value: Any) -> Any:
    """A value of a query as what JSON has; other kinds as an object that names them."""
    match value:
        case np.ndarray():
            native = value.astype(value.dtype.newbyteorder("="))
            return {"array": value.dtype.name, "base64": base64.b64encode(native.tobytes()).decode()}
        case np.generic():
            return {"scalar": value.dtype.name, "value": _written(value.item())}
        case float() if not math.isfinite(value):
            return {"float": repr(value)}
        case bytes():
            return {"bytes": value.hex()}
        case dt.datetime():
            return {"datetime": value.isoformat()}
        case dt.date():
            return {"date": value.isoformat()}
        case list() | tuple():
            return [_written(one) for one in value]
    return value


def _read(value: Any) -> Any:
    """The value that `_written` wrote."""
    if isinstance(value, list):
        return [_read(one) for one in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"array": dtype, "base64": text}:
            return np.frombuffer(base64.b64decode(text), np.dtype(dtype))
        case {"scalar": dtype, "value": inner}:
            return np.dtype(dtype).type(_read(inner))
        case {"float": text}:
            return float(text)
        case {"bytes": text}:
            return bytes.fromhex(text)
        case {"datetime": text}:
            return dt.datetime.fromisoformat(text)
        case {"date": text}:
            return dt.date.fromisoformat(text)
    raise UnknownRecipe(f"Its recipe holds a value of a kind that is not known: {sorted(value)}.")
