"""The sensor that evaluates the stages' conditions, and asks for few runs.

Dagster asks for a run a partition, or for a backfill when there are several. A backfill counts partitions that its runs
leave alone as failed (see `only_behind`), and takes a run a stage. This sensor asks for one run for all partitions that
the same stages are requested for, as far as they are neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib.orchestration.attempts import AGAIN, failures
from factory_lib.orchestration.dagster_internals import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
    SensorExecutionData,
    copy,
)
from factory_lib.orchestration.only_behind import ONLY_BEHIND

if TYPE_CHECKING:
    from factory_lib.orchestration.dagster_internals import AssetGraph


class FewRunsSensor(dg.AutomationConditionSensorDefinition):
    """Evaluates automation conditions and requests runs over ranges of partitions that make only what is behind.

    Args:
        name: of the sensor.
        description: of the sensor.
        seconds: how often it looks.
        metadata: of the sensor.
    """

    def __init__(
        self, name: str, *, description: str, seconds: int = 15, metadata: Mapping[str, Any] | None = None
    ) -> None:
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
        )

    def evaluate_tick(self, context: dg.SensorEvaluationContext) -> SensorExecutionData:
        """What is to be run now."""
        found = super().evaluate_tick(context)
        if not found.run_requests or context.repository_def is None:
            return found
        graph = context.repository_def.asset_graph
        requests: list[dg.RunRequest] = []
        for together in _alike(_told_again(context.instance, graph, found.run_requests)):
            first = together[0]
            if len(together) == 1 or not first.asset_selection:
                requests += together
                continue
            partitions = graph.get(first.asset_selection[0]).partitions_def
            assert partitions is not None
            wanted = {one.partition_key: one for one in together}
            order = partitions.get_partition_keys(dynamic_partitions_store=context.instance)
            requests += [_over(wanted[keys[0]], keys) for keys in neighbours(order, wanted)]
        return copy(found, run_requests=requests)


def _told_again(
    instance: dg.DagsterInstance, graph: AssetGraph, requests: Sequence[dg.RunRequest]
) -> list[dg.RunRequest]:
    """The requests, those that try once more what failed marked as such."""
    keys = {key for one in requests for key in one.asset_selection or ()}
    failed = {key: failures(instance, graph, key) for key in keys}
    told = []
    for one in requests:
        again = any(one.partition_key in failed[key] for key in one.asset_selection or ())
        told.append(one.with_replaced_attrs(tags={**one.tags, AGAIN: "true"}) if again else one)
    return told


def _alike(requests: Sequence[dg.RunRequest]) -> Iterator[list[dg.RunRequest]]:
    """Requests that differ in their partition alone, together."""
    groups: dict[Any, list[dg.RunRequest]] = {}
    for one in requests:
        tags = {name: value for name, value in one.tags.items() if name != PARTITION_NAME_TAG}
        what = (one.job_name, frozenset(one.asset_selection or ()), frozenset(one.asset_check_keys or ()))
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
