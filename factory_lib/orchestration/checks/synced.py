"""The check `synced` of every stage: whether it is up to date, since when it is not, and whether anyone sees to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib.orchestration.behind.unsynced import CODE, BehindPartitions, latest_tags, unsynced
from factory_lib.orchestration.checks.evaluations import report
from factory_lib.orchestration.dagster_internals import (
    NULL_EVENT_POINTER,
    AssetCheckExecutionRecordStatus,
    InstigatorStatus,
    InstigatorType,
    SensorType,
    TickStatus,
    get_current_timestamp,
    get_input_event_pointer_tag,
)

if TYPE_CHECKING:
    from factory_lib.orchestration.dagster_internals import BaseAssetGraph

SYNCED = "synced"
"""Name of the check."""
STALE_HOURS = "stale_after_hours"
"""Metadata key of a stage: for how long it may be behind."""
DEFAULT_STALE_HOURS = 24.0
_SINCE = "behind_since"
_WATCH = "shard_watch"
"""Name of the sensor that looks for shards; of those that evaluate conditions Dagster knows the type."""
DONE = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}
"""Of records of checks: those that were evaluated."""
_ASKED = 20
"""Partitions whose oldest change is looked for, at most."""


def check_synced(
    instance: dg.DagsterInstance, graph: BaseAssetGraph[Any], assets: Sequence[dg.AssetKey]
) -> Iterator[dg.AssetCheckResult]:
    """For each of these stages, whether all its partitions were made by the code and from the inputs of now.

    One that is behind is yellow, and red when it has been for longer than its `stale_after_hours`.
    """
    found = unsynced(instance, graph, assets)
    troubles = automation_troubles(instance)
    for key in assets:
        yield _result(instance, graph, key, [one for one in found if one.asset == key], troubles)


def stages_with_check(graph: BaseAssetGraph[Any]) -> list[dg.AssetKey]:
    """The stages of a graph, in its order."""
    keys = {key.asset_key for key in graph.asset_check_keys if key.name == SYNCED}
    return [key for key in graph.toposorted_asset_keys if key in keys]


def report_synced(instance: dg.DagsterInstance, graph: BaseAssetGraph[Any]) -> None:
    """Evaluate the check of all stages, whether they run or not."""
    for result in check_synced(instance, graph, stages_with_check(graph)):
        assert result.asset_key is not None
        report(instance, result, result.asset_key, SYNCED)


def automation_troubles(instance: dg.DagsterInstance) -> list[str]:
    """What keeps stages from running by themselves: sensors that someone stopped, or that fail."""
    if instance.schedule_storage is None:  # of an instance in memory, which has no daemon
        return []
    found = []
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        data, name = state.instigator_data, state.instigator_name
        if getattr(data, "sensor_type", None) != SensorType.AUTOMATION and name != _WATCH:
            continue
        if state.status == InstigatorStatus.STOPPED:
            found.append(f"The sensor {name} is stopped: start it under Automation.")
            continue
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        if ticks and ticks[0].status == TickStatus.FAILURE:
            error = ticks[0].error
            found.append(
                f"The sensor {name} fails: {error.message.strip().splitlines()[-1] if error else 'see its log'}"
            )
    return found


def _result(
    instance: dg.DagsterInstance,
    graph: BaseAssetGraph[Any],
    key: dg.AssetKey,
    behind: Sequence[BehindPartitions],
    troubles: Sequence[str],
) -> dg.AssetCheckResult:
    count = sum(len(one.partitions) for one in behind)
    metadata: dict[str, Any] = {"behind": count, **{one.reason: len(one.partitions) for one in behind}}
    said, overdue = [_said(behind, count)], False
    if count:
        since = behind_since(instance, graph, key, behind)
        hours = (get_current_timestamp() - since) / 3600
        bound = float(_plain(graph.get(key).metadata.get(STALE_HOURS, DEFAULT_STALE_HOURS)))
        overdue = hours > bound
        metadata |= {_SINCE: dg.MetadataValue.timestamp(since), "hours_behind": round(hours, 1)}
        said.append(f"Since {datetime.fromtimestamp(since):%Y-%m-%d %H:%M}{f', more than {bound:g} hours' * overdue}.")
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=SYNCED,
        passed=not behind and not troubles,
        severity=dg.AssetCheckSeverity.ERROR if overdue else dg.AssetCheckSeverity.WARN,
        description=" ".join([*said, *troubles]),
        metadata=metadata,
    )


def behind_since(
    instance: dg.DagsterInstance, graph: BaseAssetGraph[Any], key: dg.AssetKey, behind: Sequence[BehindPartitions]
) -> float:
    """When the oldest change came that a stage has not taken in, in seconds of the epoch.

    Of an input that is when its event was recorded. When code changed nobody recorded: then, and for a stage that is
    new, it is when the check first saw it.
    """
    times = [get_current_timestamp()]
    records = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(key, SYNCED), limit=1, status=DONE
    )
    if records and (evaluation := records[0].evaluation) is not None and not evaluation.passed:
        said = evaluation.metadata.get(_SINCE)
        times += [said.value] if isinstance(said, dg.TimestampMetadataValue) else []
    node = graph.get(key)
    tags = latest_tags(instance, key, partitioned=node.is_partitioned)
    untaken = [one for part in behind if part.reason != CODE for one in part.partitions]
    for partition in untaken[:_ASKED] if tags else ():
        for parent in node.parent_keys:
            pointer = tags.get(partition, {}).get(get_input_event_pointer_tag(parent), NULL_EVENT_POINTER)
            after = None if pointer == NULL_EVENT_POINTER else int(pointer)
            one = partition if graph.get(parent).is_partitioned else None
            times += _first_event(instance, parent, one, after, observed=not graph.get(parent).is_materializable)
    return min(times)


def _first_event(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partition: str | None, after: int | None, *, observed: bool
) -> list[float]:
    """When the first event of an asset, or of one of its partitions, came after another; empty where none did."""
    fetch = instance.fetch_observations if observed else instance.fetch_materializations
    wanted = dg.AssetRecordsFilter(asset, asset_partitions=[partition] if partition else None, after_storage_id=after)
    return [record.timestamp for record in fetch(wanted, limit=1, ascending=True).records]


def _said(behind: Sequence[BehindPartitions], count: int) -> str:
    lines = [f"{one.reason}: {len(one.partitions)} ({_some(one.partitions)})" for one in behind if one.partitions]
    if not behind:
        return "Up to date."
    return (
        f"{count} partitions are behind. " + "; ".join(lines) + "." if count else "Never made: no shard is known yet."
    )


def _some(partitions: Sequence[str | None]) -> str:
    shown = ", ".join(str(one) if one is not None else "the dataset" for one in partitions[:5])
    return shown + (", …" if len(partitions) > 5 else "")


def _plain(value: Any) -> Any:
    """A metadata value's own value."""
    return value.value if isinstance(value, dg.MetadataValue) else value
