"""Batches mixed from several versions by weight.

The mix is a sequence of its own: positions in cycles of 1,024, of which each version has a fixed number, shuffled anew
in each cycle. So shares are exact in every cycle, any position is found at once, and a global batch is a slice of the
sequence whatever the number of ranks. A version that ends starts over in its next order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from factory_lib.errors import LoaderError
from factory_lib.loading.batches import Batch, BatchMaker, Made, Maker, Task
from factory_lib.loading.dataset import BatchDataset
from factory_lib.loading.order import Rows, rank_positions

CYCLE = 1024


def mix(
    datasets: Sequence[BatchDataset],
    weights: Sequence[float],
    *,
    seed: int = 0,
    rows_per_epoch: int | None = None,
    collate: Callable[[Batch], Any] | None = None,
) -> BatchDataset:
    """A dataset whose batches are drawn from several ones; ranks, workers and batch size are those of the first.

    Args:
        datasets: made by `to_torch` with the same members and columns, shuffled, without a collate of their own.
        weights: the share of each in every 1,024 rows; any positive numbers.
        seed: of the mix.
        rows_per_epoch: after which an epoch ends; by default as many as all versions have.
        collate: last step in the worker, from the batch to what is yielded.

    Returns:
        A `BatchDataset`; its batches have ``batch["source"]``, int64, the number of the dataset that each row is from.

    Raises:
        LoaderError: weights that cannot be, or datasets that don't go together.
    """
    if not datasets or len(datasets) != len(weights) or min(weights) <= 0:
        raise LoaderError(
            f"{len(datasets)} datasets with weights {list(weights)} cannot be mixed: one positive weight each."
        )
    makers = [dataset.maker for dataset in datasets]
    for maker in makers:
        if not isinstance(maker, BatchMaker) or maker.recipe.hooks.collate or maker.tail == "mask":
            raise LoaderError(
                'Only datasets made by to_torch() without collate and without tail="mask" can be mixed.',
                "Give collate to mix().",
            )
    rows = rows_per_epoch or sum(maker.rows for maker in makers)
    mixed = MixMaker([maker for maker in makers if isinstance(maker, BatchMaker)], list(weights), seed, rows, collate)
    return datasets[0].with_maker(mixed)


class Mix:
    """Which source each position of the mix is of, and which position of the source it is.

    Args:
        weights: shares; rounded to 1,024ths, at least one each.
        seed: of the shuffle.
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        self.quota = _quota(weights)
        material = f"mix\0{seed}\0{self.quota.tolist()}".encode()
        self._key = np.frombuffer(hashlib.blake2b(material, digest_size=16).digest(), "<u8")

    def spans(self, start: int, stop: int) -> list[tuple[int, int]]:
        """For each source, the positions of it that ``[start, stop)`` of the mix takes."""
        return list(zip(self._before(start), self._before(stop), strict=True))

    def _before(self, position: int) -> list[int]:
        cycle, within = divmod(position, CYCLE)
        counts = np.bincount(self.sources(cycle)[:within], minlength=len(self.quota))
        return [int(n) for n in cycle * self.quota + counts]

    def sources(self, cycle: int) -> NDArray[np.int64]:
        """The source of each of the 1,024 positions of a cycle."""
        words = np.random.Philox(key=self._key, counter=np.array([0, cycle, 0, 0], np.uint64)).random_raw(CYCLE)
        sources: NDArray[np.int64] = np.repeat(np.arange(len(self.quota)), self.quota)[np.argsort(words, kind="stable")]
        return sources


class MixMaker(Maker):
    """Makes mixed batches.

    Args:
        makers: of the sources.
        weights, seed: of the mix.
        rows: of an epoch.
        hook: the user's collate.
    """

    def __init__(
        self,
        makers: list[BatchMaker],
        weights: list[float],
        seed: int,
        rows: int,
        hook: Callable[[Batch], Any] | None,
    ) -> None:
        self.rows, self.global_batch_size, self.tail = rows, makers[0].global_batch_size, makers[0].tail
        self._makers, self._weights, self._seed, self._hook = makers, weights, seed, hook
        self._mix = Mix(weights, seed)

    def __reduce__(self) -> tuple[Any, ...]:
        import cloudpickle

        return _load, (self._makers, self._weights, self._seed, self.rows, cloudpickle.dumps(self._hook))

    def make(self, task: Task) -> Made:
        """The batch of a task, and the counters of making it."""
        first = task.epoch * self.rows + task.start
        parts: list[Batch] = []
        counters: dict[str, float] = {}
        spans = self._mix.spans(first, first + self.global_batch_size)
        for source, (maker, positions) in enumerate(zip(self._makers, self._shared(spans, task), strict=True)):
            for epoch in np.unique(positions // maker.rows).tolist():
                here = positions[positions // maker.rows == epoch] - epoch * maker.rows
                batch, more = maker.part(task, epoch, int(here.min()), here)
                parts.append({**batch, "source": torch.full((len(here),), source)})
                for name, value in more.items():
                    counters[name] = counters.get(name, 0) + value
        joined = _joined(parts)
        return (self._hook(joined) if self._hook else joined), counters

    def facts(self) -> dict[str, Any]:
        """What a state must agree on to be taken up."""
        sources = [maker.facts() for maker in self._makers]
        return {"mix": sources, "weights": self._weights, "seed": self._seed, "rows": self.rows, "tail": self.tail}

    def _shared(self, spans: list[tuple[int, int]], task: Task) -> list[Rows]:
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


def _load(makers: list[BatchMaker], weights: list[float], seed: int, rows: int, hook: bytes) -> MixMaker:
    import cloudpickle

    return MixMaker(makers, weights, seed, rows, cloudpickle.loads(hook))


def _quota(weights: Sequence[float]) -> NDArray[np.int64]:
    """Whole numbers of 1,024 in proportion to the weights: largest remainders, at least one each."""
    share = np.asarray(weights, float) / sum(weights) * CYCLE
    quota = np.maximum(1, np.floor(share)).astype(np.int64)
    for index in np.argsort(-(share - np.floor(share)), kind="stable")[: max(0, CYCLE - int(quota.sum()))]:
        quota[index] += 1
    quota[int(np.argmax(quota))] -= int(quota.sum()) - CYCLE
    return quota


def _joined(parts: Sequence[Any]) -> Any:
    """Batches, or parts of them with the same names, end to end.

    Raises:
        LoaderError: names, types or shapes differ between the versions.
    """
    first = parts[0]
    if isinstance(first, dict):
        if any(set(part) != set(first) for part in parts):
            names = sorted({str(sorted(part)) for part in parts})
            raise LoaderError(f"The versions that are mixed deliver different columns: {' and '.join(names)}.")
        if set(first) == {"data", "offsets"}:
            lengths = torch.cat([part["offsets"].diff() for part in parts])
            offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
            return {"data": torch.cat([part["data"] for part in parts]), "offsets": offsets}
        return {name: _joined([part[name] for part in parts]) for name in first}
    if all(isinstance(part, torch.Tensor) for part in parts):
        if len({(part.dtype, part.shape[1:]) for part in parts}) == 1:
            return torch.cat(list(parts))
        shapes = ", ".join(f"{tuple(part.shape)} {part.dtype}" for part in parts)
        raise LoaderError(f"The versions that are mixed deliver tensors that differ: {shapes}.", "Use image_size.")
    return [item for part in parts for item in part]
