"""Runs of the same signal at once: each value is computed once, none is lost, and what was lost before is found."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from factory_lib import DatasetQuery, signal
from factory_lib.build.reuse.claims import Claims
from factory_lib.build.reuse.tables import staged_tables
from factory_lib.errors import EngineError
from factory_lib.names import STAGING
from factory_lib.owners import Owner, owner
from factory_lib.signals import Vector
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.lifetimes import drop_left
from factory_lib.warehouse.versions import Version
from tests.build.test_reuse import counts, grey, level, values, write

pytestmark = pytest.mark.usefixtures("engine")

SHARDS, ROWS = 4, 12
calls: Counter[str] = Counter()
guard = threading.Lock()


@signal(version="1", pinned=True)  # what it notes itself is no part of its fingerprint, at whatever moment it is taken
def slow(caption: str) -> int:
    with guard:
        calls[caption] += 1
    time.sleep(0.005)
    return len(caption)


@signal(output=Vector(2))
def direction(caption: str) -> Any:
    return [1.0, len(caption)]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_WORKERS", "1")
    calls.clear()


def texts(n: int = SHARDS * ROWS, shards: int = SHARDS) -> None:
    rows = {"key": [f"k{i}" for i in range(n)], "caption": [f"{i:0{1 + i % 7}}" for i in range(n)]}
    part = [f"s{i * shards // n}" for i in range(n)]
    DatasetQuery.from_arrow(pa.table({**rows, "part": part}), shard="part").save("texts")


def test_pairs_of_runs_share_the_work_and_lose_nothing() -> None:
    texts()
    right = {key: len(text) for key, text in values(DatasetQuery("texts").save("copy"), "caption").items()}

    def run(name: str, delay: float) -> Version:
        time.sleep(delay)
        return DatasetQuery("texts").add_signals(slow, direction).save(name)

    for pair in range(3):
        warehouse().execute("DROP DATABASE IF EXISTS one SYNC")
        warehouse().execute("DROP DATABASE IF EXISTS two SYNC")
        calls.clear()
        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(run, "one", 0.0), pool.submit(run, "two", 0.07 * pair)]
            one, two = (future.result() for future in both)
        for version in (one, two):
            assert values(version, "slow") == right
            assert all(len(vector) == 2 for vector in values(version, "direction").values())
            assert set(values(version, "slow_error").values()) == {None}
        assert sum(calls.values()) <= 1.2 * len(right), calls.most_common(3)
        assert sum(counts(one)) == sum(counts(two)) == 2 * len(right)
    gc.collect()  # a staging table that nobody has any more is dropped with the last that refers to it
    drop_left()
    left = "SELECT name FROM system.tables WHERE database = {d:String} AND total_rows > 0"
    assert warehouse().rows(left, {"d": STAGING}) == []


def test_a_run_waits_for_a_living_run_and_takes_over_from_a_dead_one() -> None:
    wh = warehouse()
    with Claims(wh) as one, Claims(wh) as two:
        began = one.now()
        assert one.claim(["v"], ["a", "b"], began) == {"a", "b"}
        assert two.claim(["v"], ["a", "b", "c"], began) == {"c"}
        assert two.claim(["other"], ["a"], began) == {"a"}
        assert two.held(["v"], ["a", "b", "c"]).keys() == {"a", "b"}
        one.release(["v"], ["a"])
        assert two.held(["v"], ["a", "b"]).keys() == {"b"}
        # staged since: looked at anew before it is computed again
        assert two.claim(["v"], ["a"], began) == set()
        assert two.claim(["v"], ["a"], two.now()) == {"a"}
        one.close()
        assert two.held(["v"], ["b"]) == {}
        assert two.over([one.run, two.run]) == {one.run}
        two.wait(["v"], ["b"])
    gone = owner().replace('"pid": ', '"pid": 99999')
    assert Owner.of(owner()) is not None
    found = Owner.of(gone)
    assert found is not None
    assert not found.is_alive
    reused = Owner.of(owner().replace('"started": "', '"started": "1'))
    assert reused is not None
    assert not reused.is_alive


def test_nothing_is_committed_for_what_is_not_staged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever removes staged values in the last moment makes the run fail, and never makes a NULL."""
    from factory_lib.build.reuse.staged import Staged

    texts()
    original = Staged.write_into

    def robbed(self: Staged, stage: Any) -> None:
        self.warehouse.execute(f"ALTER TABLE {self.name} DROP PARTITION 's2'")
        original(self, stage)

    monkeypatch.setattr(Staged, "write_into", robbed)
    with pytest.raises(EngineError, match="a row has no value of slow"):
        DatasetQuery("texts").add_signals(slow).save("measured")
    monkeypatch.undo()
    monkeypatch.setenv("FACTORY_WORKERS", "1")
    version = DatasetQuery("texts").add_signals(slow).save("measured")
    assert counts(version) == (3 * ROWS, ROWS)
    assert staged_tables(warehouse(), version.provenance.signals[0]["fingerprint"], "slow") == []  # type: ignore[union-attr]


def lose(version: Version, condition: str, *columns: str) -> None:
    """Values vanish from a version, as they did when two runs shared what was staged."""
    types = version.columns
    empty = ", ".join(f"{c} = {'[]' if types[c].startswith('Array') else 'NULL'}" for c in columns)
    warehouse().execute(f"ALTER TABLE {version.table} MODIFY SETTING table_readonly = 0")
    warehouse().execute(f"ALTER TABLE {version.table} UPDATE {empty} WHERE {condition}", settings={"mutations_sync": 2})
    warehouse().execute(f"ALTER TABLE {version.table} MODIFY SETTING table_readonly = 1")


def test_a_value_that_was_lost_is_not_taken_over_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    texts()
    first = DatasetQuery("texts").add_signals(slow, direction).save("measured")
    right = values(first, "slow")
    lose(first, "position % 4 = 1", "slow", "direction")
    with caplog.at_level(logging.WARNING):
        second = DatasetQuery("texts").add_signals(slow, direction).save("measured")
    lost = SHARDS * ROWS // 4
    assert counts(second) == (2 * (SHARDS * ROWS - lost), 2 * lost)
    assert values(second, "slow") == right
    assert "measured.v1 has neither a value nor an error of slow in 12 rows" in caplog.text


def test_an_update_computes_what_an_older_version_lost(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    write(folder / "a.tar", grey(4))
    write(folder / "b.tar", grey(4, 50))
    DatasetQuery.from_source(str(folder)).refresh("samples")
    first = DatasetQuery("samples").add_signals(level).refresh("measured")
    lose(first, "shard = 'b' AND position = 1", "level")
    # as it was recorded when nobody looked
    uuid = {"u": first.uuid}
    record = warehouse().scalar("SELECT record FROM factory.versions WHERE uuid = {u:UUID}", uuid)
    warehouse().execute("DELETE FROM factory.versions WHERE uuid = {u:UUID}", uuid, {"lightweight_deletes_sync": 2})
    warehouse().execute(
        "INSERT INTO factory.versions SELECT {u:UUID}, 'measured', now64(3), 8, {r:String}",
        {**uuid, "r": record.replace('"checked": true', '"checked": false')},
    )
    second = DatasetQuery("samples").add_signals(level).refresh("measured")
    assert (second.number, counts(second)) == (2, (3, 1))
    assert values(second, "level") == {f"k{i:03d}": i for i in (0, 1, 2, 3, 50, 51, 52, 53)}
    assert DatasetQuery("samples").add_signals(level).refresh("measured").number == 2
