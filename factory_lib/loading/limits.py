"""A time limit for the work on one sample."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from factory_lib.errors import LoaderError


class SlowSample(LoaderError):
    """Decoding or transforming one sample took longer than it may."""


@contextmanager
def limited(seconds: float | None, place: Callable[[], str]) -> Iterator[None]:
    """Interrupt what runs longer than some seconds, as Python lets itself be interrupted; None for no limit.

    Only a main thread, such as a worker's, can be interrupted: elsewhere there is no limit.

    Raises:
        SlowSample: names the sample.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_: int, __: FrameType | None) -> None:
        raise SlowSample(
            f"Sample {place()} took longer than {seconds:g} s to decode and transform.",
            "Filter it out, mend the transform, or give a larger sample_seconds.",
        )

    before = signal.signal(signal.SIGALRM, stop)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, before)
