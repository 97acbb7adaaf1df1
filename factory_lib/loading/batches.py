"""One batch of one rank, from its position in the sequence to what the training gets. This is what a worker process
runs.

Neither the warehouse nor dagster is imported here: a worker needs the index, the store and torch.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from factory_lib.errors import FactoryError
from factory_lib.loading import collate, shared_blocks
from factory_lib.loading.ahead import Ahead
from factory_lib.loading.decode import Decoder
from factory_lib.loading.hooks import Hooks, batch_seed, kept_generators, seed_all
from factory_lib.loading.index import Index
from factory_lib.loading.making import Making
from factory_lib.loading.order import Order, OrderKey, Rows, Tail, batch_count, own_lanes, rank_positions
from factory_lib.loading.reading import SampleReader
from factory_lib.loading.tasks import BatchTask, MadeBatch
from factory_lib.settings import as_stored
from factory_lib.storage.cache import BlockCache, CacheOptions

OnError = Literal["substitute", "raise"]
WORKER_SECONDS = 300.0  # that a sample may take in a worker, where nobody says otherwise


@dataclass(frozen=True)
class BatchRecipe:
    """How batches are made of rows.

    Attributes:
        decoders: member to decoder; ``"raw"`` delivers bytes.
        shape: (height, width) in pixels that pictures are scaled and cropped to, or None.
        sample_seconds: that decoding and transforming a sample may take; None for 300 in workers, else no limit.
        cache: of remote files, or None.
        lengths: columns of lists, and how long all of them are; a column that is not in it is delivered ragged.
    """

    index: Index
    key: OrderKey
    tail: Tail
    decoders: Mapping[str, Decoder]
    shape: tuple[int, int] | None
    on_error: OnError
    hooks: Hooks
    sample_seconds: float | None
    cache: CacheOptions | None
    lengths: Mapping[str, int]

    @property
    def decode_size(self) -> int | None:
        """Pixels that the shorter side of a decoded picture must keep; None for all."""
        return None if self.shape is None else max(self.shape)

    def limit(self) -> float | None:
        """Seconds that a sample may take in this process."""
        if self.sample_seconds is not None or torch.utils.data.get_worker_info() is None:
            return self.sample_seconds
        return WORKER_SECONDS


class Maker(ABC):
    """Makes the batches of a dataset; as a map-style dataset it is indexed by tasks.

    Cheap to pickle; opens its files in the process that uses it.

    Attributes:
        rows: of an epoch.
        tail: what becomes of the last rows of an epoch.
        whole_batches: whether positions count whole batches, so that an epoch cannot change their size.
    """

    rows: int
    tail: Tail
    whole_batches = False

    def batches(self, size: int, start: int = 0) -> int:
        """Global batches of `size` rows that an epoch has from a position on."""
        return batch_count(self.rows, size, self.tail, start)

    def __getitem__(self, tasks: Iterable[BatchTask]) -> list[MadeBatch | Exception]:
        """The batches of some tasks; an error ends them and is returned, so that it reaches the user as it was
        raised.
        """
        blocks = shared_blocks.blocks_of_process()
        done: list[MadeBatch | Exception] = []
        for task in tasks:
            try:
                made = self.make(task)
                done.append(made if blocks is None else replace(made, batch=blocks.packed(made.batch)))
            except Exception as error:
                if torch.utils.data.get_worker_info() is None:
                    raise
                return [*done, error]
        return done

    @abstractmethod
    def make(self, task: BatchTask) -> MadeBatch:
        """The batch of a task.

        Raises:
            LoaderError: a sample is broken and none may, or can, take its place; or it takes too long.
            StoreError: bytes cannot be read.
        """

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What a state must agree on to be taken up: which rows, in which order, decoded how."""


class BatchMaker(Maker):
    """Makes the batches of one version.

    Args:
        subset: int64, the rows that the order numbers, where it is of some of the rows only.
    """

    def __init__(self, recipe: BatchRecipe, subset: Rows | None = None) -> None:
        self.recipe, self.subset = recipe, subset
        self.rows, self.tail = recipe.key.rows, recipe.tail
        self._orders: dict[int, Order] = {}
        self._reader: SampleReader | None = None
        self._ahead: tuple[Ahead, BlockCache] | None = None
        self._process = 0
        self._lost: tuple[int, dict[int, FactoryError]] = (-1, {})

    def __reduce__(self) -> tuple[Any, ...]:
        return BatchMaker, (self.recipe, self.subset)

    def make(self, task: BatchTask) -> MadeBatch:
        """The batch of a task."""
        positions = rank_positions(self.recipe.key, task.start, task.size, task.rank, task.world)
        made = self.part(task, task.epoch, task.start, positions)
        return finished(self.recipe.hooks, made, self.recipe.key.seed, task)

    def part(self, task: BatchTask, epoch: int, start: int, positions: Rows) -> MadeBatch:
        """The samples at positions of an epoch, before what the user does with whole batches.

        Args:
            task: whose rank they are for.
            start: where the global batch begins that the positions are part of.
        """
        rows = self.order(epoch).rows(positions)
        if self._lost[0] != epoch:  # what was gone may be back
            self._lost = (epoch, {})
        making = Making(self.recipe, self.reader, self.order(epoch), positions, rows, self._lost[1], self.subset)
        if self._ahead is not None:
            ahead, cache = self._ahead
            whole = range(start, start + task.size)
            ahead.advance(cache, epoch, whole, own_lanes(self.recipe.key, task.rank, task.world))
        batch = making.build()
        if self.tail == "mask":
            batch["mask"] = torch.from_numpy((positions < self.rows) & ~making.replaced)
        return MadeBatch(batch, {**self.reader.take_counters(), **making.counters}, tuple(making.broken))

    def facts(self) -> dict[str, Any]:
        """What a state must agree on to be taken up."""
        key, shape = self.recipe.key, self.recipe.shape
        return {
            "identity": key.identity,
            "rows": key.rows,
            "seed": key.seed,
            "shuffle": key.shuffle,
            "lanes": key.lanes,
            "unit_rows": key.unit_rows,
            "window_rows": key.window_rows,
            "tail": self.tail,
            "on_error": self.recipe.on_error,
            "decoders": dict(self.recipe.decoders),
            "as_stored": sorted(as_stored()),
            "image_size": None if shape is None else list(shape),
        }

    def given(self, rows: Rows) -> Any:
        """A batch of the given rows in their order; a broken one is replaced as if the sequence were storage order."""
        key = self.recipe.key
        order = Order(OrderKey(key.identity, key.rows, key.seed, shuffle=False), 0)
        made = MadeBatch(Making(self.recipe, self.reader, order, rows, rows, {}).build())
        return finished(self.recipe.hooks, made, key.seed, BatchTask(0, int(rows[0]), len(rows), 0, 1)).batch

    def order(self, epoch: int) -> Order:
        """The order of an epoch; that of the epoch before is forgotten."""
        if epoch not in self._orders:
            self._orders = {e: order for e, order in self._orders.items() if abs(e - epoch) == 1}
            cuts = self.recipe.index.cuts
            if self.subset is not None:
                cuts = np.searchsorted(self.subset, cuts).astype(np.int64)
            self._orders[epoch] = Order(self.recipe.key, epoch, cuts)
        return self._orders[epoch]

    @property
    def reader(self) -> SampleReader:
        """This process's reader, with its cache where files are remote."""
        if self._reader is None or self._process != os.getpid():
            index, cache = self.recipe.index, None
            worker = torch.utils.data.get_worker_info()
            share = (worker.id, worker.num_workers) if worker is not None else (0, 1)
            ahead = Ahead(index, list(self.recipe.decoders), self.order, share)
            if self.recipe.cache is not None and ahead.useful:
                cache = BlockCache(self.recipe.cache, ahead)
                self._ahead = (ahead, cache)
            self._reader, self._process = SampleReader(index.files, cache), os.getpid()
        return self._reader


def finished(hooks: Hooks, made: MadeBatch, seed: int, task: BatchTask) -> MadeBatch:
    """A batch with what the user does to whole ones done: tokens, `sample_transform` aside."""
    if not (hooks.tokenizer or hooks.collate_fn or hooks.collate):
        return made
    batch = made.batch
    with kept_generators():
        seed_all(batch_seed(seed, task.epoch, task.start, task.rank))
        for name, tokenizer in hooks.tokenizer.items():
            tokens = tokenizer(batch[name])
            if isinstance(tokens, Mapping):
                batch.update(tokens)
            else:
                batch[name] = tokens
        if hooks.collate_fn:
            batch = hooks.collate_fn(collate.samples(batch))
        return replace(made, batch=hooks.collate(batch) if hooks.collate else batch)
