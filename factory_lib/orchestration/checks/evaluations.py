"""Outcomes of checks that no run evaluates: recorded by themselves, in the words of those that runs do."""

from __future__ import annotations

import dagster as dg


def as_event(result: dg.AssetCheckResult, asset: dg.AssetKey, name: str) -> dg.AssetCheckEvaluation:
    """The outcome of a check as an event.

    Args:
        asset: that it is about.
        name: of the check.
    """
    return dg.AssetCheckEvaluation(
        asset_key=asset,
        check_name=name,
        passed=result.passed,
        severity=result.severity,
        description=result.description,
        metadata=result.metadata,
    )


def report(instance: dg.DagsterInstance, result: dg.AssetCheckResult, asset: dg.AssetKey, name: str) -> None:
    """Record the outcome of a check outside of a run."""
    instance.report_runless_asset_event(as_event(result, asset, name))
