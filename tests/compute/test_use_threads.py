"""Several threads compute at once: what each changes is told apart from what a driver configured before."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from factory_lib import signal
from factory_lib.errors import SignalError
from factory_lib.fingerprints import components as fingerprints
from factory_lib.fingerprints.steady import LOOKS, Unsteady, steady
from factory_lib.signals.use import using

memo: dict[str, int] = {}


@signal
def plain(caption: str) -> int:
    return len(caption)


@signal
def remembering(caption: str) -> int:
    return memo.setdefault(caption, len(caption))


@signal
def configured(caption: str) -> int:
    import use_threads_settings

    return use_threads_settings.level * len(caption)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of the user that a driver imported and configured."""
    (tmp_path / "use_threads_settings.py").write_text("level = sum([1])\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("use_threads_settings")
    module.level = 7
    yield module
    sys.modules.pop("use_threads_settings", None)


def overlapping(first: Any, second: Any) -> None:
    """Use signals in two threads: the second begins and ends later."""
    begun, both, ended = (threading.Event() for _ in range(3))

    def one() -> None:
        with using(first):
            begun.set()
            assert both.wait(20)
        ended.set()

    def two() -> None:
        assert begun.wait(20)
        with using(second):
            both.set()
            second("a caption")
            assert ended.wait(20)

    threads = [threading.Thread(target=work) for work in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_what_a_driver_configured_counts_after_runs_at_once(driver):
    before = configured.components
    overlapping(plain, configured)
    assert configured.components == before
    driver.level = 8
    assert configured.components != before


def test_what_a_run_remembers_counts_for_nothing_though_another_one_goes_on():
    memo.clear()
    before = remembering.components
    overlapping(plain, remembering)
    assert memo
    assert remembering.components == before
    memo["put there by hand"] = 1
    assert remembering.components != before


def test_runs_of_one_thread_may_end_in_any_order(driver):
    before = configured.components
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(using(plain))
        second.enter_context(using(configured))
        first.close()
        second.close()
    assert configured.components == before
    driver.level = 9
    assert configured.components != before


def test_a_signal_whose_objects_never_hold_still_is_named(monkeypatch):
    def disturbed(*_):
        raise Unsteady("dictionary changed size during iteration")

    monkeypatch.setattr(fingerprints, "steady", disturbed)
    with pytest.raises(SignalError, match="fingerprint of signal 'plain' cannot be taken: another thread keeps"):
        _ = plain.components


def test_what_changes_while_it_is_looked_at_is_looked_at_again():
    growing = {"a": 1}

    def look(times: int) -> list[str]:
        found = []
        for name in growing:
            if len(growing) <= times:
                growing[f"b{len(growing)}"] = 1
            found.append(name)
        return found

    assert steady(lambda: look(3)) == ["a", "b1", "b2", "b3"]
    with pytest.raises(Unsteady, match="dictionary changed size"):
        steady(lambda: look(LOOKS * 2))
    with pytest.raises(RuntimeError, match="something else"):
        steady(lambda: (_ for _ in ()).throw(RuntimeError("something else")))
