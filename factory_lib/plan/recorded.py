"""A plan as it was recorded, to be looked at: nothing that it names is opened, found or imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from factory_lib.plan.codec import Data, decode
from factory_lib.plan.nodes import Arrow, Columns, Derived, NewSamples, RowFunction, Rows, Signals, Storage, Table
from factory_lib.plan.operators import Expr
from factory_lib.plan.select import Select


@dataclass(frozen=True)
class RecordedSignal:
    """A signal by what was recorded of it.

    Attributes:
        reference: what it is found again by.
    """

    name: str
    fingerprint: str
    reference: Data = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, str]:
        """Names of its columns; their types are not recorded here."""
        return {self.name: "", f"{self.name}_error": ""}


@dataclass(frozen=True)
class RecordedAugmentation:
    """Operations by what was recorded of them."""

    text: str
    fingerprint: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class RecordedShard:
    """A shard of a source."""

    name: str
    fingerprint: str


@dataclass(frozen=True)
class RecordedSource:
    """A source of samples."""

    uri: str
    format: str


def recorded(recipe: Mapping[str, Any]) -> Select:
    """The plan of a recipe, to be looked at.

    Raises:
        UnknownRecipe: it holds what this release does not know.
    """
    return decode(recipe, _Recorded())


def table_of(data: Data, name: str | None = None) -> Table:
    """A table as it was recorded, or under the name that it has now."""
    shards = tuple(data["shards"]) if "shards" in data else None
    return Table(name or data["name"], shards, columns=data["columns"], unit=frozenset(data.get("unit", ())))


class _Recorded:
    def table(self, data: Data) -> Table:
        return table_of(data)

    def rows(self, data: Data, query: Select | None) -> Rows:
        common = {"columns": data["columns"], "unit": frozenset(data.get("unit", ()))}
        if data["is"] == "Storage":
            shards = tuple(RecordedShard(name, str(state)) for name, state in data["shards"].items())
            source = RecordedSource(data["uri"], data["source_format"])
            return Storage(source, shards, bool(data.get("whole", True)), data["uri"], **common)
        if query is None:
            return Arrow(None, data.get("shard"), **common)
        if data["is"] == "Signals":
            signals = tuple(RecordedSignal(s["name"], s["fingerprint"], s) for s in data["signals"])
            return Signals(query, signals, data["on_error"], **common)
        if data["is"] == "Columns":
            types = dict(data["types"]["map"])
            return Columns(query, None, tuple(data["on"]), types, **common)
        if data["is"] == "NewSamples":
            augmentation = RecordedAugmentation(data["text"], data["fingerprint"])
            return NewSamples(query, augmentation, data["into"], data["suffix"], **common)
        verb = data.get("verb", data["function"].rpartition(":")[2])
        code = (lambda: str(data["code"])) if "code" in data else None
        function = RowFunction(data["function"], verb, _not_callable, remembered_by=code)
        return Derived(query, function, data["options"], **common)

    def expression(self, made: Expr) -> None:
        """Every expression can be looked at."""


def _not_callable(*_: Any, **__: Any) -> Any:
    raise AssertionError("a recorded plan is not run")
