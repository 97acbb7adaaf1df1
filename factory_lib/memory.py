"""How much memory this process and those that it starts may use together: of the machine, and of its control group.

A container is killed when it takes more than its control group allows, however much the machine has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_SHARE = 0.8
"""Of the memory, what worker processes may take: the rest is for the engine, this process and the system."""


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes of memory that there are for this process: the least of the machine's and its control groups' limits.

    Args:
        root: where `/proc` and `/sys` are.
    """
    return min([_machine(root), *_groups(root)])


def processes_that_fit(process_bytes: int, limit: int | None = None) -> int:
    """How many processes that take so much memory each may run at once; one always may.

    Args:
        limit: bytes for all, default `memory_limit()`.
    """
    return max(1, int(_SHARE * (memory_limit() if limit is None else limit)) // process_bytes)


def _machine(root: Path) -> int:
    try:
        fields = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines() if ":" in line)
        return int(fields["MemTotal"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _groups(root: Path) -> Iterator[int]:
    """Limits of the control groups of this process, of either version, and of those above them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if number == "0" and not controllers:
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the path may be the one outside, which is not there: the container's own is at the top.
        here = top / path.strip("/")
        for folder in (here, *here.parents):
            yield from _limit(folder / name)
            if folder == top:
                break


def _limit(file: Path) -> Iterator[int]:
    try:
        text = file.read_text().strip()
    except OSError:
        return
    if text.isdigit():  # "max" where there is none
        yield int(text)
