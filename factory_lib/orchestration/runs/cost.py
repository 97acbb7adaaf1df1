"""What a run would cost: stage by stage the partitions, why, the values to compute, and the time that the last took."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from factory_lib.orchestration.behind.unsynced import BehindPartitions
from factory_lib.orchestration.keys import dataset_name
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import versions

if TYPE_CHECKING:
    from factory_lib.orchestration.dagster_internals import AssetGraph
    from factory_lib.warehouse.versions import Version

ASKED, FOLLOWS = "asked for", "if what it is made of changes"
_LAST = 5
"""Versions of a stage that are asked what a row costs."""


@dataclass(frozen=True)
class StageCost:
    """What one stage of a run costs, as far as its last runs tell.

    Attributes:
        stage: its name.
        reason: why it would run: as in `BehindPartitions`, `ASKED` or `FOLLOWS`.
        partitions: how many shards; None for a stage without partitions.
        samples: rows that it reads; None where nobody knows yet.
        values: values of signals, of which those that are there already are taken over; None where nobody knows.
        seconds: that it takes; None where it never ran.
    """

    stage: str
    reason: str
    partitions: int | None
    samples: int | None
    values: int | None
    seconds: float | None


def estimated(
    instance: dg.DagsterInstance,
    graph: AssetGraph,
    behind: Sequence[BehindPartitions],
    partitions: Mapping[dg.AssetKey, Collection[str]],
    *,
    chosen: Collection[dg.AssetKey] | None = None,
    shards: Collection[str] | None = None,
    force: bool = False,
) -> list[StageCost]:
    """What a run over these stages and shards costs; arguments as for `next_run`.

    Returns:
        One item a stage and reason, in the order of the graph, with the stages that follow only if something changes.
    """
    found: list[StageCost] = []
    begun: dict[dg.AssetKey, set[str | None]] = {}
    for key in graph.toposorted_asset_keys:
        node = graph.get(key)
        if not node.is_materializable or (chosen is not None and key not in chosen):
            continue
        every: set[str | None] = {p for p in partitions.get(key, ()) if shards is None or p in shards}
        if not node.is_partitioned:
            every = {None}
        reasons = {ASKED: every} if force else _reasons(behind, key, every)
        before = [begun[one] for one in graph.get_ancestor_asset_keys(key) if one in begun]
        if not any(reasons.values()) and before:
            affected: set[str | None] = set().union(*before)
            reasons = {FOLLOWS: affected & every if node.is_partitioned else every}
        reasons = {reason: asked for reason, asked in reasons.items() if asked}
        if reasons:
            begun[key] = set().union(*reasons.values())
            found += _costs(instance, graph, key, reasons)
    return found


def _reasons(
    behind: Sequence[BehindPartitions], key: dg.AssetKey, every: set[str | None]
) -> dict[str, set[str | None]]:
    return {one.reason: every & set(one.partitions) for one in behind if one.asset == key}


def _costs(
    instance: dg.DagsterInstance, graph: AssetGraph, key: dg.AssetKey, reasons: Mapping[str, set[str | None]]
) -> list[StageCost]:
    wh, partitioned = warehouse(), graph.get(key).is_partitioned
    own = versions(wh, dataset_name(key))
    read = [made[-1] for parent in sorted(graph.get(key).parent_keys) if (made := versions(wh, dataset_name(parent)))]
    given = max(read, key=lambda version: version.rows, default=own[-1] if own else None)
    pace = _RowCost.of(own)
    found = []
    for reason, asked in reasons.items():
        samples = None if given is None else _rows(given, asked)
        seconds = values = None
        if not own:
            seconds = _last_seconds(instance, key)
        elif samples is not None and pace is not None:
            seconds, values = samples * pace.seconds, round(samples * pace.values) or None
        count = len(asked) if partitioned else None
        found.append(StageCost(key.to_user_string(), reason, count, samples, values, seconds))
    return found


def _rows(version: Version, asked: set[str | None]) -> int | None:
    """Rows of a version in the shards asked for; of those that it does not have, as many as others have on average."""
    if None in asked:
        return version.rows
    sizes = version.shard_rows()
    if not sizes:
        return None
    mean = sum(sizes.values()) / len(sizes)
    return round(sum(sizes.get(str(shard), mean) for shard in asked))


@dataclass(frozen=True)
class _RowCost:
    """Seconds and values of signals for each row that was read."""

    seconds: float
    values: float

    @staticmethod
    def of(made: Sequence[Version]) -> _RowCost | None:
        records = [version.provenance for version in made[-_LAST:] if version.provenance is not None]
        read = sum(one.rows_in or sum(source.get("samples", 0) for source in one.sources) for one in records)
        if not read:
            return None
        return _RowCost(
            sum(one.seconds for one in records) / read, sum(one.computed + one.reused for one in records) / read
        )


def _last_seconds(instance: dg.DagsterInstance, key: dg.AssetKey) -> float | None:
    """How long something took that makes no dataset, when it was made last."""
    event = instance.get_latest_materialization_event(key)
    said = event.asset_materialization.metadata.get("seconds") if event and event.asset_materialization else None
    return float(said.value) if said is not None and isinstance(said.value, int | float) else None
