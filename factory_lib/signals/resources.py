"""What computing a signal takes of a machine: `@signal(gpus=0.5, cpus=2, memory=8 * 2**30)`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from factory_lib.errors import SignalError


@dataclass(frozen=True)
class Resources:
    """What a process that computes a signal has to itself. It changes no value, and is no part of fingerprints.

    Attributes:
        gpus: GPUs; 0.5 where two processes fit on one.
        cpus: cores, and threads that libraries compute with.
        memory: bytes of main memory; 0 for the setting `FACTORY_WORKER_BYTES`.
    """

    gpus: float = 0.0
    cpus: float = 1.0
    memory: int = 0

    @staticmethod
    def declared(gpus: float, cpus: float, memory: int, where: str) -> Resources:
        """Checked resources.

        Raises:
            SignalError: a number that says nothing, such as one and a half GPUs, of which a process can have no half.
        """
        for name, value in (("gpus", gpus), ("cpus", cpus), ("memory", memory)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise SignalError(f"{where}: {name}={value!r} is no amount.", "Give a number, 0 or more.")
        if gpus > 1 and gpus != int(gpus):
            raise SignalError(f"{where}: gpus={gpus!r}: above one, GPUs are whole.", f"Give {math.ceil(gpus)}.")
        if cpus == 0:
            raise SignalError(f"{where}: cpus=0: something has to compute.", "Leave it out for one core.")
        return Resources(float(gpus), float(cpus), int(memory))

    @staticmethod
    def together(needs: Sequence[Resources]) -> Resources:
        """What a process takes that computes several signals in turn: their memory adds up, on a shared GPU, too."""
        gpus = [one.gpus for one in needs]
        return Resources(
            max(*gpus, min(1.0, sum(gpus))), max(one.cpus for one in needs), sum(one.memory for one in needs)
        )

    @property
    def threads(self) -> int:
        """Threads that libraries may compute with."""
        return max(1, int(self.cpus))

    def __str__(self) -> str:
        memory = f", {self.memory / 2**30:.3g} GiB of memory" if self.memory else ""
        return (f"{self.gpus:g} GPUs, " if self.gpus else "") + f"{self.cpus:g} cores{memory}"


ONE_CORE = Resources()
"""What a signal takes that says nothing."""
