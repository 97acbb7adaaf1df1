"""Reading ahead in threads and processes gives what reading in turn gives."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

from factory_lib.errors import FileChanged, SourceError
from factory_lib.sources import ShardReport, Source, open_source, read_shards
from tests.s3 import Bucket
from tests.samples import write_tar
from tests.waiting import wait_for


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n in range(5):
        members = [(f"{k:03d}.{e}", f"{n}/{k}") for k in range(40 + n) for e in ("jpg", "txt")]
        write_tar(tmp_path / "tars" / f"{n}.tar", members)
    (tmp_path / "tars" / "5.tar").write_bytes(b"")
    return tmp_path / "tars"


def gathered(source: Source, workers: int | None) -> tuple[dict[str, list[str]], dict[str, ShardReport]]:
    """Captions of each shard in the order in which they came, and the reports."""
    found: dict[str, list[str]] = {}
    reports: dict[str, ShardReport] = {}
    for shard, batch in read_shards(source, source.shards(), workers, reports):
        assert isinstance(batch, pa.RecordBatch)
        found.setdefault(shard, []).extend(batch.column("caption").to_pylist())
    return found, reports


@pytest.mark.parametrize("workers", [None, 1, 2])
def test_all_ways_give_the_same(folder: Path, workers: int | None) -> None:
    found, reports = gathered(open_source(str(folder)), workers)
    assert found == {str(n): [f"{n}/{k}" for k in range(40 + n)] for n in range(5)}
    assert {name: report.samples for name, report in reports.items()} == {str(n): 40 + n for n in range(5)} | {"5": 0}
    assert reports["5"].counts == {"unreadable_tars": 1}


def test_several_shards_at_once_from_s3(folder: Path, s3: Bucket) -> None:
    found, reports = gathered(open_source(s3.put_folder(folder, "tars")), None)
    assert found == {str(n): [f"{n}/{k}" for k in range(40 + n)] for n in range(5)}
    assert len(reports) == 6


@pytest.mark.parametrize("workers", [None, 1, 2])
def test_errors_come_through(folder: Path, workers: int | None) -> None:
    source = open_source(str(folder))
    shards = source.shards()
    write_tar(folder / "3.tar", [("1.jpg", b"x")])
    with pytest.raises(FileChanged, match=r"3.tar was overwritten"):
        list(read_shards(source, shards, workers))
    with pytest.raises(SourceError, match="workers is 0"):
        read_shards(source, shards, 0)


def test_who_stops_early_leaves_no_thread_behind(folder: Path) -> None:
    source = open_source(str(folder))
    before = threading.active_count()
    rows = read_shards(source, source.shards() * 20)
    next(rows)
    assert threading.active_count() == before + 1
    rows.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


KILLED = """
import os, signal, sys
from factory_lib.sources import open_source, read_shards

if __name__ == "__main__":
    source = open_source(sys.argv[1])
    next(read_shards(source, source.shards(), 2))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_who_is_killed_leaves_no_process_behind(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    reader = subprocess.Popen([sys.executable, str(script), str(folder)], start_new_session=True)
    assert reader.wait(60) == -signal.SIGKILL

    def left() -> list[str]:
        listed = subprocess.run(["ps", "-axo", "pgid=,args="], capture_output=True, text=True, check=True).stdout
        rows = (line.split(None, 1) for line in listed.splitlines())
        return [row[1] for row in rows if int(row[0]) == reader.pid]

    wait_for(lambda: not left(), why=lambda: f"left: {left()}")
