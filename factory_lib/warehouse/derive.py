"""Derivation: how the rows of a query become a table, as cheaply as the query allows.

A filter becomes a row mask, a new column is written beside the parts of the parent, a union attaches parts. Rows are
copied only where they are reordered, joined, aggregated, or so few are left that scans would read little but masked
ones.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from factory_lib.errors import ColumnNotFound, EngineError, QueryError, nearest
from factory_lib.plan.aggregates import is_summed
from factory_lib.plan.expressions import is_deterministic, spans_rows
from factory_lib.plan.operators import Column, Expr
from factory_lib.plan.sql import (
    ROW_ID,
    Block,
    JoinSource,
    Rendering,
    Scoped,
    TableSource,
    UnionSource,
    blocks_of,
    describe,
    source_columns,
)
from factory_lib.plan.sqltext import quote
from factory_lib.warehouse.arrow_types import PLAIN_TYPES
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.names import STAGING, is_version_name
from factory_lib.warehouse.stage import Stage, clone, create_stage

SYSTEM = {
    "shard": "LowCardinality(String)",
    "position": "UInt32",
    "sample_id": "UInt64",
    "key": "String",
}
"""Columns that every version has: the unit of work, the rank in it, a stable hash, the name of the sample."""

SINGLE_SHARD = "all"
"""The shard of rows that belong to none: of an ordered or aggregated query."""

_UNKNOWN_IDENTIFIER = 47
_FAILED_MUTATION = (341,)

COPY_BELOW = 0.02
"""Share of physical rows kept below which they are copied. A mask is always written faster and smaller than a copy
(`bench.versions`), but every later scan reads nearly all blocks of the parent for the few rows that are left; below
2 %, that is fifty times what a copy reads, and counts most where rows hold vectors."""


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


def with_system_columns(block: Block) -> Block:
    """The block with the columns that every version has, in front, where its source has them."""
    plain = block.group_by is None and not block.distinct
    available = source_columns(block.source) if plain else {}
    system = {n: block.columns.get(n, Column(n)) for n in SYSTEM if n in block.columns or n in available}
    return replace(block, columns={**system, **{n: e for n, e in block.columns.items() if n not in system}})


def plan(block: Block) -> Derivation:
    """How the rows of a query are stored: the cheapest way that its verbs allow."""
    if isinstance(block.source, UnionSource):
        return _plan_union(block, block.source)
    reason = _copy_reason(block)
    if reason or not isinstance(block.source, TableSource):
        return Derivation("copy", reason)
    computed, renamed = _changed_columns(block)
    kept = {n for n, e in block.columns.items() if n not in computed and n not in renamed.values()}
    dropped = tuple(n for n in block.source.columns if n not in kept and n not in renamed)
    parts = [*(["mask"] if block.where else []), *(["columns"] if computed else [])]
    return Derivation("+".join(parts) or "clone", "", computed, renamed, dropped)


def derive(warehouse: Warehouse, dataset: str, block: Block) -> tuple[Stage, Derivation, int]:
    """Build the rows of a query as a staging table of a dataset.

    Returns:
        The table, how it was made, and the bytes on disk that it added.
    """
    block = with_system_columns(block)
    derivation = plan(block)
    if derivation.kind == "attach" and isinstance(block.source, UnionSource):
        return _attach_union(warehouse, dataset, block, block.source)
    if derivation.kind == "copy":
        stage = _copy(warehouse, dataset, block)
        return stage, derivation, stage.bytes()
    try:
        return _share(warehouse, dataset, block, derivation)
    except EngineError as error:
        # Mutations evaluate masked rows, too. What fails only there is no fault of the query: its rows are copied.
        if not derivation.computed or error.code not in _FAILED_MUTATION:
            raise
        stage = _copy(warehouse, dataset, block)
        return stage, Derivation("copy", "a value cannot be computed for a masked row"), stage.bytes()


@contextlib.contextmanager
def naming_columns(block: Block) -> Iterator[None]:
    """Turn the engine's word for an unknown name, which SQL text may contain, into ours."""
    try:
        yield
    except EngineError as error:
        unknown = re.search(r"identifier `([^`]+)`", error.message)
        if error.code != _UNKNOWN_IDENTIFIER or unknown is None:
            raise
        hint = nearest(unknown[1], source_columns(block.source))
        raise ColumnNotFound(f"There is no column {unknown[1]!r} in {describe(block.source)}.", hint) from None


def _plan_union(block: Block, source: UnionSource) -> Derivation:
    passing = all(isinstance(e, Column) and e.name == n for n, e in block.columns.items())
    if block.where or not passing or len(block.columns) != len(source_columns(source)) or _shape(block):
        return Derivation("copy", "rows of several queries are changed after their union")
    for part in source.blocks:
        inner = plan(with_system_columns(part))
        if inner.kind == "copy":
            return inner
    return Derivation("attach")


def _copy_reason(block: Block) -> str:
    if isinstance(block.source, JoinSource):
        return "rows are joined"
    if isinstance(block.source, Block):
        return "the query is nested: " + (_shape(block.source) or "its verbs do not fit into one SELECT")
    if shape := _shape(block):
        return shape
    if not block.has_row_id():
        return "shard or position is changed"
    exprs = [*block.columns.values(), *block.where]
    if any(spans_rows(e) for e in exprs):
        return "a value depends on other rows, or makes several of one"
    if not all(is_deterministic(e) for e in exprs):
        return "an expression is not deterministic"
    return ""


def _shape(block: Block) -> str:
    if block.group_by is not None:
        return "rows are aggregated"
    if block.distinct or block.limit_by:
        return "rows are made distinct"
    if block.limit is not None or block.offset:
        return "rows are limited"
    return "rows are ordered" if block.order_by else ""


def _changed_columns(block: Block) -> tuple[dict[str, Expr], dict[str, str]]:
    """Columns to compute, and columns that are only renamed (old -> new)."""
    uses = [e.name for e in block.columns.values() if isinstance(e, Column)]
    computed: dict[str, Expr] = {}
    renamed: dict[str, str] = {}
    for name, expr in block.columns.items():
        if isinstance(expr, Column) and expr.name == name:
            continue
        if isinstance(expr, Column) and uses.count(expr.name) == 1:
            renamed[expr.name] = name
        else:
            computed[name] = expr
    return computed, renamed


def _share(warehouse: Warehouse, dataset: str, block: Block, how: Derivation) -> tuple[Stage, Derivation, int]:
    """Clone the parent's parts, then mask rows and write columns there."""
    assert isinstance(block.source, TableSource)
    base = block.source
    table = ".".join(quote(p) for p in base.name.split(".", 1))
    stage = clone(warehouse, dataset, table, base.shards)
    with stage.dropped_on_error():
        return _changed(warehouse, dataset, stage, block, how)


def _changed(
    warehouse: Warehouse, dataset: str, stage: Stage, block: Block, how: Derivation
) -> tuple[Stage, Derivation, int]:
    base = block.source
    assert isinstance(base, TableSource)
    if how.kind != "clone" or not _is_whole(base.name):
        stage.optimize()
    taken = base.columns.keys() | how.renamed.keys()
    written = {name: f"_new_{i}" if name in taken else name for i, name in enumerate(how.computed)}
    if how.computed:
        types = describe_columns(warehouse, Block(base, how.computed))
        stage.add_columns({written[n]: t for n, t in types.items()})
        values = {written[n]: Rendering(inline=True).expression(e, base) for n, e in how.computed.items()}
        stage.update(values)
    if block.where:
        stage.mask(Rendering(inline=True).predicate(block))
    added = stage.bytes([*written.values(), *(["_row_exists"] if block.where else [])])
    stage.drop_columns(how.dropped)
    stage.rename_columns({**how.renamed, **{temporary: name for name, temporary in written.items()}})
    if how.kind != "clone" or list(base.columns) != list(block.columns):
        stage.order_columns(list(block.columns))
    if not block.where:
        return stage, how, added
    kept = stage.shard_rows()
    if compacted := _compacted(warehouse, dataset, stage, sum(kept.values())):
        return compacted, Derivation("copy", f"fewer than {COPY_BELOW:.0%} of the rows are kept"), compacted.bytes()
    return stage, replace(how, rows=kept), added


def _is_whole(table: str) -> bool:
    """Whether a table has one part a shard, as those have that were made here."""
    return is_version_name(table) or table.startswith(f"{STAGING}.")


def _compacted(warehouse: Warehouse, dataset: str, stage: Stage, kept: int) -> Stage | None:
    """A copy of the rows that are left when they are few, in place of the masked table."""
    physical = warehouse.scalar(
        "SELECT sum(rows) FROM system.parts WHERE active AND database = {d:String} AND table = {t:String}",
        {"d": stage.database, "t": stage.table},
    )
    if kept >= COPY_BELOW * int(physical or 0):
        return None
    compacted = create_stage(warehouse, dataset, {}, like=stage.name)
    with compacted.dropped_on_error():
        warehouse.execute(f"INSERT INTO {compacted.name} SELECT * FROM {stage.name}")
        compacted.optimize()
    stage.drop()
    return compacted


def _attach_union(
    warehouse: Warehouse, dataset: str, block: Block, source: UnionSource
) -> tuple[Stage, Derivation, int]:
    """Attach the parts of each query of a union; shards that two of them have are copied."""
    stages: list[Stage] = []
    added = 0
    seen: set[str] = set()
    overlap = False
    try:
        for part in source.blocks:
            stage, _, size = derive(warehouse, dataset, part)
            stages.append(stage)
            added += size
            shards = set(stage.shard_rows())
            overlap |= bool(seen & shards)
            seen |= shards
        columns, unit = union_columns([s.source() for s in stages])
        for stage in stages:
            conform(stage, columns, unit)
        if overlap:
            rows = Block.over(UnionSource(tuple(Block.over(s.source()) for s in stages)))
            copied = _copy(warehouse, dataset, rows)
            return copied, Derivation("copy", "queries of the union share shards"), copied.bytes()
        result = create_stage(warehouse, dataset, {}, like=stages[0].name)
        with result.dropped_on_error():
            for stage in stages:
                result.attach(stage.name)
        return result, Derivation("attach"), added
    finally:
        for stage in stages:
            stage.drop()


def union_columns(sources: list[TableSource]) -> tuple[dict[str, str], frozenset[str]]:
    """Columns that hold the rows of all these tables; what one of them lacks can be NULL.

    Raises:
        QueryError: two of them have a column of the same name with different types.
    """
    columns: dict[str, str] = {}
    for source in sources:
        for name, ch_type in source.columns.items():
            known = columns.setdefault(name, ch_type)
            if known != ch_type and _nullable(known) != _nullable(ch_type):
                where = next(s.name for s in sources if s.columns.get(name) == known)
                raise QueryError(
                    f"Column {name!r} is {known} in {where} and {ch_type} in {source.name}.",
                    f"Cast one of them: mutate({name}=C.{name}.cast({known!r})).",
                )
            if known != ch_type:
                columns[name] = _nullable(known)
    for name, ch_type in columns.items():
        if any(name not in s.columns for s in sources):
            columns[name] = _nullable(ch_type)
    unit = frozenset().union(*(s.unit for s in sources))
    return columns, unit


def conform(stage: Stage, columns: Mapping[str, str], unit: frozenset[str] = frozenset()) -> None:
    """Give a staging table exactly these columns: NULL (arrays: empty) in those that it lacks."""
    own = stage.columns()
    stage.add_columns({n: t for n, t in columns.items() if n not in own}, unit - own.keys())
    stage.drop_columns(n for n in own if n not in columns)
    changed = {n: t for n, t in columns.items() if n in own and own[n] != t}
    if changed:
        stage.modify_columns(changed)
    stage.order_columns(list(columns))


def _nullable(ch_type: str) -> str:
    if ch_type.startswith(("Nullable(", "Array(", "Map(", "Tuple(", "LowCardinality(Nullable(")):
        return ch_type
    if ch_type.startswith("LowCardinality("):
        return f"LowCardinality(Nullable({ch_type[len('LowCardinality(') : -1]}))"
    return f"Nullable({ch_type})"


def describe_columns(warehouse: Warehouse, block: Block) -> dict[str, str]:
    """Column name -> ClickHouse type of a query, as the engine infers them."""
    rendering = Rendering()
    text = rendering.select(block)
    rows = warehouse.rows(f"DESCRIBE ({text})", rendering.params, {**rendering.settings, **PLAIN_TYPES})
    types = {row["name"]: row["type"] for row in rows}
    for name, ch_type in types.items():
        if "Nothing" in ch_type:
            raise QueryError(
                f"Column {name!r} has no type: it is always NULL or empty.", "Cast it: cast('Nullable(String)')."
            )
    return types


def _copy(warehouse: Warehouse, dataset: str, block: Block) -> Stage:
    """Write the rows of a query into a new table, with the columns that every version has."""
    numbered, single_stream = _numbered(block)
    rendering = Rendering()
    inner = rendering.select(numbered)
    described = describe_columns(warehouse, numbered)
    types = {**SYSTEM, **{n: t for n, t in described.items() if n not in SYSTEM}}
    lacking = {n for n in SYSTEM if "Nullable" in described.get(n, "")}
    system = _system_expressions(numbered, types, single_stream, lacking)
    columns = [f"CAST({system[n]}, '{SYSTEM[n]}') AS {quote(n)}" if n in system else quote(n) for n in types]
    unit = [n for n in types if is_unit(numbered, n)]
    stage = create_stage(warehouse, dataset, types, unit)
    settings = dict(rendering.settings)
    if single_stream:
        settings["max_insert_threads"] = 1
    if _sums_floats(block):
        settings["max_threads"] = 1
    target = ", ".join(quote(n) for n in types)
    statement = f"INSERT INTO {stage.name} ({target}) SELECT {', '.join(columns)} FROM ({inner})"
    with stage.dropped_on_error():
        warehouse.execute(statement, rendering.params, settings)
        stage.optimize()
    return stage


def _numbered(block: Block) -> tuple[Block, bool]:
    """The block with shard and position as the copy will have them, and whether rows are numbered as they come."""
    in_row_order = all(
        isinstance(o.expr, Column) and o.expr.name == n and not o.descending
        for o, n in zip(block.order_by, ROW_ID, strict=False)
    )
    if not in_row_order or not all(n in block.columns for n in ROW_ID):
        return block.in_row_order(), True
    if block.limit is not None or block.offset or block.limit_by:
        return block.in_row_order(), False
    return replace(block, order_by=()), False


def _sums_floats(block: Block) -> bool:
    """Whether a value of a query hangs on how threads share the rows."""

    def sums(one: Block) -> bool:
        scope = Scoped(Rendering(), one.source)
        exprs = one.columns.values() if one.group_by is not None or one.windowed else ()
        return any(is_summed(e, lambda a: scope.type_of(a.name) if isinstance(a, Column) else "") for e in exprs)

    return any(map(sums, blocks_of(block)))


def _system_expressions(
    block: Block, types: Mapping[str, str], single_stream: bool, lacking: Collection[str]
) -> dict[str, str]:
    """SQL of the columns that every version has, over the rows of the query.

    Args:
        lacking: those of them that may be NULL: rows of one side of a join that have no partner on the other.
    """

    def given(name: str, otherwise: str) -> str:
        return f"ifNull({name}, {otherwise})" if name in lacking else name

    position, shard = "position", given("shard", f"'{SINGLE_SHARD}'")
    if single_stream:
        shard, position = f"'{SINGLE_SHARD}'", "rowNumberInAllBlocks()"
    elif not block.has_places():
        rest = "".join(f", tuple({quote(n)})" for n in types if n in block.columns and n != "shard")
        position = f"row_number() OVER (PARTITION BY {shard} ORDER BY position, sipHash128({shard}{rest})) - 1"
    place = f"toString({position})"
    key = given("key", place) if "key" in types and "key" in block.columns else place
    pointer = next((n for n, t in types.items() if is_pointer(t)), None)
    identity = (
        f"concat(tupleElement({quote(pointer)}, 'uri'), '\\n', {key})" if pointer else f"concat({shard}, '\\n', {key})"
    )
    made = f"xxHash64({identity})"
    sample_id = given("sample_id", made) if "sample_id" in block.columns else made
    return {"shard": shard, "position": position, "sample_id": sample_id, "key": key}


def is_unit(block: Block, name: str) -> bool:
    """Whether a column of a query passes through vectors of unit length."""
    expr = block.columns.get(name)
    if not isinstance(expr, Column):
        return False
    if isinstance(block.source, TableSource):
        return expr.name in block.source.unit
    return isinstance(block.source, Block) and is_unit(block.source, expr.name)


def is_pointer(ch_type: str) -> bool:
    """Whether a column points at bytes in storage."""
    return ch_type.startswith("Tuple(uri ") and " offset UInt64" in ch_type and " size UInt64" in ch_type
