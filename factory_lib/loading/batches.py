"""One batch of one rank, from its position in the sequence to ready tensors. This is what a worker process runs.

Neither the warehouse nor dagster is imported here: a worker needs the index, the store and torch.
"""

from __future__ import annotations

import os
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from factory_lib.errors import LoaderError, StoreError
from factory_lib.loading import collate, slabs
from factory_lib.loading.ahead import Ahead
from factory_lib.loading.decode import Decode, Decoder, Picture, as_image, decoder, square
from factory_lib.loading.index import Index, Pointers
from factory_lib.loading.order import Order, OrderKey, Rows, Tail, own_lanes, rank_positions
from factory_lib.loading.reading import SampleReader
from factory_lib.storage.cache import BlockCache, CacheOptions

if TYPE_CHECKING:
    from PIL import Image

ATTEMPTS = 32  # rows of a window tried in place of a broken one

OnError = Literal["substitute", "raise"]
Batch = dict[str, Any]
Made = tuple[Any, dict[str, float]]


@dataclass(frozen=True)
class Task:
    """A batch to make: the part of rank `rank` of `world` of the global batch at `start` of an epoch."""

    epoch: int
    start: int
    rank: int
    world: int


@dataclass(frozen=True)
class Tasks:
    """The batches of one rank that start at `starts`, in their order."""

    epoch: int
    starts: range
    rank: int
    world: int

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, part: slice) -> Tasks:
        return replace(self, starts=self.starts[part])

    def __iter__(self) -> Iterator[Task]:
        return (Task(self.epoch, start, self.rank, self.world) for start in self.starts)


@dataclass(frozen=True)
class Hooks:
    """What the user plugs in; runs in the workers.

    Attributes:
        transform: from a picture (PIL, RGB) to an array or tensor. Random augmentation is repeatable: torch's and
            Python's generators are seeded for each sample from (seed, epoch, position).
        tokenizer: from the texts of a column to a tensor, which takes the column's place, or to a mapping of tensors,
            which joins the batch.
        collate: from the ready batch to what the loader yields.
    """

    transform: Callable[[Image.Image], Any] | None = None
    tokenizer: Mapping[str, Callable[[list[str]], Any]] = field(default_factory=dict)
    collate: Callable[[Batch], Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Lambdas and functions of a notebook must reach spawned workers, too.
        import cloudpickle

        return _load_hooks, (cloudpickle.dumps((self.transform, dict(self.tokenizer), self.collate)),)


def _load_hooks(data: bytes) -> Hooks:
    import cloudpickle

    return Hooks(*cloudpickle.loads(data))


@dataclass(frozen=True)
class Recipe:
    """How batches are made of rows.

    Attributes:
        decoders: member to decoder; ``"raw"`` delivers bytes.
        image_size: pixels of the square that pictures are scaled and cropped to, or None.
        cache: of remote files, or None.
    """

    index: Index
    key: OrderKey
    global_batch_size: int
    tail: Tail
    decoders: Mapping[str, Decoder]
    image_size: int | None
    on_error: OnError
    hooks: Hooks
    cache: CacheOptions | None


class Maker(ABC):
    """Makes the batches of a dataset; as a map-style dataset it is indexed by tasks.

    Cheap to pickle; opens its files in the process that uses it.

    Attributes:
        rows: of an epoch.
        global_batch_size: rows of a batch over all ranks.
        tail: what becomes of the last rows of an epoch.
    """

    rows: int
    global_batch_size: int
    tail: Tail

    def __getitem__(self, tasks: Iterable[Task]) -> list[Made | Exception]:
        """The batches of some tasks; an error ends them and is returned, so that it reaches the user as it was
        raised.
        """
        blocks = slabs.pool()
        done: list[Made | Exception] = []
        for task in tasks:
            try:
                made, counters = self.make(task)
                done.append(((made if blocks is None else blocks.packed(made)), counters))
            except Exception as error:
                if torch.utils.data.get_worker_info() is None:
                    raise
                return [*done, error]
        return done

    @abstractmethod
    def make(self, task: Task) -> Made:
        """The batch of a task, and the counters of making it.

        Raises:
            LoaderError: a sample is broken and none may, or can, take its place.
            StoreError: bytes cannot be read, or are no longer those that were indexed.
        """

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What a state must agree on to be taken up: which rows, in which order, decoded how."""


class BatchMaker(Maker):
    """Makes the batches of one version."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.rows = recipe.key.rows
        self.global_batch_size, self.tail = recipe.global_batch_size, recipe.tail
        self._orders: dict[int, Order] = {}
        self._reader: SampleReader | None = None
        self._ahead: tuple[Ahead, BlockCache] | None = None
        self._process = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return BatchMaker, (self.recipe,)

    def make(self, task: Task) -> Made:
        """The batch of a task, and the counters of making it."""
        positions = rank_positions(self.recipe.key, task.start, self.global_batch_size, task.rank, task.world)
        batch, counters = self.part(task, task.epoch, task.start, positions)
        hook = self.recipe.hooks.collate
        return (hook(batch) if hook else batch), counters

    def part(self, task: Task, epoch: int, start: int, positions: Rows) -> tuple[Batch, dict[str, float]]:
        """The samples at positions of an epoch, before the user's collate, and the counters.

        Args:
            task: whose rank they are for.
            start: where the global batch begins that the positions are part of.
        """
        made = _Batch(self, epoch, positions, self.order(epoch).rows(positions))
        if self._ahead is not None:
            ahead, cache = self._ahead
            whole = range(start, start + self.global_batch_size)
            ahead.advance(cache, epoch, whole, own_lanes(self.recipe.key, task.rank, task.world))
        batch = made.build()
        if self.tail == "mask":
            batch["mask"] = torch.from_numpy((positions < self.rows) & ~made.replaced)
        return batch, {**self.reader.take_counters(), **made.counters}

    def facts(self) -> dict[str, Any]:
        """What a state must agree on to be taken up."""
        key = self.recipe.key
        return {
            "identity": key.identity,
            "rows": key.rows,
            "seed": key.seed,
            "shuffle": key.shuffle,
            "lanes": key.lanes,
            "unit_rows": key.unit_rows,
            "window_rows": key.window_rows,
            "tail": self.tail,
            "decoders": dict(self.recipe.decoders),
            "image_size": self.recipe.image_size,
        }

    def given(self, rows: Rows) -> Any:
        """A batch of the given rows in their order; a broken one is replaced as if the sequence were storage order."""
        made = _Batch(self, 0, rows, rows, storage=True)
        batch = made.build()
        hook = self.recipe.hooks.collate
        return hook(batch) if hook else batch

    def order(self, epoch: int) -> Order:
        """The order of an epoch; that of the epoch before is forgotten."""
        if epoch not in self._orders:
            self._orders = {e: order for e, order in self._orders.items() if abs(e - epoch) == 1}
            self._orders[epoch] = Order(self.recipe.key, epoch, self.recipe.index.cuts)
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


class _Batch:
    """One batch in the making."""

    def __init__(self, maker: BatchMaker, epoch: int, positions: Rows, rows: Rows, storage: bool = False) -> None:
        self.recipe, self.reader = maker.recipe, maker.reader
        self.order = Order(_storage_key(maker.recipe.key), epoch) if storage else maker.order(epoch)
        self.positions, self.rows = positions, rows.copy()
        self.replaced = np.zeros(len(rows), np.bool_)
        self.counters: dict[str, float] = {"samples": len(rows), "substituted": 0}

    def build(self) -> Batch:
        """Decoded members first: they may replace rows; then raw members and columns of the rows as they are now."""
        decoders = self.recipe.decoders
        decoded = {m: decoder(kind, self.recipe.image_size) for m, kind in decoders.items() if kind != "raw"}
        stacks = {member: collate.Stack(len(self.rows)) for member in decoded}
        clock = time.perf_counter()
        pointers = {member: self.recipe.index.pointers(member, self.rows) for member in decoders}
        missing = np.zeros(len(self.rows), np.bool_)
        for member in decoders:
            missing |= pointers[member].missing
        with _kept_generators():
            self._decode(decoded, stacks, {m: pointers[m] for m in decoded}, missing)
        batch: Batch = {}
        for member, kind in decoders.items():
            batch[member] = stacks[member].value() if kind != "raw" else self._raw(member, pointers[member])
        names = list(self.recipe.index.columns)
        for name, values in zip(names, self.recipe.index.take(self.rows, names), strict=True):
            batch[name] = collate.column(values, name)
        self._tokenize(batch)
        self._count("make_seconds", clock)
        return batch

    def _decode(
        self,
        decoded: Mapping[str, Decode],
        stacks: Mapping[str, collate.Stack],
        pointers: Mapping[str, Pointers],
        missing: NDArray[np.bool_],
    ) -> None:
        """Decode every member of every sample; a sample of which one is broken is replaced as a whole."""
        present = np.flatnonzero(~missing)
        bytes_of = {member: self._read(pointers[member].at(present)) for member in decoded}
        place = np.full(len(self.rows), -1)
        place[present] = np.arange(len(present))
        clock = time.perf_counter()
        for index in range(len(self.rows)) if decoded else np.flatnonzero(missing).tolist():
            at = int(place[index])
            if at >= 0:
                try:
                    pictures = {m: decode(self._one(bytes_of[m], at)) for m, decode in decoded.items()}
                except Exception as error:
                    self._refuse(index, error)
                    pictures = self._substitute(index, decoded)
            else:
                self._refuse(index, LoaderError("a member is missing."))
                pictures = self._substitute(index, decoded)
            for member, picture in pictures.items():
                self._stack(stacks[member], picture, index)
        self._count("decode_seconds", clock)

    def _substitute(self, index: int, decoded: Mapping[str, Decode]) -> dict[str, Picture]:
        """Replace a row by the next whole one of its window; the pictures of that one."""
        position = int(self.positions[index])
        self.replaced[index] = True
        self.counters["substituted"] += 1
        for attempt in range(ATTEMPTS):
            self.rows[index] = self.order.substitute(position, attempt)
            row = self.rows[index : index + 1]
            pointers = {member: self.recipe.index.pointers(member, row) for member in self.recipe.decoders}
            if any(p.missing[0] for p in pointers.values()):
                continue
            try:
                return {m: decode(self._one(self._read(pointers[m]), 0)) for m, decode in decoded.items()}
            except StoreError:
                raise
            except Exception:  # whatever a decoder raises on broken bytes: the next row is tried
                continue
        raise LoaderError(
            f"No sample of {self.recipe.key.identity!r} near position {position} is whole: {ATTEMPTS} were tried.",
            "Filter broken samples out of the version: add the image_header signal and keep what decodes.",
        )

    def _refuse(self, index: int, error: Exception) -> None:
        if self.recipe.on_error == "raise":
            place = self._place(int(self.rows[index]))
            raise LoaderError(
                f"Sample {place} is broken: {type(error).__name__}: {error}",
                'Filter it out, or use on_error="substitute".',
            ) from error

    def _place(self, row: int) -> str:
        index = self.recipe.index
        places = []
        for member in index.members:
            pointer = index.pointers(member, np.array([row]))
            if not pointer.missing[0]:
                places.append(f"{member} at byte {pointer.offset[0]} of {index.files[int(pointer.file[0])].uri}")
        return f"{row} of {index.identity} ({', '.join(places) or 'no member'})"

    def _stack(self, stack: collate.Stack, picture: Picture, index: int) -> None:
        size = self.recipe.image_size
        if self.recipe.hooks.transform is not None:
            stack.put(index, self._transformed(self.recipe.hooks.transform, picture, index))
        elif size is not None:
            square(picture, stack.place(index, (size, size, 3)))
        else:
            stack.put(index, np.asarray(picture))

    def _transformed(self, transform: Callable[[Image.Image], Any], picture: Picture, index: int) -> Any:
        seed = self.order.sample_seed(int(self.positions[index]))
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        try:
            return transform(as_image(picture))
        except Exception as error:
            place = self._place(int(self.rows[index]))
            raise LoaderError(f"transform failed on sample {place}: {type(error).__name__}: {error}") from error

    def _raw(self, member: str, pointers: Pointers) -> collate.Ragged:
        if self.replaced.any():
            pointers = self.recipe.index.pointers(member, self.rows)
        blob, offsets = self._read(pointers)
        return collate.ragged(blob, offsets)

    def _read(self, pointers: Pointers) -> tuple[torch.Tensor, NDArray[np.int64]]:
        clock = time.perf_counter()
        offsets = np.concatenate([[0], np.cumsum(pointers.size)]).astype(np.int64)
        blob = collate.empty((int(offsets[-1]),), torch.uint8)
        self.reader.read(pointers, blob.numpy(), offsets[:-1])
        self._count("read_seconds", clock)
        return blob, offsets

    def _one(self, read: tuple[torch.Tensor, NDArray[np.int64]], index: int) -> memoryview:
        blob, offsets = read
        return blob.numpy().data[int(offsets[index]) : int(offsets[index + 1])]

    def _tokenize(self, batch: Batch) -> None:
        for name, tokenizer in self.recipe.hooks.tokenizer.items():
            tokens = tokenizer(batch[name])
            if isinstance(tokens, Mapping):
                batch.update(tokens)
            else:
                batch[name] = tokens

    def _count(self, name: str, since: float) -> None:
        self.counters[name] = self.counters.get(name, 0.0) + time.perf_counter() - since


@contextmanager
def _kept_generators() -> Iterator[None]:
    """In the calling process, transforms must not disturb the random state of the training script."""
    if torch.utils.data.get_worker_info() is not None:
        yield
        return
    kept = torch.get_rng_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        random.setstate(kept[1])


def _storage_key(key: OrderKey) -> OrderKey:
    return OrderKey(key.identity, key.rows, key.seed, shuffle=False)
