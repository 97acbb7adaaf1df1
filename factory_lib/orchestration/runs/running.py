"""Run whatever of the graph is behind, in this process, without a daemon: `factory run`, the demo, and tests.

It does what the sensor and the automation conditions do through the daemon, from the same knowledge (`unsynced`) and in
as few runs: look at the source, run the stages that are behind for the partitions that are behind, and stop where the
data stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import dagster as dg

from factory_lib.errors import FactoryError
from factory_lib.orchestration.automation.sensor import neighbours
from factory_lib.orchestration.behind.unsynced import INPUT, MISSING, BehindPartitions, unsynced
from factory_lib.orchestration.checks.stage_checks import stopped
from factory_lib.orchestration.code_location import load_definitions
from factory_lib.orchestration.runs.in_process import GraphRun, execute
from factory_lib.orchestration.runs.next_run import PlannedRun, forced_runs, next_run
from factory_lib.orchestration.source.shard_changes import ShardChanges, apply_changes, shard_changes
from factory_lib.orchestration.source.shards import ShardSource
from factory_lib.progress import Report

if TYPE_CHECKING:
    from factory_lib.orchestration.dagster_internals import AssetGraph


@dataclass
class GraphOutcome:
    """What running the graph did.

    Attributes:
        changes: how the source differed from what the graph knew.
        runs: the Dagster runs, in order; none when nothing was behind.
        behind: what is still behind of the stages asked for, because something failed, or was not asked for.
        stopped: a line for each stage whose newest version looks wrong, so that nothing after it was run.
    """

    changes: ShardChanges
    runs: list[GraphRun] = field(default_factory=list)
    behind: list[BehindPartitions] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    @property
    def errors(self) -> list[str]:
        """What went wrong, run by run."""
        return [run.error for run in self.runs if run.error]


@dataclass(frozen=True)
class Telling:
    """Whom to tell what goes on.

    Attributes:
        run: called before each run with its stages and its partitions.
        stage: called with the name of each stage that begins.
        report: called with the progress of what goes on within a stage (see `factory_lib.progress`).
    """

    run: Callable[[tuple[str, ...], tuple[str, ...]], None] | None = None
    stage: Callable[[str], None] | None = None
    report: Report | None = None


def run_graph(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions | None = None,
    *,
    source: ShardSource | None = None,
    stages: Sequence[str] | None = None,
    shards: Sequence[str] | None = None,
    force: bool = False,
    telling: Telling | None = None,
) -> GraphOutcome:
    """Look at the source and run what is behind, until nothing is.

    Args:
        instance: Dagster's instance, see `factory_instance`.
        definitions: the graph; None means that of the project in this folder.
        source: where the shards are; None means the graph's own resource `source`.
        stages: names of the stages to run; None means all.
        shards: the shards to make; None means all. Stages over the whole dataset follow.
        force: make these stages and shards although they are not behind.
        telling: whom to tell what goes on.

    Returns:
        What was done. Failures are in it; they do not raise. What failed is not tried again (but see `retrying`).

    Raises:
        SettingsError: there is no source, or it is empty although shards are known.
        KeyboardInterrupt: it was interrupted; the run is recorded as canceled, and what was made stays.
    """
    definitions, telling = definitions or load_definitions(), telling or Telling()
    graph = definitions.resolve_asset_graph()
    outcome = GraphOutcome(look_at_source(instance, definitions, source))
    chosen = None if stages is None else [dg.AssetKey.from_user_string(stage) for stage in stages]
    tried: set[tuple[dg.AssetKey, str | None]] = set()

    def carry_out(planned: PlannedRun, behind: Sequence[BehindPartitions] = ()) -> None:
        wanted = {(one.asset, partition) for one in behind for partition in one.partitions}
        names = tuple(key.to_user_string() for key in planned.stages)
        for piece in _pieces(instance, graph, planned):
            if telling.run is not None:
                telling.run(names, tuple(sorted(str(p) for p in piece.partitions if p is not None)))
            done = execute(instance, definitions, piece, source=source, report=telling.report, on_stage=telling.stage)
            outcome.runs.append(done)
            for key, name in zip(planned.stages, names, strict=True):
                if name in done.begun:  # what was left alone may yet have to be made
                    asked = {(key, one) for one in piece.partitions}
                    tried.update(asked if name in done.made or done.error else asked & wanted)

    if force:
        for planned in forced_runs(graph, _forced(graph, chosen), shards, partitions_of(instance, graph)):
            carry_out(planned)
    while True:
        behind = unsynced(instance, graph)
        after, outcome.stopped = stopped(instance, graph)
        may = set(graph.materializable_asset_keys if chosen is None else chosen) - after
        todo = next_run(graph, behind, partitions_of(instance, graph), chosen=may, shards=shards, tried=tried)
        if todo is None:
            outcome.behind = [one for one in behind if chosen is None or one.asset in chosen]
            return outcome
        carry_out(todo, behind)
        look_at_source(instance, definitions, source)  # shards that have gone everywhere lose their partition


def partitions_of(instance: dg.DagsterInstance, graph: AssetGraph) -> dict[dg.AssetKey, list[str]]:
    """The partitions that each stage with partitions has, in the order of the graph."""
    known: dict[object, list[str]] = {}
    found: dict[dg.AssetKey, list[str]] = {}
    for key in graph.materializable_asset_keys:
        definition = graph.get(key).partitions_def
        if definition is not None:
            if definition not in known:
                known[definition] = list(definition.get_partition_keys(dynamic_partitions_store=instance))
            found[key] = known[definition]
    return found


def _forced(graph: AssetGraph, chosen: Collection[dg.AssetKey] | None) -> Collection[dg.AssetKey]:
    return graph.materializable_asset_keys if chosen is None else chosen


def _pieces(instance: dg.DagsterInstance, graph: AssetGraph, planned: PlannedRun) -> Iterator[PlannedRun]:
    """A run, or several where its partitions are fixed ones that are no neighbours (see `in_process`)."""
    definition = graph.get(planned.stages[0]).partitions_def
    if definition is None or isinstance(definition, dg.DynamicPartitionsDefinition):
        yield planned
        return
    for piece in neighbours(definition.get_partition_keys(), planned.partitions):
        yield replace(planned, partitions=frozenset(piece))


def look_at_source(
    instance: dg.DagsterInstance, definitions: dg.Definitions, source: ShardSource | None = None
) -> ShardChanges:
    """Tell the instance how the source changed since it was looked at last."""
    asset, partitions = _source_asset(definitions)
    changes = changes_at_source(instance, definitions, source)
    uri = (source or _source_of(definitions)).uri
    apply_changes(instance, changes, asset=asset, partitions=partitions.name or "", source=uri)
    return changes


def changes_at_source(
    instance: dg.DagsterInstance, definitions: dg.Definitions, source: ShardSource | None = None
) -> ShardChanges:
    """How the source changed since it was looked at last; nothing is told to anybody.

    Args:
        source: where the shards are; None means the graph's own resource `source`.

    Raises:
        SettingsError: there is no source, or it is empty although shards are known.
    """
    graph = definitions.resolve_asset_graph()
    asset, partitions = _source_asset(definitions)
    stages = sorted(key for key in graph.materializable_asset_keys if graph.get(key).partitions_def == partitions)
    listing = (source or _source_of(definitions)).open().listing()
    return shard_changes(instance, listing, asset=asset, partitions=partitions.name or "", stages=stages)


def _source_of(definitions: dg.Definitions) -> ShardSource:
    """The graph's own source."""
    resource = (definitions.resources or {}).get("source")
    if not isinstance(resource, ShardSource):
        raise FactoryError("The graph has no resource 'source'.", "Give run_graph(source=ShardSource(uri=…)).")
    return resource


def _source_asset(definitions: dg.Definitions) -> tuple[dg.AssetKey, dg.DynamicPartitionsDefinition]:
    """The asset that stands for what the source holds, and its partitions."""
    graph = definitions.resolve_asset_graph()
    asset = next(key for key in graph.observable_asset_keys if graph.get(key).partitions_def is not None)
    partitions = graph.get(asset).partitions_def
    if not isinstance(partitions, dg.DynamicPartitionsDefinition) or partitions.name is None:
        raise FactoryError(f"The source asset {asset.to_user_string()!r} has no dynamic partitions.")
    return asset, partitions


@dataclass(frozen=True)
class GraphState:
    """What the graph would find if it looked at its source now.

    Attributes:
        changes: how the source differs from what the graph knows.
        behind: what is behind, with what the changes put behind.
        partitions: the partitions that each stage with partitions has, with those that are new.
    """

    changes: ShardChanges
    behind: Sequence[BehindPartitions]
    partitions: Mapping[dg.AssetKey, Sequence[str]]


def state_of(
    instance: dg.DagsterInstance, definitions: dg.Definitions, source: ShardSource | None = None
) -> GraphState:
    """What is behind with what the source holds now; nothing is told to anybody."""
    graph = definitions.resolve_asset_graph()
    asset, definition = _source_asset(definitions)
    changes = changes_at_source(instance, definitions, source)
    partitions = partitions_of(instance, graph)
    behind = [one for one in unsynced(instance, graph) if one.partitions]
    new = [shard.name for shard in changes.new]
    other = [*(shard.name for shard in changes.changed if shard.name not in changes.back), *changes.removed]
    for key in graph.toposorted_asset_keys:
        if key not in partitions or graph.get(key).partitions_def != definition:
            continue
        known = {p for one in behind if one.asset == key for p in one.partitions}
        if unseen := [name for name in new if name not in known]:
            behind.append(BehindPartitions(key, MISSING, tuple(unseen)))
        if asset in graph.get(key).parent_keys and (differ := [name for name in other if name not in known]):
            behind.append(BehindPartitions(key, INPUT, tuple(differ)))
        partitions[key] = list(dict.fromkeys([*partitions[key], *new]))
    return GraphState(changes, behind, partitions)
