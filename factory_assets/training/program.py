"""The training program, run by torchrun: ``torchrun --nproc-per-node 2 -m factory_assets.training.program FOLDER``.

The folder is what `assignment.write_assignment` wrote. Left in it, for each part, are the weights and what was measured
of them (`<part>.safetensors`, `<part>.json`); a part that is there is not trained again, one that was begun is taken up
at its checkpoint. Neither the warehouse nor dagster is needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch.distributed as dist

from factory_assets.training.assignment import TEST, Assignment, TrainingPart, read_assignment
from factory_assets.training.evaluate import Metrics, evaluate
from factory_assets.training.fitting import Fitted, fit_part
from factory_assets.training.pairs import CaptionedPictures, read_pairs
from factory_assets.training.ranks import Rank, process_group
from factory_assets.training.reporter import SCORED, Tell, reporter
from factory_lib.errors import FactoryError, SignalError
from factory_lib.lifeline import end_with
from factory_lib.orchestration.retrying import is_transient
from factory_lib.owners import write_whole
from factory_lib.redaction import redact
from factory_lib.signals.tinyclip import load_weights, weights_bytes

PREVIOUS = "previous"
ERROR = "error.txt"
"""What the first process that failed says of it."""


def train(folder: Path) -> None:
    """Train every part of an assignment that is not finished, and score what it is to be compared with."""
    assignment = read_assignment(folder)
    with process_group(assignment.accelerator) as rank, reporter(rank.first) as tell:
        exam = _Exam(assignment)
        for part in assignment.recipe.parts:
            if not (folder / f"{part.name}.json").exists():
                fitted = fit_part(folder, assignment, part, rank, tell)
                if rank.first:
                    _finish(folder, assignment, part, rank, fitted, exam, tell)
            dist.barrier()
        if rank.first and assignment.previous is not None:
            _score_previous(folder, assignment.previous, exam, tell)


class _Exam:
    """The samples to score on, read once and only where something is scored."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._pairs: CaptionedPictures | None = None

    def score(self, model: Any) -> Metrics:
        if self._pairs is None:
            self._pairs = read_pairs(self._assignment.loaders[TEST].loader(), self._assignment.recipe.caption)
        return evaluate(model, self._pairs, seed=self._assignment.recipe.seed)


def _finish(
    folder: Path, assignment: Assignment, part: TrainingPart, rank: Rank, fitted: Fitted, exam: _Exam, tell: Tell
) -> None:
    """Score a model, write its weights, then what was measured, which says that the part is done."""
    metrics = exam.score(fitted.model)
    recipe = assignment.recipe
    header = {
        "trained_on": recipe.trained_on,
        "table": recipe.table,
        "part": part.name,
        "recipe": recipe.fingerprint,
        "code": recipe.code,
        "decoder": part.loader["decoders"]["image"],
        "samples": part.samples,
        "steps": fitted.steps,
        "global_batch_size": recipe.global_batch_size,
        "seed": recipe.seed,
        "processes": rank.world,
        "accelerator": rank.device.type,
        **metrics.numbers(),
    }
    weights = weights_bytes(fitted.model, {name: str(value) for name, value in header.items()})
    write_whole(folder / f"{part.name}.safetensors", weights, durable=True)
    measured = {
        "metrics": asdict(metrics),
        "samples": part.samples,
        "steps": fitted.steps,
        "resumed_at": fitted.resumed_at,
        "seconds": fitted.seconds,
        "processes": rank.world,
        "accelerator": rank.device.type,
        "speed": fitted.speed,
        "losses": fitted.losses,
    }
    write_whole(folder / f"{part.name}.json", json.dumps(measured, indent=1).encode(), durable=True)
    tell({"kind": SCORED, "part": part.name, "step": fitted.steps, **metrics.numbers()})


def _score_previous(folder: Path, path: str, exam: _Exam, tell: Tell) -> None:
    """Score the model before on the samples of now; one that cannot be read has no score."""
    try:
        metrics = exam.score(load_weights(path))
    except (OSError, SignalError):
        return
    said = json.dumps({"path": path, "metrics": asdict(metrics)})
    write_whole(folder / f"{PREVIOUS}.json", said.encode(), durable=True)
    tell({"kind": SCORED, "part": PREVIOUS, **metrics.numbers()})


def main() -> None:
    """The command line."""
    folder = Path(sys.argv[1])
    end_with(os.getppid())
    try:
        train(folder)
    except Exception as error:
        traceback.print_exc()
        said = str(error) if isinstance(error, FactoryError) else redact(f"{type(error).__name__}: {error}")
        # where the file exists, another process failed first, and that is why this one did
        with contextlib.suppress(FileExistsError), (folder / ERROR).open("x") as file:
            json.dump({"said": said, "is_transient": is_transient(error)}, file)
        sys.exit(1)


if __name__ == "__main__":
    main()
