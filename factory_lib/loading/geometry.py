"""Which rank of how many this process is: from one place, never from two halves."""

from __future__ import annotations

import torch

from factory_lib.environment import launched
from factory_lib.errors import LoaderError
from factory_lib.settings import settings

Geometry = tuple[int, int]
"""(rank, number of ranks)."""


def checked(rank: int | None, world: int | None) -> Geometry | None:
    """The geometry that the arguments give; None where they leave it to the surroundings.

    Raises:
        LoaderError: one of the two is missing, or there is no such rank.
    """
    if rank is None and world is None:
        return None
    if rank is None or world is None:
        missing, given = ("rank", f"world_size={world}") if rank is None else ("world_size", f"rank={rank}")
        raise LoaderError(
            f"{given} is half of what the loader must know: {missing} is missing.",
            "Give both, or neither to use those of torch.distributed or of the launcher.",
        )
    return _valid(rank, world)


def surrounding() -> Geometry | None:
    """The geometry of torch.distributed, else of `RANK` and `WORLD_SIZE`; None where neither says anything.

    Raises:
        LoaderError: half of the variables, or a launcher that started several processes without telling either.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    rank, world = settings().rank, settings().world_size
    if rank is not None and world is not None:
        return _valid(rank, world)
    if rank is not None or world is not None:
        missing, given = ("RANK", f"WORLD_SIZE={world}") if rank is None else ("WORLD_SIZE", f"RANK={rank}")
        raise LoaderError(
            f"The environment has {given} and no {missing}: which part of the rows is this process's?",
            "Set both or none, start torch.distributed before iterating, or give rank and world_size to to_torch().",
        )
    several = launched()
    if several is not None:
        raise LoaderError(
            f"The launcher started {several.processes} processes ({several.count}), and neither torch.distributed nor "
            "RANK and WORLD_SIZE say which one this is: every one would read the part of the first.",
            f"Start torch.distributed before iterating, or give rank (the number in {several.number}) and "
            f"world_size={several.processes}.",
        )
    return None


def _valid(rank: int, world: int) -> Geometry:
    if not 0 <= rank < world:
        raise LoaderError(f"Rank {rank} of {world} does not exist.", f"Ranks are 0 to {max(world, 1) - 1}.")
    return rank, world
