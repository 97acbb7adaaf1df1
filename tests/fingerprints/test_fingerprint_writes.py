"""What a signal writes to itself does not make its values stale; what it reads does."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from factory_lib.fingerprints.writes import written
from factory_lib.signals import signal

CACHE = MODEL = LOG = Path("nothing")


def a_method(key: str) -> None:
    (CACHE / key).write_bytes(b"")


def an_open_file(key: str) -> None:
    with open(LOG, "a", encoding="utf-8") as file:
        file.write(key)


def by_way_of_a_variable(self: Any, key: str, value: Any) -> None:
    target = self.folder / f"{key}.npy"
    np.save(target, value)


def beside_a_read(key: str) -> None:
    weights = np.load(MODEL / "w.npy")
    np.save(CACHE / key, weights)


def what_was_read(key: str) -> None:
    text = MODEL.read_bytes()
    (CACHE / key).write_bytes(text)


def joined(key: str) -> str:
    path = os.path.join(CACHE, key)
    if not os.path.exists(path):
        with open(path, "w") as file:
            file.write(MODEL.read_text())
    return path


def with_calls(self: Any) -> None:
    (self.folder / f"setup-{os.getpid()}-{time.monotonic_ns()}").touch()


def inner() -> Callable[[], None]:
    def write() -> None:
        json.dump(1, open(CACHE, "w"))  # noqa: SIM115

    return write


def reads(key: str) -> str:
    return open(MODEL).read() + (MODEL / "x").read_text().replace("a", "w")


EXPECTED: list[tuple[Callable[..., Any], set[str]]] = [
    (a_method, {"CACHE"}),
    (an_open_file, {"LOG"}),
    (by_way_of_a_variable, {"folder"}),
    (beside_a_read, {"CACHE"}),
    (what_was_read, {"CACHE"}),
    (joined, {"CACHE"}),
    (with_calls, {"folder"}),
    (inner, {"CACHE"}),
    (reads, set()),
]


@pytest.mark.parametrize(("function", "names"), EXPECTED, ids=[function.__name__ for function, _ in EXPECTED])
def test_what_code_writes_to_is_told_from_what_it_reads(function: Callable[..., Any], names: set[str]) -> None:
    assert written(function.__code__) & {"CACHE", "MODEL", "LOG", "folder"} == names


def test_a_folder_that_a_signal_fills_does_not_count_and_one_that_it_reads_does(tmp_path: Path) -> None:
    cache, model = tmp_path / "cache", tmp_path / "model"
    for folder in (cache, model):
        folder.mkdir()
        (folder / "first").write_text("1")

    def kept(caption: str) -> int:
        (cache / "kept").write_text(caption)
        return len((model / "first").read_text())

    one = signal(kept)
    before = one.fingerprint
    assert one.one("a hat") == 1
    (cache / "another").write_text("2")
    assert one.fingerprint == before
    (model / "first").write_text("22")
    assert one.fingerprint != before
