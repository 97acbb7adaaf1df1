"""Which signal made a column: as the plan says, and behind it what is recorded of the versions that it reads."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TypeAlias

from factory_lib.errors import NotFound, QueryError, SignalError
from factory_lib.names import is_version_name
from factory_lib.plan.nodes import Join, Over, Plan, Signals, Table, Union
from factory_lib.plan.recorded import RecordedSignal, recorded
from factory_lib.plan.select import Select
from factory_lib.signals.naming import signal_of
from factory_lib.signals.signal import Signal
from factory_lib.warehouse import provenance
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.provenance import ShardRecord
from factory_lib.warehouse.versions import resolve

_Maker: TypeAlias = Signal | RecordedSignal | None


def signal_behind(plan: Plan, column: str) -> Signal:
    """The signal that computed a column, of all rows.

    Raises:
        QueryError: none did, or it is not known which.
        SignalError: it cannot be found any more, or would compute other values now; or there were several.
    """
    found = list(_makers(plan, column, None))
    known = {one.fingerprint: one for one in found if one is not None}
    if len(known) > 1:
        told = " and ".join(f"{one.name!r} with the fingerprint {mark[:16]}" for mark, one in sorted(known.items()))
        raise SignalError(
            f"The column {column!r} was made by several signals: {told}. Their vectors may not be comparable.",
            "Compute the column again by one of them; encoder= names the model where they are comparable.",
        )
    if not known or None in found:
        raise QueryError(
            f"It is not recorded which signal made the column {column!r}{' of some rows' if known else ''}.",
            "Name the model by encoder=, such as encoder=clip.encode_image, or give the vector itself by vector=.",
        )
    (maker,) = known.values()
    return maker if isinstance(maker, Signal) else _found_again(maker, column)


def _found_again(maker: RecordedSignal, column: str) -> Signal:
    try:
        known = signal_of(maker.reference)
    except SignalError as error:
        raise SignalError(error.message, "Name the model by encoder=.") from error
    if known.fingerprint != maker.fingerprint:
        raise SignalError(
            f"The column {column!r} was made by signal {maker.name!r} when its fingerprint was"
            f" {maker.fingerprint[:16]}. It is {known.fingerprint[:16]} now: vectors of the two may not be comparable.",
            "Compute the column again, or name the model by encoder=.",
        )
    return known


def _makers(plan: Plan, column: str, shards: Collection[str] | None) -> Iterator[_Maker]:
    """What made a column: a signal, or None where that is not known, of each part of the rows.

    Args:
        shards: the rows of these alone count; None: all.
    """
    match plan:
        case Signals():
            own = next((one for one in plan.signals if one.name == column), None)
            yield from [own] if own else _makers(plan.input, column, shards)
        case Select() if (name := plan.passed(column)) is not None:
            yield from _makers(plan.source, name, shards if plan.passed("shard") == "shard" else None)
        case Join():
            side, name = plan.side(column)
            gives_shard = plan.columns.get("shard") == (plan.columns[column][0], "shard")
            yield from _makers(side, name, shards if gives_shard else None)
        case Union():
            for query in plan.queries:
                if column in query.names:
                    yield from _makers(query, column, shards)
        case Over() if column not in plan.written:
            yield from _makers(plan.input, column, shards)
        case Table() if is_version_name(plan.name):
            yield from _recorded_of_version(plan, column, shards)
        case _:
            yield None


def _recorded_of_version(table: Table, column: str, shards: Collection[str] | None) -> Iterator[_Maker]:
    """By what is recorded of the shards of a version, and of those that they were made of."""
    try:
        version = resolve(warehouse(), table.name)
    except NotFound:  # dropped since
        yield None
        return
    read = [
        shard
        for name, shard in version.shards.items()
        if (shards is None or name in shards) and (table.shards is None or name in table.shards)
    ]
    made = _by_origin(read) or {version.uuid: frozenset()}
    yield from _recorded(made, column)


def _recorded(made: Mapping[str, frozenset[str]], column: str) -> Iterator[_Maker]:
    """By what is recorded of shards.

    Args:
        made: UUID of a version -> shards that it made.
    """
    recipes = provenance.read_recipes(warehouse(), made)
    for origin, shards in made.items():
        recipe = recipes.get(origin)
        if recipe is None:
            yield None
            continue
        recast = shards & set(recipe.get("recast", ()))  # were given other columns, and made before
        if recast:
            before = provenance.read_shards(warehouse(), recipe["carried"]["uuid"])
            yield from _recorded(_by_origin(before[name] for name in recast), column)
        plan = recorded(recipe)
        if (shards - recast or not shards) and column in plan.names:
            yield from _makers(plan, column, (shards - recast) or None)


def _by_origin(shards: Iterable[ShardRecord]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for shard in shards:
        found[shard.origin] = found.get(shard.origin, frozenset()) | {shard.shard}
    return found
