"""One data version for every partition of a run, however many partitions the run has.

Dagster stamps a single data version on all partitions that a run materializes (dagster#18649, dagster#34013): after a
run over ten shards of which one changed, all ten look changed and everything downstream is computed again. Here the IO
manager writes the materialization events itself, one a partition, each with the fingerprint of that shard's content.

How, in terms of `dagster/_core/execution/plan/execute_step.py`:

* `_store_output` yields whatever `DagsterEvent` a generator `handle_output` yields. `record_partitions` makes those
  events, with the tags that `_build_data_version_tags` would have made, but per partition.
* `_log_materialization_or_observation_events_for_asset`, which would add its own event with the one data version for
  all, returns early for an output that carries `RECORDED_BY_IO_MANAGER` in its metadata. The stage decorator puts it
  there.
* The output itself is still emitted, so that downstream steps of the same run go on, with the IO manager loading for
  them.

All of it is private to Dagster: an upgrade that changes the behaviour fails
`tests/orchestration/test_dagster_partition_events.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dagster import AssetKey, AssetMaterialization, DagsterEvent, DagsterEventType, DataVersion

from factory_lib.orchestration.code import code_tags
from factory_lib.orchestration.dagster_internals import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    NULL_EVENT_POINTER,
    SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION,
    AssetMaterializationPlannedData,
    DagsterEventBatchMetadata,
    disable_dagster_warnings,
    generate_event_batch_id,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

if TYPE_CHECKING:
    from dagster import DagsterInstance, StepExecutionContext

RECORDED_BY_IO_MANAGER = SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
"""Metadata key of an output whose materialization events the IO manager writes (Dagster writes none for it)."""

REMOVED = "removed"
"""Data version under which a shard is observed that the source has no more, and whose samples are to go."""

EMPTY = "empty"
"""Data version of a partition without rows: a shard that was removed at its source, or of which nothing was kept."""


def combined_data_version(versions: Mapping[str, str]) -> str:
    """One data version for several partitions, equal for equal content whatever the order.

    Args:
        versions: partition key to data version.
    """
    digest = hashlib.sha256()
    for key in sorted(versions):
        digest.update(f"{key}={versions[key]}\n".encode())
    return digest.hexdigest()


def latest_data_versions(
    instance: DagsterInstance,
    asset_key: AssetKey,
    partitions: Sequence[str] | None = None,
    up_to: int | None = None,
    *,
    observed: bool = False,
) -> dict[str, str]:
    """The data version in the newest event of each partition, in one query.

    Args:
        partitions: the partition keys asked for; None means all that were ever materialized.
        up_to: storage id of the last event to consider; None means all events.
        observed: look at observations (what the source holds) instead of materializations (what stages made).

    Returns:
        Partition key to data version; partitions without such an event are absent.
    """
    tags = instance.event_log_storage.get_latest_tags_by_partition(
        asset_key,
        DagsterEventType.ASSET_OBSERVATION if observed else DagsterEventType.ASSET_MATERIALIZATION,
        [DATA_VERSION_TAG],
        asset_partitions=None if partitions is None else list(partitions),
        before_cursor=None if up_to is None else up_to + 1,
    )
    return {key: found[DATA_VERSION_TAG] for key, found in tags.items() if DATA_VERSION_TAG in found}


def record_partitions(
    step: StepExecutionContext,
    asset_key: AssetKey,
    data_versions: Mapping[str | None, str],
    metadata: Mapping[str | None, Mapping[str, Any]],
    more_tags: Mapping[str, str] | None = None,
) -> Iterator[DagsterEvent]:
    """Write one materialization event for each partition, with that partition's own data version.

    Args:
        data_versions: partition key to data version; the key None stands for an asset without partitions.
        metadata: partition key to the metadata of its event; keys that `data_versions` lacks are not used.
        more_tags: further tags of each event.

    Yields:
        The events, for `handle_output` to yield on. They are in the event log already.
    """
    # as _get_output_asset_events does: what was cached about this asset is older than what is written now
    step.wipe_input_asset_version_info(asset_key)
    batch = generate_event_batch_id()  # type: ignore[no-untyped-call]
    code_version = step.job_def.asset_layer.get(asset_key).code_version or step.run_id
    inputs = _input_tags(step, asset_key, [key for key in data_versions if key is not None])
    last = len(data_versions) - 1
    for index, (key, data_version) in enumerate(data_versions.items()):
        tags = {
            CODE_VERSION_TAG: code_version,
            DATA_VERSION_TAG: data_version,
            DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
            **code_tags(),
            **(more_tags or {}),
            **inputs.shared,
            **(inputs.of_partition.get(key, {}) if key is not None else {}),
        }
        with disable_dagster_warnings():  # a materialization with a data version tag is "beta"
            event = AssetMaterialization(asset_key, partition=key, metadata=metadata.get(key, {}), tags=tags)
        # A batch lets event storages that can do so write it in one go; partitions only, as Dagster does.
        marker = None if key is None else DagsterEventBatchMetadata(batch, is_end=index == last)
        yield DagsterEvent.asset_materialization(step, event, marker)


def mark_failed(step: StepExecutionContext, asset_key: AssetKey, partitions: Iterable[str]) -> None:
    """Have partitions that the step materialized shown as failed once it has failed: what was made of them is nothing.

    Dagster takes a partition for failed whose newest event says that a failed run intended to make it. So the intention
    is said again, after the materialization: the content is known to whatever comes after it, and the partition is red.
    """
    for key in partitions:
        event = DagsterEvent.build_asset_materialization_planned_event(
            step.job_name, step.step.key, AssetMaterializationPlannedData(asset_key, partition=key)
        )
        step.instance.report_dagster_event(event, step.run_id)


def tell_dagster(step: StepExecutionContext, asset_key: AssetKey, data_version: str) -> None:
    """Have the events of an asset, which Dagster writes, say what those say that are written here.

    Dagster has another data version for several partitions of an input; by it an asset that reads all shards would be
    behind for ever.
    """
    step.set_data_version(asset_key, DataVersion(data_version))
    if step.job_def.asset_layer.get(asset_key).is_partitioned:
        return
    recorded = _input_tags(step, asset_key, ()).shared
    for key in step.job_def.asset_layer.get(asset_key).parent_keys:
        info = step.maybe_fetch_and_get_input_asset_version_info(key)
        if info is not None:
            info.data_version = DataVersion(recorded[get_input_data_version_tag(key)])


class _InputTags:
    """Provenance tags of the inputs: those alike for all partitions, and those of each partition."""

    def __init__(self) -> None:
        self.shared: dict[str, str] = {}
        self.of_partition: dict[str, dict[str, str]] = {}


def _input_tags(step: StepExecutionContext, asset_key: AssetKey, partitions: Sequence[str]) -> _InputTags:
    """What each input's data was, as tags: the data version, and the event up to which it was read.

    Dagster compares event pointers for partitioned inputs and data versions for others, so the pointer is Dagster's
    own: it was taken when the step began, before anything was read, and the versions are those of that moment, too. The
    data version of a partitioned input is that of the same partition, or of all partitions for an asset without.
    """
    found = _InputTags()
    for key in sorted(step.job_def.asset_layer.get(asset_key).parent_keys):
        parent = step.job_def.asset_layer.get(key)
        info = step.maybe_fetch_and_get_input_asset_version_info(key)
        tag = get_input_data_version_tag(key)
        found.shared[tag] = DEFAULT_DATA_VERSION.value
        found.shared[get_input_event_pointer_tag(key)] = str(info.storage_id) if info else NULL_EVENT_POINTER
        if info is None:
            continue
        # is_external would be true of every asset that the job leaves out
        observed = info.event_type == DagsterEventType.ASSET_OBSERVATION
        if not parent.is_partitioned:
            found.shared[tag] = (info.data_version or DEFAULT_DATA_VERSION).value
        elif partitions:
            versions = latest_data_versions(step.instance, key, partitions, info.storage_id, observed=observed)
            for partition, value in versions.items():
                found.of_partition.setdefault(partition, {})[tag] = value
        else:
            found.shared[tag] = combined_data_version(
                latest_data_versions(step.instance, key, up_to=info.storage_id, observed=observed)
            )
    return found
