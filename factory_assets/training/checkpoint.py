"""Checkpoints: everything that a killed training needs to go on as if nothing had happened."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from factory_assets.training.files import write_whole


@dataclass(frozen=True)
class TrainingCheckpoint:
    """Where a training is.

    Attributes:
        recipe: its fingerprint.
        step: steps done.
        seconds: that they took, over all runs.
        model, optimizer: their state.
        loader: its state, the same on every process.
        losses: (step, loss) of the reports so far.
    """

    recipe: str
    step: int
    seconds: float
    model: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    loader: Mapping[str, Any]
    losses: list[tuple[int, float]]


def save_checkpoint(path: Path, checkpoint: TrainingCheckpoint) -> None:
    """Replace the checkpoint at a path; a crash leaves the one before."""
    data = io.BytesIO()
    torch.save(vars(checkpoint), data)
    write_whole(path, data.getvalue())


def load_checkpoint(path: Path, recipe: str) -> TrainingCheckpoint | None:
    """The checkpoint at a path, on the CPU; None where there is none of this recipe, or none that can be read."""
    try:
        found = TrainingCheckpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        return None
    except Exception:  # whatever unpickling raises on another layout or a damaged disk: training starts anew
        return None
    return found if found.recipe == recipe else None
