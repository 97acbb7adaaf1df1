"""A time limit for the work on one sample."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from factory_lib.errors import LoaderError

_AT_ONCE_SECONDS = 1e-6


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
    began = time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:  # somebody else's limit goes on, and what is over by now ends it at once
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), _AT_ONCE_SECONDS), interval)
