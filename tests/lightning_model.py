"""A model for Lightning that learns nothing and notes what it is shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch

from factory_lib.loading.dataset import BatchDataset


class Model(lightning.LightningModule):
    """Notes the numbers of batches, and those of each validation."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.batches: list[list[int]] = []
        self.exams: list[list[int]] = []

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        """Note a batch."""
        self.batches.append(batch["number"].tolist())
        return (self.weight * batch["number"].float()).mean()

    def on_validation_epoch_start(self) -> None:
        """Begin a new list."""
        self.exams.append([])

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        """Note what counts of a batch."""
        self.exams[-1] += batch["number"][batch["mask"]].tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Any one."""
        return torch.optim.SGD(self.parameters(), 1e-6)


def fit(training: BatchDataset, exam: BatchDataset, target: Path, checkpoint: Path | None = None) -> Model:
    """Three epochs that end after three batches, on all ranks that torchrun started; a checkpoint after each step."""
    keeper = lightning.callbacks.ModelCheckpoint(
        target, "{step}", every_n_train_steps=1, save_top_k=-1, save_on_train_epoch_end=False
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        strategy="ddp",
        devices=int(os.environ["LOCAL_WORLD_SIZE"]),
        callbacks=[keeper],
        max_epochs=3,
        limit_train_batches=3,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    )
    model = Model()
    trainer.fit(model, training.loader(), exam.loader(), ckpt_path=checkpoint and str(checkpoint))
    return model
