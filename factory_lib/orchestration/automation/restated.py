"""Partitions that Dagster shows as failed although they are up to date, said once more.

A run that fails marks all partitions that it was for and that recorded nothing, also those that it would have left
alone. Nothing will run for them, so that they would stay red. Their newest event is recorded once more: it is still
what they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib.orchestration.automation.attempts import failed_runs
from factory_lib.orchestration.behind.unsynced import behind
from factory_lib.orchestration.dagster_internals import disable_dagster_warnings
from factory_lib.orchestration.events.version_metadata import OF_PARTITION

if TYPE_CHECKING:
    from factory_lib.orchestration.dagster_internals import BaseAssetGraph

_AT_ONCE = 500


def restatements(
    instance: dg.DagsterInstance, graph: BaseAssetGraph[Any], key: dg.AssetKey
) -> Iterator[dg.AssetMaterialization]:
    """The newest events of partitions of a stage that are shown as failed and are up to date."""
    failed = failed_runs(instance, graph, key)
    if not failed:
        return
    late = {one for part in behind(instance, graph, key) for one in part.partitions}
    idle = [partition for partition in failed if partition not in late]
    newest = instance.get_latest_materialization_event(key)
    whole = newest.asset_materialization.metadata if newest is not None and newest.asset_materialization else {}
    for partition in idle[:_AT_ONCE]:
        wanted = dg.AssetRecordsFilter(key, asset_partitions=None if partition is None else [partition])
        for record in instance.fetch_materializations(wanted, limit=1).records:
            made = record.asset_materialization
            # one that the failed run made is shown as failed on purpose: something of it could not be read
            if made is not None and record.run_id != failed[partition]:
                with disable_dagster_warnings():
                    yield dg.AssetMaterialization(
                        key,
                        partition=partition,
                        description="Still up to date: the run that failed had nothing to do here.",
                        metadata=_metadata(whole, made.metadata),
                        tags=made.tags,
                    )


def _metadata(newest: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What an event that is said again says: of the dataset what its newest event does, of the partition its own."""
    kept = {name: value for name, value in newest.items() if name not in OF_PARTITION}
    return kept | {name: value for name, value in own.items() if name in OF_PARTITION}
