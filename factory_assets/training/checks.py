"""Whether a new model is any good: against guessing, against uncurated samples, against the model before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_assets.training.noise import accuracy_said, compare, interval

if TYPE_CHECKING:
    from factory_assets.training.models import StoredModel

ABOVE_CHANCE, ABOVE_BASELINE, NOT_WORSE = "above_chance", "above_baseline", "not_worse_than_previous"


def model_check_specs(asset: str) -> list[dg.AssetCheckSpec]:
    """The checks that `model_checks` answers."""
    return [
        dg.AssetCheckSpec(ABOVE_CHANCE, asset=asset, description="The model has learnt something."),
        dg.AssetCheckSpec(
            ABOVE_BASELINE, asset=asset, description="It is no worse than the same model on uncurated samples."
        ),
        dg.AssetCheckSpec(
            NOT_WORSE, asset=asset, description="It is no worse than the model before, on the same test samples."
        ),
    ]


def model_checks(found: Mapping[str, Any], previous: StoredModel | None) -> list[dg.AssetCheckResult]:
    """Answer the checks of a model.

    Args:
        found: see `asset.outcome`.
        previous: the model before.
    """
    metrics = found["model"]["metrics"]
    return [
        above_chance(metrics),
        above_baseline(metrics, found["baseline"]["metrics"] if "baseline" in found else None),
        not_worse(metrics, found["previous"]["metrics"] if "previous" in found else None, previous),
    ]


def unanswered_checks(why: str) -> list[dg.AssetCheckResult]:
    """The checks of a model that was not trained: they fail, as warnings."""
    return [
        dg.AssetCheckResult(
            check_name=name,
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"No model was trained: {why}",
        )
        for name in (ABOVE_CHANCE, ABOVE_BASELINE, NOT_WORSE)
    ]


def above_chance(metrics: Mapping[str, Any]) -> dg.AssetCheckResult:
    """Whether the accuracy is above chance by three standard deviations of guessing."""
    deviation = (metrics["chance"] * (1 - metrics["chance"]) / max(metrics["pairs"], 1)) ** 0.5
    bar = metrics["chance"] + 3 * deviation
    low, high = interval(metrics["accuracy"], metrics["pairs"])
    return dg.AssetCheckResult(
        check_name=ABOVE_CHANCE,
        passed=metrics["accuracy"] > bar,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{accuracy_said(metrics)} of {metrics['pairs']} test pictures are nearest to their own caption "
        f"among {metrics['choices']}; guessing gives {metrics['chance']:.0%}.",
        metadata={
            "accuracy": metrics["accuracy"],
            "accuracy_low": low,
            "accuracy_high": high,
            "bar": bar,
            "chance": metrics["chance"],
        },
    )


def above_baseline(metrics: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> dg.AssetCheckResult:
    """Whether curation did no harm: the accuracy against that of as many uncurated samples, within noise."""
    if baseline is None:
        return dg.AssetCheckResult(
            check_name=ABOVE_BASELINE, passed=True, description="No baseline was trained to compare with."
        )
    difference = compare(metrics, baseline)
    return dg.AssetCheckResult(
        check_name=ABOVE_BASELINE,
        passed=difference.high >= 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{accuracy_said(metrics)}, and {accuracy_said(baseline)} from as many uncurated samples, of "
        f"{metrics['pairs']} test pairs: {difference}.",
        metadata={
            "accuracy": metrics["accuracy"],
            "baseline": baseline["accuracy"],
            "tolerance": difference.tolerance,
            "verdict": difference.verdict,
        },
    )


def not_worse(
    metrics: Mapping[str, Any], before: Mapping[str, Any] | None, previous: StoredModel | None
) -> dg.AssetCheckResult:
    """Whether the accuracy is no lower than the previous model's, within noise.

    Args:
        before: scores of the previous model on the same test samples; None where it could not be read any more: then
            the scores in its header count, which are of the test samples of its own time.
        previous: the model before; None for the first one.
    """
    if previous is None:
        return dg.AssetCheckResult(
            check_name=NOT_WORSE, passed=True, description="This is the first model: there is none to compare with."
        )
    facts = previous.facts()
    exam = "the same test samples"
    if before is None:
        before, exam = {"accuracy": float(facts["accuracy"]), "pairs": int(facts["pairs"])}, "its own test samples"
    difference = compare(metrics, before)
    return dg.AssetCheckResult(
        check_name=NOT_WORSE,
        passed=difference.high >= 0,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{accuracy_said(metrics)}; v{previous.number}, trained on {facts['trained_on']}, has "
        f"{accuracy_said(before)} on {exam}, {metrics['pairs']} pairs: {difference}.",
        metadata={
            "accuracy": metrics["accuracy"],
            "previous": before["accuracy"],
            "tolerance": difference.tolerance,
            "verdict": difference.verdict,
            "previous_model": previous.path.stem,
            "previous_trained_on": facts["trained_on"],
        },
    )
