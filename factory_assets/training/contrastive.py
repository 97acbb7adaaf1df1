"""Trains a TinyCLIP from scratch on pairs of a picture and a caption."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from factory_lib.signals.tinyclip import TinyClip, vocabulary_of

BATCH = 256
SHIFT = 4

_GENERATOR = threading.Lock()  # torch's generator is the process's: one model at a time draws its weights from it


def fit(
    pictures: NDArray[np.uint8],
    captions: Sequence[str],
    *,
    steps: int,
    seed: int = 0,
    batch: int = BATCH,
    learning_rate: float = 3e-3,
    progress: Callable[[int, float], None] | None = None,
) -> TinyClip:
    """Fit both towers so that a picture's vector is nearest to that of its caption.

    Symmetric cross-entropy over the batch's similarities (Radford et al. 2021); pairs with the same caption share the
    target's mass, for each is a right answer to the other. Pictures are moved and mirrored at random. AdamW, weight
    decay 0.05, one cosine cycle with a short warm-up.

    Args:
        pictures: uint8 (n, 64, 64, 3), see `signals.tinyclip.pixels`.
        captions: n captions.
        steps: batches to train on; samples are drawn in a new random order each time all were seen.
        seed: of the weights and of the order.
        progress: called with the step and its loss.

    Returns:
        the model in evaluation mode.
    """
    if len(pictures) != len(captions) or len(captions) == 0:
        raise ValueError(f"Expected as many pictures as captions, at least one: {len(pictures)}, {len(captions)}.")
    model = new_model(vocabulary_of(captions), seed)
    optimizer = new_optimizer(model, learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_share(step, steps))
    order = _order(len(captions), min(batch, len(captions)), seed)
    rng = np.random.default_rng([seed, 1])
    model.train()
    for step in range(steps):
        chosen = next(order)
        varied = torch.from_numpy(vary(pictures[chosen], rng))
        _, same = np.unique([captions[i] for i in chosen], return_inverse=True)
        similarity = model.log_scale.exp() * model.images(varied) @ model.texts([captions[i] for i in chosen]).T
        loss = contrastive_loss(similarity, torch.from_numpy(same))
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        keep_scale(model)
        if progress is not None:
            progress(step, loss.item())
    model.eval()
    return model


def vary(pictures: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pictures, uint8 (n, side, side, 3), each moved by up to 4 pixels and mirrored or not, its border repeated."""
    count, side = pictures.shape[:2]
    edge = np.clip(np.arange(-SHIFT, side + SHIFT), 0, side - 1)
    down, right = rng.integers(0, 2 * SHIFT + 1, (2, count)).tolist()
    straight = np.less(rng.random(count), 0.5).tolist()
    varied = np.empty_like(pictures)
    for i in range(count):  # rows, then columns: taking all pixels by index at once costs ten times as much
        columns = edge[right[i] : right[i] + side]
        taken = pictures[i].take(edge[down[i] : down[i] + side], axis=0)
        varied[i] = taken.take(columns if straight[i] else columns[::-1], axis=1)
    return varied


def new_model(vocabulary: Sequence[str], seed: int) -> TinyClip:
    """A model with weights drawn from the seed, whatever was drawn before."""
    with _GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TinyClip(vocabulary)


def new_optimizer(model: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """AdamW with the weight decay that the trainings here use, 0.05."""
    return torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.05)


def keep_scale(model: TinyClip) -> None:
    """Hold the temperature between 1 and 1/100, as Radford et al. do."""
    with torch.no_grad():
        model.log_scale.clamp_(0, math.log(100))


def learning_rate_share(step: int, steps: int) -> float:
    """The learning-rate schedule, as a share of the rate: up for a twentieth of all steps, then half a cosine to 0."""
    warm = max(1, steps // 20)
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def contrastive_loss(similarity: Tensor, label: Tensor) -> Tensor:
    """Symmetric cross-entropy of a batch's similarities.

    Args:
        similarity: scaled scores (n, n), row i of picture i, column j of caption j.
        label: integers (n,), equal for equal captions: they share the target's mass.
    """
    target = (label[:, None] == label[None, :]).float()
    target = target / target.sum(1, keepdim=True)
    cross_entropy = nn.functional.cross_entropy
    return (cross_entropy(similarity, target) + cross_entropy(similarity.T, target)) / 2


def _order(count: int, batch: int, seed: int) -> Iterator[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    waiting = np.zeros(0, dtype=np.int64)
    while True:
        while len(waiting) < batch:
            waiting = np.concatenate([waiting, rng.permutation(count)])
        yield waiting[:batch]
        waiting = waiting[batch:]
