"""Pairs of a picture and a caption, through the loader: varied for training, as they are for scoring."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from factory_assets.training.contrastive import vary
from factory_lib.errors import LoaderError, NothingToLearn, nearest
from factory_lib.plan.expressions import C
from factory_lib.signals.tinyclip import SIDE, pixels

if TYPE_CHECKING:
    from factory_lib.loading.dataset import BatchDataset
    from factory_lib.loading.index import Index
    from factory_lib.query import DatasetQuery

_READ = 192  # samples the loader delivers at once


@dataclass(frozen=True)
class CaptionedPictures:
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


@dataclass(frozen=True)
class IndexedSamples:
    """The samples of an index that was built before, for processes without a warehouse: loaded like a query."""

    index: Index

    def count(self) -> int:
        """Number of samples."""
        return self.index.rows

    def to_torch(self, *, columns: Sequence[str], **options: Any) -> BatchDataset:
        """The samples as batches; see `factory_lib.loading.dataset.to_torch`."""
        from factory_lib.loading.dataset import BatchDataset, to_torch

        loader = to_torch(self.index, self.index.identity, members=self.index.members, columns=columns, **options)
        assert isinstance(loader, BatchDataset)
        return loader


def captioned(samples: DatasetQuery, caption: str) -> DatasetQuery:
    """The samples that have a picture and a caption.

    Raises:
        NothingToLearn: no rows.
        LoaderError: no such column.
    """
    if caption not in samples.columns:
        raise LoaderError(f"{samples!r} has no column {caption!r} to train on.", nearest(caption, samples.columns))
    there = samples.filter(C[caption] != "", C.image.size > 0)
    if not there.count():
        raise NothingToLearn(f"{samples!r} has no rows with a {caption!r} and a picture.")
    return there


def training_batches(
    samples: DatasetQuery | IndexedSamples, caption: str, *, sample_ids: bool = False, **options: Any
) -> BatchDataset:
    """Shuffled batches, each picture as uint8 (64, 64, 3), moved and mirrored anew in every epoch.

    How a picture is varied follows from the seed, the epoch and its position: the same for any number of processes.

    Args:
        samples: with a pointer column `image` and a text column.
        caption: the text column.
        sample_ids: deliver them, too.
        options: of `to_torch`, such as `global_batch_size`, `seed`, `num_workers`.
    """
    columns = [caption, *(["sample_id"] if sample_ids else [])]
    return samples.to_torch(
        columns=columns,
        transform=_varied,
        image_size=SIDE,  # JPEGs are decoded at the smallest scale that is still large enough
        progress=False,
        **options,
    )


def exam_batches(samples: DatasetQuery | IndexedSamples, caption: str, *, num_workers: int = 0) -> BatchDataset:
    """Every sample once and in order, for one process; broken ones are marked in `mask`."""
    return samples.to_torch(
        columns=[caption],
        transform=pixels,
        shuffle=False,
        global_batch_size=_READ,
        tail="mask",
        rank=0,
        world_size=1,
        num_workers=num_workers,
        progress=False,
    )


def read_pairs(batches: BatchDataset, caption: str = "caption") -> CaptionedPictures:
    """All pairs that `exam_batches` delivers, in memory; samples whose picture does not decode are left out."""
    count = batches.maker.rows
    pictures = np.empty((count, SIDE, SIDE, 3), dtype=np.uint8)
    captions: list[str] = []
    for picture, text in _present(batches, caption):
        pictures[len(captions)] = picture
        captions.append(text)
    return CaptionedPictures(pictures[: len(captions)], tuple(captions))


def _present(batches: BatchDataset, caption: str) -> Iterator[tuple[NDArray[np.uint8], str]]:
    for batch in batches:
        for picture, text, counts in zip(batch["image"], batch[caption], batch["mask"], strict=True):
            if counts:
                yield picture.numpy(), text


def _varied(picture: Any) -> NDArray[np.uint8]:
    # the loader seeds `random` for each sample from the seed, the epoch and the position
    varied: NDArray[np.uint8] = vary(pixels(picture)[None], np.random.default_rng(random.getrandbits(64)))[0]
    return varied
