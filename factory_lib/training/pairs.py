"""Training pairs read from a version, through the loader, into memory as the small pictures that the model sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from factory_lib.errors import LoaderError, nearest
from factory_lib.signals.tinyclip import SIDE, pixels

if TYPE_CHECKING:
    from factory_lib.query import DatasetQuery

LIMIT = 100_000
"""Pairs read at most: 1.2 GB of pictures of 64x64 pixels."""

_READ = 192  # samples the loader delivers at once


@dataclass(frozen=True)
class Pairs:
    """Pictures and their captions.

    Attributes:
        pictures: uint8 (n, 64, 64, 3).
        captions: n captions.
    """

    pictures: NDArray[np.uint8]
    captions: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.pictures.shape != (len(self.captions), SIDE, SIDE, 3):
            raise ValueError(f"{len(self.captions)} captions do not go with pictures {self.pictures.shape}.")

    def __len__(self) -> int:
        return len(self.captions)


def read_pairs(
    samples: DatasetQuery, *, caption: str = "caption", limit: int = LIMIT, seed: int = 0, num_workers: int = 0
) -> Pairs:
    """Read the pictures and captions of some samples.

    Samples without a caption or whose picture does not decode are left out. Of more than `limit` samples a random part
    is read, the same for the same seed.

    Args:
        samples: with a pointer column `image` and a text column.
        caption: the text column.
        num_workers: processes that decode; 0 decodes in this one.

    Raises:
        LoaderError: no rows, or no such columns.
    """
    if caption not in samples.columns:
        raise LoaderError(f"{samples!r} has no column {caption!r} to train on.", nearest(caption, samples.columns))
    there = samples.filter(f"isNotNull(`{caption}`)")
    count = there.count()
    if count > limit:
        there, count = there.sample(limit, seed=seed), limit
    if not count:
        raise LoaderError(f"{samples!r} has no rows with a {caption!r}.", "Does a filter remove them all?")
    batches = there.to_torch(
        columns=[caption],
        transform=_seen,
        shuffle=False,
        global_batch_size=_READ,
        tail="mask",
        rank=0,
        world_size=1,
        num_workers=num_workers,
    )
    pictures = np.empty((count, SIDE, SIDE, 3), dtype=np.uint8)
    captions: list[str] = []
    for picture, text in _present(batches, caption):
        pictures[len(captions)] = picture
        captions.append(text)
    return Pairs(pictures[: len(captions)], tuple(captions))


def _present(batches: Any, caption: str) -> Iterator[tuple[NDArray[np.uint8], str]]:
    for batch in batches:
        for picture, text, counts in zip(batch["image"], batch[caption], batch["mask"], strict=True):
            if counts:
                yield picture.numpy(), text


def _seen(picture: Any) -> NDArray[np.uint8]:
    return pixels(picture)
