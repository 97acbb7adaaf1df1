"""Run whatever of the graph is behind, in this process, without a daemon: for the demo, the command line and tests.

It does what the sensor and the automation conditions do through the daemon, from the same knowledge (`unsynced`): look
at the source, run the stages that are behind for the partitions that are behind, and stop where the data stays the
same.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dagster as dg

from factory_lib.errors import FactoryError
from factory_lib.orchestration.dagster_internals import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from factory_lib.orchestration.shard_changes import ShardChanges, apply_changes, shard_changes
from factory_lib.orchestration.shards import ShardSource
from factory_lib.orchestration.unsynced import MISSING, BehindPartitions, unsynced
from factory_lib.progress import Report, reporting

if TYPE_CHECKING:
    from factory_lib.orchestration.dagster_internals import AssetGraph

GRAPH = "factory_assets.definitions"
"""The module that defines the graph."""


@dataclass(frozen=True)
class GraphRun:
    """One Dagster run.

    Attributes:
        run_id: Dagster's id of the run.
        stages: names of the stages that it was to make, in the order of the graph.
        partitions: the partitions it was for; empty for stages without partitions.
        seconds: wall time.
        begun: the stages that were begun; those behind one that failed were not.
        error: what went wrong, or an empty string.
    """

    run_id: str
    stages: tuple[str, ...]
    partitions: tuple[str, ...]
    seconds: float
    begun: tuple[str, ...]
    error: str = ""


@dataclass
class GraphOutcome:
    """What running the graph did.

    Attributes:
        changes: how the source differed from what the graph knew.
        runs: the Dagster runs, in order; none when nothing was behind.
        behind: what is still behind, because something failed.
    """

    changes: ShardChanges
    runs: list[GraphRun] = field(default_factory=list)
    behind: list[BehindPartitions] = field(default_factory=list)

    @property
    def errors(self) -> list[str]:
        """What went wrong, run by run."""
        return [run.error for run in self.runs if run.error]


def load_definitions(module: str = GRAPH) -> dg.Definitions:
    """The graph's definitions, from the module that defines them."""
    found = importlib.import_module(module).defs
    return found if isinstance(found, dg.Definitions) else found()


def run_graph(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions | None = None,
    *,
    source: ShardSource | None = None,
    stages: Sequence[str] | None = None,
    on_run: Callable[[tuple[str, ...], tuple[str, ...]], None] | None = None,
    report: Report | None = None,
) -> GraphOutcome:
    """Look at the source and run what is behind, until nothing is.

    Args:
        instance: Dagster's instance, see `factory_instance`.
        definitions: the graph; None means that of `factory_assets`.
        source: where the shards are; None means the graph's own resource `source`.
        stages: names of the stages to run; None means all.
        on_run: called before each run with its stages and its partitions.
        report: called with the progress of what goes on within a run (see `factory_lib.progress`).

    Returns:
        What was done. Failures are in it; they do not raise. A stage that failed is not tried again.

    Raises:
        SettingsError: there is no source, or it is empty although shards are known.
    """
    definitions = definitions or load_definitions()
    graph = definitions.resolve_asset_graph()
    outcome = GraphOutcome(_announce(instance, definitions, source))
    chosen = None if stages is None else [dg.AssetKey(stage) for stage in stages]
    tried: set[tuple[dg.AssetKey, str | None]] = set()
    while True:
        behind = unsynced(instance, graph, chosen)
        todo = _next_run(instance, graph, behind, tried)
        if todo is None:
            outcome.behind = behind
            return outcome
        keys, partitions = todo
        names = tuple(key.to_user_string() for key in keys)
        for part in _ranges(instance, graph.get(keys[0]).partitions_def, partitions):
            if on_run is not None:
                on_run(names, part)
            done = _run(instance, definitions, keys, part, report, source)
            outcome.runs.append(done)
            tried |= {(key, one) for key in keys for one in part or (None,) if key.to_user_string() in done.begun}
        _announce(instance, definitions, source)  # shards that have gone everywhere lose their partition


def _announce(instance: dg.DagsterInstance, definitions: dg.Definitions, source: ShardSource | None) -> ShardChanges:
    """Tell the instance how the source changed."""
    graph = definitions.resolve_asset_graph()
    asset = next(key for key in graph.observable_asset_keys if graph.get(key).partitions_def is not None)
    partitions = graph.get(asset).partitions_def
    if not isinstance(partitions, dg.DynamicPartitionsDefinition) or partitions.name is None:
        raise FactoryError(f"The source asset {asset.to_user_string()!r} has no dynamic partitions.")
    resource = source or (definitions.resources or {}).get("source")
    if not isinstance(resource, ShardSource):
        raise FactoryError("The graph has no resource 'source'.", "Give run_graph(source=ShardSource(uri=…)).")
    stages = sorted(key for key in graph.materializable_asset_keys if graph.get(key).partitions_def == partitions)
    shards = resource.open().shards()
    changes = shard_changes(instance, shards, asset=asset, partitions=partitions.name, stages=stages)
    apply_changes(instance, changes, asset=asset, partitions=partitions.name, source=resource.uri)
    return changes


def _next_run(
    instance: dg.DagsterInstance,
    graph: AssetGraph,
    behind: Sequence[BehindPartitions],
    tried: set[tuple[dg.AssetKey, str | None]],
) -> tuple[list[dg.AssetKey], set[str | None]] | None:
    """The first stage that can run, with those after it that need the same partitions for the first time.

    Stages that are merely out of date run one by one: what comes after them runs only if their data really changed.
    """
    wanted: dict[dg.AssetKey, set[str | None]] = {}
    never: dict[dg.AssetKey, set[str | None]] = {}
    for one in behind:
        wanted.setdefault(one.asset, set()).update(one.partitions)
        if one.reason == MISSING:
            never.setdefault(one.asset, set()).update(one.partitions)
    chosen: list[dg.AssetKey] = []
    partitions: set[str | None] = set()
    for key in graph.toposorted_asset_keys:
        if not chosen:
            partitions = {one for one in wanted.get(key, set()) if (key, one) not in tried}
            partitions -= _without_input(instance, graph, key, partitions, never)
            if partitions:
                chosen.append(key)
        elif (
            never.get(key) == partitions
            and graph.get(key).partitions_def == graph.get(chosen[0]).partitions_def
            and all(_is_ready(graph, parent, chosen, wanted) for parent in graph.get(key).parent_keys)
        ):
            chosen.append(key)
    return (chosen, partitions) if chosen else None


def _is_ready(
    graph: AssetGraph, parent: dg.AssetKey, chosen: Sequence[dg.AssetKey], wanted: Mapping[dg.AssetKey, set[str | None]]
) -> bool:
    """Whether an input is made in the same run, or is there and will not change by that run."""
    if parent in chosen:
        return True
    return parent not in wanted and not graph.get_ancestor_asset_keys(parent) & set(chosen)


def _without_input(
    instance: dg.DagsterInstance,
    graph: AssetGraph,
    key: dg.AssetKey,
    partitions: set[str | None],
    never: Mapping[dg.AssetKey, set[str | None]],
) -> set[str | None]:
    """Of these partitions of a stage, those of which an input was never made."""
    lacking: set[str | None] = set()
    for parent in graph.get(key).parent_keys:
        missing = never.get(parent, set())
        definition = graph.get(parent).partitions_def
        if definition is not None and graph.get(key).partitions_def is None:
            # a stage over all shards makes do with those that are there
            made = set(definition.get_partition_keys(dynamic_partitions_store=instance)) - missing
            lacking |= set() if made else partitions
        else:
            lacking |= partitions & missing
    return lacking


def _ranges(
    instance: dg.DagsterInstance, definition: dg.PartitionsDefinition[str] | None, partitions: Collection[str | None]
) -> Iterator[tuple[str, ...]]:
    """Partitions in pieces that are neighbours: Dagster runs one partition, or a range of them."""
    if definition is None:
        yield ()
        return
    piece: list[str] = []
    for key in definition.get_partition_keys(dynamic_partitions_store=instance):
        if key in partitions:
            piece.append(key)
        elif piece:
            yield tuple(piece)
            piece = []
    if piece:
        yield tuple(piece)


def _run(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    keys: Sequence[dg.AssetKey],
    partitions: tuple[str, ...],
    report: Report | None,
    source: ShardSource | None,
) -> GraphRun:
    started = time.monotonic()
    tags: dict[str, str] = {}
    if len(partitions) > 1:
        tags = {ASSET_PARTITION_RANGE_START_TAG: partitions[0], ASSET_PARTITION_RANGE_END_TAG: partitions[-1]}
    with reporting(report) if report else nullcontext():
        result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=list(keys),
            partition_key=partitions[0] if len(partitions) == 1 else None,
            tags=tags,
            run_config={**_QUIET, **_told(source)},
            raise_on_error=False,
        )
    names = tuple(key.to_user_string() for key in keys)
    begun = {event.step_key for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_START}
    done = tuple(name for key, name in zip(keys, names, strict=True) if key.to_python_identifier() in begun)
    return GraphRun(result.run_id, names, partitions, time.monotonic() - started, done, _error(result))


def _error(result: dg.ExecuteInProcessResult) -> str:
    """The first failure of a run, in one line, or an empty string."""
    for event in result.all_events:
        if event.is_step_failure:
            failure = event.step_failure_data
            if failure.user_failure_data is not None and failure.user_failure_data.description:
                return str(failure.user_failure_data.description)
            error = failure.error
            while error is not None and error.cause is not None:
                error = error.cause
            return error.message.strip() if error is not None else "failed without saying why"
    return "" if result.success else "failed without saying why"


def _told(source: ShardSource | None) -> dict[str, object]:
    """Run configuration that has stages read another source than the graph's own."""
    if source is None:
        return {}
    return {"resources": {"source": {"config": source.config()}}}


_QUIET: dict[str, object] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Run configuration that keeps Dagster's lines off the terminal; they are in the event log."""
