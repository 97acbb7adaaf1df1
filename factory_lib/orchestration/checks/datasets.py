"""Asset checks: what is asked of a version once it is made. Each gives a verdict, the numbers behind it and a hint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import dagster as dg

from factory_lib.curation.duplicates import near_duplicates
from factory_lib.curation.funnel import rejections
from factory_lib.curation.proof import Verdict
from factory_lib.plan.expressions import C, fn
from factory_lib.plan.operators import Expr
from factory_lib.query import DatasetQuery


def _result(passed: bool, description: str, metadata: Mapping[str, Any]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed, description=description, severity=dg.AssetCheckSeverity.WARN, metadata=dict(metadata)
    )


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


def check_rejections(
    given: DatasetQuery,
    rules: Mapping[str, Expr],
    min_kept: float = 0.01,
    verdict: Verdict | None = None,
    remark: str = "",
) -> dg.AssetCheckResult:
    """How many samples each rule of a filter rejects, and whether enough are left.

    Args:
        given: the samples that were filtered, with the columns that the rules read.
        rules: reason -> predicate, as the filter applied them.
        min_kept: share that has to be left, 0 to 1.
        verdict: whether the model behind the rules can judge these samples; the check fails where it cannot.
        remark: what could not be judged; the check fails where there is one.
    """
    rows = given.count()
    found = rejections(given, rules)
    kept = rows - sum(found.values())
    table = [
        dg.TableRecord({"reason": reason, "samples": number, "share": round(number / rows, 4) if rows else 0.0})
        for reason, number in found.items()
    ]
    share = kept / rows if rows else 0.0
    said = [f"{kept:,} of {rows:,} samples kept ({share:.1%})."]
    said += [remark] if remark else []
    proof: dict[str, Any] = {}
    if verdict is not None:
        said += [part for part in (verdict.found, verdict.hint) if part]
        if math.isfinite(verdict.auc):
            proof = {"auc": verdict.auc, "auc_low": verdict.low, "auc_high": verdict.high}
    return _result(
        share >= min_kept and not remark and (verdict is None or verdict.may_judge),
        " ".join(said),
        {**proof, "rows_in": rows, "kept": kept, "kept_share": share}
        | ({"rejected": dg.MetadataValue.table(table)} if table else {}),
    )


def check_duplicates(dataset: str) -> dg.AssetCheckResult:
    """Whether no two samples are near-duplicates of each other; where there are no pictures, nobody knows."""
    given = DatasetQuery(dataset)
    rows = given.count()
    compared = given.filter(fn.length(C.thumbnail) > 0).count() if "thumbnail" in given.columns else 0
    left = near_duplicates(given).count() if compared else 0
    said = f"{left:,} near-duplicates are left."
    if rows and not compared:
        said = f"None of {rows:,} samples has a thumbnail: there are no pictures to compare, and nothing was removed."
    return _result(left == 0 and compared >= min(rows, 1), said, {"left": left, "compared": compared})
