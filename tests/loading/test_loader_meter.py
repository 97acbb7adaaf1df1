"""What a loader says about itself: counted always, drawn in a terminal, reported where reports are wanted."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from factory_lib import progress
from factory_lib.loading.dataset import BatchDataset, to_torch
from factory_lib.loading.meter import Meter, statistics, tiers
from tests.loading_rows import reader_of, write_shards


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pa.Table:
    monkeypatch.setenv("FACTORY_HOME", str(tmp_path / "home"))
    return write_shards(tmp_path / "shards", [200])


def load(rows: pa.Table, **arguments: Any) -> BatchDataset:
    return to_torch(reader_of(rows), "meter", members=["image"], global_batch_size=20, **arguments)


def terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A real terminal as stderr; a function that ends it and gives what was drawn."""
    reader, writer = os.openpty()
    screen = os.fdopen(writer, "w")
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")

    def drawn() -> str:
        screen.flush()
        os.set_blocking(reader, False)
        try:
            text = os.read(reader, 1 << 20).decode()
        except BlockingIOError:
            text = ""
        screen.close()
        os.close(reader)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)

    return drawn


def test_a_bar_is_drawn_in_a_terminal_when_it_takes_longer(table, monkeypatch):
    drawn = terminal(monkeypatch)
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    for _ in load(table, collate=lambda batch: time.sleep(0.03) or batch):
        time.sleep(0.03)
    text = drawn()
    assert re.search(r"loading .*[1-9]/10 .*\d samples/s · decode \d+% · waited \d+%", text)


@pytest.mark.parametrize("arguments", [{"progress": False}, {"rank": 1, "world_size": 2}, {}])
def test_no_bar_where_none_is_wanted_or_it_is_over_soon(table, monkeypatch, arguments):
    drawn = terminal(monkeypatch)
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0 if arguments else 60.0)
    assert len(list(load(table, **arguments))) == 10
    assert drawn() == ""


def test_who_wants_reports_gets_them_in_place_of_a_bar(table, monkeypatch):
    drawn = terminal(monkeypatch)
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    said: list[tuple[str, int, int | None]] = []
    with progress.reporting(lambda what, done, total: said.append((what, done, total))):
        list(load(table))
    assert drawn() == ""
    assert said == [("loading, batches", n, 10) for n in range(1, 11)]


def test_waiting_is_counted_and_long_waits_are_stalls(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("factory_lib.loading.meter.time.monotonic", lambda: clock[0])

    def batches() -> Any:
        for seconds in (0.5, 0.0625, 0.125, 0.25):
            clock[0] += seconds
            yield None

    counters: dict[str, float] = {}
    for _ in Meter(counters, 4, False).over(batches()):
        clock[0] += 1.0
    # The first batch has to be waited for, and the second one came in time.
    assert counters == {"iterating_seconds": 4.9375, "wait_seconds": 0.4375, "stalls": 2}


def test_statistics_of_a_run(table):
    dataset = load(table, num_workers=1)
    assert dataset.statistics()["samples_per_second"] == 0
    list(dataset)
    found = dataset.statistics()
    assert found["samples"] == 200
    assert found["samples_per_second"] == pytest.approx(200 / dataset.counters["iterating_seconds"])
    assert found["bytes_local"] == sum(pointer["size"].as_py() for pointer in table.column("image"))
    assert 0 < found["decode_share"] < 1
    assert 0 <= found["wait_share"] <= 1


def test_bytes_count_for_the_tier_they_came_from():
    """1,000 bytes read through a cache of which 300 were fetched, 100 of them from the shared tier; 50 local ones."""
    counters = {"bytes_read": 1000, "bytes_cache": 990, "bytes_shared": 100, "bytes_origin": 200, "bytes_local": 50}
    assert tiers(counters) == {"local": 50, "cache": 700, "shared": 100, "origin": 200}
    assert tiers({"bytes_origin": 10}) == {"origin": 10}
    assert statistics(counters)["bytes_cache"] == 700
    meter = Meter({}, 1, False)
    meter._counters.update(counters, samples=10, iterating_seconds=2.0, stalls=1, substituted=3)
    assert meter.line() == (
        "5 samples/s · local 5%, cache 67%, shared 10%, origin 19% · decode 0% · waited 0% · stalls 1 · substituted 3"
    )
