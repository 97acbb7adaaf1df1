"""What the user plugs into the making of a batch, and the random numbers that it draws."""

from __future__ import annotations

import hashlib
import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from factory_lib.loading.tasks import Batch


@dataclass(frozen=True)
class Hooks:
    """What the user plugs in; runs in the workers, in this order.

    Whatever they draw from Python's, numpy's and torch's generators is repeatable: these are seeded for each sample
    from (seed, epoch, position), before `tokenizer` and what follows for each batch. A `transform` or
    `sample_transform` with a parameter `rng` is given a `numpy.random.Generator` that is seeded alike.

    Attributes:
        transform: from a picture (PIL, RGB) to an array or tensor.
        tokenizer: from the texts of a column to a tensor, which takes the column's place, or to a mapping of tensors,
            which joins the batch.
        sample_transform: from a sample, a dict without the batch dimension, to another one.
        collate_fn: from a list of samples to a batch, as a `DataLoader`'s.
        collate: from the ready batch to what the loader yields.
    """

    transform: Callable[..., Any] | None = None
    tokenizer: Mapping[str, Callable[[list[str]], Any]] = field(default_factory=dict)
    collate: Callable[[Batch], Any] | None = None
    sample_transform: Callable[..., Any] | None = None
    collate_fn: Callable[[list[Any]], Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Lambdas and functions of a notebook must reach spawned workers, too.
        import cloudpickle

        return _load_hooks, (cloudpickle.dumps({**vars(self), "tokenizer": dict(self.tokenizer)}),)


def _load_hooks(data: bytes) -> Hooks:
    import cloudpickle

    return Hooks(**cloudpickle.loads(data))


def call(function: Callable[..., Any], value: Any, seed: int) -> Any:
    """The function's answer, all generators seeded before."""
    seed_all(seed)
    if _takes_rng(function):
        return function(value, rng=np.random.default_rng(seed))
    return function(value)


def seed_all(seed: int) -> None:
    """Seed Python's generator, numpy's legacy one and torch's."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # albumentations and most hand-written augmentation draw from it


def batch_seed(seed: int, epoch: int, start: int, rank: int) -> int:
    """A 64-bit seed for what is drawn for a whole batch."""
    digest = hashlib.blake2b(f"{seed}\0{epoch}\0{start}\0{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


@contextmanager
def kept_generators() -> Iterator[None]:
    """In the calling process, what hooks draw must not disturb the random state of the training script."""
    if torch.utils.data.get_worker_info() is not None:
        yield
        return
    kept = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        random.setstate(kept[1])
        np.random.set_state(kept[2])


def _takes_rng(function: Callable[..., Any]) -> bool:
    try:
        return "rng" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some builtins tell nothing
        return False
