"""What a training is told: a folder with a readable recipe and how its samples are loaded, and whatever it has reached.

Who has the warehouse writes the folder; the processes that train need nothing else, and no credentials of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory_lib.errors import TrainingError
from factory_lib.home import private_folder
from factory_lib.owners import write_whole

if TYPE_CHECKING:
    from factory_lib.loading.dataset import BatchDataset

SHUFFLED, IN_ORDER = "shuffled", "in order"
"""How samples are delivered: to learn from, or to score on."""

MODEL, BASELINE, TEST = "model", "baseline", "test"
"""Names of the parts, and of the samples to score on."""


@dataclass(frozen=True)
class TrainingPart:
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
class Loading:
    """A loader that any process can make.

    Attributes:
        index: folder of the index of its rows.
        caption: the text column.
        order: `SHUFFLED` or `IN_ORDER`.
        options: of `pairs.training_batches`.
    """

    index: str
    caption: str
    order: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(loader: BatchDataset, caption: str, order: str, **options: Any) -> Loading:
        """What makes the same loader again."""
        from factory_lib.loading.batches import BatchMaker

        assert isinstance(loader.maker, BatchMaker)
        return Loading(str(loader.maker.recipe.index.path), caption, order, options)

    def loader(self) -> BatchDataset:
        """The loader; it opens its files in this process.

        Raises:
            TrainingError: the index of its rows is gone.
        """
        from factory_assets.training.pairs import IndexedSamples, exam_batches, training_batches
        from factory_lib.loading.index import open_index

        try:
            samples = IndexedSamples(open_index(Path(self.index)))
        except FileNotFoundError:
            raise TrainingError(
                f"The index of the samples, {self.index}, is gone.", "Materialize the asset: it writes the index anew."
            ) from None
        if self.order == IN_ORDER:
            return exam_batches(samples, self.caption)
        return training_batches(samples, self.caption, **self.options)


@dataclass(frozen=True)
class TrainingRecipe:
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
        exam: what the loader of the samples to score on says of them.
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
    parts: tuple[TrainingPart, ...]
    exam: Mapping[str, Any] = field(default_factory=dict)

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
        loaders: of the samples of each part, and of those to score on, by name.
        accelerator: "auto", "cpu" or "cuda".
        report_every: steps from one report to the next.
        checkpoint_every: steps from one checkpoint to the next.
        record_samples: whether each process writes down the samples of every step.
        previous: the model to be scored on the same samples, or None.
    """

    recipe: TrainingRecipe
    loaders: Mapping[str, Loading]
    accelerator: str = "auto"
    report_every: int = 20
    checkpoint_every: int = 20
    record_samples: bool = False
    previous: str | None = None


def write_assignment(folder: Path, assignment: Assignment) -> None:
    """Write what is to be done; what a training left in the folder stays."""
    private_folder(folder)
    write_whole(folder / "assignment.json", json.dumps(asdict(assignment), indent=1).encode(), durable=True)


def read_assignment(folder: Path) -> Assignment:
    """What `write_assignment` wrote."""
    told = json.loads((folder / "assignment.json").read_text())
    recipe = told.pop("recipe")
    parts = tuple(TrainingPart(**{**part, "vocabulary": tuple(part["vocabulary"])}) for part in recipe.pop("parts"))
    loaders = {name: Loading(**loading) for name, loading in told.pop("loaders").items()}
    return Assignment(recipe=TrainingRecipe(**recipe, parts=parts), loaders=loaders, **told)
