"""Trains one model on all processes of a training, from its newest checkpoint on."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from factory_assets.training.assignment import Assignment, TrainingPart
from factory_assets.training.contrastive import (
    contrastive_loss,
    keep_scale,
    learning_rate_share,
    new_model,
    new_optimizer,
)
from factory_assets.training.ranks import Rank, distributed, summed, whole_batch
from factory_assets.training.reporter import CHECKPOINT, PROGRESS, RESUMED, Tell
from factory_lib.loading.meter import statistics
from factory_lib.owners import write_whole
from factory_lib.signals.tinyclip import TinyClip

if TYPE_CHECKING:
    from factory_lib.loading.dataset import BatchDataset

Speed = dict[str, float]
"""Over all processes: samples a second, bytes by tier, shares of decoding and waiting, stalls; see
`loading.meter.statistics`."""


@dataclass
class Fitted:
    """A trained model.

    Attributes:
        model: in evaluation mode, on the CPU.
        steps: done in all.
        resumed_at: the step that this run began at.
        seconds: of training, over all runs.
        speed: of this run; None where it had nothing left to do.
        losses: (step, loss) of the reports.
    """

    model: TinyClip
    steps: int
    resumed_at: int
    seconds: float
    speed: Speed | None
    losses: list[tuple[int, float]]


def fit_part(folder: Path, assignment: Assignment, part: TrainingPart, rank: Rank, tell: Tell) -> Fitted:
    """Train a part on all processes; each of them calls it.

    Every process sees its share of each global batch; the loss is that of the whole batch, so every caption is
    compared with the pictures of all processes. Batch normalisation sees the process's share alone.
    """
    loader = assignment.loaders[part.name].loader()
    fitting = _Fitting(folder, assignment, part, rank, tell, loader)
    fitting.resume()
    return fitting.run()


@dataclass
class _Fitting:
    folder: Path
    assignment: Assignment
    part: TrainingPart
    rank: Rank
    tell: Tell
    loader: BatchDataset
    step: int = 0
    before: float = 0.0  # seconds that earlier runs trained
    losses: list[tuple[int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        recipe = self.assignment.recipe
        self.steps = recipe.steps(len(self.loader))
        self.model = new_model(self.part.vocabulary, recipe.seed)
        self.towers: DistributedDataParallel = distributed(self.model, self.rank)
        self.optimizer = new_optimizer(self.model, recipe.learning_rate)
        self.path = self.folder / f"{self.part.name}.checkpoint"

    def resume(self) -> None:
        """Take up the newest checkpoint, where there is one of this recipe."""
        found = load_checkpoint(self.path, self.assignment.recipe.fingerprint)
        if found is None:
            return
        self.model.load_state_dict(found.model)
        self.optimizer.load_state_dict(dict(found.optimizer))
        self.loader.load_state_dict(found.loader)
        self.step, self.before, self.losses = found.step, found.seconds, list(found.losses)
        self.tell({"kind": RESUMED, **self._place()})

    def run(self) -> Fitted:
        first, began = self.step, time.perf_counter()
        at_first = before = dict(self.loader.counters)
        self.model.train()
        while self.step < self.steps:
            for batch in self.loader:
                self._record(batch)
                loss = self._learn(batch)
                self.step += 1
                if self.step % self.assignment.report_every == 0 or self.step == self.steps:
                    self._report(float(loss), self._speed(before))
                    before = dict(self.loader.counters)
                if self.step % self.assignment.checkpoint_every == 0 and self.step < self.steps:
                    self._save(self.before + time.perf_counter() - began)
                if self.step == self.steps:
                    break
        speed = self._speed(at_first) if self.step > first else None
        seconds = self.before + time.perf_counter() - began
        self._save(seconds)  # so that a training killed while it is scored has nothing to repeat
        self.loader.close()
        return Fitted(self.model.cpu().eval(), self.step, first, seconds, speed, self.losses)

    def _learn(self, batch: Mapping[str, Any]) -> Tensor:
        recipe = self.assignment.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * learning_rate_share(self.step, self.steps)
        captions = [caption or "" for caption in batch[recipe.caption]]
        pictures = batch["image"].to(self.rank.device, non_blocking=True)
        loss = batch_loss(self.towers, pictures, captions, self.rank)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss * self.rank.world)
        self.optimizer.step()
        keep_scale(self.model)
        return loss.detach()

    def _speed(self, before: Mapping[str, float]) -> Speed:
        """Since the loader's counters were `before`; every process asks at the same step."""
        mine = {name: value - before.get(name, 0.0) for name, value in self.loader.counters.items()}
        found = statistics(summed(mine, self.rank))
        # the processes' seconds were added up, too
        return {**found, "samples_per_second": found["samples_per_second"] * self.rank.world}

    def _place(self) -> dict[str, Any]:
        state = self.loader.state_dict()
        return {"part": self.part.name, "step": self.step, "steps": self.steps, "epoch": state["epoch"]}

    def _report(self, loss: float, speed: Speed) -> None:
        self.losses.append((self.step, loss))
        self.tell({"kind": PROGRESS, **self._place(), "loss": loss, "speed": speed})

    def _save(self, seconds: float) -> None:
        if not self.rank.first:
            return
        state = TrainingCheckpoint(
            recipe=self.assignment.recipe.fingerprint,
            step=self.step,
            seconds=seconds,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            loader=self.loader.state_dict(),
            losses=self.losses,
        )
        save_checkpoint(self.path, state)
        self.tell({"kind": CHECKPOINT, **self._place()})

    def _record(self, batch: Mapping[str, Any]) -> None:
        if not self.assignment.record_samples:
            return
        line = {"step": self.step, "samples": batch["sample_id"].tolist()}
        with open(self.folder / f"{self.part.name}-{self.rank.rank}.samples.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")


def batch_loss(towers: DistributedDataParallel, pictures: Tensor, captions: Sequence[str], rank: Rank) -> Tensor:
    """Loss of a global batch; every process gives its part and gets the same number.

    The gradients of `loss * rank.world`, averaged over the processes as DistributedDataParallel does, are those of the
    loss on one process: each computes them through its own part, and the factor undoes the division.
    """
    seen, read, scale = towers(pictures, captions)
    # of the scale, which is in every process's part, each takes its share
    scale = scale.detach() + (scale - scale.detach()) / rank.world
    similarity = scale * whole_batch(seen, rank) @ whole_batch(read, rank).T
    return contrastive_loss(similarity, whole_batch(_labels(captions, rank.device), rank))


def _labels(captions: Sequence[str], device: torch.device) -> Tensor:
    """An integer (n,) for each caption, equal for equal ones, on whichever process they are."""
    digests = (hashlib.blake2b(caption.encode(), digest_size=8).digest() for caption in captions)
    return torch.tensor([int.from_bytes(one, "big", signed=True) for one in digests], device=device)


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
    write_whole(path, data.getvalue(), durable=True)


def load_checkpoint(path: Path, recipe: str) -> TrainingCheckpoint | None:
    """The checkpoint at a path, on the CPU; None where there is none of this recipe, or none that can be read."""
    try:
        found = TrainingCheckpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        return None
    except Exception:  # whatever unpickling raises on another layout or a damaged disk: training starts anew
        return None
    return found if found.recipe == recipe else None
