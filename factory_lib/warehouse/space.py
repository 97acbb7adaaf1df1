"""Space on the disk under a data folder: what is kept free, and what is said when there is not enough.

Some of it is kept free of versions, so that on a disk that is full the engine still starts, reads, and drops what may
go; and a file of it (`reserve`) is given up when others have filled the disk to the last byte.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from factory_lib.errors import DiskFull

KEPT_FREE = 32 << 20
"""Statements that write are refused when less is free."""

FREEING = "freeing space"
"""`log_comment` of statements of a sweep: they write a little so that much can be dropped, and are not refused."""

_BALLAST, _BALLAST_BYTES = "reserve", 4 << 20


def check_space(folder: Path, needed: int = 0) -> None:
    """Refuse to write to a disk that has no room for it.

    Args:
        folder: a folder on the disk.
        needed: bytes that are about to be written, where that is known.

    Raises:
        DiskFull: less than that and what is kept free is left.
    """
    if shutil.disk_usage(folder).free < needed + KEPT_FREE:
        raise disk_full(folder, needed)


def disk_full(folder: Path, needed: int = 0) -> DiskFull:
    """The error that names the disk, the folder, and what is missing."""
    found = shutil.disk_usage(folder)
    missing = max(needed + KEPT_FREE - found.free, 1)
    return DiskFull(
        f"The disk at {_mount(folder)} is full: {_mib(found.free)} of {_mib(found.total)} are free, and {folder} needs"
        f" {_mib(missing)} more ({_mib(KEPT_FREE)} are kept free, to start, read and delete).",
        "Make room: factory gc --keep-last 3 --yes, factory cache --clear, or another disk.",
        code=243,
    )


def give_up_ballast(home: Path) -> None:
    """Free a little space where there is none, so that the engine can start."""
    if shutil.disk_usage(home).free < _BALLAST_BYTES:
        with contextlib.suppress(OSError):
            os.unlink(home / _BALLAST)


def take_ballast(home: Path) -> None:
    """Have a little space to give up, where there is enough of it."""
    if (home / _BALLAST).exists() or shutil.disk_usage(home).free < 2 * KEPT_FREE:
        return
    with contextlib.suppress(OSError), open(home / _BALLAST, "wb") as file:
        file.write(bytes(_BALLAST_BYTES))


def _mount(folder: Path) -> Path:
    found = folder.resolve()
    while not found.is_mount():
        found = found.parent
    return found


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"
