"""How good an image-text model is on pairs that it was not trained on, in two numbers that fit any dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from factory_assets.training.pairs import CaptionedPictures
from factory_lib.signals.tinyclip import TinyClip

CHOICES = 10
"""Captions that a picture chooses from, its own among them."""

_BATCH = 256


@dataclass(frozen=True)
class Metrics:
    """Scores of a model over test pairs.

    Attributes:
        accuracy: share of the pictures that are nearest to their own caption among `choices` captions, the others being
            random captions of the test pairs with another text.
        chance: what guessing would give, 1 / `choices`.
        choices: 10, or the number of different captions if that is smaller.
        auc: probability that a picture's score with its own caption is above a picture's score with a caption of
            another text (area under the ROC curve; 0.5 is chance).
        pairs: test pairs.
        right: a digit for each of them, in order: 1 where the picture is nearest to its own caption, so that models can
            be compared pair by pair.
    """

    accuracy: float
    chance: float
    choices: int
    auc: float
    pairs: int
    right: str = ""

    def numbers(self) -> dict[str, Any]:
        """What fits into the header of a file and into a message: all but `right`."""
        return {name: value for name, value in asdict(self).items() if name != "right"}


def evaluate(model: TinyClip, pairs: CaptionedPictures, *, seed: int = 0) -> Metrics:
    """Score a model; which captions each picture chooses from follows from the seed.

    Raises:
        ValueError: fewer than two different captions.
    """
    texts, label = np.unique(np.asarray(pairs.captions), return_inverse=True)
    choices = min(CHOICES, len(texts))
    if choices < 2:
        raise ValueError(
            f"A caption can only be chosen among different ones, the {len(pairs)} test pairs have {choices}."
        )
    scores = image_vectors(model, pairs.pictures) @ text_vectors(model, texts.tolist()).T
    own = scores[np.arange(len(pairs)), label]
    other = np.take_along_axis(scores, _others(label, len(texts), choices - 1, seed), axis=1)
    right = (own[:, None] > other).all(1)
    return Metrics(
        accuracy=float(right.mean()),
        chance=1 / choices,
        choices=choices,
        auc=roc_auc(own, other[:, 0]),
        pairs=len(pairs),
        right="".join(map(str, right.astype(int).tolist())),
    )


def image_vectors(model: TinyClip, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Unit vectors, float32 (n, 64), of pictures, uint8 (n, 64, 64, 3)."""
    with torch.inference_mode():
        parts = [model.images(torch.from_numpy(pictures[at : at + _BATCH])) for at in range(0, len(pictures), _BATCH)]
        vectors: NDArray[np.float32] = torch.cat(parts).numpy()
    return vectors


def text_vectors(model: TinyClip, captions: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors, float32 (n, 64), of captions."""
    with torch.inference_mode():
        vectors: NDArray[np.float32] = model.texts(captions).numpy()
    return vectors


def roc_auc(positive: NDArray[np.float32], negative: NDArray[np.float32]) -> float:
    """Probability that a positive's score is above a negative's, ties counting half (Mann-Whitney)."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    equal = np.searchsorted(ordered, positive, side="right") - below
    return float((below + equal / 2).sum() / (len(positive) * len(negative)))


def _others(label: NDArray[np.intp], texts: int, count: int, seed: int) -> NDArray[np.intp]:
    """For each sample `count` different texts (numbers below `texts`) that are not its own.

    The texts stand in a circle in random order, and everyone takes those at the same random distances from his own.
    """
    rng = np.random.default_rng(seed)
    circle = rng.permutation(texts)
    place = np.argsort(circle)[label]
    distances = 1 + rng.choice(texts - 1, count, replace=False)
    taken: NDArray[np.intp] = circle[(place[:, None] + distances) % texts]
    return taken
