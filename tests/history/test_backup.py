"""A backup of a data folder that is in use holds what was there at one moment, and restores into a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

from factory_lib import C, DatasetQuery
from factory_lib.cli import factory
from factory_lib.history.backups import backup
from factory_lib.warehouse.client import Warehouse, warehouse
from factory_lib.warehouse.embedded import stop_engine
from factory_lib.warehouse.policy import KeepPolicy, drop_versions, expired
from factory_lib.warehouse.snapshot import Placing
from factory_lib.warehouse.tags import set_tag
from factory_lib.warehouse.versions import latest

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder to which nothing of the data folder can be linked."""
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    folder = Path(tempfile.mkdtemp(dir=shm))
    yield folder
    shutil.rmtree(folder)


def run(home: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    done = CliRunner().invoke(factory, [*arguments, "--json"], env={"FACTORY_HOME": str(home)})
    return done.exit_code, json.loads(done.stdout or "{}"), done.stderr


def save(number: int, mode: str = "overwrite_shards") -> None:
    table = pa.table({"part": [f"s{number % 3}"] * 5, "n": [number] * 5})
    DatasetQuery.from_arrow(table, shard="part").save("laion", mode=mode)


def test_a_backup_taken_while_others_commit_and_drop_is_one_moment(factory_home: Path, tmp_path: Path) -> None:
    save(0)
    DatasetQuery("laion").save("one")
    done = threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        number = 1
        try:
            while not done.is_set():
                save(number)
                DatasetQuery("laion").filter(C.n == number).save("one")
                drop_versions(warehouse(), expired(warehouse(), KeepPolicy(days=0)), KeepPolicy(days=0))
                number += 1
        except BaseException as error:
            failed.append(error)

    (factory_home / "dagster").mkdir(exist_ok=True)
    with sqlite3.connect(factory_home / "dagster" / "runs.db") as database:
        database.execute("CREATE TABLE IF NOT EXISTS runs AS SELECT 7 AS id")
    database.close()
    worker = threading.Thread(target=work)
    worker.start()
    try:
        made = [backup(warehouse(), tmp_path / "backups", check=number == 1) for number in range(2)]
    finally:
        done.set()
        worker.join()
    assert failed == []
    assert made[1].findings == []
    for one in made:
        home = tmp_path / f"of-{one.folder.name}"
        code, found, _ = run(home, "restore", str(one.folder))
        try:
            assert (code, found["findings"]) == (0, [])
            there = Warehouse(home=home)
            assert latest(there, "laion") is not None
            # laion is written first: `one` holds what it held, or what it held one commit ago
            newest = there.scalar(f"SELECT max(n) FROM laion.v{_number(there, 'laion')}")
            assert there.scalar(f"SELECT max(n) FROM one.v{_number(there, 'one')}") in (newest, newest - 1)
        finally:
            stop_engine(home)
        with sqlite3.connect(home / "dagster" / "runs.db") as restored:
            assert restored.execute("SELECT id FROM runs").fetchall() == [(7,)]
        restored.close()


def _number(there: Warehouse, dataset: str) -> int:
    found = latest(there, dataset)
    assert found is not None
    return found.number


def test_a_restored_folder_is_its_own(factory_home: Path, tmp_path: Path) -> None:
    save(0)
    save(1)
    uuid = warehouse().scalar("SELECT toString(uuid) FROM system.tables WHERE database = 'laion' AND name = 'v1'")
    set_tag(warehouse(), "laion", "laion.v1", uuid, "icml")
    code, made, _ = run(factory_home, "backup", str(tmp_path / "backups"))
    assert (code, made["versions"], made["copied_bytes"]) == (0, 2, 0)
    save(2)
    home = tmp_path / "restored"
    home.mkdir()
    assert run(home, "restore", str(tmp_path / "backups"))[0] == 0
    try:
        code, _, text = run(home, "restore", str(tmp_path / "backups"))
        assert (code, "holds something" in text) == (1, True)
        assert run(home, "ls")[1] != run(factory_home, "ls")[1]
        other = Warehouse(home=home)
        other.execute("DROP DATABASE laion SYNC")
        assert other.scalar("SELECT count() FROM factory.tags") == 1
        assert DatasetQuery("laion@icml").count() == 5
        assert DatasetQuery("laion").count() == 15
        assert run(factory_home, "verify")[:2][1]["findings"] == []
    finally:
        stop_engine(home)


def test_elsewhere_only_what_is_new_is_copied_and_what_is_shared_once(other_disk: Path) -> None:
    save(0)
    save(1)
    first = backup(warehouse(), other_disk, check=False)
    save(2)
    second = backup(warehouse(), other_disk, check=False)
    assert 0 < second.copied_bytes < first.copied_bytes
    data = {p.stat().st_ino: p for p in (second.folder / "data").rglob("n.bin")}
    assert len(data) == 3  # three shards, in three versions
    part = next(iter(data.values()))
    part.chmod(0o600)
    damaged = bytearray(part.read_bytes())
    damaged[-1] ^= 1
    part.write_bytes(damaged)
    home = other_disk / "restored"
    code, found, _ = run(home, "restore", str(second.folder))
    stop_engine(home)
    assert code == 1
    assert {one["version"] for one in found["findings"]} == {"laion.v3"}


def test_what_is_wrong_is_said(factory_home: Path, tmp_path: Path) -> None:
    assert "lie in one another" in run(factory_home, "backup", str(factory_home / "backups"))[2]
    assert "lie in one another" in run(factory_home, "backup", str(factory_home.parent))[2]
    assert "holds no backup" in run(tmp_path / "home", "restore", str(tmp_path))[2]
    file = tmp_path / "a"
    file.write_text("1")
    Placing().file(file, tmp_path / "b")
    assert os.path.samefile(file, tmp_path / "b")
