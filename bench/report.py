"""What every benchmark prints: a table with the machine and the date."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """The result of a function and the seconds it took."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def print_report(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table under a title that says where and when it was measured."""
    print(f"\n### {title}\n\n{machine()}, {dt.date.today().isoformat()}\n")
    texts = [[_text(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(header), *texts]) for i in range(len(header))]
    for line in (list(header), ["-" * w for w in widths], *texts):
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |")


def machine() -> str:
    """Processor, cores, memory and Python."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((s.split(":")[1].strip() for s in info.read_text().splitlines() if s.startswith("model name")), cpu)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"


def disk_bytes(folder: Path) -> int:
    """Bytes on disk below a folder; a file with several names counts once."""
    seen: dict[tuple[int, int], int] = {}
    for parent, _, files in os.walk(folder):  # what vanishes meanwhile, as parts that were merged do, is passed over
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                stat = os.stat(os.path.join(parent, name))
                seen[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
    return sum(seen.values())


def _text(cell: object) -> str:
    return (
        f"{cell:,.3g}"
        if isinstance(cell, float) and abs(cell) < 1000
        else f"{cell:,.0f}"
        if isinstance(cell, float)
        else str(cell)
    )
