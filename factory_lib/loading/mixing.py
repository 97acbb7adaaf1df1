"""Batches mixed from several versions by weight.

The mix is a sequence of its own (`loading.shares`), so any position is found at once, and a global batch is a slice of
the sequence whatever the number of ranks. A version that ends starts over in its next order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from factory_lib.errors import LoaderError
from factory_lib.loading import collate as collation
from factory_lib.loading.batches import BatchMaker, Maker, finished
from factory_lib.loading.dataset import BatchDataset
from factory_lib.loading.hooks import Hooks
from factory_lib.loading.order import Rows, rank_positions
from factory_lib.loading.shares import Shares
from factory_lib.loading.tasks import Batch, BatchTask, Broken, MadeBatch


def mix(
    datasets: Sequence[BatchDataset],
    weights: Sequence[float],
    *,
    seed: int = 0,
    rows_per_epoch: int | None = None,
    collate: Callable[[Batch], Any] | None = None,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> BatchDataset:
    """A dataset whose batches are drawn from several ones; ranks, workers and batch size are those of the first.

    Args:
        datasets: made by `to_torch` with the same members and columns, shuffled, without a collate of their own.
        weights: the share of each; any positive numbers. Wherever the sequence is cut, each version has had its share
            but for a row or a few.
        seed: of the mix.
        rows_per_epoch: after which an epoch ends; by default as many as all versions have.
        collate: last step in the worker, from the batch to what is yielded.
        collate_fn: from a list of samples to a batch, as a DataLoader's; before `collate`.

    Returns:
        A `BatchDataset`; its batches have ``batch["source"]``, int64, the number of the dataset that each row is from,
        unless a column of that name is delivered.

    Raises:
        LoaderError: weights that cannot be, or datasets that don't go together.
    """
    if not datasets or len(datasets) != len(weights) or not all(0 < weight < math.inf for weight in weights):
        raise LoaderError(
            f"{len(datasets)} datasets with weights {list(weights)} cannot be mixed: one positive weight each."
        )
    makers: list[BatchMaker] = []
    for dataset in datasets:
        maker = dataset.maker
        if not isinstance(maker, BatchMaker) or _finishes(maker.recipe.hooks) or maker.tail == "mask":
            raise LoaderError(
                'Only datasets made by to_torch() without collate, buckets and tail="mask" can be mixed.',
                "Give collate to mix().",
            )
        makers.append(maker)
    rows = sum(maker.rows for maker in makers) if rows_per_epoch is None else rows_per_epoch
    if rows < 1:
        raise LoaderError(f"rows_per_epoch={rows} is below 1.")
    hooks = Hooks(collate=collate, collate_fn=collate_fn)
    return datasets[0].with_maker(MixMaker(_alike(makers), list(weights), seed, rows, hooks))


def _finishes(hooks: Hooks) -> bool:
    return hooks.collate is not None or hooks.collate_fn is not None


def _alike(makers: Sequence[BatchMaker]) -> list[BatchMaker]:
    """Makers that deliver each column in one way: lists as a tensor where they are equally long in all versions."""
    first = makers[0].recipe.lengths
    common = {
        name: length
        for name, length in first.items()
        if all(maker.recipe.lengths.get(name) == length for maker in makers)
    }
    return [BatchMaker(replace(maker.recipe, lengths=common)) for maker in makers]


class MixMaker(Maker):
    """Makes mixed batches.

    Args:
        makers: of the sources.
        weights, seed: of the mix.
        rows: of an epoch.
        hooks: what the user does to mixed batches.
    """

    def __init__(self, makers: list[BatchMaker], weights: list[float], seed: int, rows: int, hooks: Hooks) -> None:
        self.rows, self.tail = rows, makers[0].tail
        self._makers, self._weights, self._seed, self._hooks = makers, weights, seed, hooks
        self._shares = Shares(weights, seed)

    def __reduce__(self) -> tuple[Any, ...]:
        return MixMaker, (self._makers, self._weights, self._seed, self.rows, self._hooks)

    def make(self, task: BatchTask) -> MadeBatch:
        """The batch of a task."""
        first = task.epoch * self.rows + task.start
        parts: list[Batch] = []
        counters: dict[str, float] = {}
        broken: list[Broken] = []
        spans = self._shares.spans(first, first + task.size)
        for source, (maker, positions) in enumerate(zip(self._makers, self._shared(spans, task), strict=True)):
            for epoch in np.unique(positions // maker.rows).tolist():
                here = positions[positions // maker.rows == epoch] - epoch * maker.rows
                made = maker.part(task, epoch, int(here.min()), here)
                made = finished(maker.recipe.hooks, made, self._seed, task)
                parts.append({"source": torch.full((len(here),), source), **made.batch})
                broken += made.broken
                _add(counters, made.counters)
        return finished(self._hooks, MadeBatch(collation.joined(parts), counters, tuple(broken)), self._seed, task)

    def facts(self) -> dict[str, Any]:
        """What a state must agree on to be taken up."""
        sources = [maker.facts() for maker in self._makers]
        return {"mix": sources, "weights": self._weights, "seed": self._seed, "rows": self.rows, "tail": self.tail}

    def _shared(self, spans: list[tuple[int, int]], task: BatchTask) -> list[Rows]:
        """This rank's positions of each source: an equal part of each, and what is left over dealt out so that all
        ranks have as many rows, give or take one.
        """
        even, rest = [], []
        for source, (maker, (start, stop)) in enumerate(zip(self._makers, spans, strict=True)):
            count = (stop - start) // task.world * task.world
            even.append(rank_positions(maker.recipe.key, start, count, task.rank, task.world))
            rest += [(source, position) for position in range(start + count, stop)]
        mine = rest[len(rest) * task.rank // task.world : len(rest) * (task.rank + 1) // task.world]
        extra = [np.array([p for s, p in mine if s == source], np.int64) for source in range(len(spans))]
        return [np.concatenate(pair) for pair in zip(even, extra, strict=True)]


def _add(counters: dict[str, float], more: Mapping[str, float]) -> None:
    for name, value in more.items():
        counters[name] = counters.get(name, 0) + value
