"""The environment as it is: read, parsed and taken over. What of it is a setting: see `factory_lib.settings`."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from factory_lib.errors import SettingsError

SERVED = "SERVED_BY_FACTORY_UP"
"""Not a setting: the mark of what `factory up` started, in the environment of those processes."""


def environment() -> dict[str, str]:
    """The environment as processes started now inherit it, without what a test runner changes all the time."""
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def unmarked_environment() -> dict[str, str]:
    """The environment for a process that outlives `factory up`, whoever starts it."""
    return {name: value for name, value in environment().items() if name != SERVED}


ENV_FILE = ".env"


def env_file(folder: Path) -> dict[str, str]:
    """The variables that a folder's `.env` sets, read as Dagster reads it; `${NAME:-value}` is the environment's."""
    if not (folder / ENV_FILE).is_file():
        return {}
    from dotenv import dotenv_values

    return {name: value for name, value in dotenv_values(folder / ENV_FILE).items() if value is not None}


def use_env_file(folder: Path) -> None:
    """Take over what a folder's `.env` sets and the environment does not."""
    for name, value in env_file(folder).items():
        os.environ.setdefault(name, value)


def use_environment(variables: dict[str, str]) -> None:
    """Take over the variables of another process: workers of a fork server have those of the time when it started."""
    for name in set(os.environ) - set(variables):
        del os.environ[name]
    os.environ.update(variables)


def read_number(variable: str, default: float, minimum: float = 0.0, shown: str = "") -> float:
    """A number that is one: neither infinite nor `nan`.

    Args:
        shown: the default as it is told, where that is not the number itself.
    """
    text = os.environ.get(variable)
    if not text:
        return float(default)
    hint = f"Unset it for the default, {shown or plain_number(default)}."
    try:
        value = float(text)
    except ValueError:
        raise SettingsError(f"{variable}={text!r} is not a number.", hint) from None
    if not math.isfinite(value):
        raise SettingsError(f"{variable}={text} is no number that can be used.", hint)
    if value < minimum:
        raise SettingsError(f"{variable}={text} is below {plain_number(minimum)}.", hint)
    return value


def read_count(variable: str, default: int, minimum: int = 0, shown: str = "") -> int:
    """A number of things: see `read_number`."""
    value = read_number(variable, default, minimum, shown)
    if not value.is_integer():
        hint = f"Unset it for the default, {shown or default}."
        raise SettingsError(f"{variable}={os.environ[variable]} is no whole number.", hint)
    return int(value)


def read_whole(variable: str) -> int | None:
    """A whole number from 0 on; None unset."""
    text = os.environ.get(variable)
    if text and not text.strip().isdigit():
        raise SettingsError(f"{variable}={text!r} is not a whole number from 0 on.", "Unset it, or mend the launcher.")
    return int(text) if text else None


def read_folder(variable: str, default: Path) -> Path:
    """A folder, whole."""
    text = os.environ.get(variable)
    try:
        return (Path(text) if text else default).expanduser().absolute()
    except RuntimeError:  # ~name, and there is no such user
        raise SettingsError(f"{variable}={text!r}: there is no such user here.", "Write the whole path.") from None


def plain_number(number: float) -> str:
    """A number as one writes it into a setting: without exponent."""
    return str(int(number)) if float(number).is_integer() else str(number)


def python_path() -> list[str]:
    """The folders that PYTHONPATH names: modules in them are meant to be found."""
    return [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]


def threads_of_process() -> int:
    """`OMP_NUM_THREADS`, threads that libraries may compute with in this process: 1 in workers; unset, one a core."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return (int(first) if first.isdigit() else 0) or os.cpu_count() or 1


def visible_gpus() -> list[str] | None:
    """`CUDA_VISIBLE_DEVICES`, the GPUs that this process may use; None unset: all."""
    text = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if text is None else [one.strip() for one in text.split(",") if one.strip() not in {"", "-1"}]


@dataclass(frozen=True)
class Launched:
    """How a launcher other than torchrun says that there are several processes: `count` is the variable with their
    number, `number` the one that tells which one this is.
    """

    count: str
    number: str
    processes: str


def launched() -> Launched | None:
    """What the launcher of several processes says; None where there is one process, or nothing says otherwise."""
    for count, number in _LAUNCHERS.items():
        processes = os.environ.get(count) or "1"
        if processes != "1":
            return Launched(count, number, processes)
    return None


_LAUNCHERS = {
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    "PMI_SIZE": "PMI_RANK",
}


def completes() -> bool:
    """Whether a shell asks for completions: then nothing else is said."""
    return "_FACTORY_COMPLETE" in os.environ


def typed_line() -> str:
    """`COMP_LINE`, what was typed up to the cursor, as the shell that asks for completions says."""
    return os.environ.get("COMP_LINE", "")
