"""Which partitions failed when they were run last, and whether that was their second try.

The automation tries what failed once more. A run that is such a second try carries the tag `AGAIN`: what fails in it is
left until something changed. It holds whenever the daemon looks, in the middle of runs, too, and after it was down.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib.orchestration.dagster_internals import StepEventStatus

if TYPE_CHECKING:
    from factory_lib.orchestration.dagster_internals import BaseAssetGraph

AGAIN = "factory/again"
"""Tag of a run that tries once more what failed."""


def failures(instance: dg.DagsterInstance, graph: BaseAssetGraph[Any], key: dg.AssetKey) -> Mapping[str | None, bool]:
    """Partitions of a stage whose newest run failed, and whether that was a second try; None is a stage without any.

    Partitions that the run did not come to, because a stage before failed, are not among them.
    """
    failed = failed_runs(instance, graph, key)
    second = {
        run.run_id: AGAIN in run.tags for run in _runs(instance, failed.values()) if _came_to(instance, run.run_id, key)
    }
    return {partition: second[run] for partition, run in failed.items() if run in second}


def failed_runs(instance: dg.DagsterInstance, graph: BaseAssetGraph[Any], key: dg.AssetKey) -> dict[str | None, str]:
    """Partitions of a stage that Dagster shows as failed, and the run that did; None is a stage without partitions."""
    newest = _newest(instance, key, partitioned=graph.get(key).is_partitioned)
    failed = {run.run_id for run in _runs(instance, newest.values())}
    return {partition: run for partition, run in newest.items() if run in failed}


def _runs(instance: dg.DagsterInstance, ids: Iterable[str]) -> Iterator[dg.DagsterRun]:
    """Those of these runs that failed."""
    known = sorted(set(ids))
    for start in range(0, len(known), 100):
        wanted = dg.RunsFilter(run_ids=known[start : start + 100], statuses=[dg.DagsterRunStatus.FAILURE])
        yield from instance.get_runs(wanted)


def _newest(instance: dg.DagsterInstance, key: dg.AssetKey, *, partitioned: bool) -> dict[str | None, str]:
    """Partition -> the newest run that was to make it and recorded nothing."""
    storage = instance.event_log_storage
    if partitioned:
        attempts = storage.get_latest_asset_partition_materialization_attempts_without_materializations(key)
        return {partition: run for partition, (run, _) in attempts.items()}
    planned = storage.get_latest_planned_materialization_info(key)
    made = instance.get_latest_materialization_event(key)
    if planned is None or (made is not None and made.run_id == planned.run_id):
        return {}
    return {None: planned.run_id}


def _came_to(instance: dg.DagsterInstance, run: str, key: dg.AssetKey) -> bool:
    """Whether a failed run began to make a stage, or failed before it began anything."""
    steps = instance.get_run_step_stats(run)
    others = any(step.status == StepEventStatus.FAILURE for step in steps)
    return not others or any(step.step_key == key.to_python_identifier() for step in steps)
