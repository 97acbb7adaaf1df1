"""Limits of time and locks of files: what others set and hold meanwhile stays theirs."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from factory_lib.filelocks import exclusive
from factory_lib.loading.limits import SlowSample, limited


class Over(Exception):
    """Somebody else's time is over."""


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A limit of somebody else; that of the test comes back after it."""

    def over(*_: Any) -> None:
        raise Over

    before, left = signal.signal(signal.SIGALRM, over), signal.setitimer(signal.ITIMER_REAL, 0)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.signal(signal.SIGALRM, before)
    signal.setitimer(signal.ITIMER_REAL, *left)


def test_the_time_of_somebody_else_goes_on_while_samples_are_decoded(others):
    def work() -> None:
        while True:
            with limited(60, lambda: "a"):
                time.sleep(0.01)

    others(0.3)
    with pytest.raises(Over):
        work()


def test_a_slow_sample_is_ended_and_named(others):
    others(60)
    with pytest.raises(SlowSample, match="Sample shard/7 took longer than 0.05 s"), limited(0.05, lambda: "shard/7"):
        time.sleep(20)
    assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] < 60
    others(0)
    with limited(60, lambda: "a"):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_lock_ends_with_its_block_though_a_child_was_forked_meanwhile(tmp_path: Path):
    read, write = os.pipe()
    with open(tmp_path / "lock", "w") as file, exclusive(file):
        child = os.fork()
        if not child:
            os.close(write)
            os.read(read, 1)  # until this process closes its end
            os._exit(0)
    try:
        with (
            open(tmp_path / "lock", "w") as again,
            exclusive(again, wait=False),
            open(tmp_path / "lock", "w") as third,
            pytest.raises(BlockingIOError),
            exclusive(third, wait=False),
        ):
            pass
    finally:
        os.close(write)
        os.close(read)
        os.waitpid(child, 0)
