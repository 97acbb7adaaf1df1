"""Whether a new model is any good: against guessing, against uncurated samples, against the model before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from factory_lib.training.models import StoredModel

ABOVE_CHANCE, ABOVE_BASELINE, NOT_WORSE = "above_chance", "above_baseline", "not_worse_than_previous"

DEVIATIONS = 2.0
"""Standard errors of the difference between two accuracies that count as noise: chance alone goes beyond in about one
of forty comparisons."""


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
        found: see `training_asset.outcome`.
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
    return dg.AssetCheckResult(
        check_name=ABOVE_CHANCE,
        passed=metrics["accuracy"] > bar,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{metrics['accuracy']:.1%} of {metrics['pairs']} test pictures are nearest to their own caption "
        f"among {metrics['choices']}; guessing gives {metrics['chance']:.0%}.",
        metadata={"accuracy": metrics["accuracy"], "bar": bar, "chance": metrics["chance"]},
    )


def above_baseline(metrics: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> dg.AssetCheckResult:
    """Whether curation did no harm: the accuracy against that of as many uncurated samples, within noise."""
    if baseline is None:
        return dg.AssetCheckResult(
            check_name=ABOVE_BASELINE, passed=True, description="No baseline was trained to compare with."
        )
    tolerance = noise(metrics, baseline)
    return dg.AssetCheckResult(
        check_name=ABOVE_BASELINE,
        passed=metrics["accuracy"] >= baseline["accuracy"] - tolerance,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{metrics['accuracy']:.1%}, and {baseline['accuracy']:.1%} from as many uncurated samples; "
        f"differences up to {tolerance:.1%} are noise with {metrics['pairs']} test pairs.",
        metadata={"accuracy": metrics["accuracy"], "baseline": baseline["accuracy"], "tolerance": tolerance},
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
    tolerance = noise(metrics, before)
    return dg.AssetCheckResult(
        check_name=NOT_WORSE,
        passed=metrics["accuracy"] >= before["accuracy"] - tolerance,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{metrics['accuracy']:.1%}; v{previous.number}, trained on {facts['trained_on']}, has "
        f"{before['accuracy']:.1%} on {exam}. Differences up to {tolerance:.1%} ({DEVIATIONS:g} standard errors) are "
        f"noise with {metrics['pairs']} test pairs.",
        metadata={
            "accuracy": metrics["accuracy"],
            "previous": before["accuracy"],
            "tolerance": tolerance,
            "previous_model": previous.path.stem,
            "previous_trained_on": facts["trained_on"],
        },
    )


def noise(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """By how much two accuracies may differ without meaning anything: standard errors of the difference of two
    independent shares, sqrt(p1 (1 - p1) / n1 + p2 (1 - p2) / n2). On the same samples the true error is smaller.
    """
    variances = (m["accuracy"] * (1 - m["accuracy"]) / max(m["pairs"], 1) for m in (one, other))
    return float(DEVIATIONS * sum(variances) ** 0.5)
