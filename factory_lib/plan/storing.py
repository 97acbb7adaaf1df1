"""How the rows of a plan are stored: as cheaply as its verbs allow.

A filter becomes a row mask, a new column is written beside the parts of the parent, a union attaches parts. Rows are
copied only where they are reordered, joined, aggregated, or changed in a way that depends on other rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from factory_lib.errors import QueryError
from factory_lib.plan.expressions import is_deterministic, spans_rows
from factory_lib.plan.nodes import Join, Table, Union
from factory_lib.plan.operators import Column, Expr
from factory_lib.plan.select import Select
from factory_lib.plan.supertypes import supertype

SYSTEM = {
    "shard": "LowCardinality(String)",
    "position": "UInt32",
    "sample_id": "UInt64",
    "key": "String",
}
"""Columns that every version has: the unit of work, the rank in it, a stable hash, the name of the sample."""

SINGLE_SHARD = "all"
"""The shard of rows that belong to none: of an ordered or aggregated query."""


@dataclass(frozen=True)
class Derivation:
    """How a query will be stored.

    Attributes:
        kind: clone, mask, columns, mask+columns, attach or copy.
        reason: why it is a copy; empty otherwise.
        computed: columns that are written, as expressions over the columns of the base table.
        renamed: {old: new} columns of the base table.
        dropped: columns of the base table that go.
        rows: number of rows of each shard, where they had to be counted.
    """

    kind: str
    reason: str = ""
    computed: Mapping[str, Expr] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    rows: Mapping[str, int] | None = None


def with_system_columns(query: Select) -> Select:
    """The query with the columns that every version has, in front, where its source has them."""
    plain = query.group_by is None and not query.distinct
    available = query.source.names if plain else ()
    system = {n: query.columns.get(n, Column(n)) for n in SYSTEM if n in query.columns or n in available}
    return replace(query, columns={**system, **{n: e for n, e in query.columns.items() if n not in system}})


def storage_plan(query: Select) -> Derivation:
    """How the rows of a query are stored: the cheapest way that its verbs allow."""
    if isinstance(query.source, Union):
        return _plan_union(query, query.source)
    reason = _copy_reason(query)
    if reason or not isinstance(query.source, Table):
        return Derivation("copy", reason)
    computed, renamed = _changed_columns(query)
    kept = {n for n, e in query.columns.items() if n not in computed and n not in renamed.values()}
    dropped = tuple(n for n in query.source.columns if n not in kept and n not in renamed)
    parts = [*(["mask"] if query.where else []), *(["columns"] if computed else [])]
    return Derivation("+".join(parts) or "clone", "", computed, renamed, dropped)


def _plan_union(query: Select, source: Union) -> Derivation:
    passing = all(isinstance(e, Column) and e.name == n for n, e in query.columns.items())
    if query.where or not passing or len(query.columns) != len(source.names) or _shape(query):
        return Derivation("copy", "rows of several queries are changed after their union")
    for part in source.queries:
        inner = storage_plan(with_system_columns(part))
        if inner.kind == "copy":
            return inner
    return Derivation("attach")


def _copy_reason(query: Select) -> str:
    if isinstance(query.source, Join):
        return "rows are joined"
    if isinstance(query.source, Select):
        return "the query is nested: " + (_shape(query.source) or "its verbs do not fit into one SELECT")
    if shape := _shape(query):
        return shape
    if not query.has_row_id():
        return "shard or position is changed"
    exprs = [*query.columns.values(), *query.where]
    if any(spans_rows(e) for e in exprs):
        return "a value depends on other rows, or makes several of one"
    if not all(is_deterministic(e) for e in exprs):
        return "an expression is not deterministic"
    return ""


def _shape(query: Select) -> str:
    if query.group_by is not None:
        return "rows are aggregated"
    if query.distinct or query.limit_by:
        return "rows are made distinct"
    if query.limit is not None or query.offset:
        return "rows are limited"
    return "rows are ordered" if query.order_by else ""


def _changed_columns(query: Select) -> tuple[dict[str, Expr], dict[str, str]]:
    """Columns to compute, and columns that are only renamed (old -> new)."""
    uses = [e.name for e in query.columns.values() if isinstance(e, Column)]
    computed: dict[str, Expr] = {}
    renamed: dict[str, str] = {}
    for name, expr in query.columns.items():
        if isinstance(expr, Column) and expr.name == name:
            continue
        if isinstance(expr, Column) and uses.count(expr.name) == 1:
            renamed[expr.name] = name
        else:
            computed[name] = expr
    return computed, renamed


def union_columns(sources: Sequence[Table]) -> tuple[dict[str, str], frozenset[str]]:
    """Columns that hold the rows of all these tables, numbers of both as they are; what one of them lacks can be NULL.

    Raises:
        QueryError: two of them have a column of the same name with types that no one type holds.
    """
    columns: dict[str, str] = {}
    for source in sources:
        for name, ch_type in source.columns.items():
            known = columns.setdefault(name, ch_type)
            if known == ch_type:
                continue
            both = supertype(nullable(known), nullable(ch_type))
            if both is None:
                where = next(s.name for s in sources if s.columns.get(name) == known)
                raise QueryError(
                    f"Column {name!r} is {known} in {where} and {ch_type} in {source.name}.",
                    f"Cast one of them: mutate({name}=C.{name}.cast({known!r})).",
                )
            columns[name] = both
    for name, ch_type in columns.items():
        if any(name not in s.columns for s in sources):
            columns[name] = nullable(ch_type)
    unit = frozenset().union(*(s.unit for s in sources))
    return columns, unit


def nullable(ch_type: str) -> str:
    if ch_type.startswith(("Nullable(", "Array(", "Map(", "Tuple(", "LowCardinality(Nullable(")):
        return ch_type
    if ch_type.startswith("LowCardinality("):
        return f"LowCardinality(Nullable({ch_type[len('LowCardinality(') : -1]}))"
    return f"Nullable({ch_type})"


def is_pointer(ch_type: str) -> bool:
    """Whether a column points at bytes in storage."""
    return ch_type.startswith("Tuple(uri ") and " offset UInt64" in ch_type and " size UInt64" in ch_type
