"""Work of numpy and torch on all cores: they let go of the interpreter."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from factory_lib.progress import track

T = TypeVar("T")


def in_threads(work: Callable[[T], None], tasks: Sequence[T], what: str) -> None:
    """Do work on every task, a thread a core, with progress."""
    with track(what, len(tasks)) as progress, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for _ in pool.map(work, tasks):
            progress.advance()
