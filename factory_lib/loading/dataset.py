"""The training side of a version: an iterable dataset of ready batches.

The dataset runs its own worker processes: it hands each a task (epoch, position), takes finished batches back in
order, and so knows what was *delivered*. A `DataLoader` around it needs none: ``DataLoader(dataset,
batch_size=None)``.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from factory_lib.errors import LoaderError, nearest
from factory_lib.loading import slabs
from factory_lib.loading.batches import Batch, BatchMaker, Hooks, Made, Maker, OnError, Recipe, Tasks
from factory_lib.loading.decode import IMAGE_MEMBERS, Decoder, decoder
from factory_lib.loading.index import Index, RowSource, build_index
from factory_lib.loading.meter import Meter, statistics
from factory_lib.loading.order import OrderKey, Tail, batch_count, default_lanes, default_units
from factory_lib.loading.samples import SampleDataset
from factory_lib.loading.wrapping import BatchLoader, refuse_second_sharding
from factory_lib.settings import environment, settings, use_environment
from factory_lib.storage.cache import CacheOptions, cache_options

StartMethod = Literal["fork", "forkserver", "spawn"]
MESSAGE_SECONDS, MAX_TOGETHER = 0.01, 8  # of making batches, and batches, that are sent together
RESTARTS = 3  # times that killed workers are replaced in one epoch


class BatchDataset(IterableDataset[Batch]):
    """Batches of one version for one rank, as dicts; made by `to_torch`.

    A batch has the columns and members that were asked for. Every rank gets the same number of batches. Iterating
    goes through one epoch, the next iteration through the next one; `set_epoch` chooses. After `load_state_dict` the
    first iteration goes on where the state was taken.

    Attributes:
        counters: of this rank since it was made: samples, substituted samples, bytes by tier, seconds of reading and
            decoding in the workers, restarted workers.
    """

    def __init__(
        self,
        maker: Maker,
        *,
        rank: int | None,
        world_size: int | None,
        num_workers: int,
        prefetch: int,
        start_method: StartMethod,
        pin_memory: bool,
        progress: bool,
    ) -> None:
        super().__init__()
        self.maker = maker
        self.counters: dict[str, float] = {}
        self._rank, self._world = rank, world_size
        self._workers = num_workers
        self._prefetch, self._method, self._pin = prefetch, start_method, pin_memory
        self._progress = progress
        self._epoch = 0
        self._first = 0  # position at which the next iteration starts
        self._delivered = 0  # position up to which rows were delivered in this epoch
        self._turn = 0  # number of the current iteration; an older one must not go on
        self._chosen = False  # whether the epoch was set since the position was
        self._queue = _Queue()
        self._loader: DataLoader[Any] | None = None
        # Set where a DataLoader's own workers iterate.
        self._elsewhere = torch.zeros(1, dtype=torch.int32).share_memory_()  # type: ignore[no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loader": None, "_queue": _Queue()}

    @property
    def rank(self) -> tuple[int, int]:
        """(rank, world size): as given, of torch.distributed, of `RANK` and `WORLD_SIZE`, or (0, 1)."""
        rank, world = self._rank, self._world
        if rank is None and world is None:
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
            else:
                rank, world = settings().rank, settings().world_size
        rank, world = rank or 0, world or 1
        if not 0 <= rank < world:
            raise LoaderError(f"Rank {rank} of {world} does not exist.", f"Ranks are 0 to {world - 1}.")
        if world > self.maker.global_batch_size:
            raise LoaderError(
                f"A global batch of {self.maker.global_batch_size} cannot be shared by {world} ranks.",
                f"Use global_batch_size={world * 8} or another multiple of {world}.",
            )
        return rank, world

    @property
    def workers(self) -> int:
        """Processes that make batches for this rank; 0 where it makes them itself."""
        return self._workers

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through. The epoch it is at already keeps its position."""
        self._chosen = True
        if epoch != self._epoch:
            self._epoch, self._first, self._delivered = epoch, 0, 0

    def __len__(self) -> int:
        """Batches of the next iteration: of the whole epoch, or of what is left of it after `load_state_dict`."""
        return self._left(self._position()[1])

    @property
    def epoch_batches(self) -> int:
        """Batches of a whole epoch."""
        return self._left(0)

    def loader(self, device: torch.device | str | None = None) -> BatchLoader:
        """The dataset as a `DataLoader` that Lightning, accelerate and the Trainer take as it is.

        Args:
            device: where to move tensors to; None leaves that to the framework.
        """
        return BatchLoader(self, device)

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        if info is not None:  # inside a DataLoader's worker: every num_workers-th batch is this one's
            self._elsewhere[0] = 1
            refuse_second_sharding()
            for task in self._tasks(self._first)[info.id :: info.num_workers]:
                yield self._taken(self.maker.make(task))
            return
        refuse_second_sharding()
        self._turn += 1
        turn = self._turn
        self._epoch, self._first = self._position()
        self._delivered, self._chosen = self._first, False
        meter = Meter(self.counters, self._left(self._first), self._progress and self.rank[0] == 0)
        for batch in meter.over(self._made()):
            if turn != self._turn:
                raise LoaderError("Another iteration over this dataset began; this one cannot go on.")
            self._delivered += self.maker.global_batch_size
            yield batch
        if turn == self._turn:
            self._epoch, self._first, self._delivered = self._epoch + 1, 0, 0

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """Where the training is: plain numbers and strings, the same on every rank, good for any world size and
        number of workers.

        Args:
            batches: of this epoch that the trainer has consumed, where it knows better than the dataset: when a
                DataLoader with workers of its own, or one that reads ahead, is in between.

        Raises:
            LoaderError: a DataLoader's own workers iterated, so what was delivered is unknown here.
        """
        if batches is None and bool(self._elsewhere[0]):
            raise LoaderError(
                "A DataLoader's own workers read this dataset ahead: what was delivered is unknown.",
                "Give num_workers to to_torch() and leave it 0 in the DataLoader, or call state_dict(batches=…).",
            )
        size = self.maker.global_batch_size
        samples = self._delivered if batches is None else self._first + batches * size
        return {"format": 1, **self.maker.facts(), "epoch": self._epoch, "samples": samples, "global_batch_size": size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken, at any world size, number of workers and global batch size.

        Raises:
            LoaderError: the state is of other rows, or of another order or decoder; says which and how to match it.
        """
        for name, mine in {"format": 1, **self.maker.facts()}.items():
            if state.get(name) != mine:
                raise LoaderError(
                    f"The state was taken with {name}={state.get(name)!r}, this loader has {mine!r}.",
                    "Load the same version with the same arguments, or start anew.",
                )
        self._epoch = int(state["epoch"])
        self._first = self._delivered = int(state["samples"])
        self._chosen = False

    def with_maker(self, maker: Maker) -> BatchDataset:
        """A dataset of other batches for the same rank, with as many workers."""
        return BatchDataset(
            maker,
            rank=self._rank,
            world_size=self._world,
            num_workers=self._workers,
            prefetch=self._prefetch,
            start_method=self._method,
            pin_memory=self._pin,
            progress=self._progress,
        )

    def statistics(self) -> dict[str, float]:
        """Samples a second, bytes by tier, shares of decoding and waiting, stalls, substituted samples: what
        `loading.meter.statistics` makes of the counters.
        """
        return statistics(self.counters)

    def close(self) -> None:
        """End the worker processes. They also end with the dataset."""
        self._loader = None

    def _left(self, first: int) -> int:
        return batch_count(self.maker.rows, self.maker.global_batch_size, self.maker.tail, first)

    def _position(self) -> tuple[int, int]:
        """Epoch and position at which the next iteration starts.

        An epoch that was delivered to its last batch is over, whether or not one more was asked for, or it was in
        another process; only who sets that epoch gets the nothing that is left of it.
        """
        if self._delivered and not self._left(self._delivered) and not self._chosen:
            return self._epoch + 1, 0
        return self._epoch, self._first

    def _tasks(self, first: int) -> Tasks:
        size = self.maker.global_batch_size
        return Tasks(self._epoch, range(first, first + self._left(first) * size, size), *self.rank)

    def _made(self) -> Iterator[Batch]:
        tasks = self._tasks(self._first)
        if self._workers == 0:
            for task in tasks:
                yield self._taken(self.maker.make(task))
            return
        done = restarts = 0
        while True:
            self._queue.tasks = tasks[done:]
            try:
                for results in self._running():
                    for result in results:
                        if isinstance(result, Exception):
                            raise result
                        self._queue.learn(result[1])
                        yield self._taken(result)
                        done += 1
                return
            except RuntimeError as error:
                self._loader = None
                if "DataLoader worker" not in str(error):
                    raise
                restarts += 1
                self._count({"restarted_workers": 1})
                if restarts > RESTARTS or not done:
                    raise LoaderError(
                        f"A worker process of the loader died {restarts} times: {error}",
                        'Out of memory? A script without `if __name__ == "__main__":` needs start_method="fork".',
                    ) from error

    def _running(self) -> DataLoader[Any]:
        if self._loader is None:
            context = multiprocessing.get_context(self._method)
            if self._method == "forkserver":
                context.set_forkserver_preload(["factory_lib.loading.batches"])
            self._loader = DataLoader(
                self.maker,  # type: ignore[arg-type]
                batch_size=None,
                sampler=self._queue,
                num_workers=self._workers,
                collate_fn=_unchanged,
                persistent_workers=True,
                prefetch_factor=self._prefetch,
                multiprocessing_context=context,
                worker_init_fn=functools.partial(_start_worker, environment(), slabs.usable()),
                pin_memory=self._pin,
            )
        return self._loader

    def _taken(self, made: Made) -> Any:
        batch, counters = made
        self._count(counters)
        return batch

    def _count(self, counters: Mapping[str, float]) -> None:
        for name, value in counters.items():
            self.counters[name] = self.counters.get(name, 0) + value


class _Queue:
    """The sampler: hands out the tasks that are set when an iteration begins.

    Several at once where batches are made fast: sending a message costs as much as reading 200 small samples.
    """

    def __init__(self) -> None:
        self.tasks: Tasks | None = None
        self._together = 1
        self._unfetched = 0  # batches in a row of which nothing was fetched

    def learn(self, counters: Mapping[str, float]) -> None:
        """Choose how many tasks make a message of 10 ms, by what one batch took.

        One where bytes are fetched: workers that are far apart would evict what others need.
        """
        fetched = counters.get("bytes_origin", 0) + counters.get("bytes_shared", 0)
        self._unfetched = 0 if fetched else self._unfetched + 1
        fitting = int(MESSAGE_SECONDS / max(counters["make_seconds"], 1e-6))
        self._together = max(1, min(MAX_TOGETHER, fitting, self._unfetched // 2))

    def __iter__(self) -> Iterator[Tasks]:
        waiting = self.tasks
        while waiting:
            count = self._together
            yield waiting[:count]
            waiting = waiting[count:]


def _start_worker(variables: dict[str, str], blocks: bool, _: int) -> None:
    use_environment(variables)
    if blocks:
        slabs.use_pool()
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when the process that it works for is gone, killed perhaps: torch's own watch looks at the fork
    server, which stays.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _unchanged(made: Any) -> Any:
    return made


def to_torch(
    rows: RowSource | Index,
    identity: str,
    *,
    members: Sequence[str] = (),
    columns: Sequence[str] = (),
    global_batch_size: int = 512,
    shuffle: bool = True,
    seed: int = 0,
    rank: int | None = None,
    world_size: int | None = None,
    num_workers: int = 0,
    tail: Tail = "repeat",
    image_size: int | None = None,
    decoders: Decoder | Mapping[str, Decoder] = "pillow",
    transform: Callable[..., Any] | None = None,
    tokenizer: Callable[[list[str]], Any] | Mapping[str, Callable[[list[str]], Any]] | None = None,
    collate: Callable[[Batch], Any] | None = None,
    on_error: OnError = "substitute",
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
    """Load rows for training.

    Args:
        rows: makes a reader of the rows in storage order (shard, position): `shard`, members as ``struct<uri, offset,
            size>``, columns. Called at most once for an identity.
        identity: of the rows: the table's UUID and the query's fingerprint. The order depends on it.
        members: pointers to deliver: pictures decoded, other members as bytes (``{"data": uint8, "offsets":
            int64}``).
        columns: to deliver; numbers as tensors, strings as lists.
        global_batch_size: rows of a batch over all ranks. Multiples of 96 keep each byte range on one rank.
        shuffle: False gives storage order.
        seed: of the order and of augmentation.
        rank, world_size: default to those of torch.distributed, then of the environment.
        num_workers: processes that make batches; 0 makes them in the calling one.
        tail: the last batch of an epoch, when rows are left over: ``"repeat"`` fills it with rows from the start of
            the epoch, ``"drop"`` leaves it out, ``"mask"`` fills it and adds ``batch["mask"]``, False for rows that
            must not count (exactly-once evaluation).
        image_size: deliver pictures as uint8 (rows, image_size, image_size, 3): shorter side scaled, centre cropped.
            Without it and without `transform`, pictures of one size are stacked, others come as a list.
        decoders: ``"pillow"``, ``"simplejpeg"`` or ``"raw"`` for all picture members, or by member.
        transform: from a PIL picture to an array or tensor, in place of scaling and cropping; with an `image_size`, the
            picture may have been decoded at a fraction of its size, its shorter side still at least that long.
        tokenizer: for the only text column, or by column, from list of str to a tensor or a mapping of tensors.
        collate: last step in the worker, from the batch to what is yielded.
        on_error: a sample that cannot be decoded is replaced by one of its window and counted, or raises.
        unit_rows, window_rows, lanes: see `loading.order`; by default they suit the number of samples and their mean
            size.
        prefetch: batches that each worker makes ahead.
        start_method: of the workers.
        pin_memory: page-locked tensors, for copying to an accelerator.
        progress: draw a bar where an iteration of rank 0 takes more than two seconds in a terminal: samples a second,
            bytes by tier, shares of decoding and waiting, stalls.
        etags: uri to etag as ingested, to refuse files replaced since.
        cache: of remote files; by default what the settings say, None for none.
        map_style: a `SampleDataset` of single samples in place of a `BatchDataset` of batches.

    Returns:
        A `BatchDataset`, or a `SampleDataset`.

    Raises:
        LoaderError: no rows, unknown names, impossible numbers.
        StoreError: a file of the rows does not exist.
    """
    if global_batch_size < 1 or num_workers < 0 or prefetch < 1:
        raise LoaderError(
            f"global_batch_size={global_batch_size}, num_workers={num_workers}, prefetch={prefetch} cannot be.",
            "They are at least 1, 0 and 1.",
        )
    for name, value, known in (
        ("tail", tail, ("repeat", "drop", "mask")),
        ("on_error", on_error, ("substitute", "raise")),
        ("start_method", start_method, ("fork", "forkserver", "spawn")),
    ):
        if value not in known:
            raise LoaderError(f"{name}={value!r} is not known.", nearest(value, known))
    chosen = _decoders(members, decoders, image_size)
    index = (
        rows
        if isinstance(rows, Index)
        else build_index(
            rows, identity, folder=settings().home / "plans", members=members, columns=columns, etags=etags
        )
    )
    lanes = default_lanes(index.rows) if lanes is None else lanes
    unit, window = default_units(index.rows, index.mean_bytes, lanes)
    recipe = Recipe(
        index=index,
        key=OrderKey(
            identity,
            index.rows,
            seed,
            unit_rows or unit,
            window_rows or window,
            lanes,
            shuffle and not map_style,
        ),
        global_batch_size=global_batch_size,
        tail=tail,
        decoders=chosen,
        image_size=image_size,
        on_error=on_error,
        hooks=Hooks(transform, _tokenizers(tokenizer, index), collate),
        cache=cache_options() if cache == "settings" else cache,
    )
    if map_style:
        return SampleDataset(recipe)
    return BatchDataset(
        BatchMaker(recipe),
        rank=rank,
        world_size=world_size,
        num_workers=num_workers,
        prefetch=prefetch,
        start_method=start_method,
        pin_memory=pin_memory,
        progress=progress,
    )


def _decoders(
    members: Sequence[str], decoders: Decoder | Mapping[str, Decoder], image_size: int | None
) -> dict[str, Decoder]:
    """A decoder for each member: the one given for it, or for pictures; bytes for what is no picture."""
    if isinstance(decoders, str):
        chosen: dict[str, Decoder] = {m: decoders if m in IMAGE_MEMBERS else "raw" for m in members}
    else:
        for member in set(decoders) - set(members):
            raise LoaderError(f"decoders names {member!r}, which is not among members.", nearest(member, members))
        chosen = {m: decoders.get(m, "pillow" if m in IMAGE_MEMBERS else "raw") for m in members}
    for kind in chosen.values():
        if kind != "raw":
            decoder(kind, image_size)
    return chosen


def _tokenizers(
    tokenizer: Callable[[list[str]], Any] | Mapping[str, Callable[[list[str]], Any]] | None, index: Index
) -> Mapping[str, Callable[[list[str]], Any]]:
    texts = index.text_columns
    if tokenizer is None:
        return {}
    if isinstance(tokenizer, Mapping):
        for name in set(tokenizer) - set(texts):
            raise LoaderError(f"tokenizer names {name!r}, which is no text column of the batch.", nearest(name, texts))
        return tokenizer
    if len(texts) != 1:
        raise LoaderError(
            f"tokenizer needs one text column, columns has {len(texts)}: {', '.join(texts)}.",
            "Say which: tokenizer={'caption': function}.",
        )
    return {texts[0]: tokenizer}
