"""What a training is told: a folder with a readable recipe, the loaders of its samples, and whatever it has reached.

Who has the warehouse writes the folder; the processes that train need nothing else, and no credentials of it.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory_lib.training.files import write_whole

if TYPE_CHECKING:
    from factory_lib.loading.dataset import BatchDataset

MODEL, BASELINE, TEST = "model", "baseline", "test"
"""Names of the parts, and of the samples to score on."""


@dataclass(frozen=True)
class Part:
    """One model to train.

    Attributes:
        name: `MODEL` or `BASELINE`.
        samples: rows of an epoch.
        vocabulary: words that the text tower knows.
        loader: what the loader's state says of the rows: their identity, order, decoder.
    """

    name: str
    samples: int
    vocabulary: tuple[str, ...]
    loader: Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """All that a model depends on; trainings with equal recipes go on where the other stopped.

    Attributes:
        trained_on: the version, such as "training_set.v3".
        table: its table's UUID.
        code: fingerprint of the code that trains.
        epochs: how often each sample is seen.
        max_steps: steps at most, 0 for no bound.
        global_batch_size: samples of a step over all processes.
        seed: of the weights, of the order and of how pictures are varied.
        learning_rate: at the top of its cycle.
        caption: the text column.
        parts: the models, in the order in which they are trained.
    """

    trained_on: str
    table: str
    code: str
    epochs: int
    max_steps: int
    global_batch_size: int
    seed: int
    learning_rate: float
    caption: str
    parts: tuple[Part, ...]

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]

    def steps(self, batches: int) -> int:
        """Steps of a part whose epochs have so many batches."""
        return min(self.epochs * batches, self.max_steps or self.epochs * batches)


@dataclass(frozen=True)
class Assignment:
    """A recipe, and how it is to be carried out.

    Attributes:
        recipe: what the models depend on.
        accelerator: "auto", "cpu" or "cuda".
        report_every: steps from one report to the next.
        checkpoint_every: steps from one checkpoint to the next.
        record_samples: whether each process writes down the samples of every step.
        previous: the model to be scored on the same samples, or None.
    """

    recipe: Recipe
    accelerator: str = "auto"
    report_every: int = 20
    checkpoint_every: int = 20
    record_samples: bool = False
    previous: str | None = None


def write_assignment(folder: Path, assignment: Assignment, loaders: Mapping[str, BatchDataset]) -> None:
    """Write the recipe and the loaders, by name; what a training left in the folder stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, loader in loaders.items():
        write_whole(folder / f"{name}.loader", pickle.dumps(loader))
    write_whole(folder / "assignment.json", json.dumps(asdict(assignment), indent=1).encode())


def read_assignment(folder: Path) -> Assignment:
    """What `write_assignment` wrote."""
    told = json.loads((folder / "assignment.json").read_text())
    recipe = told.pop("recipe")
    parts = tuple(Part(**{**part, "vocabulary": tuple(part["vocabulary"])}) for part in recipe.pop("parts"))
    return Assignment(recipe=Recipe(**recipe, parts=parts), **told)


def read_loader(folder: Path, name: str) -> BatchDataset:
    """The loader of a part's samples, or of those to score on; opens its files in this process."""
    loader: BatchDataset = pickle.loads((folder / f"{name}.loader").read_bytes())
    return loader
