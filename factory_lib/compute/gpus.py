"""Which GPUs a worker process of this machine computes on."""

from __future__ import annotations

from pathlib import Path

from factory_lib.environment import visible_gpus
from factory_lib.errors import SignalError
from factory_lib.signals.resources import Resources

_DEVICES = "nvidia[0-9]*"


def gpus_here(folder: Path = Path("/dev")) -> list[str]:
    """The GPUs that processes of this machine may use: those that `CUDA_VISIBLE_DEVICES` names, or all that are there.

    Args:
        folder: where the system shows its devices.
    """
    named = visible_gpus()
    return [str(number) for number, _ in enumerate(folder.glob(_DEVICES))] if named is None else named


def processes_on(gpus: list[str], resources: Resources) -> int:
    """How many processes that need so much of a GPU, or so many, run at once.

    Raises:
        SignalError: not one does.
    """
    found = int(len(gpus) / resources.gpus) if resources.gpus > 1 else len(gpus) * int(1 / resources.gpus)
    if not found:
        raise SignalError(
            f"The signals need {resources.gpus:g} GPUs, and this machine shows {len(gpus)}.",
            "Is CUDA_VISIBLE_DEVICES right? Elsewhere: FACTORY_EXECUTOR=ray. On the processor: signal.needing(gpus=0).",
        )
    return found


def gpus_of(place: int, gpus: list[str], resources: Resources) -> list[str]:
    """The GPUs of one of these processes: neighbours get different ones as long as there are.

    Args:
        place: which process it is, from 0.
    """
    if resources.gpus > 1:
        each = int(resources.gpus)
        return gpus[place * each : (place + 1) * each]
    return [gpus[place % len(gpus)]]
