"""A disk that fills up: an error within seconds that says where and how much, and an engine that reads and sweeps."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bench.disks import NoDisks, memory_disk
from factory_lib import C, DatasetQuery
from factory_lib.errors import DiskFull
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.embedded import engine_status, stop_engine
from factory_lib.warehouse.policy import KeepPolicy, drop_versions, expired
from factory_lib.warehouse.retention import find_sweepable, sweep

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder on a disk of 128 MiB, the one of the settings."""
    try:
        with memory_disk(tmp_path / "disk", 128) as disk:
            home = disk / "home"
            monkeypatch.setenv("FACTORY_HOME", str(home))
            monkeypatch.delenv("FACTORY_CLICKHOUSE_URL", raising=False)
            yield home
            warehouse().close()
            stop_engine(home)
    except NoDisks as error:
        pytest.skip(str(error))


def fill(home: Path, free: int) -> None:
    """Have others fill the disk, so that this many bytes are left."""
    left = os.statvfs(home).f_bavail * os.statvfs(home).f_frsize - free
    with open(home.parent / f"others-{free}", "wb") as file:
        while left > 0:
            left -= file.write(bytes(min(left, MIB)))


def rows(count: int) -> pa.Table:
    draw = np.random.default_rng(count)
    return pa.table({"part": ["a"] * count, "x": draw.integers(0, 100, count), "v": draw.random(count)})


def test_each_way_to_write_says_what_is_missing_and_what_is_there_stays(small_disk: Path) -> None:
    DatasetQuery.from_arrow(rows(500_000), shard="part").save("d")
    DatasetQuery("d").filter(C.x > 50).save("d")
    expected = DatasetQuery("d").count()
    writes = {
        "mask": lambda: DatasetQuery("d").filter(C.x > 10).save("e"),
        "column": lambda: DatasetQuery("d").mutate(y=C.v * 2).save("e"),
        "copy": lambda: DatasetQuery("d").order_by(C.v).save("e"),
        "rows": lambda: DatasetQuery.from_arrow(rows(500_000), shard="part").save("e"),
    }
    for free in (40 * MIB, 20 * MIB, 0):
        fill(small_disk, free)
        for write in writes.values() if free < 32 * MIB else [writes["mask"]]:
            began = time.monotonic()
            if free < 32 * MIB:
                with pytest.raises(DiskFull, match=rf"The disk at {small_disk.parent} is full: .* MiB more"):
                    write()
            assert time.monotonic() - began < 60, "it does not wait for room"
        assert DatasetQuery("d").count() == expected
    stop_engine(small_disk)
    assert DatasetQuery("d").count() == expected, "the engine starts on a full disk"
    assert engine_status(small_disk) is not None
    wh = warehouse()
    drop_versions(wh, expired(wh, KeepPolicy(1, 0.0)))
    sweep(wh, find_sweepable(wh))
    assert DatasetQuery("d").count() == expected
    assert wh.scalar("SELECT count() FROM system.tables WHERE database = 'd' AND startsWith(name, 'v')") == 1
    for path in small_disk.parent.glob("others-*"):
        path.unlink()
    assert DatasetQuery("d").filter(C.x > 60).save("e").rows == DatasetQuery("d").filter(C.x > 60).count()
