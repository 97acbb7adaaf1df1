"""The training job: fit a small model on a version, score it on samples it has not seen, say what curation gained."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from factory_lib.signals.tinyclip import TinyClip, save_weights
from factory_lib.training.contrastive import fit
from factory_lib.training.evaluate import Metrics, evaluate
from factory_lib.training.pairs import LIMIT, Pairs, read_pairs

if TYPE_CHECKING:
    from factory_lib.query import DatasetQuery

STEPS, BATCH = 120, 128
"""Enough for a few thousand pairs; about 25 CPU-seconds."""


@dataclass(frozen=True)
class TrainingReport:
    """What a training run gave.

    Attributes:
        metrics: of the model trained on the training samples.
        baseline: of the same model trained equally long on as many random samples of the baseline, None without one.
        samples: pairs trained on.
        baseline_samples: pairs the baseline was trained on.
        steps: batches of each training.
        seconds: wall time of it all.
        weights: the model's safetensors file, None if it was not to be saved.
    """

    metrics: Metrics
    baseline: Metrics | None
    samples: int
    baseline_samples: int
    steps: int
    seconds: float
    weights: Path | None

    @property
    def gain(self) -> float | None:
        """Accuracy above the baseline's."""
        return self.metrics.accuracy - self.baseline.accuracy if self.baseline else None


def train(
    training: DatasetQuery,
    test: DatasetQuery,
    *,
    baseline: DatasetQuery | None = None,
    trained_on: str = "",
    weights: str | Path | None = None,
    steps: int = STEPS,
    batch: int = BATCH,
    seed: int = 0,
    caption: str = "caption",
    limit: int = LIMIT,
    num_workers: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> TrainingReport:
    """Train a TinyCLIP from scratch on the pictures and captions of a query and score it on others.

    Args:
        training: samples to learn from, with `image` and a caption column.
        test: samples to score on, none of them in `training`.
        baseline: uncurated samples, to compare with: as many as the training has, test samples excepted, are drawn.
        trained_on: name of the version, written into the weights' header.
        weights: where to write the model as safetensors; `Clip(checkpoint=that file)` reads it.
        steps, batch, seed: of the training, see `contrastive.fit`.
        caption: name of the text column.
        limit: training pairs at most; of more a random part is taken.
        num_workers: processes that decode while samples are read.
        progress: called with the step and its loss, from the threads of both trainings.

    Raises:
        LoaderError: a query has no rows or lacks a column.
        ValueError: the test samples have fewer than two different captions.
    """
    started = time.perf_counter()
    seen = read_pairs(training, caption=caption, limit=limit, seed=seed, num_workers=num_workers)
    unseen = read_pairs(test, caption=caption, limit=limit, seed=seed, num_workers=num_workers)
    drawn = None
    if baseline is not None:
        others = baseline.join(test.select("sample_id"), on="sample_id", how="anti")
        drawn = read_pairs(others, caption=caption, limit=len(seen), seed=seed, num_workers=num_workers)

    def trained(pairs: Pairs) -> tuple[TinyClip, Metrics]:
        model = fit(pairs.pictures, pairs.captions, steps=steps, batch=batch, seed=seed, progress=progress)
        return model, evaluate(model, unseen, seed=seed)

    (model, metrics), *compared = _at_once(trained, [seen] if drawn is None else [seen, drawn])
    if weights is not None:
        facts = {"trained_on": trained_on, "samples": len(seen), "steps": steps, "seed": seed, **asdict(metrics)}
        Path(weights).parent.mkdir(parents=True, exist_ok=True)
        save_weights(model, weights, {name: str(value) for name, value in facts.items()})
    return TrainingReport(
        metrics=metrics,
        baseline=compared[0][1] if compared else None,
        samples=len(seen),
        baseline_samples=len(drawn) if drawn else 0,
        steps=steps,
        seconds=time.perf_counter() - started,
        weights=None if weights is None else Path(weights),
    )


def _at_once(
    work: Callable[[Pairs], tuple[TinyClip, Metrics]], given: Sequence[Pairs]
) -> list[tuple[TinyClip, Metrics]]:
    """Both trainings side by side, each on one core: a model this small gains nothing from more."""
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(len(given), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, given))
    finally:
        torch.set_num_threads(before)
