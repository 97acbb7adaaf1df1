"""Workers run what was hashed: what a driver defined, configured, patched or reloaded is what they compute with."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from factory_lib.compute.pool import stop_workers
from factory_lib.compute.run import compute
from factory_lib.errors import SignalError
from factory_lib.signals import Signal, signal

HELPER = """
import functools
from shop_state import config

def size(text):
    return len(text) * config.FACTOR

@functools.lru_cache(None)
def cached(text):
    return size(text) + PLUS

PLUS = 1

class Model:
    weight = 1

    @functools.cached_property
    def base(self):
        return 100

    def score(self, text):
        return self.weight * cached(text) + self.base

model = Model()
"""
CONFIG = """
FACTOR = 3

def configure(factor):
    global FACTOR
    FACTOR = factor
"""


@pytest.fixture(scope="module", autouse=True)
def _no_workers_left() -> Iterator[None]:
    yield
    stop_workers()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shop_state"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "config.py").write_text(CONFIG)
    (folder / "helper.py").write_text(HELPER)
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def rows(number: int) -> pa.RecordBatch:
    return pa.record_batch(
        {
            "shard": ["a"] * number,
            "position": pa.array(range(number), pa.uint32()),
            "sample_id": pa.array(range(number), pa.uint64()),
            "key": [f"k{place:03}" for place in range(number)],
        }
    )


def values(one: Signal, number: int, workers: int) -> set[Any]:
    found = pa.Table.from_batches(compute([one], [rows(number)], workers=workers, on_error="raise"))
    return set(found[one.name].to_pylist())


class Scored:
    """Has a setup(): many rows of it are computed by processes from the start."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, key: str) -> float:
        return float(self.function(key))


def test_workers_compute_with_the_state_of_the_driver(shop: Path) -> None:
    config = importlib.import_module("shop_state.config")
    helper = importlib.import_module("shop_state.helper")
    scored = signal(Scored(lambda key: helper.model.score(str(key))), name="scored")
    prints = []

    def both(expected: float) -> None:
        helper.cached.cache_clear()
        prints.append(scored.fingerprint)
        assert values(scored, 600, 2) == {expected}
        assert values(scored, 20, 2) == {expected}
        assert scored.fingerprint == prints[-1]

    both(4 * 3 + 1 + 100)
    config.configure(5)
    both(4 * 5 + 1 + 100)
    helper.Model.weight = 2
    both(2 * (4 * 5 + 1) + 100)
    helper.size = lambda text: 7
    both(2 * (7 + 1) + 100)
    (shop / "helper.py").write_text(HELPER.replace("PLUS = 1", "PLUS = 10"))
    importlib.invalidate_caches()
    importlib.reload(helper)
    both(4 * 5 + 10 + 100)
    assert len(set(prints)) == len(prints)


def test_code_without_a_module_and_large_arrays_travel() -> None:
    table = np.zeros(300_000)
    table[7] = 3
    namespace: dict[str, Any] = {"__name__": "a_cell", "TABLE": table}
    exec("def look(key):\n    return TABLE[7]", namespace)
    scored = signal(Scored(namespace["look"]), name="scored")
    assert values(scored, 600, 2) == {3}
    before = scored.fingerprint
    table[7] = 4
    assert scored.fingerprint != before
    assert values(scored, 600, 2) == {4}


def test_what_cannot_travel_is_named() -> None:
    lock = threading.Lock()

    def locked(key: str) -> float:
        with lock:
            return 1.0

    scored = signal(Scored(locked), name="scored")
    assert values(scored, 20, 2) == {1}
    with pytest.raises(SignalError, match=r"function\.lock is a _thread\.lock.*setup\(\)"):
        values(scored, 600, 2)
