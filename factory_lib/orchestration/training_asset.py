"""The last asset: a model trained on a version, with its score as an asset check."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib.settings import settings

if TYPE_CHECKING:
    from factory_lib.query import DatasetQuery
    from factory_lib.training.job import TrainingReport

ABOVE_CHANCE = "above_chance"
"""Name of the check that a model has learnt something."""


def train_model(
    context: dg.AssetExecutionContext,
    train: Callable[..., TrainingReport],
    data: DatasetQuery,
    baseline: DatasetQuery | None = None,
) -> dg.MaterializeResult[None]:
    """Train on the samples of a dataset whose `split` is "train" and score on those where it is "test".

    Args:
        train: `factory_lib.training.job.train`, or a training with its parameters.
        data: with `image`, `caption` and `split`.
        baseline: uncurated samples: the same model is trained on as many of them, to say what curation gained.

    Returns:
        The event of the model: its data version is a digest of the weights, its numbers plot over versions.
    """
    from factory_lib.expressions import C
    from factory_lib.sql import tables

    version = tables(data.block)[0].name
    weights = settings().home / "models" / f"{version}.safetensors"

    def report(step: int, loss: float) -> None:
        if step % 20 == 0:
            context.log.info(f"step {step}: loss {loss:.3f}")

    trained = train(
        data.filter(C.split == "train"),
        data.filter(C.split == "test"),
        baseline=baseline,
        trained_on=str(version),
        weights=weights,
        progress=report,
    )
    return dg.MaterializeResult(
        data_version=dg.DataVersion(hashlib.sha256(weights.read_bytes()).hexdigest()),
        metadata=_metadata(trained, str(version)),
        check_results=[_above_chance(trained)],
    )


def _metadata(trained: TrainingReport, version: str) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "trained_on": version,
        "samples": trained.samples,
        "accuracy": trained.metrics.accuracy,
        "auc": trained.metrics.auc,
        "chance": trained.metrics.chance,
        "test_pairs": trained.metrics.pairs,
        "steps": trained.steps,
        "seconds": trained.seconds,
    }
    if trained.baseline is not None and trained.gain is not None:
        numbers |= {"baseline_accuracy": trained.baseline.accuracy, "gain_over_baseline": trained.gain}
    if trained.weights is not None:
        numbers["weights"] = dg.MetadataValue.path(str(trained.weights))
    return numbers


def _above_chance(trained: TrainingReport) -> dg.AssetCheckResult:
    """Whether the accuracy is above chance by three standard deviations of guessing."""
    metrics = trained.metrics
    deviation = (metrics.chance * (1 - metrics.chance) / max(metrics.pairs, 1)) ** 0.5
    bar = metrics.chance + 3 * deviation
    return dg.AssetCheckResult(
        check_name=ABOVE_CHANCE,
        passed=metrics.accuracy > bar,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{metrics.accuracy:.1%} of {metrics.pairs} test pictures are nearest to their own caption among "
        f"{metrics.choices}; guessing gives {metrics.chance:.0%}.",
        metadata={"accuracy": metrics.accuracy, "bar": bar, "chance": metrics.chance},
    )
