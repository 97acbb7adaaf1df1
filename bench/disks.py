"""Small disks of their own, for what happens when one fills up or the power goes: files mounted as devices (root)."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


class NoDisks(Exception):
    """No device can be mounted here; the message says why."""


def check() -> None:
    """Raises `NoDisks` where devices cannot be mounted."""
    if os.geteuid() != 0:
        raise NoDisks("mounting a disk of its own takes root")
    if not Path("/dev/loop-control").exists():
        raise NoDisks("there are no loop devices here")


@contextlib.contextmanager
def disk(image: Path, folder: Path, megabytes: int) -> Iterator[Path]:
    """A new ext4 disk of so many MiB in the file `image`, mounted at `folder`."""
    check()
    with open(image, "wb") as file:
        file.truncate(megabytes << 20)
    _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
    with mounted(image, folder):
        yield folder


@contextlib.contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    """A disk that is in a file, mounted at `folder` as after a power cut: what its journal holds is applied."""
    folder.mkdir(exist_ok=True)
    _run("mount", "-o", "loop", str(image), str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


@contextlib.contextmanager
def memory_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A tmpfs of so many MiB, mounted at `folder`."""
    check()
    folder.mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def copied(image: Path, to: Path) -> Path:
    """The device as it is at this moment: what the system keeps in its cache for it is not in the copy."""
    _run("cp", "--sparse=always", str(image), str(to))
    return to


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoDisks(f"{' '.join(command[:1])} says: {done.stderr.strip() or done.stdout.strip()}")
