"""The command line as a process: pipes, interrupts, kills, and what it shows of secrets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from factory_lib.cli import factory
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.embedded import engine_status, stop_engine
from tests.command_line import COMMAND, data, photos, run
from tests.waiting import wait_for

__all__ = ["photos"]


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )


@pytest.mark.usefixtures("photos")
def test_piped_output_is_not_cut_and_has_no_colours() -> None:
    long = "x" * 300
    done = process("sql", f"SELECT '{long}' AS a, '{long}' AS b, 'ä' AS c", COLUMNS="40", FORCE_COLOR="")
    assert done.returncode == 0
    assert done.stdout.count(long) == 2
    assert max(map(len, done.stdout.splitlines())) > 600
    assert "\x1b" not in done.stdout
    ascii_only = process("sql", "SELECT 'ä'", PYTHONIOENCODING="ascii")
    assert ascii_only.returncode == 0  # a terminal that cannot show it is no reason to fail


@pytest.mark.usefixtures("photos")
def test_a_reader_that_leaves_ends_the_command_and_its_query() -> None:
    command = " ".join([*COMMAND, "sql", "'SELECT number AS n FROM numbers(4000000000)'", "--format", "csv"])
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -n 3; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ['"n"', "0", "1", "141"]
    assert done.stderr == ""
    deadline = time.monotonic() + 30
    running = "SELECT count() FROM system.processes WHERE query LIKE '%numbers(40000000%' AND query NOT LIKE '%system.processes%'"
    while warehouse().scalar(running) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert warehouse().scalar(running) == 0


@pytest.mark.usefixtures("photos")
def test_interrupting_a_command() -> None:
    running = subprocess.Popen(
        [*COMMAND, "sql", "SELECT sleepEachRow(1) FROM numbers(60)", "--setting", "function_sleep_max_microseconds_per_block=0",
         "--setting", "max_block_size=1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    asked = (
        "SELECT count() FROM system.processes WHERE query LIKE '%sleepEachRow%' AND query NOT LIKE '%system.processes%'"
    )
    while not warehouse().scalar(asked):
        assert running.poll() is None
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130
    assert errors.strip() == "Interrupted."


@pytest.mark.usefixtures("engine")
def test_an_ingest_that_is_killed_leaves_nothing_that_gc_does_not_sweep(tmp_path: Path) -> None:
    from factory_assets.demo.rendered.folder import write_folder

    folder = write_folder(tmp_path / "shards", samples=40, shards=4)
    staged = "SELECT count() FROM system.tables WHERE name LIKE '\\\\_stage\\\\_%'"
    for _ in range(20):
        running = subprocess.Popen([*COMMAND, "ingest", str(folder.path), "--name", "laion"], stdout=subprocess.DEVNULL)
        while running.poll() is None and not warehouse().scalar(staged):
            time.sleep(0.005)
        running.kill()
        running.wait()
        if warehouse().scalar(staged):
            break
    left = data("gc")["leftovers"]
    assert left
    assert all("is gone" in one["reason"] for one in left)
    assert data("gc", "--yes")["deleted"] is True
    assert warehouse().scalar(staged) == 0
    made = data("ingest", str(folder.path), "--name", "laion")
    assert made["shards"] == 4


@pytest.mark.usefixtures("engine")
def test_an_ingest_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    from factory_assets.demo.rendered.folder import write_folder

    folder = write_folder(tmp_path / "shards", samples=40, shards=4)
    staged = "SELECT count() FROM system.tables WHERE name LIKE '\\\\_stage\\\\_%'"
    for _ in range(20):
        running = subprocess.Popen(
            [*COMMAND, "ingest", str(folder.path), "--name", "laion"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while running.poll() is None and not warehouse().scalar(staged):
            time.sleep(0.005)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=30)
        if running.returncode == 130:
            break
    assert (running.returncode, errors) == (130, "Interrupted.\n")
    assert warehouse().scalar(staged) == 0
    assert data("gc")["leftovers"] == []


@pytest.mark.usefixtures("engine")
def test_a_file_that_is_interrupted_is_not_there(tmp_path: Path) -> None:
    query = "SELECT number FROM numbers(4000000000)"
    running = subprocess.Popen(
        [*COMMAND, "sql", query, "-o", str(tmp_path / "rows.csv")], stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: list(tmp_path.iterdir()), 60, lambda: "no file was begun")
    assert running.poll() is None
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert (running.returncode, errors) == (130, "Interrupted.\n")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_while_things_are_imported_is_a_word() -> None:
    code = """
import sys
class Interrupts:
    def find_spec(self, name, *_):
        if name == "click":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupts())
from factory_lib.entry import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


def test_status_and_down_start_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("FACTORY_HOME", str(home))
    status = data("status")
    assert (status["engine"], status["ui"], status["datasets"]) == (None, None, None)
    assert "Nothing runs" in run("down").stdout
    assert not home.exists()
    warehouse().scalar("SELECT 1")
    try:
        assert data("status")["engine"]["pid"] == (engine_status(home) or {})["pid"]
        assert data("status")["datasets"] == {"datasets": 0, "versions": 0}
        assert data("down") == {"stopped": ["engine"]}
        assert engine_status(home) is None
    finally:
        stop_engine(home)


def test_a_token_is_never_shown(factory_home: Path, engine: None) -> None:
    warehouse().scalar("SELECT 1")
    token = json.loads((factory_home / "engine.json").read_text())["token"]
    for arguments in (["status", "--json"], ["status"], ["sql", "SELECT * FROM nowhere.v1"], ["ls", "--json"]):
        result = CliRunner().invoke(factory, arguments)
        assert token not in result.stdout + result.stderr


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_CLICKHOUSE_URL", "http://user:s3cret@127.0.0.1:9/")
    result = run("ls", code=1)
    assert "127.0.0.1:9" in result.stderr
    assert "s3cret" not in result.stderr
    monkeypatch.setenv("FACTORY_CLICKHOUSE_URL", "nonsense")
    assert "FACTORY_CLICKHOUSE_URL" in run("ls", code=1).stderr
    assert threading.active_count() < 50
