"""What the next run makes: the stages that can share it, and the partitions that any of them is behind for.

A run over more than is behind costs nothing more (see `only_behind`): a stage that is not behind when its turn comes is
left alone. So one run takes a change through all stages that have the same partitions, and one more through those over
the whole dataset. Assets that are no stages make all that they are asked for: they get a run of their own, when they
are known to be behind.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from factory_lib.orchestration.automation.only_behind import ONLY_BEHIND
from factory_lib.orchestration.behind.unsynced import MISSING, BehindPartitions

if TYPE_CHECKING:
    from factory_lib.orchestration.dagster_internals import AssetGraph

Keys = dict[dg.AssetKey, set[str | None]]
"""Stage -> partitions; None stands for a stage without."""


@dataclass(frozen=True)
class PlannedRun:
    """A run to be.

    Attributes:
        stages: what it is for, in the order of the graph.
        partitions: the partitions that it is for; None alone for stages without.
        only_behind: whether its stages leave alone what is not behind.
    """

    stages: tuple[dg.AssetKey, ...]
    partitions: frozenset[str | None]
    only_behind: bool = True


def next_run(
    graph: AssetGraph,
    behind: Sequence[BehindPartitions],
    partitions: Mapping[dg.AssetKey, Collection[str]],
    *,
    chosen: Collection[dg.AssetKey] | None = None,
    shards: Collection[str] | None = None,
    tried: Collection[tuple[dg.AssetKey, str | None]] = (),
) -> PlannedRun | None:
    """What to run next; None when nothing is left that can be made.

    Args:
        behind: what is behind, of all stages.
        partitions: the partitions that each stage with partitions has.
        chosen: stages that may be made; None means all.
        shards: partitions that may be made; None means all.
        tried: what was tried already.
    """
    never: Keys = {}
    wanted: Keys = {}
    for one in behind:
        if one.reason == MISSING:
            never.setdefault(one.asset, set()).update(one.partitions)
        if chosen is None or one.asset in chosen:
            may = {p for p in one.partitions if p is None or shards is None or p in shards}
            wanted.setdefault(one.asset, set()).update(p for p in may if (one.asset, p) not in tried)
    own = _with_input(graph, wanted, never, partitions)
    first = next((key for key in graph.toposorted_asset_keys if own.get(key)), None)
    if first is None:
        return None
    if not leaves_alone(graph, first):
        return PlannedRun((first,), frozenset(own[first]))
    together = [first]
    for key in graph.toposorted_asset_keys:
        allowed = chosen is None or key in chosen
        if allowed and key not in together and _joins(graph, key, together, own):
            together.append(key)
    asked: frozenset[str | None] = frozenset().union(*(own.get(key, set()) for key in together))
    stages = _with_all_inputs(graph, together, asked, never, partitions)
    return PlannedRun(tuple(stages), frozenset().union(*(own.get(key, set()) for key in stages)))


def leaves_alone(graph: AssetGraph, key: dg.AssetKey) -> bool:
    """Whether an asset is a stage: of what it is asked to make, it leaves alone what is not behind."""
    return ONLY_BEHIND in graph.get(key).metadata


def _with_input(
    graph: AssetGraph, wanted: Keys, never: Keys, partitions: Mapping[dg.AssetKey, Collection[str]]
) -> Keys:
    """Of what is wanted, that of which every input is there, or is about to be made."""
    own: Keys = {}
    for key in graph.toposorted_asset_keys:
        found = set(wanted.get(key, set()))
        for parent in graph.get(key).parent_keys:
            missing = never.get(parent, set()) - own.get(parent, set())
            found -= _lacking(graph, key, parent, found, missing, partitions)
        if found:
            own[key] = found
    return own


def _lacking(
    graph: AssetGraph,
    key: dg.AssetKey,
    parent: dg.AssetKey,
    asked: Collection[str | None],
    missing: Collection[str | None],
    partitions: Mapping[dg.AssetKey, Collection[str]],
) -> set[str | None]:
    """Of the partitions asked for, those that an input is not there for, of which these are missing."""
    if graph.get(parent).is_partitioned and not graph.get(key).is_partitioned:
        # a stage over all shards makes do with those that are there
        return set() if not missing or set(partitions.get(parent, ())) - set(missing) else set(asked)
    return set(asked) if None in missing else set(asked) & set(missing)


def _joins(graph: AssetGraph, key: dg.AssetKey, together: Sequence[dg.AssetKey], own: Keys) -> bool:
    """Whether a stage can be made in the same run: it has the same partitions, and nothing has to come before."""
    node = graph.get(key)
    if not node.is_materializable or node.partitions_def != graph.get(together[0]).partitions_def:
        return False
    ancestors = graph.get_ancestor_asset_keys(key)
    waits = any(own.get(one) for one in ancestors if one not in together)
    return leaves_alone(graph, key) and not waits and bool(own.get(key) or ancestors & set(together))


def _with_all_inputs(
    graph: AssetGraph,
    together: Sequence[dg.AssetKey],
    asked: frozenset[str | None],
    never: Keys,
    partitions: Mapping[dg.AssetKey, Collection[str]],
) -> list[dg.AssetKey]:
    """Of these stages, those of which the inputs from outside of the run are there for all that it is for."""
    found: list[dg.AssetKey] = []
    for key in together:
        outside = [parent for parent in graph.get(key).parent_keys if parent not in found]
        if not any(_lacking(graph, key, parent, asked, never.get(parent, set()), partitions) for parent in outside):
            found.append(key)
    return found or [together[0]]


def forced_runs(
    graph: AssetGraph,
    chosen: Collection[dg.AssetKey],
    shards: Collection[str] | None,
    partitions: Mapping[dg.AssetKey, Collection[str]],
) -> list[PlannedRun]:
    """Runs that make these stages and shards, whether they are behind or not: neighbours in the graph with the same
    partitions share one."""
    found: list[PlannedRun] = []
    for key in graph.toposorted_asset_keys:
        if key not in chosen:
            continue
        node = graph.get(key)
        asked: frozenset[str | None] = frozenset({None})
        if node.is_partitioned:
            asked = frozenset(p for p in partitions.get(key, ()) if shards is None or p in shards)
        last = found[-1] if found else None
        if last and graph.get(last.stages[0]).partitions_def == node.partitions_def:
            found[-1] = PlannedRun((*last.stages, key), last.partitions, only_behind=False)
        elif asked:
            found.append(PlannedRun((key,), asked, only_behind=False))
    return found
