"""Who made what lies around, and whether it still runs: what a dead owner left may be taken up or swept.

A process is told from a later one with its id by the time of its start and by the boot of its machine.

What a process is still writing carries its owner in its name, `.part-OWNER-NAME`, so that another process can tell a
leftover from work in progress: an owner that is gone will not finish.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ABANDONED_HOURS = 24.0
"""What a process of another machine left counts as abandoned when it is this old: it cannot be asked."""

_PART = re.compile(r"\.part-(\d+)-([^-]*)-([0-9a-f]{8})-")
# how unfinished files and folders were named before, without an owner
_UNOWNED = re.compile(r"\.(?:building|writing)-[a-z0-9_]{8}$|(?:engine|up)\.json\.\d+$|[0-9a-f]{32}\.\d+\.tmp$")
_number = itertools.count()


@dataclass(frozen=True)
class Owner:
    """A process.

    Attributes:
        pid: its id.
        started: when it started, in the system's own units.
        host: the machine it runs on.
        boot: id of that machine's boot; empty where the system tells none.
    """

    pid: int
    started: str
    host: str
    boot: str

    @staticmethod
    def here() -> Owner:
        """This process."""
        return Owner.process(os.getpid())

    @staticmethod
    def process(pid: int) -> Owner:
        """A process of this machine."""
        return Owner(pid, process_started(pid), socket.gethostname(), boot_id())

    @staticmethod
    def read(record: Any) -> Owner | None:
        """The owner that `as_dict` wrote down; None where it is no such record."""
        try:
            return Owner(int(record["pid"]), *(str(record.get(name, "")) for name in ("started", "host", "boot")))
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    @staticmethod
    def of(comment: str) -> Owner | None:
        """The owner that a table's comment names; None where it names none."""
        try:
            return Owner.read(json.loads(comment))
        except ValueError:
            return None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @property
    def is_here(self) -> bool:
        """Whether it ran on this machine, so that `is_gone` can tell."""
        return self.host == socket.gethostname()

    @property
    def is_gone(self) -> bool:
        """Whether it surely runs no more. A process of another machine is not known to be gone."""
        if not self.is_here:
            return False
        if self.boot and self.boot != boot_id():
            return True
        now = process_started(self.pid)
        return now != self.started if self.started else not now

    @property
    def is_alive(self) -> bool:
        """Whether it runs, as far as is known: one of another machine counts as running."""
        return not self.is_gone

    def __str__(self) -> str:
        return f"process {self.pid}" if self.is_here else f"process {self.pid} of {self.host}"


def owner() -> str:
    """This process, for the comment of what it builds."""
    return json.dumps(Owner.here().as_dict())


def process_started(pid: int) -> str:
    """When a process started, as text to compare; empty when there is no such process, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self").exists():
            return ""
    listed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listed.stdout.strip()


def started_at(pid: int) -> float | None:
    """When a process started, in seconds of Unix time; None where that cannot be told."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        booted = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)
    except (OSError, ValueError, IndexError):
        return None
    return int(booted[1]) + ticks / os.sysconf("SC_CLK_TCK") if booted else None


@functools.cache
def boot_id() -> str:
    """Which boot of this machine it is: process ids and start times begin anew with each."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def folder_identity(folder: Path) -> str:
    """Which folder it is, whatever its name: device and inode. A copy has another; empty where there is none."""
    try:
        found = os.stat(folder)
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}"


def unfinished(path: Path) -> Path:
    """A name beside `path` for what will be renamed to it; what dead processes left in that folder is removed."""
    _swept_once(path.parent, os.getpid())
    me = Owner.here()
    owner = f"{me.pid}-{me.started}-{_machine(me.host, me.boot)}"
    # A name may have 255 bytes, and that of the path may have them all.
    return path.with_name(f".part-{owner}-{next(_number)}-{path.name[:32]}")


def is_unfinished(name: str) -> bool:
    """Whether a path is one that `unfinished` gave: nobody's but its owner's."""
    return _PART.match(name.rpartition("/")[2]) is not None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write a file at; it replaces `path` at the end of the block, and is removed after an error."""
    beside = unfinished(path)
    try:
        yield beside
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_whole(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a file so that a reader, or the end of this process, sees the old content or the new one, nothing between.

    Args:
        durable: so does a power cut: the content is on the medium before its name.
    """
    with replacing(path) as beside, open(beside, "wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A new folder to fill, for this user alone; it is `folder` at the end of the block, and removed after an error."""
    beside = unfinished(folder)
    try:
        beside.mkdir(mode=0o700)
        yield beside
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def leftovers(folder: Path) -> list[Path]:
    """Files and folders in a folder that processes began, and that none will finish."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if _is_left(entry))
    except (FileNotFoundError, NotADirectoryError):
        return []


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove them; which ones."""
    found = leftovers(folder)
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return found


@functools.lru_cache(maxsize=256)
def _swept_once(folder: Path, process: int) -> None:
    """Once a process and folder: a folder may hold a million files."""
    with contextlib.suppress(OSError):
        remove_leftovers(folder)


def _is_left(entry: os.DirEntry[str]) -> bool:
    match = _PART.match(entry.name)
    if match is None:
        return bool(_UNOWNED.match(entry.name)) and _hours(entry) > ABANDONED_HOURS
    pid, started, machine = match.groups()
    if machine == _machine(socket.gethostname(), boot_id()):
        return process_started(int(pid)) != started
    return _hours(entry) > ABANDONED_HOURS


def _hours(entry: os.DirEntry[str]) -> float:
    try:
        return (time.time() - entry.stat(follow_symlinks=False).st_mtime) / 3600
    except FileNotFoundError:
        return 0.0


def _machine(host: str, boot: str) -> str:
    return hashlib.sha256(f"{host}\n{boot}".encode()).hexdigest()[:8]
