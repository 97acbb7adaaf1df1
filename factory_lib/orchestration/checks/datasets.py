"""Asset checks: what is asked of a version once it is made. Each gives a verdict, the numbers behind it and a hint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from factory_lib.curation.duplicates import near_duplicates
from factory_lib.plan.expressions import C, fn
from factory_lib.query import DatasetQuery
from factory_lib.signals.inputs import not_computable
from factory_lib.signals.signal import Signal
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.losses import NOT_MADE, read_losses
from factory_lib.warehouse.versions import resolve

_SHOWN_REASONS = 20


def _result(passed: bool, description: str, metadata: Mapping[str, Any]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed, description=description, severity=dg.AssetCheckSeverity.WARN, metadata=dict(metadata)
    )


def check_made(dataset: str, max_lost: float = 0.05) -> dg.AssetCheckResult:
    """Whether nearly all samples have the new sample that was to be made of them.

    Args:
        max_lost: share of samples of which none could be made, 0 to 1.
    """
    version = resolve(warehouse(), dataset)
    losses = [loss for loss in read_losses(version.warehouse, version.uuid) if NOT_MADE in loss.lost]
    lost = sum(loss.lost[NOT_MADE] for loss in losses)
    share = lost / (version.rows + lost) if lost else 0.0
    problems = [problem.partition(": ") for loss in losses for problem in loss.problems]
    table = [dg.TableRecord({"sample": key, "reason": reason}) for key, _, reason in problems[:_SHOWN_REASONS]]
    metadata: dict[str, Any] = {"made": version.rows, "not_made": lost, "not_made_share": share}
    if table:
        metadata["reasons"] = dg.MetadataValue.table(table)
    said = f"{version}: of {lost:,} samples none could be made ({share:.1%})."
    return _result(share <= max_lost, said, metadata)


def check_decoding(dataset: str, max_failed: float = 0.05) -> dg.AssetCheckResult:
    """Whether nearly all images decode.

    Args:
        max_failed: share of images that may fail, 0 to 1.
    """
    if "image_header" not in DatasetQuery(dataset).columns:
        return _result(False, "There are no pictures.", {"images": 0})
    failed = ~C.image_header.decodes.fill_null(False)
    reasons = (
        DatasetQuery(dataset)
        .filter(failed)
        .group_by(problem=fn.coalesce(C.image_header.problem, C.image_header_error.cast("Nullable(String)"), "unknown"))
        .agg(n=fn.count())
        .order_by("-n")
        .limit(20)
        .to_arrow()
    )
    counted = DatasetQuery(dataset).agg(rows=fn.count(), bad=fn.countIf(failed)).to_arrow()
    rows, bad = counted["rows"][0].as_py(), counted["bad"][0].as_py()
    share = bad / rows if rows else 0.0
    table = [
        dg.TableRecord({"problem": str(problem)[:120], "samples": number})
        for problem, number in zip(reasons["problem"].to_pylist(), reasons["n"].to_pylist(), strict=True)
    ]
    metadata: dict[str, Any] = {"images": rows, "failed": bad, "failed_share": share}
    if table:
        metadata["reasons"] = dg.MetadataValue.table(table)
    return _result(share <= max_failed, f"{bad:,} of {rows:,} images do not decode ({share:.1%}).", metadata)


def check_duplicates(dataset: str) -> dg.AssetCheckResult:
    """Whether no two samples are near-duplicates of each other; where there are no pictures, nobody knows."""
    given = DatasetQuery(dataset)
    rows = given.count()
    compared = given.filter(fn.length(C.thumbnail) > 0).count() if "thumbnail" in given.columns else 0
    left = near_duplicates(given).filter(~C.kept).count() if compared else 0
    said = f"{left:,} near-duplicates are left."
    if rows and not compared:
        said = f"None of {rows:,} samples has a thumbnail: there are no pictures to compare, and nothing was removed."
    return _result(left == 0 and compared >= min(rows, 1), said, {"left": left, "compared": compared})


def check_computable(signals: Sequence[Signal], columns: Mapping[str, str]) -> dg.AssetCheckResult:
    """Whether signals can be computed of samples with these columns; why those cannot that were left out."""
    without = not_computable(signals, columns)
    said = " ".join(without.values()) or f"{len(signals)} signals were computed."
    return _result(not without, said, {"left_out": ", ".join(without)})
