"""Recipes: a query as plain data, from which the same query can be made again.

What is recorded beside the SQL of a version: the tree of the query with its values, tables by the UUIDs of the
versions, sources by URI and the fingerprints of their shards, signals by the name under which they can be imported and
by fingerprint. Nothing in a recipe is code: reading one makes expressions, and looks up what it names.
"""

from __future__ import annotations

import base64
import datetime as dt
import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from factory_lib.build.computing import SignalRows
from factory_lib.build.pending import DerivedRows, Origin, ShardRows
from factory_lib.errors import FactoryError, QueryError, SourceError
from factory_lib.plan.aggregates import is_open
from factory_lib.plan.expressions import CosineDistance, SqlText, is_deterministic
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
    Scalar,
    Window,
)
from factory_lib.plan.sql import Block, JoinSource, PendingSource, TableSource, UnionSource
from factory_lib.redaction import redact
from factory_lib.warehouse.names import is_version_name

FORMAT = 1
Data = dict[str, Any]

_EXPRESSIONS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (Call, Cast, Column, CosineDistance, Field, Infix, InQuery, Item, Length, Literal, Ordering, Scalar)
} | {"SqlText": SqlText, "Window": Window}


class NotReproducible(FactoryError):
    """A version, or shards of it, cannot be made again; the message says why."""


@dataclass(frozen=True)
class Prepared:
    """A query that was made from a recipe.

    Attributes:
        block: the query.
        unpinned: what is not as it was when the recipe was written, though the query can be run.
        changed: shard -> why its rows cannot be read as they were.
    """

    block: Block
    unpinned: Sequence[str] = ()
    changed: Mapping[str, str] = field(default_factory=dict)


def recipe_of(block: Block, uuids: Mapping[str, str]) -> Data:
    """The recipe of a query.

    Args:
        uuids: name of a version -> UUID of its table, for all that the query reads.
    """
    writer = _Writer(uuids)
    root = writer.block(block)
    return {"format": FORMAT, "blocks": writer.blocks, "root": root}


class _Writer:
    """Writes queries; one that is used several times is written once."""

    def __init__(self, uuids: Mapping[str, str]) -> None:
        self.uuids = uuids
        self.blocks: list[Data] = []
        self._known: dict[int, int] = {}
        self._kept: list[Block] = []

    def block(self, block: Block) -> int:
        """The number of a query in the list."""
        if id(block) not in self._known:
            written = {
                "source": self.source(block.source),
                "columns": {name: self.expression(e) for name, e in block.columns.items()},
                "where": [self.expression(e) for e in block.where],
                "group_by": None if block.group_by is None else [self.expression(e) for e in block.group_by],
                "order_by": [self.expression(e) for e in block.order_by],
                "limit": block.limit,
                "offset": block.offset,
                "limit_by": [self.expression(e) for e in block.limit_by],
                "distinct": block.distinct,
                "windowed": block.windowed,
            }
            always = {"source", "columns"} | {n for n in ("group_by", "limit") if written[n] is not None}
            self.blocks.append({name: part for name, part in written.items() if name in always or part})
            self._known[id(block)] = len(self.blocks) - 1
            self._kept.append(block)  # its id has to stay its own
        return self._known[id(block)]

    def source(self, source: Any) -> Data:
        match source:
            case TableSource(name, columns, shards, unit):
                return {
                    "table": name,
                    "uuid": self.uuids.get(name, ""),
                    "columns": dict(columns),
                    "shards": None if shards is None else list(shards),
                    "unit": sorted(unit),
                }
            case JoinSource(left, right, how, on, columns):
                return {
                    "join": [self.block(left), self.block(right)],
                    "how": how,
                    "on": [list(pair) for pair in on],
                    "columns": {name: list(place) for name, place in columns.items()},
                }
            case UnionSource(blocks):
                return {"union": [self.block(b) for b in blocks]}
            case PendingSource(origin, columns, unit):
                return {"pending": self.origin(origin), "columns": dict(columns), "unit": sorted(unit)}
        return {"block": self.block(source)}

    def origin(self, origin: Origin) -> Data:
        if isinstance(origin, SignalRows):
            from factory_lib.signals.naming import reference_of

            signals = [{**reference_of(s), "fingerprint": s.fingerprint} for s in origin.signals]
            return {"signals": signals, "block": self.block(origin.block), "on_error": origin.on_error}
        if isinstance(origin, ShardRows):
            from factory_lib.sources.detect import opened_with

            return {
                "source": origin.source.uri,
                "format": origin.source.format,
                "options": opened_with(origin.source),
                "shards": {shard.name: shard.fingerprint for shard in origin.shards},
            }
        if isinstance(origin, DerivedRows):
            kind = type(origin)
            place = f"{kind.__module__}:{kind.__qualname__}"
            return {"derived": place, "options": origin.options, "block": self.block(origin.block)}
        return {"memory": str(origin)}

    def expression(self, e: Any) -> Any:
        """An expression, or what one is made of."""
        if isinstance(e, Literal):
            return {"is": "Literal", "value": _written(e.value)}
        if isinstance(e, Expr | Ordering):
            parts = {f.name: self.expression(getattr(e, f.name)) for f in fields(e)}
            return {"is": type(e).__name__, **parts}
        if isinstance(e, Block):
            return {"query": self.block(e)}
        return [self.expression(one) for one in e] if isinstance(e, tuple) else e


class RecipeReader:
    """Makes queries from recipes.

    Args:
        names: UUID of a table -> name of the version that it is now; what was dropped is not in it.
    """

    def __init__(self, recipe: Mapping[str, Any], names: Mapping[str, str]) -> None:
        if recipe.get("format") != FORMAT:
            raise NotReproducible(
                f"Its recipe is of format {recipe.get('format')!r}, this release of the factory reads {FORMAT}."
            )
        self._names = names
        self._written: list[Data] = recipe["blocks"]
        self._root = int(recipe["root"])
        self._is_redacted = bool(recipe.get("redacted"))
        self._blocks: dict[int, Block] = {}
        self._unpinned: list[str] = []
        self._changed: dict[str, str] = {}

    def read(self) -> Prepared:
        """The query.

        Raises:
            NotReproducible: what it reads is not there any more, or never could be read again.
        """
        if self._is_redacted:
            self._unpinned.append("credentials were cut out of its query")
        block = self.block(self._root)
        return Prepared(block, tuple(dict.fromkeys(self._unpinned)), self._changed)

    def block(self, number: int) -> Block:
        """A query by its number."""
        if number not in self._blocks:
            data = self._written[number]
            parts = {n: self.expression(data.get(n, [])) for n in ("where", "order_by", "limit_by")}
            group_by = data.get("group_by")
            self._blocks[number] = Block(
                source=self.source(data["source"]),
                columns={name: self.expression(e) for name, e in data["columns"].items()},
                group_by=None if group_by is None else self.expression(group_by),
                limit=data.get("limit"),
                offset=data.get("offset", 0),
                distinct=data.get("distinct", False),
                windowed=data.get("windowed", False),
                **parts,
            )
        return self._blocks[number]

    def source(self, data: Data) -> Any:
        if "table" in data:
            return self._table(data)
        if "join" in data:
            left, right = data["join"]
            columns = {name: (side, column) for name, (side, column) in data["columns"].items()}
            on = tuple((a, b) for a, b in data["on"])
            return JoinSource(self.block(left), self.block(right), data["how"], on, columns)
        if "union" in data:
            return UnionSource(tuple(self.block(b) for b in data["union"]))
        if "pending" in data:
            return PendingSource(
                self.origin(data["pending"], data["columns"]), data["columns"], frozenset(data["unit"])
            )
        return self.block(data["block"])

    def _table(self, data: Data) -> TableSource:
        name = data["table"]
        if not is_version_name(name):
            raise NotReproducible(f"It was made of the table {name}, which is no version.")
        if data["uuid"] not in self._names:
            raise NotReproducible(f"It was made of {name}, which was dropped.")
        shards = None if data["shards"] is None else tuple(data["shards"])
        return TableSource(self._names[data["uuid"]], data["columns"], shards, frozenset(data["unit"]))

    def origin(self, data: Data, columns: Mapping[str, str]) -> Origin:
        """What writes the rows that a recipe tells of.

        Raises:
            NotReproducible: nothing can.
        """
        if "signals" in data:
            signals = [self._signal(reference) for reference in data["signals"]]
            return SignalRows(self.block(data["block"]), signals, data["on_error"])
        if "source" in data:
            return self._source(data, columns)
        if "derived" in data:
            return _derived(data["derived"])(self.block(data["block"]), data["options"])
        raise NotReproducible(f"Its rows came from memory ({data['memory']}).")

    def _signal(self, reference: Data) -> Any:
        from factory_lib.errors import SignalError
        from factory_lib.signals.naming import signal_of

        try:
            found = signal_of(reference)
        except SignalError as error:
            raise NotReproducible(error.message) from None
        if found.fingerprint != reference["fingerprint"]:
            self._unpinned.append(
                f"signal {found.name} has the fingerprint {found.fingerprint[:16]} now, it had"
                f" {reference['fingerprint'][:16]}: its values are computed by the code of now"
            )
        return found

    def _source(self, data: Data, columns: Mapping[str, str]) -> ShardRows:
        from factory_lib.sources.detect import open_source

        uri, recorded = data["source"], data["shards"]
        if data["options"] is None:
            raise NotReproducible(f"The source {uri} was not opened by its URI, and cannot be opened again.")
        try:
            source = open_source(uri, **data["options"])
            there = {shard.name: shard.fingerprint for shard in source.shards()}
        except FactoryError as error:
            raise NotReproducible(f"The source {uri} cannot be read any more: {error.message}") from None
        for name, fingerprint in recorded.items():
            if name not in there:
                self._changed[name] = f"source changed: {redact(uri)} has no shard {name!r} any more"
            elif there[name] != fingerprint:
                self._changed[name] = f"source changed: the files of shard {name!r} are not those that were read"
        try:
            rows = ShardRows(source, [name for name in recorded if name not in self._changed])
        except (QueryError, SourceError) as error:
            raise NotReproducible(error.message) from None
        if dict(rows.columns) != dict(columns):
            raise NotReproducible(f"source changed: {uri} has other columns now, as its first tars or tables say.")
        return rows

    def expression(self, data: Any) -> Any:
        """An expression, or what one is made of."""
        if isinstance(data, list):
            return tuple(self.expression(one) for one in data)
        if not isinstance(data, dict):
            return data
        if "query" in data:
            return self.block(data["query"])
        kind = _EXPRESSIONS.get(data["is"])
        if kind is None:
            raise NotReproducible(f"Its recipe holds {data['is']!r}, which this release of the factory does not know.")
        if kind is Literal:
            return Literal(_read(data["value"]))
        made = kind(**{name: self.expression(part) for name, part in data.items() if name != "is"})
        if isinstance(made, Call | SqlText) and not is_deterministic(made):
            what = f"{made.name}()" if isinstance(made, Call) else made.text
            self._unpinned.append(f"{what} gives other values each time")
        elif isinstance(made, SqlText) and is_open(made):
            self._unpinned.append(f"{made.text} leaves open which of equal rows comes first")
        return made


def _derived(place: str) -> type[DerivedRows]:
    """The kind of rows that a recipe names; of this package alone."""
    module, _, name = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), name) if module.startswith("factory_lib.") else None
    except (ImportError, AttributeError):
        found = None
    if not (isinstance(found, type) and issubclass(found, DerivedRows)):
        raise NotReproducible(f"Its recipe names {place!r}, which this release of the factory does not know.")
    return found


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
    raise NotReproducible(f"Its recipe holds a value of a kind that is not known: {sorted(value)}.")
