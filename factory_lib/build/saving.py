"""Saving: a query becomes the next version of a dataset.

The rows are built under a staging name, together with what is carried over from the latest version, and published by
one rename. When another writer was faster, what it brought is taken in and the next number is tried: nothing is lost.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from factory_lib.build.dependencies import versions_read
from factory_lib.build.ledger import Ledger
from factory_lib.build.recipes import recipe_of
from factory_lib.build.reuse.holding import held_columns
from factory_lib.build.session import settled, staged
from factory_lib.errors import CommitError, FactoryError, QueryError
from factory_lib.names import check_dataset_name
from factory_lib.plan.identity import identity
from factory_lib.plan.nodes import Derived, Plan, Rows, Table
from factory_lib.plan.predicates import predicates
from factory_lib.plan.select import Select
from factory_lib.plan.sql import Rendering
from factory_lib.plan.storing import Derivation, union_columns
from factory_lib.warehouse import provenance
from factory_lib.warehouse.client import Warehouse, warehouse
from factory_lib.warehouse.computed import Held, carry_held, record_held
from factory_lib.warehouse.derive import conform, derive, naming_columns
from factory_lib.warehouse.locking import locked
from factory_lib.warehouse.provenance import Provenance, ShardInput, ShardRecord
from factory_lib.warehouse.seals import counted, unseal
from factory_lib.warehouse.stage import Stage, clone, create_stage
from factory_lib.warehouse.versions import LostRaceError, Version, latest, publish

Mode = Literal["new", "overwrite_shards"]
MAX_RACES = 1000


@dataclass(frozen=True)
class SaveRequest:
    """What is to be saved, and how.

    Attributes:
        dataset: name of the dataset.
        query: the query.
        python: the query as it was written.
        mode: "new": a version of exactly these rows; "overwrite_shards": their shards replace or join those of the
            latest version.
        shards: with "overwrite_shards", the shards that are replaced, also where no row of them is left; None: those of
            the rows.
        removed: with "overwrite_shards", shards of the latest version that are not carried over.
        schema_evolution: with "overwrite_shards", columns may differ from the latest version's; what one side lacks is
            NULL there.
        context: what the caller adds to provenance.
        inputs: what the shards were made of, to be recorded.
    """

    dataset: str
    query: Select
    python: str
    mode: Mode = "new"
    shards: tuple[str, ...] | None = None
    removed: tuple[str, ...] = ()
    schema_evolution: bool = False
    context: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, ShardInput] = field(default_factory=dict)


def save(request: SaveRequest) -> Version:
    """Build and publish the version.

    Raises:
        InvalidName: the dataset cannot be called that.
        QueryError: the query is wrong, or its columns do not fit those of the version whose shards it overwrites.
        CommitError: the version could not be published.
    """
    started = time.monotonic()
    check_dataset_name(request.dataset)
    if request.mode not in ("new", "overwrite_shards"):
        raise QueryError(f"save(mode={request.mode!r}): there is no such mode.", "Use 'new' or 'overwrite_shards'.")
    wh = warehouse()
    ledger = Ledger()
    parents = versions_read(wh, request.query)
    # Before anything is computed: what a signal's code does when it is used is no other code.
    recipe = recipe_of(request.query, {str(v): v.uuid for v in parents})
    maker = identity(recipe)
    query = settled(request.query, ledger)
    with naming_columns(query):
        rows, derivation, added = derive(wh, request.dataset, query)
    try:
        made = rows.shard_rows() if derivation.rows is None else derivation.rows
        draft = Provenance(
            dataset=request.dataset,
            created=provenance.now(),
            parents=[{"name": str(v), "uuid": v.uuid} for v in parents],
            python=request.python,
            sql=Rendering(inline=True).select(request.query),
            predicates=predicates(request.query),
            signals=ledger.signals,
            sources=ledger.sources,
            code=provenance.code_of(os.getcwd()),
            context=dict(request.context),
            storage="+".join([*ledger.storage, *([derivation.kind] if derivation.kind != "clone" else [])]) or "clone",
            rows_in=sum(made.values()) if _is_passed_on(request.query, derivation) else _rows_in(wh, request.query),
            bytes_added=ledger.bytes + added,
            reused=ledger.reused,
            computed=ledger.computed,
            checked=True,
        )
        sources = {**_sources(parents), **ledger.shard_sources}
        records = [ShardRecord(s, n, "", maker, sources.get(s, "")) for s, n in made.items()]
        held = held_columns(request.query, ledger.signals)
        # Parents are locked, too: who drops versions must see this one, or be done before.
        with locked(wh, request.dataset, *(v.dataset for v in parents)):
            version = _commit(wh, request, rows, records, held, draft, recipe, started)
    finally:
        rows.drop()
    for finish in ledger.finish:
        finish()
    return version


def _commit(
    wh: Warehouse,
    request: SaveRequest,
    rows: Stage,
    made: Sequence[ShardRecord],
    held: Sequence[Held],
    draft: Provenance,
    recipe: Mapping[str, Any],
    started: float,
) -> Version:
    """Publish the rows as the next version, as often as it takes to win the race for its number."""
    replaced = set(request.shards or ()) | {s.shard for s in made} | set(request.removed)
    recorded: set[str] = set()
    for attempt in range(MAX_RACES):
        base = latest(wh, request.dataset)
        number = base.number + 1 if base else 1
        carried = base if request.mode == "overwrite_shards" else None
        # Rows that nothing joins are published as they are; others stay what the next attempt begins with.
        built, changed = (rows, False) if request.mode == "new" else _assemble(wh, request, rows, carried, replaced)
        try:
            origin_rows = built.shard_rows() if changed else {s.shard: s.rows for s in made}
            records = [dataclasses.replace(s, origin=built.uuid) for s in made]
            if changed and carried:
                # Carried shards got other columns: this version made them.
                records += [
                    dataclasses.replace(s, origin=built.uuid)
                    for name, s in carried.shards.items()
                    if name not in replaced and name in origin_rows
                ]
                keep = None
            else:
                keep = carried
            total = sum(s.rows for s in records)
            if keep:
                total += sum(s.rows for name, s in keep.shards.items() if name not in replaced)
            done = dataclasses.replace(draft, rows=total, seconds=round(time.monotonic() - started, 4))
            recast = [s.shard for s in records[len(made) :]]
            if built.uuid not in recorded:
                joined = _joined(carried, changed, recast)
                provenance.record(
                    wh,
                    built.uuid,
                    done,
                    records,
                    keep.uuid if keep else None,
                    sorted(replaced),
                    {**recipe, **joined, "engine": wh.version},
                )
                record_held(wh, built.uuid, [s.shard for s in made], held)
                if carried and recast:
                    carry_held(wh, built.uuid, carried.uuid, recast)
                provenance.record_inputs(wh, built.uuid, request.inputs, carried.uuid if carried else None, replaced)
                recorded.add(built.uuid)
            # Of a version whose shards nobody recorded there is nothing to carry over.
            whole = keep is None or all(s.made_by for s in keep.shards.values())
            of_shards = total if whole else sum(s.rows for s in records)
            check = functools.partial(_check_recorded, wh, built, done, of_shards, len(made) * len(held))
            return publish(built, number, signals=bool(held or recast), check=check)
        except BaseException as error:
            with contextlib.suppress(FactoryError):  # what went wrong first is told
                unseal(wh, [built.uuid])
            if built is not rows:
                built.drop()
            if not isinstance(error, LostRaceError):
                raise
            time.sleep(random.uniform(0, min(0.01 * 2**attempt, 0.5)))
    raise CommitError(f"{request.dataset}: {MAX_RACES} other writers were faster.", "Are many jobs saving in a loop?")


def _check_recorded(wh: Warehouse, built: Stage, draft: Provenance, rows_of_shards: int, held: int) -> None:
    """Make sure that what is about to be published is in the warehouse: rows, and what is recorded of them.

    Raises:
        CommitError: something is missing.
    """
    there = counted(wh, built.uuid, built.name)
    wanted = {"rows": draft.rows, "versions": 1, "recipes": 1, "rows of shards": rows_of_shards}
    if held:
        # shards that got other columns bring theirs
        wanted["columns of signals"] = max(held, there.get("columns of signals", 0))
    found = {name: there.get(name, 0) for name in wanted}
    lacking = [f"{n:,} {name}, {found[name]:,} are there" for name, n in wanted.items() if found[name] != n]
    if lacking:
        raise CommitError(
            f"{draft.dataset}: what was written is not all in the warehouse: {'; '.join(lacking)}.", "Is its disk full?"
        )


def _joined(carried: Version | None, changed: bool, recast: Sequence[str]) -> dict[str, Any]:
    """What the recipe of a version says of the rows that the query's rows joined."""
    if carried is None:
        return {}
    base = {"name": str(carried), "uuid": carried.uuid}
    return {"carried": base, **({"evolved": True, "recast": list(recast)} if changed else {})}


def _assemble(
    wh: Warehouse, request: SaveRequest, rows: Stage, carried: Version | None, replaced: Iterable[str]
) -> tuple[Stage, bool]:
    """A new table with the rows, and with the carried shards of the latest version.

    Returns:
        The table, and whether the carried shards had to be given other columns.
    """
    if carried is None:
        return clone(wh, request.dataset, rows.name), False
    keep = [s for s in carried.shards if s not in set(replaced)]
    if not keep:
        return clone(wh, request.dataset, rows.name), False
    own = rows.source()
    if dict(own.columns) != dict(carried.columns):
        if set(own.columns.items()) != set(carried.columns.items()):
            return _evolved(wh, request, rows, carried, keep), True
        rows.order_columns(list(carried.columns))
    built = create_stage(wh, request.dataset, {}, like=rows.name)
    with built.dropped_on_error():
        if len(keep) > len(carried.shards) // 2:
            built.attach(carried.table)
            built.drop_shards(s for s in carried.shards if s not in set(keep))
        else:
            built.attach(carried.table, keep)
        built.attach(rows.name)
    return built, False


def _evolved(wh: Warehouse, request: SaveRequest, rows: Stage, carried: Version, keep: Sequence[str]) -> Stage:
    """A table for rows and carried shards whose columns differ: what one side lacks is NULL there."""
    own, old = rows.source(), carried.source
    if not request.schema_evolution:
        raise QueryError(_difference(own, carried))
    columns, unit = union_columns([old, own])
    conform(rows, columns, unit)
    carried_rows = clone(wh, request.dataset, carried.table, keep)
    try:
        conform(carried_rows, columns, unit)
        built = create_stage(wh, request.dataset, {}, like=rows.name)
        with built.dropped_on_error():
            built.attach(carried_rows.name)
            built.attach(rows.name)
        return built
    finally:
        carried_rows.drop()


def _difference(own: Table, carried: Version) -> str:
    new = sorted(own.columns.keys() - carried.columns.keys())
    gone = sorted(carried.columns.keys() - own.columns.keys())
    types = [
        f"{n} is {own.columns[n]}, in {carried} {carried.columns[n]}"
        for n in own.columns
        if n in carried.columns and own.columns[n] != carried.columns[n]
    ]
    says = [f"new: {', '.join(new)}"] * bool(new) + [f"missing: {', '.join(gone)}"] * bool(gone) + types
    return (
        f"The columns of these shards differ from those of {carried}, whose other shards stay ({'; '.join(says)})."
        " Save all shards again, or give schema_evolution=True: columns that one side lacks are NULL there."
    )


def _sources(parents: Sequence[Version]) -> dict[str, str]:
    return {name: s.source for version in reversed(parents) for name, s in version.shards.items() if s.source}


def _is_passed_on(query: Select, derivation: Derivation) -> bool:
    """Whether the rows of a query are those that it was given, all of them."""
    return derivation.kind == "clone" and not isinstance(query.source, Derived)


def _rows_in(wh: Warehouse, query: Select) -> int:
    """Rows that the query was given, in the shards that it reads: those of each table once, however often it is read.

    What rows are only looked up in (the right side of a semi or an anti join) gives none.
    """
    given = {(table.name, table.shards): table for table in _givers(query)}
    total = 0
    for table in given.values():
        everything = Rendering()
        text = everything.select(Select(table, {}))
        total += int(wh.scalar(f"SELECT count() FROM ({text})", everything.params))
    return total


def _givers(plan: Plan) -> Iterator[Table]:
    """The tables whose rows become rows of the query; other rows stand as the table that they were written to."""
    if isinstance(plan, Table):
        yield plan
    elif isinstance(plan, Rows) and not isinstance(plan, Derived):
        yield staged(plan, Ledger()).source()
    else:
        for one in plan.inputs:
            yield from _givers(one)
