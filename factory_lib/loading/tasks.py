"""What a worker is asked for, and what it gives back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Batch = dict[str, Any]


@dataclass(frozen=True)
class BatchTask:
    """A batch to make: the part of rank `rank` of `world` of the global batch of `size` rows at `start` of an epoch."""

    epoch: int
    start: int
    size: int
    rank: int
    world: int


@dataclass(frozen=True)
class BatchTasks:
    """The batches of one rank that start at `starts`, in their order."""

    epoch: int
    starts: range
    size: int
    rank: int
    world: int

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, part: slice) -> BatchTasks:
        return replace(self, starts=self.starts[part])

    def __iter__(self) -> Iterator[BatchTask]:
        return (BatchTask(self.epoch, start, self.size, self.rank, self.world) for start in self.starts)


@dataclass(frozen=True)
class Broken:
    """A sample that could not be used.

    Attributes:
        kind: name of the error's class.
        text: which sample, where its bytes lie, and why.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class MadeBatch:
    """A batch, as the training gets it, with what making it counted and the first samples that were broken."""

    batch: Any
    counters: Mapping[str, float] = field(default_factory=dict)
    broken: tuple[Broken, ...] = ()

    def pin_memory(self) -> MadeBatch:
        """The same with its tensors page-locked; what torch's pinning calls."""
        from torch.utils.data._utils.pin_memory import pin_memory

        return replace(self, batch=pin_memory(self.batch))  # type: ignore[no-untyped-call]
