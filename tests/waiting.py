"""Waiting in tests for what happens elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(
    done: Callable[[], object], seconds: float = 20.0, why: Callable[[], str] = lambda: "waited in vain"
) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, why()
        time.sleep(0.02)
