"""Which partitions are behind, and why: the overview that Dagster's graph does not give.

Dagster's graph shows partitioned assets as fresh whatever happened (dagster#22553), and asking it partition by
partition takes about 10 ms each. Here the newest event of each partition is compared with the code and the inputs of
now: a few queries a stage, thousands of partitions a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib.orchestration.behind.looked_up import States
from factory_lib.orchestration.code import is_of_later_code
from factory_lib.orchestration.dagster_internals import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    SqlRunStorage,
    get_input_data_version_tag,
)
from factory_lib.orchestration.events.partition_events import REMOVED, combined_data_version, latest_data_versions
from factory_lib.orchestration.keys import dataset_name
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import latest

if TYPE_CHECKING:
    from factory_lib.orchestration.dagster_internals import BaseAssetGraph, BaseAssetNode

STAYS = "factory/stays"
"""In the metadata of an asset: once it has rows, it is behind its code alone, whatever becomes of its input."""

MISSING, CODE, INPUT = "never made", "made by other code", "input changed"


@dataclass(frozen=True)
class BehindPartitions:
    """Partitions of one stage that are behind for one reason.

    Attributes:
        asset: the stage.
        reason: `MISSING`, `CODE` or `INPUT`.
        partitions: partition keys in the graph's order; `(None,)` for a stage without partitions, none where no
            partition is known yet.
    """

    asset: dg.AssetKey
    reason: str
    partitions: tuple[str | None, ...]


def unsynced(
    instance: dg.DagsterInstance, graph: BaseAssetGraph[Any], assets: Sequence[dg.AssetKey] | None = None
) -> list[BehindPartitions]:
    """What is behind, stage by stage in the order of the graph.

    A stage is behind its direct inputs only, and what it looked up besides: what comes after it shows once it has run
    and its data really changed. Assets without inputs are behind their code alone; those without that, never.

    Args:
        assets: the stages asked about; None means all.
    """
    found: list[BehindPartitions] = []
    for key in graph.toposorted_asset_keys:
        node = graph.get(key)
        # an asset that a job leaves out counts as external in the job's graph, so what is named is taken as it is
        counts = node.is_materializable and (node.parent_keys or node.code_version is not None)
        if key in assets if assets is not None else counts:
            found.extend(behind(instance, graph, key))
    return found


def behind(instance: dg.DagsterInstance, graph: BaseAssetGraph[Any], key: dg.AssetKey) -> Iterator[BehindPartitions]:
    """What is behind of one stage, one item a reason."""
    node = graph.get(key)
    keys: list[str | None] = [None]
    if node.partitions_def is not None:
        keys = list(node.partitions_def.get_partition_keys(dynamic_partitions_store=instance))
    tags = latest_tags(instance, key, partitioned=node.partitions_def is not None)
    if not keys and not tags:
        yield BehindPartitions(node.key, MISSING, ())
    stays = is_settled(node)
    parents = [] if stays else sorted(node.parent_keys)
    inputs = {parent: input_versions(instance, graph.get(parent), keys) for parent in parents}
    reasons: dict[str, list[str | None]] = {MISSING: [], CODE: [], INPUT: []}
    states = None if stays else States()
    for partition in keys:
        if (reason := _reason(node, tags.get(partition), inputs, partition, states)) is not None:
            reasons[reason].append(partition)
    for reason, partitions in reasons.items():
        if partitions:
            yield BehindPartitions(node.key, reason, tuple(partitions))


def _reason(
    node: BaseAssetNode,
    tags: Mapping[str, str] | None,
    inputs: Mapping[dg.AssetKey, Mapping[str | None, str]],
    key: str | None,
    states: States | None,
) -> str | None:
    if tags is None:
        # a shard that went before this stage ever saw it has nothing to be made of
        return None if any(versions.get(key) == REMOVED for versions in inputs.values()) else MISSING
    is_other = node.code_version is not None and tags.get(CODE_VERSION_TAG) != node.code_version
    if is_other and not is_of_later_code(tags):
        return CODE
    for parent, versions in inputs.items():
        if tags.get(get_input_data_version_tag(parent)) != versions.get(key, DEFAULT_DATA_VERSION.value):
            return INPUT
    return INPUT if states is not None and states.changed(tags) else None


def is_settled(node: BaseAssetNode) -> bool:
    """Whether a stage is behind its code alone: it says that it stays, and has rows.

    A version without rows is what a stage makes that found nothing to begin with: it has nothing that could stay.
    """
    if STAYS not in node.metadata:
        return False
    made = latest(warehouse(), dataset_name(node.key))
    return made is None or made.rows > 0


def latest_tags(
    instance: dg.DagsterInstance, key: dg.AssetKey, *, partitioned: bool
) -> dict[str | None, Mapping[str, str]]:
    """Tags of the newest materialization of each partition, or under None of an asset without partitions."""
    if not partitioned:
        event = instance.get_latest_materialization_event(key)
        materialization = event.asset_materialization if event is not None else None
        return {} if materialization is None else {None: dict(materialization.tags or {})}
    newest = instance.event_log_storage.get_latest_storage_id_by_partition(
        key, dg.DagsterEventType.ASSET_MATERIALIZATION
    )
    # Events never change, and the automation asks every few seconds: only those that are new are read.
    place = (_identity(instance), key)
    known = _tags_of_events.get(place, {})
    unknown = [event for event in newest.values() if event not in known]
    _tags_of_events[place] = {e: known[e] for e in newest.values() if e in known} | _read_tags(instance, key, unknown)
    return {partition: _tags_of_events[place][event] for partition, event in newest.items()}


def _identity(instance: dg.DagsterInstance) -> str:
    """What tells one event log from another, in all processes where the storage has a name of its own."""
    storage = instance.run_storage
    return storage.get_run_storage_id() if isinstance(storage, SqlRunStorage) else str(id(storage))


_tags_of_events: dict[tuple[str, dg.AssetKey], dict[int, Mapping[str, str]]] = {}
"""Event log and asset -> tags of the newest event of each partition, by storage id."""


def _read_tags(instance: dg.DagsterInstance, key: dg.AssetKey, ids: Sequence[int]) -> dict[int, Mapping[str, str]]:
    found: dict[int, Mapping[str, str]] = {}
    for start in range(0, len(ids), 500):
        chunk = list(ids[start : start + 500])
        for record in instance.fetch_materializations(dg.AssetRecordsFilter(key, storage_ids=chunk), limit=500).records:
            materialization = record.asset_materialization
            found[record.storage_id] = dict((materialization.tags if materialization else None) or {})
    return found


def input_versions(
    instance: dg.DagsterInstance, parent: BaseAssetNode, keys: Sequence[str | None]
) -> dict[str | None, str]:
    """What the data version of an input is now, for each partition of the stage that reads it."""
    records = instance.get_asset_records([parent.key])
    observed = not records or records[0].asset_entry.last_materialization_record is None
    if parent.partitions_def is None:
        event = instance.get_latest_data_version_record(parent.key, is_source=observed)
        tags = (event.event_log_entry.tags if event is not None else None) or {}
        return dict.fromkeys(keys, tags.get(DATA_VERSION_TAG, DEFAULT_DATA_VERSION.value))
    versions = latest_data_versions(instance, parent.key, observed=observed)
    if keys == [None]:
        return {None: combined_data_version(versions)} if versions else {}
    wanted = set(keys)
    return {key: version for key, version in versions.items() if key in wanted}
