"""Rows of img2dataset's tables whose download failed: no samples, but counted by their reason."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.sources.shards import ShardReport

REASONS_KEPT = 20


def failed_rows(rows: pa.RecordBatch) -> pa.BooleanArray | None:
    """Which rows say that their download failed; None where the table says nothing of the kind."""
    names = rows.schema.names
    if "status" not in names or not {"error_message", "url"} & set(names):
        return None
    return pc.fill_null(pc.not_equal(rows.column("status").cast(pa.string()), "success"), False)


def count_failures(failed: pa.RecordBatch, report: ShardReport) -> None:
    """Count rows whose download failed, by their error."""
    report.count("failed_rows", len(failed))
    if not len(failed) or "error_message" not in failed.schema.names:
        return
    reasons = pc.fill_null(failed.column("error_message"), "unknown")
    counted = sorted(pc.value_counts(reasons).to_pylist(), key=lambda entry: -entry["counts"])
    for entry in counted[:REASONS_KEPT]:
        report.count(f"failed: {str(entry['values'])[:100]}", entry["counts"])
