"""Space on the disk under a data folder: what is kept free, and what is said when there is not enough.

Some of it is kept free of versions, so that on a disk that is full the engine still starts, reads, and drops what may
go; and a file of it (`reserve`) is given up when others have filled the disk to the last byte.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from factory_lib.errors import DiskFull, EngineError

KEPT_FREE = 32 << 20
"""Statements that write are refused when less is free."""

FREEING = {"log_comment": "makes room"}
"""Settings of statements that write a little so that much can be dropped: they are not refused."""

RESERVE, RESERVE_BYTES = "reserve", 4 << 20


def check_space(folder: Path, needed: int = 0) -> None:
    """Refuse to write to a disk that has no room for it.

    Args:
        folder: a folder on the disk.
        needed: bytes that are about to be written, where that is known.

    Raises:
        DiskFull: less than that and what is kept free is left.
    """
    if _usage(folder).free < needed + KEPT_FREE:
        raise disk_full(folder, needed)


def disk_full(folder: Path, needed: int = 0) -> DiskFull:
    """The error that names the disk, the folder, and what is missing.

    Also for what has filled the disk itself: what it had written is gone by now, and nobody knows how much it needs.
    """
    found = _usage(folder)
    missing = needed + KEPT_FREE - found.free
    state = "is full" if missing > 0 else "ran full"
    needs = (
        f"{folder} needs {_mib(missing)} more ({_mib(KEPT_FREE)} are kept free, to start, read and delete)"
        if missing > 0
        else f"what was to be saved in {folder} needs more"
    )
    return DiskFull(
        f"The disk at {_mount(folder)} {state}: {_mib(found.free)} of {_mib(found.total)} are free, and {needs}."
        " Nothing was saved.",
        "Make room: factory gc --keep-last 3 --yes, factory cache clear. Or let FACTORY_HOME name a larger disk.",
        code=243,
    )


def data_folder_unusable(home: Path, said: str) -> EngineError:
    """The error of a data folder that cannot be made, read or written.

    Args:
        said: what the system said.
    """
    return EngineError(
        f"The data folder {home} cannot be used: {said}.", "Set FACTORY_HOME to a folder that you can write to."
    )


def give_up_reserve(home: Path) -> None:
    """Free a little space where there is none."""
    if _usage(home).free < RESERVE_BYTES:
        with contextlib.suppress(OSError):
            os.unlink(home / RESERVE)


def keep_reserve(home: Path) -> None:
    """Have a little space to give up, where there is enough of it."""
    path = home / RESERVE
    if path.exists() or _usage(home).free < 2 * KEPT_FREE:
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
        finally:
            os.close(descriptor)


def free_bytes(folder: Path) -> int:
    """Bytes free on the disk that a folder is on, or will be on."""
    return _usage(folder).free


@dataclass(frozen=True)
class _Usage:
    free: int
    total: int


def _usage(folder: Path) -> _Usage:
    """Of the disk that a folder is on, or will be on."""
    while not folder.exists():
        folder = folder.absolute().parent
    found = shutil.disk_usage(folder)
    return _Usage(found.free, found.total)


def _mount(folder: Path) -> Path:
    found = folder.resolve()
    while not found.is_mount():
        found = found.parent
    return found


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"
