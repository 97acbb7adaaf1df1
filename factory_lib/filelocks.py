"""The system's lock on an open file, of which one process at a time, and one thread of it, is the holder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any


@contextmanager
def exclusive(file: int | IO[Any], *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a file that was opened for it. The system lets go of it when the last holder dies.

    Args:
        wait: until its holder lets go; otherwise it is an error that there is one.

    Raises:
        BlockingIOError: it is held, and `wait` is false.
    """
    holder = os.getpid()
    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        # Closing the file is not enough: a child that another thread forked meanwhile has it open, too.
        if os.getpid() == holder:
            fcntl.flock(file, fcntl.LOCK_UN)
