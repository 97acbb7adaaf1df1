"""The nightly round: what killed runs left is swept, and what the warehouse holds is written down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib.orchestration.unsynced import unsynced
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.retention import find_sweepable, sweep
from factory_lib.warehouse.versions import datasets

if TYPE_CHECKING:
    from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

_BYTES = (
    "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND match(table, '^v[1-9][0-9]*$')"
    " AND database IN {names:Array(String)}"
)


def nightly_round(instance: dg.DagsterInstance, graph: AssetGraph) -> dg.MaterializeResult[None]:
    """Sweep staging tables without a living builder, then sum up: datasets, versions, bytes, what is behind.

    Returns:
        An event whose numbers plot over the nights.
    """
    wh = warehouse()
    swept = find_sweepable(wh)
    sweep(wh, swept)
    found = datasets(wh)
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
    return dg.MaterializeResult(metadata=metadata)
