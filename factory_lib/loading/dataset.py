"""The training side of a version: an iterable dataset of ready batches.

The dataset runs its own worker processes: it hands each a task (epoch, position), takes finished batches back in
order, and so knows what was *delivered*. A `DataLoader` around it needs none: ``DataLoader(dataset,
batch_size=None)``. One with workers works, too; they agree on the epoch (`loading.position`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from factory_lib.errors import LoaderError
from factory_lib.loading import collate, geometry
from factory_lib.loading import state as states
from factory_lib.loading.arguments import (
    Tokenizer,
    check_known,
    check_pictures,
    decoders_of,
    shapes_of,
    sizes_of,
    tail_of,
    tokenizers_of,
)
from factory_lib.loading.batches import BatchMaker, BatchRecipe, Maker, OnError
from factory_lib.loading.buckets import bucket_maker
from factory_lib.loading.damage import Damage
from factory_lib.loading.decode import Decoder
from factory_lib.loading.defaults import MAX_BROKEN, SIZES, Shape
from factory_lib.loading.devices import Device, on_device
from factory_lib.loading.hooks import Hooks
from factory_lib.loading.index import Index, RowSource, build_index
from factory_lib.loading.meter import Meter, statistics
from factory_lib.loading.order import OrderKey, Tail, default_lanes, default_units
from factory_lib.loading.position import EarlyEnd, Position
from factory_lib.loading.tasks import Batch, BatchTasks
from factory_lib.loading.workers import MAX_TOGETHER, StartMethod, Workers
from factory_lib.loading.wrapping import BatchLoader, refuse_second_sharding
from factory_lib.settings import settings
from factory_lib.storage.cache import CacheOptions, cache_options

__all__ = ["MAX_TOGETHER", "BatchDataset", "Delivery", "to_torch"]


@dataclass(frozen=True)
class Delivery:
    """How a dataset delivers what its maker makes.

    Attributes:
        given: the rank and how many there are, where the user said.
        size: rows of a batch, of one rank where `per_rank`, else of all together.
        workers, prefetch, start_method: processes, batches that each makes ahead, how they start.
        early_end: what follows an iteration that ended early.
        max_broken: share of broken samples above which an epoch ends with an error.
    """

    given: geometry.Geometry | None
    size: int
    per_rank: bool
    workers: int
    prefetch: int
    start_method: StartMethod
    pin_memory: bool
    progress: bool
    early_end: EarlyEnd
    max_broken: float


class BatchDataset(IterableDataset[Batch]):
    """Batches of one version for one rank, as dicts; made by `to_torch`.

    A batch has the columns and members that were asked for. Every rank gets the same number of batches. Iterating
    goes through one epoch, the next iteration through the next one, also after one that ended early
    (``early_end="continue"``: through the rest of the same one); `set_epoch` chooses. After `load_state_dict` the first
    iteration goes on where the state was taken.

    Attributes:
        counters: of this rank since it was made: samples, substituted samples, bytes by tier, seconds of reading and
            decoding in the workers, retries of storage, restarted workers.
    """

    def __init__(self, maker: Maker, delivery: Delivery) -> None:
        super().__init__()
        self.maker = maker
        self.counters: dict[str, float] = {}
        self._delivery = delivery
        self._position = Position(delivery.early_end)
        self._turn = 0  # number of the current iteration; an older one must not go on
        self._length: int | None = None  # batches of the iteration that is under way
        self._workers: Workers | None = None
        self._seen: geometry.Geometry | None = None  # by the process that sent this copy to a worker
        self._resumed: Mapping[str, Any] | None = None  # in a DataLoader's worker: state of this worker
        self._own: tuple[int, int, int] | None = None  # in a DataLoader's worker: epoch, first, batches made

    def __getstate__(self) -> dict[str, Any]:
        try:
            seen = geometry.surrounding()
        except LoaderError:  # said when it is needed
            seen = None
        return {**self.__dict__, "_workers": None, "_seen": seen, "_length": None}

    @property
    def rank(self) -> tuple[int, int]:
        """(rank, world size): as given, else of torch.distributed, else of `RANK` and `WORLD_SIZE`, else (0, 1).

        Raises:
            LoaderError: half of that is known, or the ranks are more than the rows of a batch.
        """
        found = self._delivery.given
        if found is None and get_worker_info() is not None:
            found = self._seen  # a DataLoader's spawned worker knows nothing of torch.distributed
        if found is None:
            found = geometry.surrounding() or (0, 1)
        rank, world = found
        if not self._delivery.per_rank and world > self._delivery.size:
            raise LoaderError(
                f"A global batch of {self._delivery.size} cannot be shared by {world} ranks.",
                f"Use global_batch_size={world * 8} or another multiple of {world}.",
            )
        return rank, world

    @property
    def global_batch_size(self) -> int:
        """Rows of a batch over all ranks."""
        return self._delivery.size * (self.rank[1] if self._delivery.per_rank else 1)

    @property
    def workers(self) -> int:
        """Processes that make batches for this rank; 0 where it makes them itself."""
        return self._delivery.workers

    @property
    def early_end(self) -> EarlyEnd:
        """What follows an iteration that ended early: the ``"next"`` epoch, or to ``"continue"`` the same one."""
        return self._delivery.early_end

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through; one that was resumed and not begun yet keeps its
        position. Workers of a DataLoader, persistent ones, too, follow with their next iteration.

        Raises:
            LoaderError: the epoch is no whole number from 0 on.
        """
        if int(epoch) != epoch or epoch < 0:
            raise LoaderError(f"There is no epoch {epoch!r}.", "Epochs are 0, 1, 2, …")
        self._position.choose(int(epoch))

    def __len__(self) -> int:
        """Batches of the iteration that is under way or comes next: of the whole epoch, or of what is left of it."""
        return self._left(self._position.next(self._left)[1]) if self._length is None else self._length

    @property
    def epoch_batches(self) -> int:
        """Batches of a whole epoch."""
        return self._left(0)

    def loader(self, device: Device | None = None) -> BatchLoader:
        """The dataset as a `DataLoader` that Lightning, accelerate and the Trainer take as it is.

        Args:
            device: where to move tensors to, each batch while the training works on the one before; None leaves that to
                the framework.
        """
        return BatchLoader(self, device)

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        return self.delivered() if info is None else self._in_worker(info.id, info.num_workers)

    def delivered(self, device: Device | None = None) -> Iterator[Any]:
        """One iteration, its batches on a device."""
        refuse_second_sharding()
        self._turn += 1
        turn = self._turn
        epoch, first = self._position.next(self._left)
        tasks = self._tasks(epoch, first)
        self._length = len(tasks)
        meter = Meter(self.counters, len(tasks), self._delivery.progress and tasks.rank == 0)
        damage = Damage(self._delivery.max_broken, f"epoch {epoch}")
        try:
            for count, made in enumerate(meter.over(on_device(self._making().make(tasks), device))):
                if turn != self._turn:
                    raise LoaderError("Another iteration over this dataset began; this one cannot go on.")
                if not count:
                    self._position.begin(epoch, first)
                self._position.delivered += tasks.size
                self._count(made.counters)
                damage.see(made)
                yield made.batch
            if turn == self._turn:
                self._position.ask(epoch + 1)
                damage.finish()
        finally:
            if turn == self._turn:
                self._length = None

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """Where the training is: plain numbers and strings, the same on every rank, good for any world size and
        number of workers. In a DataLoader's worker, as torchdata's StatefulDataLoader asks for it: where that worker
        is.

        Args:
            batches: of this epoch that the trainer has consumed, where it knows better than the dataset: when a
                DataLoader with workers of its own, or one that reads ahead, is in between.

        Raises:
            LoaderError: a DataLoader's own workers iterated, so what was delivered is unknown here.
        """
        info, size = get_worker_info(), self.global_batch_size
        common = {"format": states.FORMAT, **self.maker.facts(), "world_size": self.rank[1], "global_batch_size": size}
        if info is not None:
            epoch, first, made = self._own or (self._position.epoch, self._position.first, 0)
            own = {"worker": info.id, "workers": info.num_workers, "worker_batches": made}
            return {**common, "epoch": epoch, "samples": first, **own}
        self._position.follow()
        if batches is None and self._position.elsewhere:
            raise LoaderError(
                "A DataLoader's own workers read this dataset ahead: what was delivered is unknown.",
                "Give num_workers to to_torch() and leave it 0 in the DataLoader, take torchdata's StatefulDataLoader, "
                "or call state_dict(batches=…).",
            )
        samples = self._position.delivered if batches is None else self._position.first + batches * size
        return {**common, "epoch": self._position.epoch, "samples": samples}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken, at any world size, number of workers and global batch size.

        Raises:
            LoaderError: the state is of other rows, of another order, mix or decoding; says all that differs.
        """
        states.check(state, self.maker.facts())
        size, info = self.global_batch_size, get_worker_info()
        theirs = state.get("global_batch_size", size)
        if self.maker.whole_batches and state["samples"] and theirs != size:
            raise LoaderError(
                f"The state was taken within an epoch with global_batch_size={theirs}, this loader has {size}: "
                "with buckets, an epoch is ended with the batch it was begun with.",
                "Give the same size, or call set_epoch() with the next epoch.",
            )
        if "worker" in state:
            here = None if info is None else (info.id, info.num_workers)
            if here != (state["worker"], state["workers"]) or theirs != size:
                raise LoaderError(
                    f"The state is that of worker {state['worker']} of the {state['workers']} of a DataLoader at "
                    f"global_batch_size={theirs}.",
                    "Load it through a StatefulDataLoader with as many workers and the same batch size.",
                )
        if info is not None:
            self._resumed = state
        else:
            self._position.ask(int(state["epoch"]), int(state["samples"]))

    def with_maker(self, maker: Maker) -> BatchDataset:
        """A dataset of other batches for the same rank, with as many workers."""
        return BatchDataset(maker, self._delivery)

    def statistics(self) -> dict[str, float]:
        """Samples a second, bytes by tier, shares of decoding and waiting, stalls, substituted samples: what
        `loading.meter.statistics` makes of the counters.
        """
        return statistics(self.counters)

    def close(self) -> None:
        """End the worker processes. They also end with the dataset."""
        self._workers = None

    def _left(self, first: int) -> int:
        return self.maker.batches(self.global_batch_size, first)

    def _tasks(self, epoch: int, first: int) -> BatchTasks:
        size = self.global_batch_size
        return BatchTasks(epoch, range(first, first + self._left(first) * size, size), size, *self.rank)

    def _making(self) -> Workers:
        if self._workers is None:
            chosen = self._delivery
            self._workers = Workers(
                self.maker,
                chosen.workers,
                prefetch=chosen.prefetch,
                method=chosen.start_method,
                pin=chosen.pin_memory,
                counters=self.counters,
            )
        return self._workers

    def _in_worker(self, worker: int, workers: int) -> Iterator[Any]:
        """Every `workers`-th batch. The epoch is settled at once: each worker begins each iteration, but may not get
        to make a batch.
        """
        refuse_second_sharding()
        state, self._resumed = self._resumed, None
        epoch, first = self._position.join(self._left, None if state is None else int(state["epoch"]))
        done = 0
        if state is not None:
            first, done = int(state["samples"]), int(state.get("worker_batches", 0))
        self._own = (epoch, first, done)
        return self._share(epoch, first, done, worker, workers)

    def _share(self, epoch: int, first: int, done: int, worker: int, workers: int) -> Iterator[Any]:
        damage = Damage(self._delivery.max_broken, f"epoch {epoch}")
        for task in self._tasks(epoch, first)[worker::workers][done:]:
            made = self.maker.make(task)
            damage.see(made)
            done += 1
            self._own = (epoch, first, done)
            yield made.batch
        damage.finish()

    def _count(self, counters: Mapping[str, float]) -> None:
        for name, value in counters.items():
            self.counters[name] = self.counters.get(name, 0) + value


def to_torch(
    rows: RowSource | Index,
    identity: str,
    *,
    members: Sequence[str] = (),
    columns: Sequence[str] = (),
    global_batch_size: int | None = None,
    batch_size: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    rank: int | None = None,
    world_size: int | None = None,
    num_workers: int = 0,
    tail: Tail | None = None,
    drop_last: bool | None = None,
    image_size: int | None = None,
    buckets: Sequence[Shape] | None = None,
    size_columns: tuple[str, str] = SIZES,
    decoders: Decoder | Mapping[str, Decoder] = "pillow",
    transform: Callable[..., Any] | None = None,
    sample_transform: Callable[..., Any] | None = None,
    tokenizer: Tokenizer | Mapping[str, Tokenizer] | None = None,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    collate: Callable[[Batch], Any] | None = None,
    on_error: OnError = "substitute",
    max_broken: float = MAX_BROKEN,
    sample_seconds: float | None = None,
    early_end: EarlyEnd = "next",
    unit_rows: int | None = None,
    window_rows: int | None = None,
    lanes: int | None = None,
    prefetch: int = 2,
    start_method: StartMethod = "forkserver",
    pin_memory: bool = False,
    progress: bool = True,
    etags: Mapping[str, str] | None = None,
    cache: CacheOptions | Literal["settings"] | None = "settings",
    map_style: bool = False,
) -> BatchDataset | SampleDataset:
    """Load rows for training: what `DatasetQuery.to_torch` does once its rows are known.

    Args:
        rows: makes a reader of the rows in storage order (shard, position): `shard`, members as ``struct<uri, offset,
            size>``, columns. Called at most once for an identity.
        identity: of the rows: the table's UUID and the query's fingerprint. The order depends on it.
        etags: uri to etag as ingested, to refuse files replaced since.

    The other arguments are those of `DatasetQuery.to_torch`, and told there.

    Returns:
        A `BatchDataset`, or a `SampleDataset`.

    Raises:
        LoaderError: no rows, unknown names, impossible numbers.
        StoreError: a file of the rows does not exist.
    """
    check_known(
        on_error=(on_error, ("substitute", "raise")),
        start_method=(start_method, ("fork", "forkserver", "spawn")),
        early_end=(early_end, ("next", "continue")),
    )
    if num_workers < 0 or prefetch < 1 or not 0 <= max_broken <= 1 or (sample_seconds or 1) <= 0:
        raise LoaderError(
            f"num_workers={num_workers}, prefetch={prefetch}, max_broken={max_broken}, "
            f"sample_seconds={sample_seconds} cannot be.",
            "num_workers is at least 0, prefetch at least 1, max_broken a share, sample_seconds positive.",
        )
    if map_style and (collate is not None or collate_fn is not None or buckets is not None):
        raise LoaderError("map_style gives single samples.", "Give collate_fn to the DataLoader that batches them.")
    size, per_rank = sizes_of(batch_size, global_batch_size)
    shapes = None if buckets is None else shapes_of(buckets, image_size)
    if shapes is not None:
        columns = [*columns, *(name for name in size_columns if name not in columns)]
    delivery = Delivery(
        given=geometry.checked(rank, world_size),
        size=size,
        per_rank=per_rank,
        workers=num_workers,
        prefetch=prefetch,
        start_method=start_method,
        pin_memory=pin_memory,
        progress=progress,
        early_end=early_end,
        max_broken=max_broken,
    )
    tail = tail_of(tail, drop_last)
    chosen = decoders_of(members, decoders, image_size)
    check_pictures(chosen, transform=transform, image_size=image_size)  # bytes in buckets are decoded elsewhere
    plans = settings().home / "plans"
    index = (
        rows
        if isinstance(rows, Index)
        else build_index(rows, identity, folder=plans, members=members, columns=columns, etags=etags)
    )
    lanes = default_lanes(index.rows) if lanes is None else lanes
    unit, window = default_units(index.rows, index.mean_bytes, lanes)
    key = OrderKey(
        identity, index.rows, seed, unit_rows or unit, window_rows or window, lanes, shuffle and not map_style
    )
    recipe = BatchRecipe(
        index=index,
        key=key,
        tail=tail,
        decoders=chosen,
        shape=None if image_size is None else (image_size, image_size),
        on_error=on_error,
        hooks=Hooks(transform, tokenizers_of(tokenizer, index), collate, sample_transform, collate_fn),
        sample_seconds=sample_seconds,
        cache=cache_options() if cache == "settings" else cache,
        lengths=index.lengths,
    )
    if map_style:
        return SampleDataset(recipe)
    maker = BatchMaker(recipe) if shapes is None else bucket_maker(recipe, shapes, size_columns)
    return BatchDataset(maker, delivery)


class SampleDataset(Dataset[Batch]):
    """The samples of a small version by row number, for a DataLoader with a sampler of its own; made by
    ``to_torch(map_style=True)``.
    """

    def __init__(self, recipe: BatchRecipe) -> None:
        self._maker = BatchMaker(recipe)

    def __len__(self) -> int:
        """Rows of the version."""
        return self._maker.rows

    def __getitem__(self, row: int) -> Batch:
        """One sample: tensors without the batch dimension, a raw member as a uint8 tensor."""
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[Batch]:
        """Several samples in one read; DataLoader uses it."""
        return collate.samples(self._maker.given(np.array([range(len(self))[row] for row in rows], np.int64)))
