"""Derivation: the rows of a plan become a table, in the way that its storage plan says (see `plan.storing`).

Where so few rows are left that scans would read little but masked ones, they are copied after all.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from factory_lib.errors import ColumnNotFound, EngineError, QueryError, nearest
from factory_lib.names import STAGING, is_version_name
from factory_lib.plan.aggregates import is_summed
from factory_lib.plan.nodes import ROW_ID, Table, Union, walk
from factory_lib.plan.operators import Column
from factory_lib.plan.select import Select
from factory_lib.plan.sql import Rendering
from factory_lib.plan.sqltext import quote
from factory_lib.plan.storing import (
    SINGLE_SHARD,
    SYSTEM,
    Derivation,
    is_pointer,
    storage_plan,
    union_columns,
    with_system_columns,
)
from factory_lib.warehouse.arrow_types import PLAIN_TYPES
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.pulled import lies_elsewhere
from factory_lib.warehouse.staging import StagingTable, clone, create_stage

_UNKNOWN_IDENTIFIER = 47
_FAILED_MUTATION = (341,)

COPY_BELOW = 0.02
"""Share of physical rows kept below which they are copied. A mask is always written faster and smaller than a copy
(`bench.versions`), but every later scan reads nearly all blocks of the parent for the few rows that are left; below
2 %, that is fifty times what a copy reads, and counts most where rows hold vectors."""


def derive(warehouse: Warehouse, dataset: str, query: Select) -> tuple[StagingTable, Derivation, int]:
    """Build the rows of a query as a staging table of a dataset.

    Returns:
        The table, how it was made, and the bytes on disk that it added.
    """
    query = with_system_columns(query)
    derivation = storage_plan(query)
    if derivation.kind == "attach" and isinstance(query.source, Union):
        return _attach_union(warehouse, dataset, query, query.source)
    if query.where and isinstance(query.source, Table) and lies_elsewhere(warehouse, query.source.name):
        derivation = Derivation("copy", "parts that lie elsewhere cannot be shared: rows that are kept are copied")
    if derivation.kind == "copy":
        stage = _copy(warehouse, dataset, query)
        return stage, derivation, stage.bytes()
    try:
        return _share(warehouse, dataset, query, derivation)
    except EngineError as error:
        # Mutations evaluate masked rows, too. What fails only there is no fault of the query: its rows are copied.
        if not derivation.computed or error.code not in _FAILED_MUTATION:
            raise
        stage = _copy(warehouse, dataset, query)
        return stage, Derivation("copy", "a value cannot be computed for a masked row"), stage.bytes()


@contextlib.contextmanager
def naming_columns(query: Select) -> Iterator[None]:
    """Turn the engine's word for an unknown name, which SQL text may contain, into ours."""
    try:
        yield
    except EngineError as error:
        unknown = re.search(r"identifier `([^`]+)`", error.message)
        if error.code != _UNKNOWN_IDENTIFIER or unknown is None:
            raise
        hint = nearest(unknown[1], query.source.names)
        raise ColumnNotFound(f"There is no column {unknown[1]!r} in {query.source.label}.", hint) from None


def _share(warehouse: Warehouse, dataset: str, query: Select, how: Derivation) -> tuple[StagingTable, Derivation, int]:
    """Clone the parent's parts, then mask rows and write columns there."""
    assert isinstance(query.source, Table)
    base = query.source
    table = ".".join(quote(p) for p in base.name.split(".", 1))
    stage = clone(warehouse, dataset, table, base.shards)
    with stage.dropped_on_error():
        return _changed(warehouse, dataset, stage, query, how)


def _changed(
    warehouse: Warehouse, dataset: str, stage: StagingTable, query: Select, how: Derivation
) -> tuple[StagingTable, Derivation, int]:
    base = query.source
    assert isinstance(base, Table)
    if how.kind != "clone" or not _is_whole(base.name):
        stage.optimize()
    taken = base.columns.keys() | how.renamed.keys()
    written = {name: f"_new_{i}" if name in taken else name for i, name in enumerate(how.computed)}
    if how.computed:
        types = describe_columns(warehouse, Select(base, how.computed))
        stage.add_columns({written[n]: t for n, t in types.items()})
        values = {written[n]: Rendering(inline=True).expression(e, base) for n, e in how.computed.items()}
        stage.update(values)
    if query.where:
        stage.mask(Rendering(inline=True).predicate(query))
    added = stage.bytes([*written.values(), *(["_row_exists"] if query.where else [])])
    stage.drop_columns(how.dropped)
    stage.rename_columns({**how.renamed, **{temporary: name for name, temporary in written.items()}})
    if how.kind != "clone" or list(base.columns) != list(query.columns):
        stage.order_columns(list(query.columns))
    if not query.where:
        return stage, how, added
    kept = stage.shard_rows()
    if compacted := _compacted(warehouse, dataset, stage, sum(kept.values())):
        return compacted, Derivation("copy", f"fewer than {COPY_BELOW:.0%} of the rows are kept"), compacted.bytes()
    return stage, replace(how, rows=kept), added


def _is_whole(table: str) -> bool:
    """Whether a table has one part a shard, as those have that were made here."""
    return is_version_name(table) or table.startswith(f"{STAGING}.")


def _compacted(warehouse: Warehouse, dataset: str, stage: StagingTable, kept: int) -> StagingTable | None:
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
    warehouse: Warehouse, dataset: str, query: Select, source: Union
) -> tuple[StagingTable, Derivation, int]:
    """Attach the parts of each query of a union; shards that two of them have are copied."""
    stages: list[StagingTable] = []
    added = 0
    seen: set[str] = set()
    overlap = False
    try:
        for part in source.queries:
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
            rows = Select.over(Union(tuple(Select.over(s.source()) for s in stages)))
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


def conform(stage: StagingTable, columns: Mapping[str, str], unit: frozenset[str] = frozenset()) -> None:
    """Give a staging table exactly these columns: NULL (arrays: empty) in those that it lacks."""
    own = stage.columns()
    stage.add_columns({n: t for n, t in columns.items() if n not in own}, unit - own.keys())
    stage.drop_columns(n for n in own if n not in columns)
    changed = {n: t for n, t in columns.items() if n in own and own[n] != t}
    if changed:
        stage.modify_columns(changed)
    stage.order_columns(list(columns))


def describe_columns(warehouse: Warehouse, query: Select) -> dict[str, str]:
    """Column name -> ClickHouse type of a query, as the engine infers them."""
    rendering = Rendering()
    text = rendering.select(query)
    rows = warehouse.rows(f"DESCRIBE ({text})", rendering.params, {**rendering.settings, **PLAIN_TYPES})
    types = {row["name"]: row["type"] for row in rows}
    for name, ch_type in types.items():
        if "Nothing" in ch_type:
            raise QueryError(
                f"Column {name!r} has no type: it is always NULL or empty.", "Cast it: cast('Nullable(String)')."
            )
    return types


def _copy(warehouse: Warehouse, dataset: str, query: Select) -> StagingTable:
    """Write the rows of a query into a new table, with the columns that every version has."""
    numbered, single_stream = _numbered(query)
    rendering = Rendering()
    inner = rendering.select(numbered)
    described = describe_columns(warehouse, numbered)
    types = {**SYSTEM, **{n: t for n, t in described.items() if n not in SYSTEM}}
    lacking = {n for n in SYSTEM if "Nullable" in described.get(n, "")}
    system = _system_expressions(numbered, types, single_stream, lacking)
    columns = [f"CAST({system[n]}, '{SYSTEM[n]}') AS {quote(n)}" if n in system else quote(n) for n in types]
    unit = [n for n in types if numbered.is_unit(n)]
    stage = create_stage(warehouse, dataset, types, unit)
    settings = dict(rendering.settings)
    if single_stream:
        settings["max_insert_threads"] = 1
    if _sums_floats(query):
        settings["max_threads"] = 1
    target = ", ".join(quote(n) for n in types)
    statement = f"INSERT INTO {stage.name} ({target}) SELECT {', '.join(columns)} FROM ({inner})"
    with stage.dropped_on_error():
        warehouse.execute(statement, rendering.params, settings)
        stage.optimize()
    return stage


def _numbered(query: Select) -> tuple[Select, bool]:
    """The query with shard and position as the copy will have them, and whether rows are numbered as they come."""
    in_row_order = all(
        isinstance(o.expr, Column) and o.expr.name == n and not o.descending
        for o, n in zip(query.order_by, ROW_ID, strict=False)
    )
    if not in_row_order or not all(n in query.columns for n in ROW_ID):
        return query.in_row_order(), True
    if query.limit is not None or query.offset or query.limit_by:
        return query.in_row_order(), False
    return replace(query, order_by=()), False


def _sums_floats(query: Select) -> bool:
    """Whether a value of a query hangs on how threads share the rows."""

    def sums(one: Select) -> bool:
        exprs = one.columns.values() if one.group_by is not None or one.windowed else ()
        return any(is_summed(e, lambda a: one.source.type_of(a.name) if isinstance(a, Column) else "") for e in exprs)

    return any(sums(one) for one in walk(query) if isinstance(one, Select))


def _system_expressions(
    query: Select, types: Mapping[str, str], single_stream: bool, lacking: Collection[str]
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
    elif not query.keeps_places:
        rest = "".join(f", tuple({quote(n)})" for n in types if n in query.columns and n != "shard")
        position = f"row_number() OVER (PARTITION BY {shard} ORDER BY position, sipHash128({shard}{rest})) - 1"
    place = f"toString({position})"
    key = given("key", place) if "key" in types and "key" in query.columns else place
    pointer = next((n for n, t in types.items() if is_pointer(t)), None)
    identity = (
        f"concat(tupleElement({quote(pointer)}, 'uri'), '\\n', {key})" if pointer else f"concat({shard}, '\\n', {key})"
    )
    made = f"xxHash64({identity})"
    sample_id = given("sample_id", made) if "sample_id" in query.columns else made
    return {"shard": shard, "position": position, "sample_id": sample_id, "key": key}
