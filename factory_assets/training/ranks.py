"""The processes of a training: which device each has, and what they tell each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from factory_lib.errors import TrainingError, nearest
from factory_lib.signals.tinyclip import TinyClip

CPU_PROCESSES = 2
ACCELERATORS = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Rank:
    """This process among those of its training."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that scores, reports and writes."""
        return self.rank == 0


def accelerator_of(asked: str) -> str:
    """ "cpu" or "cuda".

    Raises:
        TrainingError: no such accelerator, or none here.
    """
    if asked not in ACCELERATORS:
        raise TrainingError(f"There is no accelerator {asked!r}.", nearest(asked, ACCELERATORS))
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and not torch.cuda.is_available():
        raise TrainingError("accelerator='cuda', and torch sees no GPU here.", "Use accelerator='auto' or 'cpu'.")
    return asked


def processes_of(asked: int, accelerator: str, global_batch_size: int) -> int:
    """How many processes train.

    Args:
        asked: 0 for one a GPU, or two without.
        accelerator: "cpu" or "cuda".

    Raises:
        TrainingError: more than there are GPUs, or the batch cannot be cut evenly.
    """
    gpus = torch.cuda.device_count() if accelerator == "cuda" else 0
    count = asked or gpus or min(CPU_PROCESSES, global_batch_size)
    if gpus and count > gpus:
        raise TrainingError(f"processes={count}, and there are {gpus} GPUs.", f"Use processes={gpus} or 0.")
    if count < 1 or global_batch_size % count:
        batch = max(1, round(global_batch_size / max(count, 1))) * max(count, 1)
        raise TrainingError(
            f"A global batch of {global_batch_size} cannot be cut evenly into {count} parts.",
            f"Use global_batch_size={batch}.",
        )
    return count


@contextmanager
def process_group(asked: str) -> Iterator[Rank]:
    """Join the other processes that torchrun started: gloo on CPUs, nccl on GPUs."""
    kind = accelerator_of(asked)
    if kind == "cpu":
        torch.set_num_threads(1)  # two threads wait for each other more than they help with a model this small
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    rank = dist.get_rank()
    device = torch.device("cpu")
    if kind == "cuda":
        device = torch.device("cuda", rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    try:
        yield Rank(rank, dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


class Towers(nn.Module):
    """Both towers and the temperature in one call, as DistributedDataParallel wants it."""

    def __init__(self, model: TinyClip) -> None:
        super().__init__()
        self.model = model

    def forward(self, pictures: Tensor, captions: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Unit vectors (n, 64) of pictures and of captions, and the scale of their products."""
        return self.model.images(pictures), self.model.texts(captions), self.model.log_scale.exp()


def distributed(model: TinyClip, rank: Rank) -> DistributedDataParallel:
    """The model on this process's device, its gradients averaged over all processes."""
    devices = [rank.device.index] if rank.device.type == "cuda" else None
    return DistributedDataParallel(Towers(model.to(rank.device)), device_ids=devices)


def whole_batch(part: Tensor, rank: Rank) -> Tensor:
    """A tensor of the whole global batch from each process's part of it; gradients flow into this process's part."""
    if rank.world == 1:
        return part
    parts = [torch.empty_like(part) for _ in range(rank.world)]
    dist.all_gather(parts, part.detach().contiguous())
    parts[rank.rank] = part
    return torch.cat(parts)


def summed(numbers: dict[str, float], rank: Rank) -> dict[str, float]:
    """Sums over all processes; every process calls it at the same step."""
    told: list[Any] = [None] * rank.world
    dist.all_gather_object(told, numbers)
    names = sorted({name for one in told for name in one})
    return {name: float(np.sum([one.get(name, 0.0) for one in told])) for name in names}
