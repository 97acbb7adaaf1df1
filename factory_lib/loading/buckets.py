"""Batches of pictures of like shape: every batch has one size of picture, the one whose aspect ratio is nearest.

The rows of a version are dealt to buckets; each bucket has an order of its own, and the batches of all buckets are
shuffled among each other. Batch number k of an epoch is the same whatever the number of ranks and workers, and all
ranks work on the same bucket at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory_lib.errors import LoaderError
from factory_lib.loading.batches import BatchMaker, BatchRecipe, Maker
from factory_lib.loading.convert import to_numpy
from factory_lib.loading.defaults import Shape
from factory_lib.loading.index import Index
from factory_lib.loading.order import Rows, batch_count, default_lanes, default_units
from factory_lib.loading.tasks import BatchTask, MadeBatch


class BucketMaker(Maker):
    """Makes batches of like shape.

    Args:
        makers: of the buckets, each with rows and a shape of its own.
    """

    whole_batches = True

    def __init__(self, makers: Sequence[BatchMaker]) -> None:
        self._makers = list(makers)
        self.rows, self.tail = sum(maker.rows for maker in makers), makers[0].tail
        self._plan: tuple[tuple[int, int], NDArray[np.int64]] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return BucketMaker, (self._makers,)

    def batches(self, size: int, start: int = 0) -> int:
        """Global batches that an epoch has from a position on; positions count whole batches of `size`."""
        whole = sum(batch_count(maker.rows, size, self.tail) for maker in self._makers)
        return max(0, whole - start // size)

    def make(self, task: BatchTask) -> MadeBatch:
        """The batch of a task."""
        bucket, number = self._place(task)
        return self._makers[bucket].make(replace(task, start=number * task.size))

    def facts(self) -> dict[str, Any]:
        """What a state must agree on to be taken up."""
        return {**self._makers[0].facts(), "buckets": [maker.facts() for maker in self._makers]}

    def _place(self, task: BatchTask) -> tuple[int, int]:
        """The bucket of a batch, and the number of the batch in it."""
        if self._plan is None or self._plan[0] != (task.epoch, task.size):
            counts = [batch_count(maker.rows, task.size, self.tail) for maker in self._makers]
            buckets = np.repeat(np.arange(len(counts)), counts)
            key = self._makers[0].recipe.key
            if key.shuffle:
                words = np.random.Philox(key=np.array([key.seed & 2**63 - 1, task.epoch], np.uint64))
                buckets = buckets[np.argsort(words.random_raw(len(buckets)), kind="stable")]
            self._plan = ((task.epoch, task.size), buckets.astype(np.int64))
        plan, at = self._plan[1], task.start // task.size
        bucket = int(plan[at])
        return bucket, int((plan[:at] == bucket).sum())


def bucket_maker(recipe: BatchRecipe, shapes: Sequence[Shape], names: Sequence[str]) -> BucketMaker:
    """A maker of batches of like shape.

    Args:
        recipe: of the whole version.
        shapes: (height, width) of the buckets.
        names: of the columns with the widths and the heights of the pictures.

    Raises:
        LoaderError: a picture without a size.
    """
    nearest = _nearest(recipe.index, shapes, names)
    makers = []
    for number, shape in enumerate(shapes):
        rows = np.flatnonzero(nearest == number).astype(np.int64)
        if not len(rows):
            continue
        lanes = min(recipe.key.lanes, default_lanes(len(rows)))
        unit, window = default_units(len(rows), recipe.index.mean_bytes, lanes)
        key = replace(
            recipe.key,
            identity=f"{recipe.key.identity}\0{shape[0]}x{shape[1]}",
            rows=len(rows),
            unit_rows=unit,
            window_rows=window,
            lanes=lanes,
        )
        makers.append(BatchMaker(replace(recipe, key=key, shape=shape), rows))
    return BucketMaker(makers)


def _nearest(index: Index, shapes: Sequence[Shape], names: Sequence[str]) -> Rows:
    """The number of the shape (int64) whose aspect ratio is nearest to each row's."""
    sizes = [array.cast("float64") for array in index.take(np.arange(index.rows), list(names))]
    bad = sum(array.null_count for array in sizes)
    width, height = (to_numpy(array.fill_null(0.0)) for array in sizes)
    if bad or not ((width > 0) & (height > 0)).all():
        raise LoaderError(
            f"Some pictures of {index.identity!r} have no size in the columns {names[0]!r} and {names[1]!r}.",
            "Filter them out, or give size_columns=(width, height).",
        )
    ratios = np.log([shape[1] / shape[0] for shape in shapes])
    found: Rows = np.abs(np.log(width / height)[:, None] - ratios[None]).argmin(1)
    return found
