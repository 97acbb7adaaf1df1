"""Recipes: queries as JSON that can be run again, on the versions and the sources that they were run on.

A recipe holds the plan (see `plan.codec`), with the UUIDs of the tables that it read, what signals were computed by,
and the state of the files that were read. What cannot be had again as it was is said.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from factory_lib.build.storage_rows import storage_rows
from factory_lib.errors import FactoryError, QueryError, SourceError
from factory_lib.names import is_version_name
from factory_lib.plan.aggregates import is_open
from factory_lib.plan.codec import Data, UnknownRecipe, decode, encode
from factory_lib.plan.expressions import SqlText, is_deterministic
from factory_lib.plan.nodes import Arrow, Columns, Derived, NewSamples, RowFunction, Rows, Signals, Storage, Table
from factory_lib.plan.operators import Call, Expr
from factory_lib.plan.recorded import table_of
from factory_lib.plan.select import Select
from factory_lib.redaction import redact


class NotReproducible(FactoryError):
    """A version, or shards of it, cannot be made again; the message says why."""


@dataclass(frozen=True)
class Prepared:
    """A query that was made from a recipe.

    Attributes:
        query: the query.
        unpinned: what is not as it was when the recipe was written, though the query can be run.
        changed: shard -> why its rows cannot be read as they were.
    """

    query: Select
    unpinned: Sequence[str] = ()
    changed: Mapping[str, str] = field(default_factory=dict)


def recipe_of(query: Select, uuids: Mapping[str, str]) -> Data:
    """The recipe of a query.

    Args:
        uuids: name of a version -> UUID of its table, for all that the query reads.
    """
    return encode(query, _description, uuids)


def _description(node: Rows) -> Data:
    """What is no data in rows that are in no table, as JSON."""
    match node:
        case Storage():
            from factory_lib.sources.detect import opened_with

            return {
                "uri": node.source.uri,
                "source_format": node.source.format,
                "options": opened_with(node.source),
                "shards": {shard.name: shard.fingerprint for shard in node.shards},
                "whole": node.whole,
            }
        case Signals():
            from factory_lib.signals.naming import reference_of

            signals = [{**reference_of(s), "fingerprint": s.fingerprint} for s in node.signals]
            return {"signals": signals, "on_error": node.on_error}
        case Columns():
            return {"label": node.label, "on": list(node.on), "types": {"map": [list(t) for t in node.types.items()]}}
        case NewSamples():
            from factory_lib.augmentation.naming import reference_of as named_operations

            made = {"augmentation": named_operations(node.augmentation), "text": str(node.augmentation)}
            return {**made, "fingerprint": node.signal.fingerprint, "into": node.into, "suffix": node.suffix}
        case Derived():
            named = {"function": node.function.place, "verb": node.function.verb}
            code = {"code": node.function.remembered_by()} if node.function.remembered_by else {}
            return {**named, "options": dict(node.options), **code}
    assert isinstance(node, Arrow)
    return {"label": node.label, **({} if node.shard is None else {"shard": node.shard})}


def prepared(recipe: Mapping[str, Any], names: Mapping[str, str]) -> Prepared:
    """The query of a recipe.

    Args:
        names: UUID of a table -> name of the version that it is now; what was dropped is not in it.

    Raises:
        NotReproducible: what it reads is not there any more, or never could be read again.
    """
    opened = _Opened(names)
    if recipe.get("redacted"):
        opened.unpinned["credentials were cut out of its query"] = None
    try:
        query = decode(recipe, opened)
    except UnknownRecipe as error:
        raise NotReproducible(error.message) from None
    return Prepared(query, tuple(opened.unpinned), opened.changed)


class _Opened:
    """Finds what recipes name: versions under their names of now, signals, sources."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names
        self.unpinned: dict[str, None] = {}
        self.changed: dict[str, str] = {}

    def table(self, data: Data) -> Table:
        """A version under the name that it has now."""
        name = data["name"]
        if not is_version_name(name):
            raise NotReproducible(f"It was made of the table {name}, which is no version.")
        if data["uuid"] not in self.names:
            raise NotReproducible(f"It was made of {name}, which was dropped.")
        return table_of(data, self.names[data["uuid"]])

    def rows(self, data: Data, query: Select | None) -> Rows:
        """Rows that are in no table.

        Raises:
            NotReproducible: nothing can write them.
        """
        common = {"columns": data["columns"], "unit": frozenset(data.get("unit", ()))}
        if data["is"] == "Signals" and query is not None:
            signals = tuple(self._signal(reference) for reference in data["signals"])
            return Signals(query, signals, data["on_error"], **common)
        if data["is"] == "NewSamples" and query is not None:
            augmentation = self._augmentation(data["augmentation"], query)
            made = NewSamples(query, augmentation, data["into"], data["suffix"], **common)
            self._compare(f"the operation {augmentation}", made.signal.fingerprint, data["fingerprint"])
            return made
        if data["is"] == "Derived" and query is not None:
            return Derived(query, _row_function(data["function"]), data["options"], **common)
        if data["is"] == "Storage":
            return self._storage(data)
        raise NotReproducible(f"Its rows came from memory ({data['label']}).")

    def expression(self, made: Expr) -> None:
        """Note what gives other values each time."""
        if isinstance(made, Call | SqlText) and not is_deterministic(made):
            what = f"{made.name}()" if isinstance(made, Call) else made.text
            self.unpinned[f"{what} gives other values each time"] = None
        elif isinstance(made, SqlText) and is_open(made):
            self.unpinned[f"{made.text} leaves open which of equal rows comes first"] = None

    def _signal(self, reference: Data) -> Any:
        from factory_lib.errors import SignalError
        from factory_lib.signals.naming import signal_of

        try:
            found = signal_of(reference)
        except SignalError as error:
            raise NotReproducible(error.message) from None
        self._compare(f"signal {found.name}", found.fingerprint, reference["fingerprint"])
        return found

    def _augmentation(self, reference: Data, query: Select) -> Any:
        from factory_lib.augmentation.naming import augmentation_of
        from factory_lib.errors import SignalError

        try:
            return augmentation_of(reference, query.names)
        except SignalError as error:
            raise NotReproducible(error.message) from None

    def _compare(self, what: str, now: str, then: str) -> None:
        """Note code that is another one by now."""
        if now != then:
            self.unpinned[
                f"{what} has the fingerprint {now[:16]} now, it had {then[:16]}: its values are computed by the code of"
                " now"
            ] = None

    def _storage(self, data: Data) -> Storage:
        from factory_lib.sources.detect import open_source

        uri, recorded = data["uri"], data["shards"]
        if data["options"] is None:
            raise NotReproducible(f"The source {uri} was not opened by its URI, and cannot be opened again.")
        try:
            source = open_source(uri, **data["options"])
            there = {shard.name: shard.fingerprint for shard in source.shards()}
        except FactoryError as error:
            raise NotReproducible(f"The source {uri} cannot be read any more: {error.message}") from None
        for name, fingerprint in recorded.items():
            if name not in there:
                self.changed[name] = f"source changed: {redact(uri)} has no shard {name!r} any more"
            elif there[name] != fingerprint:
                self.changed[name] = f"source changed: the files of shard {name!r} are not those that were read"
        try:
            rows = storage_rows(source, [name for name in recorded if name not in self.changed])
        except (QueryError, SourceError) as error:
            raise NotReproducible(error.message) from None
        if dict(rows.columns) != dict(data["columns"]):
            raise NotReproducible(f"source changed: {uri} has other columns now, as its first tars or tables say.")
        return rows


def _row_function(place: str) -> RowFunction:
    """What makes the rows that a recipe names; of this package alone."""
    module, _, name = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), name) if module.startswith("factory_lib.") else None
    except (ImportError, AttributeError):
        found = None
    if not isinstance(found, RowFunction):
        raise NotReproducible(f"Its recipe names {place!r}, which this release of the factory does not know.")
    return found
