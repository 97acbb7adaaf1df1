"""A dataset in Hugging Face's Trainer, resume included.

Left to itself, the Trainer resumes by reading an epoch from its start and throwing away what came before, through a
loader of its own that no epoch can be told: it would throw away, and then train on, samples of the first epoch. Here
the dataset's state travels in the Trainer's checkpoints, and nothing is read twice.
"""

from __future__ import annotations

from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from factory_lib.loading.dataset import BatchDataset


def attach(dataset: BatchDataset, trainer: Trainer) -> None:
    """Let a Trainer train on a dataset, and go on in it where a checkpoint was made.

    Checkpoints are taken up at another number of ranks, too, as long as the global batch size is the same: the Trainer
    counts epochs in steps.

    Args:
        dataset: its columns are the model's arguments; ``collate`` may rename them.
        trainer: with ``remove_unused_columns=False``; any ``train_dataset`` of it is not used.
    """
    trainer.get_train_dataloader = dataset.loader  # type: ignore[method-assign]
    trainer.args.ignore_data_skip = True
    trainer.add_callback(DatasetState(dataset))


class DatasetState(TrainerCallback, ExportableState):
    """Keeps a dataset's state in the Trainer's checkpoints (``trainer_state.json``)."""

    def __init__(self, dataset: BatchDataset) -> None:
        self._dataset = dataset

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of the dataset."""
        return {"args": {}, "attributes": self._dataset.state_dict()}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Go on where the checkpoint that the Trainer was resumed from was made."""
        saved: Any = state.stateful_callbacks  # by name, whatever its annotation says
        kept = saved.get(type(self).__name__) if isinstance(saved, dict) else None
        if state.global_step and kept:
            self._dataset.load_state_dict(kept["attributes"])
