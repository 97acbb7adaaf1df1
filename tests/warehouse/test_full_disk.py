"""A disk that fills up: an error within seconds that says where and how much, and an engine that reads and sweeps."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bench.disks import NoDisks, memory_disk
from factory_lib import C, DatasetQuery
from factory_lib.errors import DiskFull
from factory_lib.warehouse import mutations
from factory_lib.warehouse.client import Warehouse, warehouse
from factory_lib.warehouse.embedded import engine_status, stop_engine
from factory_lib.warehouse.space import KEPT_FREE, RESERVE

MIB = 1 << 20
ROWS = 300_000  # some 5 MiB a version


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


def free(home: Path) -> int:
    return os.statvfs(home).f_bavail * os.statvfs(home).f_frsize


def leave_free(home: Path, size: int) -> None:
    """Have others fill the disk, or make room, so that this many bytes are left."""
    others = home.parent / "others"
    others.touch()
    wanted = others.stat().st_size + free(home) - size
    os.truncate(others, min(wanted, others.stat().st_size))
    with open(others, "ab") as file:
        while (missing := wanted - others.stat().st_size) > 0:
            file.write(b"x" * min(missing, MIB))
            file.flush()


def rows(seed: int = 0) -> pa.Table:
    draw = np.random.default_rng(seed)
    return pa.table({"part": ["a"] * ROWS, "x": draw.integers(0, 100, ROWS), "v": draw.random(ROWS)})


WRITES: dict[str, Callable[[], object]] = {
    "mask": lambda: DatasetQuery("d").filter(C.x > 10).save("e"),
    "column": lambda: DatasetQuery("d").mutate(y=C.v * 2).save("e"),
    "fewer columns": lambda: DatasetQuery("d").select("x").save("e"),
    "copy": lambda: DatasetQuery("d").order_by(C.v).save("e"),
    "rows": lambda: DatasetQuery.from_arrow(rows(1), shard="part").save("e"),
}


def refusal(write: Callable[[], object]) -> str:
    try:
        write()
    except DiskFull as error:
        return error.message
    return ""


def test_each_way_to_write_says_what_is_missing(small_disk: Path) -> None:
    DatasetQuery.from_arrow(rows(), shard="part").save("d")
    for left in (0, 20 * MIB, KEPT_FREE + MIB):
        leave_free(small_disk, left)
        refused = set()
        for name, write in WRITES.items():
            if message := refusal(write):
                where = (
                    rf"The disk at {small_disk.parent} is full: ([\d.]+) MiB of 128.0 MiB are free, and {small_disk}"
                )
                found = re.match(rf"{where} needs ([\d.]+) MiB more", message)
                assert found, message
                assert float(found[1]) + float(found[2]) >= 31.9
                refused.add(name)
        # What begins with a little more than what is kept free, and what then runs out of it.
        assert refused >= ({"rows"} if left > KEPT_FREE else WRITES.keys())
        assert DatasetQuery("d").count() == ROWS
    # Nothing is left of what was refused: there is room again, and what is saved is whole.
    leave_free(small_disk, 64 * MIB)
    for write in WRITES.values():
        write()
    assert DatasetQuery("e").count() == ROWS


def test_what_waits_for_room_is_ended(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutations, "LOOK_SECONDS", 0.2)
    DatasetQuery.from_arrow(pa.concat_tables([rows(i) for i in range(5)]), shard="part").save("d")
    leave_free(small_disk, KEPT_FREE + 2 * MIB)  # the engine begins to write, and has no room for the part once more
    message = refusal(lambda: DatasetQuery("d").mutate(y=C.v * 2).save("e"))
    missing = re.match(rf"The disk at {small_disk.parent} is full: .* needs ([\d.]+) MiB more", message)
    assert missing, message
    assert float(missing[1]) > 30  # for the part, not for what is kept free
    pending = "SELECT count() FROM system.mutations WHERE NOT is_done"
    assert warehouse().scalar(pending) == 0
    assert DatasetQuery("d").count() == 5 * ROWS


def test_the_engine_starts_on_a_full_disk_reads_and_sweeps(small_disk: Path) -> None:
    for seed in range(3):
        DatasetQuery.from_arrow(rows(seed), shard="part").save("d")
    wh = warehouse()
    killed = (
        "import os; from factory_lib.warehouse.staging import *; from factory_lib.warehouse.client import warehouse;"
    )
    killed += "clone(warehouse(), 'd', 'd.v1'); os._exit(1)"
    subprocess.run([sys.executable, "-c", killed], check=False)
    stop_engine(small_disk)
    # So a full disk leaves definitions, and the engine would not start over them.
    (definition,) = (small_disk / "data" / "store").glob("*/*/v1.sql")
    cut = [definition.with_name("_stage_0.sql"), definition.with_name("_stage_1.sql")]
    cut[0].touch()
    cut[1].write_bytes(definition.read_bytes()[:100])
    leave_free(small_disk, 0)
    assert (small_disk / RESERVE).exists()
    assert wh.query("SELECT v FROM d.v3 ORDER BY position")["v"].equals(rows(2)["v"])
    assert engine_status(small_disk) is not None
    assert all(path.with_name(f"{path.name}.bak").exists() and not path.exists() for path in cut)
    command = [sys.executable, "-m", "factory_lib.cli", "gc", "--keep-last", "1", "--keep-days", "0", "--yes"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Deleted 3 tables" in done.stderr
    assert wh.scalar("SELECT arraySort(groupArray(name)) FROM system.tables WHERE database = 'd'") == ["v3"]
    assert wh.query("SELECT v FROM d.v3 ORDER BY position")["v"].equals(rows(2)["v"])
    assert free(small_disk) > 5 * MIB


def test_a_disk_that_is_not_full_is_not_said_to_be(small_disk: Path) -> None:
    Warehouse(home=small_disk).check_space(64 * MIB)
    with pytest.raises(DiskFull, match=r"needs [\d.]+ MiB more"):
        Warehouse(home=small_disk).check_space(1 << 30)
