"""The sensor that evaluates the stages' conditions, and asks for few runs.

Dagster asks for a run a partition, or for a backfill when there are several. A backfill counts partitions that its runs
leave alone as failed (see `only_behind`), and takes a run a stage. This sensor asks for one run for all partitions that
the same stages are requested for, with those between them that have nothing to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib.orchestration.automation.attempts import AGAIN, failures
from factory_lib.orchestration.automation.lost_runs import fail_lost_runs
from factory_lib.orchestration.automation.only_behind import ONLY_BEHIND
from factory_lib.orchestration.automation.restated import restatements
from factory_lib.orchestration.behind.unsynced import behind
from factory_lib.orchestration.checks.synced import DONE, stages_with_check
from factory_lib.orchestration.dagster_internals import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
    SensorExecutionData,
    copy,
)

if TYPE_CHECKING:
    from factory_lib.orchestration.dagster_internals import AssetGraph, BaseAssetGraph


BRIDGED = 100
"""Partitions with nothing to do that a run may be for besides: they cost less than another run."""

Tell = Callable[[dg.DagsterInstance, Any], dg.AssetCheckEvaluation]
"""Says of an instance and a graph what a check is to show."""


class FewRunsSensor(dg.AutomationConditionSensorDefinition):
    """Evaluates automation conditions and requests runs over ranges of partitions that make only what is behind.

    Args:
        name: of the sensor.
        description: of the sensor.
        seconds: how often it looks.
        metadata: of the sensor.
        tells: checks that it keeps up to date, of what stages wait for: each is recorded when it says something else.
        rest: seconds for which nothing was observed of the source before anything is asked for. What the shard sensor
            tells is written event by event, and a tick in the middle of it would see the first shards alone.
    """

    def __init__(
        self,
        name: str,
        *,
        description: str,
        seconds: int = 15,
        metadata: Mapping[str, Any] | None = None,
        tells: Sequence[Tell] = (),
        rest: float = 5.0,
    ) -> None:
        self._tells = tuple(tells)
        self._rest = rest
        self._newest_failure = ""
        super().__init__(
            name,
            target=dg.AssetSelection.all(),
            minimum_interval_seconds=seconds,
            default_status=dg.DefaultSensorStatus.RUNNING,
            use_user_code_server=True,  # the stages' conditions are our own
            emit_backfills=False,
            run_tags={ONLY_BEHIND: "true"},
            description=description,
            metadata=metadata,
        )

    def with_attributes(
        self, *, jobs: Sequence[Any] | None = None, metadata: Mapping[str, Any] | None = None
    ) -> FewRunsSensor:
        """The same sensor with other metadata: Dagster makes such a copy when it loads definitions."""
        return FewRunsSensor(
            self.name,
            description=self.description or "",
            seconds=self.minimum_interval_seconds or 15,
            metadata=self.metadata if metadata is None else metadata,
            tells=self._tells,
            rest=self._rest,
        )

    def evaluate_tick(self, context: dg.SensorEvaluationContext) -> SensorExecutionData:
        """What is to be run now."""
        assert context.repository_def is not None
        graph = context.repository_def.asset_graph
        if _observed_since(context.instance, graph, time.time() - self._rest):
            return SensorExecutionData(skip_message="The source is being told of: in a moment.", cursor=context.cursor)
        for run_id in fail_lost_runs(context.instance):
            context.log.warning(f"Run {run_id} has no process any more: it counts as failed.")
        found = super().evaluate_tick(context)
        events = [*self._restated(context.instance, graph), *self._told(context.instance, graph)]
        requests = list(_few(context.instance, graph, found.run_requests or ()))
        return copy(found, run_requests=requests, asset_events=[*found.asset_events, *events])

    def _restated(self, instance: dg.DagsterInstance, graph: AssetGraph) -> Iterator[dg.AssetMaterialization]:
        """What is said once more of stages, when a run failed since it was said last."""
        newest = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]), limit=1)
        if newest and newest[0].run_id != self._newest_failure:
            self._newest_failure = newest[0].run_id
            for key in stages_with_check(graph):
                yield from restatements(instance, graph, key)

    def _told(self, instance: dg.DagsterInstance, graph: AssetGraph) -> Iterator[dg.AssetCheckEvaluation]:
        for tell in self._tells:
            now = tell(instance, graph)
            records = instance.event_log_storage.get_asset_check_execution_history(
                now.asset_check_key, limit=1, status=DONE
            )
            before = records[0].evaluation if records else None
            if before is None or before.description != now.description:
                yield now


def _observed_since(instance: dg.DagsterInstance, graph: AssetGraph, at: float) -> bool:
    """Whether anything was observed since a time."""
    for key in graph.observable_asset_keys:
        newest = instance.fetch_observations(key, limit=1).records
        if newest and newest[0].timestamp > at:
            return True
    return False


def _few(instance: dg.DagsterInstance, graph: AssetGraph, asked: Sequence[dg.RunRequest]) -> Iterator[dg.RunRequest]:
    """Requests for single partitions, as requests for ranges."""
    for together in _alike(_told_again(instance, graph, asked)):
        keys = together[0].asset_selection or ()
        if len(together) == 1 or not keys:
            yield from together
            continue
        wanted = {str(one.partition_key): one for one in together}
        for piece in pieces(instance, graph, keys, wanted):
            ends = [key for key in piece if key in wanted]
            yield _over(wanted[ends[0]], piece)


def pieces(
    instance: dg.DagsterInstance, graph: BaseAssetGraph[Any], assets: Sequence[dg.AssetKey], wanted: Collection[str]
) -> list[tuple[str, ...]]:
    """Partitions of stages in ranges, for one run each: Dagster runs one partition, or a range of them.

    Between two that are wanted may be some that are not behind: a run that makes only what is leaves them alone.
    """
    definition = graph.get(assets[0]).partitions_def
    assert definition is not None
    order = definition.get_partition_keys(dynamic_partitions_store=instance)
    apart = list(neighbours(order, wanted))
    if len(apart) < 2:
        return apart
    busy = {one for key in assets for part in behind(instance, graph, key) for one in part.partitions}
    place = {key: number for number, key in enumerate(order)}
    joined = [apart[0]]
    for piece in apart[1:]:
        between = order[place[joined[-1][-1]] + 1 : place[piece[0]]]
        if len(between) <= BRIDGED and busy.isdisjoint(between):
            joined[-1] = (*joined[-1], *between, *piece)
        else:
            joined.append(piece)
    return joined


def _told_again(
    instance: dg.DagsterInstance, graph: AssetGraph, requests: Sequence[dg.RunRequest]
) -> list[dg.RunRequest]:
    """The requests with all checks of their stages, those that try once more what failed marked as such."""
    keys = {key for one in requests for key in one.asset_selection or ()}
    failed = {key: failures(instance, graph, key) for key in keys}
    told = []
    for one in requests:
        again = any(one.partition_key in failed[key] for key in one.asset_selection or ())
        tags = {**one.tags, AGAIN: "true"} if again else one.tags
        # Dagster would have a stage's own checks run alone, as it does where some are asked for by themselves.
        told.append(one.with_replaced_attrs(tags=tags, asset_check_keys=None))
    return told


def _alike(requests: Sequence[dg.RunRequest]) -> Iterator[list[dg.RunRequest]]:
    """Requests that differ in their partition alone, together."""
    groups: dict[Any, list[dg.RunRequest]] = {}
    for one in requests:
        tags = {name: value for name, value in one.tags.items() if name != PARTITION_NAME_TAG}
        what = (one.job_name, frozenset(one.asset_selection or ()))
        groups.setdefault((what, one.partition_key is None, frozenset(tags.items())), []).append(one)
    yield from groups.values()


def _over(request: dg.RunRequest, keys: Sequence[str]) -> dg.RunRequest:
    """A request for one partition, for a range of them."""
    if len(keys) == 1:
        return request
    tags = {name: value for name, value in request.tags.items() if name != PARTITION_NAME_TAG}
    ends = {ASSET_PARTITION_RANGE_START_TAG: keys[0], ASSET_PARTITION_RANGE_END_TAG: keys[-1]}
    return request.with_replaced_attrs(partition_key=None, tags={**tags, **ends})


def neighbours(order: Sequence[str], wanted: Any) -> Iterator[tuple[str, ...]]:
    """Partitions in pieces that are neighbours: Dagster runs one partition, or a range of them."""
    piece: list[str] = []
    for key in order:
        if key in wanted:
            piece.append(key)
        elif piece:
            yield tuple(piece)
            piece = []
    if piece:
        yield tuple(piece)
