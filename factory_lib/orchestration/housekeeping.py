"""The nightly round: what killed runs left is swept, versions are verified, and what there is is written down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib.history.verifying import Verification, verify
from factory_lib.orchestration.behind.unsynced import unsynced
from factory_lib.orchestration.checks.synced import report_synced
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.retention import find_sweepable, sweep
from factory_lib.warehouse.versions import datasets

if TYPE_CHECKING:
    from factory_lib.orchestration.dagster_internals import AssetGraph

AS_PUBLISHED = "as_published"
_SHOWN = 100
_BYTES = (
    "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND match(table, '^v[1-9][0-9]*$')"
    " AND database IN {names:Array(String)}"
)


def nightly_round(instance: dg.DagsterInstance, graph: AssetGraph) -> dg.MaterializeResult[None]:
    """Sweep staging tables without a living builder, verify versions, look at what is behind (the check `synced` of all
    stages), then sum up: datasets, bytes, what is behind.

    Returns:
        An event whose numbers plot over the nights, with the outcome of the check `AS_PUBLISHED`.
    """
    wh = warehouse()
    swept = find_sweepable(wh)
    sweep(wh, swept)
    found = datasets(wh)
    verified = verify(wh, sources=False)  # of sources the shard sensor takes care
    report_synced(instance, graph)
    behind = unsynced(instance, graph)
    table = [
        dg.TableRecord({"dataset": name, "versions": len(made), "latest": str(made[-1]), "rows": made[-1].rows})
        for name, made in found.items()
    ]
    metadata: dict[str, Any] = {
        "datasets": len(found),
        "versions": sum(len(made) for made in found.values()),
        # parts that versions share count once for each of them
        "bytes_referenced": int(wh.scalar(_BYTES, {"names": list(found)}) or 0),
        "tables_swept": len(swept),
        "bytes_swept": sum(one.bytes for one in swept),
        "partitions_behind": sum(len(one.partitions) for one in behind),
    }
    if table:
        metadata["latest_versions"] = dg.MetadataValue.table(table)
    if swept:
        metadata["swept"] = dg.MetadataValue.json({one.table: one.reason for one in swept})
    return dg.MaterializeResult(metadata=metadata, check_results=[_as_published(verified)])


def as_published(asset: str) -> dg.AssetCheckSpec:
    """The check that versions are what was published."""
    return dg.AssetCheckSpec(AS_PUBLISHED, asset=asset, description="No version was changed behind the factory's back.")


def _as_published(found: Verification) -> dg.AssetCheckResult:
    rows = [dg.TableRecord({"version": f.version, "shard": f.shard, "finding": f.what}) for f in found.findings]
    metadata: dict[str, Any] = {"read": len(found.read), "compared": len(found.compared), "findings": len(rows)}
    if rows:
        metadata["not_as_published"] = dg.MetadataValue.table(rows[:_SHOWN])
    return dg.AssetCheckResult(check_name=AS_PUBLISHED, passed=not rows, metadata=metadata)
