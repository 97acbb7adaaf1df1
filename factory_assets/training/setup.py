"""Writes the folder that a training starts from: what is read of the warehouse is read here, once."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory_lib.errors import NothingToLearn, TrainingError
from factory_lib.filelocks import exclusive
from factory_lib.settings import settings

if TYPE_CHECKING:
    from factory_assets.training.assignment import Loading, TrainingPart
    from factory_assets.training.config import TrainingConfig
    from factory_lib.query import DatasetQuery
    from factory_lib.warehouse.versions import Version

KEEP_DAYS = 30
GPU_WORKERS = 8
TEST_LIMIT = 5_000
"""Samples to score on at most; of more a random part is taken."""

VOCABULARY_LIMIT = 200_000
"""Captions that the vocabulary is made of, at most."""


@dataclass(frozen=True)
class Setup:
    """A training that is ready to start.

    Attributes:
        folder: the same for the same recipe, so it may hold what a killed run reached.
        accelerator: "cpu" or "cuda".
        processes: how many train.
        version: what is trained on.
    """

    folder: Path
    accelerator: str
    processes: int
    version: Version


def set_up(
    data: DatasetQuery,
    baseline: DatasetQuery | None,
    config: TrainingConfig,
    *,
    code: str,
    previous: Path | None,
    exam: DatasetQuery | None = None,
    caption: str = "caption",
) -> Setup:
    """Write what the processes of a training read: the recipe, and the loaders with their indexes.

    Args:
        data: with `image`, a caption column, and `split`: "train" to learn from, "test" to be scored on.
        baseline: uncurated samples; as many as there are to learn from are drawn, test samples excepted.
        code: fingerprint of the code that trains.
        previous: the model to compare with.
        exam: samples to be scored on; None for those of `data`. Where data is the work of filters, samples that these
            filters chose would flatter it.

    Raises:
        TrainingError: no such accelerator, or the batch cannot be cut evenly.
        NothingToLearn: there are not two different captions to learn from, or to be scored on.
        LoaderError: a query lacks a column.
    """
    from factory_assets.training import assignment as told
    from factory_assets.training.pairs import captioned, exam_batches
    from factory_assets.training.ranks import accelerator_of, processes_of
    from factory_lib.plan.expressions import C
    from factory_lib.plan.nodes import tables
    from factory_lib.warehouse.client import warehouse
    from factory_lib.warehouse.versions import resolve

    accelerator = accelerator_of(config.accelerator)
    processes = processes_of(config.processes, accelerator, config.global_batch_size)
    version = resolve(warehouse(), tables(data.plan)[0].name)
    unseen = _captioned(data.filter(C.split == "test") if exam is None else exam, caption, "test samples")
    asked = unseen.sample(TEST_LIMIT, seed=config.seed) if unseen.count() > TEST_LIMIT else unseen
    scored = exam_batches(asked, caption)
    loaders = {told.TEST: told.Loading.of(scored, caption, told.IN_ORDER)}
    seen = _captioned(data.filter(C.split == "train"), caption, "training samples")
    given = loading(config, accelerator, processes)
    parts = [_part(told.MODEL, seen, caption, given, loaders)]
    if baseline is not None and config.baseline:
        others = captioned(baseline.join(unseen.select("sample_id"), on="sample_id", how="anti"), caption)
        count = parts[0].samples
        drawn = others.sample(count, seed=config.seed) if others.count() > count else others
        parts.append(_part(told.BASELINE, drawn, caption, given, loaders))
    recipe = told.TrainingRecipe(
        trained_on=str(version),
        table=version.uuid,
        code=code,
        epochs=config.epochs,
        max_steps=config.max_steps,
        global_batch_size=config.global_batch_size,
        seed=config.seed,
        learning_rate=config.learning_rate,
        caption=caption,
        parts=tuple(parts),
        exam=scored.maker.facts(),
    )
    assignment = told.Assignment(
        recipe=recipe,
        loaders=loaders,
        accelerator=accelerator,
        report_every=config.report_every,
        checkpoint_every=config.checkpoint_every,
        record_samples=config.record_samples,
        previous=str(previous) if previous is not None else None,
    )
    _sweep(trainings_folder())
    folder = trainings_folder() / f"{version}-{recipe.fingerprint[:16]}"
    told.write_assignment(folder, assignment)
    return Setup(folder, accelerator, processes, version)


def _captioned(samples: DatasetQuery, caption: str, what: str) -> DatasetQuery:
    """Samples with a picture and a caption.

    Raises:
        NothingToLearn: there are not two different captions.
    """
    from factory_assets.training.pairs import captioned
    from factory_lib.plan.expressions import C, fn

    there = captioned(samples, caption)
    found = there.agg(rows=fn.count(), first=fn.min(C[caption]), last=fn.max(C[caption])).to_arrow().to_pylist()[0]
    if found["first"] == found["last"]:
        raise NothingToLearn(
            f"All {found['rows']:,} {what} have the caption {found['first'][:80]!r}: one can only be chosen among "
            "different ones."
        )
    return there


def trainings_folder() -> Path:
    """Where trainings that are not finished lie, in the data folder."""
    return settings().home / "training"


@contextmanager
def alone(setup: Setup, wait_seconds: float = 30.0) -> Iterator[None]:
    """Hold a training's folder: two runs of one recipe would write over each other.

    Raises:
        TrainingError: another run trains the same.
    """
    with (setup.folder / "lock").open("w") as lock, ExitStack() as held:
        until = time.monotonic() + wait_seconds
        while True:
            try:
                held.enter_context(exclusive(lock, wait=False))
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TrainingError(
                        f"Another run trains the same on {setup.version}.", "Wait for it, or terminate it."
                    ) from None
                time.sleep(0.2)
        yield


def loading(config: TrainingConfig, accelerator: str, processes: int) -> dict[str, Any]:
    """Options of the training's loaders."""
    workers = config.loader_workers
    if workers < 0:
        workers = min(GPU_WORKERS, settings().workers // processes) if accelerator == "cuda" else 0
    return {
        "sample_ids": config.record_samples,
        "global_batch_size": config.global_batch_size,
        "seed": config.seed,
        "num_workers": workers,
        "pin_memory": accelerator == "cuda",
    }


def _part(
    name: str, samples: DatasetQuery, caption: str, given: Mapping[str, Any], loaders: dict[str, Loading]
) -> TrainingPart:
    from factory_assets.training.assignment import SHUFFLED, Loading, TrainingPart
    from factory_assets.training.pairs import training_batches
    from factory_lib.signals.tinyclip import vocabulary_of

    loader = training_batches(samples, caption, **given)
    loaders[name] = Loading.of(loader, caption, SHUFFLED, **given)
    count = loader.maker.rows
    read = samples if count <= VOCABULARY_LIMIT else samples.sample(VOCABULARY_LIMIT, seed=given["seed"])
    words = vocabulary_of(read.select(caption).to_arrow()[caption].to_pylist())
    return TrainingPart(name, count, words, loader.maker.facts())


def _sweep(folder: Path) -> None:
    """Remove trainings that nobody took up for 30 days."""
    oldest = time.time() - KEEP_DAYS * 86400
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.stat().st_mtime < oldest:
            shutil.rmtree(entry, ignore_errors=True)
