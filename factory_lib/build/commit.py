"""The commit: rows become the next version of a dataset, whoever else commits.

They are put together with what is carried over from the latest version, recorded under the UUID that the table keeps,
and published by one rename. When another writer was faster, what it brought is taken in and the next number is tried:
nothing is lost.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from factory_lib.build.requests import SaveRequest
from factory_lib.errors import CommitError, FactoryError, QueryError
from factory_lib.plan.nodes import Table
from factory_lib.plan.storing import union_columns
from factory_lib.warehouse import provenance
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.computed import Held, carry_held, record_held
from factory_lib.warehouse.derive import conform
from factory_lib.warehouse.losses import ShardLoss, record_losses
from factory_lib.warehouse.provenance import Provenance, ShardRecord
from factory_lib.warehouse.seals import counted, unseal
from factory_lib.warehouse.staging import StagingTable, clone, create_stage
from factory_lib.warehouse.versions import LostRaceError, Version, latest, publish

MAX_RACES = 1000


@dataclass(frozen=True)
class Draft:
    """What is to become a version.

    Attributes:
        request: what was asked for.
        rows: the rows of the query.
        made: the shards that they are in; the version that made them is filled in.
        cached: columns in which they hold values of signals.
        losses: what of the shards was seen at the source and could not be read.
        provenance: what the version was made of, but for what is known when it is published.
        recipe: the query, such as can be run again.
        started: `time.monotonic()` when it began.
    """

    request: SaveRequest
    rows: StagingTable
    made: Sequence[ShardRecord]
    cached: Sequence[Held]
    losses: Sequence[ShardLoss]
    provenance: Provenance
    recipe: Mapping[str, Any]
    started: float

    @property
    def replaced(self) -> set[str]:
        """Shards of the latest version that are not carried over."""
        return {*(self.request.shards or ()), *(s.shard for s in self.made), *self.request.removed}


def commit(warehouse: Warehouse, draft: Draft) -> Version:
    """Publish a draft as the next version, as often as it takes to win the race for its number.

    Raises:
        QueryError: its columns do not fit those of the version whose shards are carried over.
        CommitError: it could not be published.
    """
    recorded: set[str] = set()
    for attempt in range(MAX_RACES):
        base = latest(warehouse, draft.request.dataset)
        built = _assembled(warehouse, draft, base if draft.request.mode == "overwrite_shards" else None)
        try:
            if built.stage.uuid not in recorded:
                _record(warehouse, draft, built)
                recorded.add(built.stage.uuid)
            return _publish(warehouse, draft, built, base.number + 1 if base else 1)
        except BaseException as error:
            with contextlib.suppress(FactoryError):  # what went wrong first is told
                unseal(warehouse, [built.stage.uuid])
            if built.stage is not draft.rows:
                built.stage.drop()
            if not isinstance(error, LostRaceError):
                raise
            time.sleep(random.uniform(0, min(0.01 * 2**attempt, 0.5)))
    dataset = draft.request.dataset
    raise CommitError(f"{dataset}: {MAX_RACES} other writers were faster.", "Are many jobs saving in a loop?")


@dataclass(frozen=True)
class _Assembled:
    """A table that can be published.

    Attributes:
        stage: the table.
        shards: the shards that the new version makes.
        carried: the version whose other shards it carries over, if there is one.
        recast: those that got other columns: the new version makes them, too. None where the columns are the same.
    """

    stage: StagingTable
    shards: Sequence[ShardRecord]
    carried: Version | None = None
    recast: Sequence[str] | None = field(default=None)

    @property
    def kept(self) -> Version | None:
        """The version whose shards stay those that it made, or carried over itself."""
        return self.carried if self.recast is None else None


def _assembled(warehouse: Warehouse, draft: Draft, carried: Version | None) -> _Assembled:
    """The rows, with the carried shards of the latest version."""
    rows, made = draft.rows, draft.made
    if draft.request.mode == "new":
        # Rows that nothing joins are published as they are; others stay what the next attempt begins with.
        return _Assembled(rows, [dataclasses.replace(s, origin=rows.uuid) for s in made])
    stage, evolved = _joined(warehouse, draft, carried)
    shards = [dataclasses.replace(s, origin=stage.uuid) for s in made]
    if carried is None or not evolved:
        return _Assembled(stage, shards, carried)
    with stage.dropped_on_error():
        others = stage.shard_rows().keys() - draft.replaced
    recast = [dataclasses.replace(s, origin=stage.uuid) for name, s in carried.shards.items() if name in others]
    return _Assembled(stage, [*shards, *recast], carried, [s.shard for s in recast])


def _record(warehouse: Warehouse, draft: Draft, built: _Assembled) -> None:
    """Write down what the version is made of."""
    uuid, carried, replaced = built.stage.uuid, built.carried, draft.replaced
    joined: dict[str, Any] = {} if carried is None else {"carried": {"name": str(carried), "uuid": carried.uuid}}
    if built.recast is not None:
        joined |= {"evolved": True, "recast": list(built.recast)}
    provenance.record(
        warehouse,
        uuid,
        _finished(draft, built),
        built.shards,
        built.kept.uuid if built.kept else None,
        sorted(replaced),
        {**draft.recipe, **joined, "engine": warehouse.version},
    )
    record_held(warehouse, uuid, [s.shard for s in draft.made], draft.cached)
    if carried and built.recast:
        carry_held(warehouse, uuid, carried.uuid, built.recast)
    before = carried.uuid if carried else None
    provenance.record_inputs(warehouse, uuid, draft.request.inputs, before, replaced)
    record_losses(warehouse, uuid, draft.losses, before, replaced)


def _finished(draft: Draft, built: _Assembled) -> Provenance:
    """The provenance with the number of rows and the time that it took."""
    total = sum(s.rows for s in built.shards)
    if built.kept:
        replaced = draft.replaced
        total += sum(s.rows for name, s in built.kept.shards.items() if name not in replaced)
    return dataclasses.replace(draft.provenance, rows=total, seconds=round(time.monotonic() - draft.started, 4))


def _publish(warehouse: Warehouse, draft: Draft, built: _Assembled, number: int) -> Version:
    done = _finished(draft, built)
    # Of a version whose shards nobody recorded there is nothing to carry over.
    whole = built.kept is None or all(s.made_by for s in built.kept.shards.values())
    of_shards = done.rows if whole else sum(s.rows for s in built.shards)
    columns = len(draft.made) * len(draft.cached)
    check = functools.partial(_check_recorded, warehouse, built.stage, done, of_shards, columns)
    return publish(built.stage, number, signals=bool(draft.cached or built.recast), check=check)


def _check_recorded(wh: Warehouse, built: StagingTable, done: Provenance, rows_of_shards: int, held: int) -> None:
    """Make sure that what is about to be published is in the warehouse: rows, and what is recorded of them.

    Raises:
        CommitError: something is missing.
    """
    there = counted(wh, built.uuid, built.name)
    wanted = {"rows": done.rows, "versions": 1, "recipes": 1, "rows of shards": rows_of_shards}
    if held:
        # shards that got other columns bring theirs
        wanted["columns of signals"] = max(held, there.get("columns of signals", 0))
    found = {name: there.get(name, 0) for name in wanted}
    lacking = [f"{n:,} {name}, {found[name]:,} are there" for name, n in wanted.items() if found[name] != n]
    if lacking:
        raise CommitError(
            f"{done.dataset}: what was written is not all in the warehouse: {'; '.join(lacking)}.", "Is its disk full?"
        )


def _joined(wh: Warehouse, draft: Draft, carried: Version | None) -> tuple[StagingTable, bool]:
    """A new table with the rows, and with the carried shards of the latest version.

    Returns:
        The table, and whether the carried shards had to be given other columns.
    """
    request, rows, replaced = draft.request, draft.rows, draft.replaced
    keep = [s for s in carried.shards if s not in replaced] if carried else []
    if carried is None or not keep:
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


def _evolved(
    wh: Warehouse, request: SaveRequest, rows: StagingTable, carried: Version, keep: Sequence[str]
) -> StagingTable:
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
