"""The nodes of a plan: what gives rows, as data.

A plan is a tree of frozen nodes without state. `Select` (see `plan.select`) is one SELECT; the nodes here are what it
reads. Rows of a `Table` are in the warehouse; those of the other `Rows` come about when the plan runs, and are then
written into a staging table that stands for them. Everything else (SQL, Python text, JSON, how rows are stored, which
shards are read, where columns come from) is a function over these nodes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from factory_lib.plan.operators import Expr, InQuery, Ordering

if TYPE_CHECKING:
    import pyarrow as pa

    from factory_lib.plan.select import Select

ROW_ID = ("shard", "position")
PARENT = "parent_sample_id"
"""Column of new samples: the `sample_id` of the sample that one was made of."""
OPERATION = "operation"
"""Column of new samples: what was done, with its parameters."""
OPERATION_FINGERPRINT = "operation_fingerprint"
"""Column of new samples: the fingerprint of its code, parameters and libraries."""


@dataclass(frozen=True, eq=False)
class Plan(ABC):
    """Rows with named columns. Nodes compare by identity; `plan.identity` tells whether two plans ask for the same."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""

    @property
    @abstractmethod
    def label(self) -> str:
        """What it is, in words, for messages."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[Plan, ...]:
        """What its rows are made of, without what is only looked up."""

    @property
    def has_places(self) -> bool:
        """Whether no two rows have the same shard and position."""
        return False

    @abstractmethod
    def type_of(self, column: str) -> str:
        """ClickHouse type of a column, or an empty string where only the engine can tell."""

    @abstractmethod
    def is_unit(self, column: str) -> bool:
        """Whether a column holds vectors of unit length."""

    def children(self) -> Iterator[Plan]:
        """The plans directly below: inputs first, then what its expressions look up."""
        for f in fields(self):
            yield from _plans_in(getattr(self, f.name))

    def map(self, change: Callable[[Plan], Plan]) -> Plan:
        """The node over other children: itself where `change` gives all of them back."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        mapped = {name: _mapped(part, change) for name, part in parts.items()}
        return self if all(mapped[name] is part for name, part in parts.items()) else replace(self, **mapped)


@dataclass(frozen=True, eq=False)
class Rows(Plan):
    """Rows whose columns have types that are known.

    Attributes:
        columns: column name -> ClickHouse type.
        unit: names of the columns that hold vectors of unit length.
    """

    columns: Mapping[str, str] = field(kw_only=True)
    unit: frozenset[str] = field(default=frozenset(), kw_only=True)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.columns)

    @property
    def inputs(self) -> tuple[Plan, ...]:
        return ()

    @property
    def has_places(self) -> bool:
        return all(name in self.columns for name in ROW_ID)

    def type_of(self, column: str) -> str:
        return self.columns.get(column, "")

    def is_unit(self, column: str) -> bool:
        return column in self.unit


@dataclass(frozen=True, eq=False)
class Table(Rows):
    """A table of the warehouse.

    Attributes:
        name: `database.table`.
        shards: the shards that are read, or None for all.
    """

    name: str
    shards: tuple[str, ...] | None = None

    @property
    def label(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False)
class Storage(Rows):
    """Samples in storage.

    Attributes:
        source: a source (see `factory_lib.sources`).
        shards: the shards that are read, each with a `name` and a `fingerprint` of its files.
        whole: whether these are all that it had.
        uri: where it is, without credentials.
    """

    source: Any
    shards: tuple[Any, ...]
    whole: bool
    uri: str

    @property
    def label(self) -> str:
        return f"{self.uri} ({self.source.format})"


@dataclass(frozen=True, eq=False)
class Arrow(Rows):
    """Rows in memory.

    Attributes:
        reader: gives them, once; None where they are gone and the plan is only looked at.
        shard: the column that says which shard a row belongs to; None: all are one.
    """

    reader: pa.RecordBatchReader | None
    shard: str | None

    @property
    def label(self) -> str:
        own = [name for name in self.columns if name not in (*ROW_ID, "sample_id")]
        return f"an Arrow table with columns {', '.join(own[:8])}"


@dataclass(frozen=True, eq=False)
class Over(Rows):
    """The rows of a query with something that only code can add.

    Attributes:
        input: the query.
    """

    input: Select

    @property
    def inputs(self) -> tuple[Plan, ...]:
        return (self.input,)

    @property
    @abstractmethod
    def written(self) -> frozenset[str]:
        """Columns that are written here."""


@dataclass(frozen=True, eq=False)
class Signals(Over):
    """The rows of a query with the values of signals as columns.

    Attributes:
        signals: the signals.
        on_error: "null": a sample that fails gets NULL and the reason; "raise": it ends the run.
    """

    signals: tuple[Any, ...]
    on_error: str = "null"

    @property
    def label(self) -> str:
        return f"signals {', '.join(signal.name for signal in self.signals)}"

    @property
    def written(self) -> frozenset[str]:
        return frozenset(name for signal in self.signals for name in signal.columns)


@dataclass(frozen=True, eq=False)
class Columns(Over):
    """The rows of a query with columns from an Arrow table; rows without a value get NULL.

    Attributes:
        reader: gives the values, once, with the columns of `on`; None where the plan is only looked at.
        on: columns that tell which row a value is for.
        types: the new columns -> ClickHouse type.
    """

    reader: pa.RecordBatchReader | None
    on: tuple[str, ...]
    types: Mapping[str, str]

    @property
    def label(self) -> str:
        return f"columns {', '.join(self.types)} from Arrow, by {', '.join(self.on)}"

    @property
    def written(self) -> frozenset[str]:
        return frozenset(self.types)


@dataclass(frozen=True)
class RowFunction:
    """Makes rows of the rows of a query as a whole, by code where SQL has no words for it.

    Attributes:
        place: `module:name` that holds it, by which recipes name it.
        verb: what a user calls to get it.
        rows: called with the query, all of whose rows are in tables, and the options, which are plain values; with
            `remembered_by` second with what it made of an earlier state of the same query (see `build.earlier`).
        remembered_by: gives a fingerprint of what its rows depend on besides, where it can go on from what it made
            before; it is part of the identity of a query.
    """

    place: str
    verb: str
    rows: Callable[..., pa.Table]
    remembered_by: Callable[[], str] | None = None


@dataclass(frozen=True, eq=False)
class Derived(Over):
    """Rows that are computed from the rows of a query as a whole.

    Attributes:
        function: makes them.
        options: what it is called with besides.
    """

    function: RowFunction
    options: Mapping[str, Any]

    @property
    def label(self) -> str:
        return f"{self.function.verb}({', '.join(f'{name}={value!r}' for name, value in self.options.items())})"

    @property
    def written(self) -> frozenset[str]:
        return frozenset(self.columns)


@dataclass(frozen=True, eq=False)
class NewSamples(Over):
    """Samples that operations make of those of a query, each in the place of its parent; their bytes are in tars.

    Attributes:
        augmentation: the operations (see `factory_lib.augmentation`).
        into: folder or bucket of the tars.
        suffix: what goes behind the key of a parent.
    """

    augmentation: Any
    into: str
    suffix: str

    @property
    def signal(self) -> Any:
        """What computes a new sample."""
        return self.augmentation.signal(self.input.names)

    @property
    def label(self) -> str:
        return f"new samples by {self.augmentation}"

    @property
    def written(self) -> frozenset[str]:
        return frozenset(self.columns)


@dataclass(frozen=True, eq=False)
class Join(Plan):
    """Two queries side by side; `columns` says where each output column comes from: (side "l" or "r", name there)."""

    left: Select
    right: Select
    how: str
    on: tuple[tuple[str, str], ...]
    columns: Mapping[str, tuple[str, str]]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.columns)

    @property
    def label(self) -> str:
        return f"the join of {self.left.source.label} and {self.right.source.label}"

    @property
    def inputs(self) -> tuple[Plan, ...]:
        return (self.left, self.right)

    def side(self, column: str) -> tuple[Select, str]:
        """The query that a column comes from, and its name there."""
        side, name = self.columns[column]
        return (self.left if side == "l" else self.right), name

    def type_of(self, column: str) -> str:
        if column not in self.columns:
            return ""
        side, name = self.side(column)
        return side.type_of(name)

    def is_unit(self, column: str) -> bool:
        if column not in self.columns:
            return False
        side, name = self.side(column)
        return side.is_unit(name)


@dataclass(frozen=True, eq=False)
class Union(Plan):
    """Queries one after the other; a column that one of them lacks is NULL there."""

    queries: tuple[Select, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for query in self.queries for name in query.names))

    @property
    def label(self) -> str:
        return "the union of " + ", ".join(query.source.label for query in self.queries)

    @property
    def inputs(self) -> tuple[Plan, ...]:
        return self.queries

    def type_of(self, column: str) -> str:
        found = {query.type_of(column) for query in self.queries if column in query.names}
        return found.pop() if len(found) == 1 else ""

    def is_unit(self, column: str) -> bool:
        return all(query.is_unit(column) for query in self.queries if column in query.names)


def walk(plan: Plan) -> Iterator[Plan]:
    """A plan and everything below it: what gives rows first, then what is looked up."""
    yield plan
    for child in plan.children():
        yield from walk(child)


def leaves(plan: Plan) -> Iterator[Rows]:
    """What a plan reads directly: tables, and rows that are in none yet, without what these are made of."""
    if isinstance(plan, Rows):
        yield plan
    else:
        for child in plan.children():
            yield from leaves(child)


def tables(plan: Plan) -> list[Table]:
    """All tables that a plan reads directly."""
    return [leaf for leaf in leaves(plan) if isinstance(leaf, Table)]


def pending(plan: Plan) -> list[Rows]:
    """What a plan reads, however deep, that is in no table yet."""
    return [node for node in walk(plan) if isinstance(node, Rows) and not isinstance(node, Table)]


def transform(plan: Plan, change: Callable[[Plan], Plan | None]) -> Plan:
    """A copy in which `change` replaced every node for which it gives another, top down."""
    changed = change(plan)
    return changed if changed is not None else plan.map(lambda child: transform(child, change))


def _plans_in(value: Any) -> Iterator[Plan]:
    if isinstance(value, Plan):
        yield value
    elif isinstance(value, Expr):
        for e in value.walk():
            if isinstance(e, InQuery):
                yield e.plan
    elif isinstance(value, Ordering):
        yield from _plans_in(value.expr)
    elif isinstance(value, tuple | Mapping):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _plans_in(one)


def _mapped(value: Any, change: Callable[[Plan], Plan]) -> Any:
    """A part of a node over other plans; itself where none changed."""
    if isinstance(value, Plan):
        return change(value)
    if isinstance(value, Expr):
        return value.replace(partial(_looking_up, change))
    if isinstance(value, Ordering):
        mapped = value.expr.replace(partial(_looking_up, change))
        return value if mapped is value.expr else Ordering(mapped, value.descending)
    if isinstance(value, tuple):
        parts = tuple(_mapped(one, change) for one in value)
        return value if all(a is b for a, b in zip(parts, value, strict=True)) else parts
    if isinstance(value, Mapping):
        changed = {name: _mapped(one, change) for name, one in value.items()}
        return value if all(changed[name] is one for name, one in value.items()) else changed
    return value


# No closure that names itself: it would keep plans, and with them their staging tables, until garbage is collected.
def _looking_up(change: Callable[[Plan], Plan], e: Expr) -> Expr | None:
    """An expression over another query that it looks up; None where it looks up none, or the same."""
    if not isinstance(e, InQuery) or (plan := change(e.plan)) is e.plan:
        return None
    return replace(e, base=e.base.replace(partial(_looking_up, change)), plan=plan)
