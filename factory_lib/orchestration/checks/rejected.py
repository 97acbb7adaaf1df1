"""The check `rejected` of a stage that filters: how many samples each rule removed, and what could not be judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from factory_lib.curation.rules import Kept
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import versions

REJECTED = "rejected"
MIN_KEPT = 0.01
"""Share of its samples that a filter has to keep."""


def rejected_spec(asset: str) -> dg.AssetCheckSpec:
    """The check of a stage that filters."""
    return dg.AssetCheckSpec(
        REJECTED, asset=asset, description="All its rules can judge these samples; how many each of them removed."
    )


def told_of(kept: Kept) -> dict[str, Any]:
    """What provenance keeps of a filter: its `pool`, `removed` (reason -> samples), `remark`, `found`, `figures`."""
    judged = kept.judged
    said = {"remark": judged.remark, "found": judged.found, "figures": dict(judged.figures)}
    return {"pool": kept.pool.count(), "removed": kept.removed(), **{name: one for name, one in said.items() if one}}


def check_rejected(dataset: str) -> dg.AssetCheckResult:
    """The check of a filter's newest version, by what its provenance keeps."""
    made = versions(warehouse(), dataset)
    recorded = made[-1].provenance if made else None
    if recorded is None or "removed" not in recorded.context:
        return dg.AssetCheckResult(check_name=REJECTED, passed=True, description="Nothing was filtered yet.")
    told: Mapping[str, Any] = recorded.context
    rows, removed, remark = told["pool"], told["removed"], told.get("remark", "")
    kept = rows - sum(removed.values())
    share = kept / rows if rows else 0.0
    table = [
        dg.TableRecord({"reason": reason, "samples": number, "share": round(number / rows, 4) if rows else 0.0})
        for reason, number in removed.items()
    ]
    metadata: dict[str, Any] = {"rows_in": rows, "kept": kept, "kept_share": share, **told.get("figures", {})}
    if table:
        metadata["rejected"] = dg.MetadataValue.table(table)
    said = [f"{kept:,} of {rows:,} samples kept ({share:.1%}).", remark, told.get("found", "")]
    return dg.AssetCheckResult(
        check_name=REJECTED,
        passed=share >= MIN_KEPT and not remark,
        severity=dg.AssetCheckSeverity.WARN,
        description=" ".join(filter(None, said)),
        metadata=metadata,
    )
