"""The embedded engine as a process: found, started once, restarted, stopped."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from factory_lib.errors import EngineError
from factory_lib.owners import Owner, folder_identity
from factory_lib.warehouse import embedded
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.embedded import engine_status, engine_url, stop_engine
from factory_lib.warehouse.space import RESERVE
from tests.waiting import wait_for

ASK = """
import sys
from pathlib import Path
from factory_lib.warehouse.embedded import engine_url
print(engine_url(Path(sys.argv[1])), "chdb" in sys.modules)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "home"
    yield folder
    stop_engine(folder)


def pid_of(home: Path) -> int:
    found = engine_status(home)
    assert found is not None
    return int(found["pid"])


def test_eight_processes_at_once_get_one_engine(home: Path) -> None:
    command = [sys.executable, "-c", ASK, str(home)]
    asking = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(8)]
    answers = [process.communicate() for process in asking]
    assert [errors for _, errors in answers] == [""] * 8
    urls = {answer.split()[0] for answer, _ in answers}
    assert len(urls) == 1
    assert {answer.split()[1] for answer, _ in answers} == {"False"}, "chDB belongs into the engine's process only"
    assert urls == {engine_url(home)}
    assert (home / embedded.LOG).read_text().count("ready on 127.0.0.1") == 1
    # nobody's child, and not of this terminal's session
    pid = pid_of(home)
    assert os.getsid(pid) not in (os.getsid(0), 0)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [home, *home.iterdir()]}
    assert modes == {
        "home": 0o700,
        "data": 0o700,
        embedded.STATE: 0o600,
        embedded.LOCK: 0o600,
        embedded.STARTING: 0o600,
        embedded.LOG: 0o600,
        RESERVE: 0o600,
    }
    state = json.loads((home / embedded.STATE).read_text())
    assert len(state["token"]) >= 32
    assert state["token"] not in (home / embedded.LOG).read_text()
    assert state["token"] not in Path(f"/proc/{pid}/cmdline").read_text()

    assert stop_engine(home)
    assert engine_status(home) is None
    assert not (home / embedded.STATE).exists()
    assert not stop_engine(home)


def test_killed_engine_comes_back_with_its_tables(home: Path) -> None:
    warehouse = Warehouse(home=home)
    warehouse.execute("CREATE DATABASE d")
    warehouse.execute("CREATE TABLE d.t (a UInt64) ENGINE = MergeTree ORDER BY a")
    warehouse.execute("INSERT INTO d.t SELECT number FROM numbers(1000)")
    first = pid_of(home)

    os.kill(first, signal.SIGKILL)
    assert warehouse.scalar("SELECT sum(a) FROM d.t") == 499500, "a read goes on with a new engine"
    second = pid_of(home)
    assert second != first

    os.kill(second, signal.SIGKILL)
    wait_for(lambda: engine_status(home) is None)
    warehouse.execute("INSERT INTO d.t SELECT 1000")  # it cannot have been received, so it is sent again
    assert warehouse.scalar("SELECT count() FROM d.t") == 1001


def test_statement_cut_off_by_the_engines_death_is_not_repeated(home: Path) -> None:
    warehouse = Warehouse(home=home)
    warehouse.execute("CREATE TABLE default.t (a UInt64) ENGINE = MergeTree ORDER BY a")
    started = threading.Event()

    def kill() -> None:
        started.wait()
        other = Warehouse(home=home)
        wait_for(lambda: other.scalar("SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO default.t%'"))
        os.kill(pid_of(home), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    started.set()
    with pytest.raises(EngineError, match="may or may not have been applied: INSERT INTO default.t SELECT") as caught:
        warehouse.execute(
            "INSERT INTO default.t SELECT number + sleep(0.1) FROM numbers(100) SETTINGS max_block_size = 1"
        )
    killer.join()
    assert caught.value.code == 0
    assert warehouse.scalar("SELECT count() FROM default.t") == 0


def test_stops_when_idle_and_not_before(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_ENGINE_IDLE_SECONDS", "0.5")
    warehouse = Warehouse(home=home)
    warehouse.execute("CREATE TABLE default.t (a UInt8) ENGINE = MergeTree ORDER BY a")
    first = pid_of(home)
    # busy for longer than the limit
    assert (
        warehouse.scalar("SELECT count() FROM (SELECT sleep(0.1) FROM numbers(12)) SETTINGS max_block_size = 1") == 12
    )
    assert pid_of(home) == first
    wait_for(lambda: not embedded.is_held(home))
    assert not (home / embedded.STATE).exists()
    assert "idle" in (home / embedded.LOG).read_text()
    assert warehouse.scalar("SELECT count() FROM default.t") == 0
    assert pid_of(home) != first


def test_stop_ends_a_running_query(home: Path) -> None:
    warehouse = Warehouse(home=home)
    reader = warehouse.stream("SELECT number FROM system.numbers")
    reader.read_next_batch()
    assert stop_engine(home)
    with pytest.raises(EngineError, match="broke off"):
        reader.read_all()


def test_strangers_state_is_not_believed(home: Path) -> None:
    home.mkdir()
    # a process that lives, a port where nobody answers as our engine
    state = {"owner": Owner.here().as_dict(), "folder": folder_identity(home), "port": 1, "token": "x", "instance": "y"}
    (home / embedded.STATE).write_text(json.dumps(state))
    assert engine_status(home) is None
    url = engine_url(home)
    assert pid_of(home) != os.getpid()
    # an engine of another folder behind the port
    real = json.loads((home / embedded.STATE).read_text())
    (home / embedded.STATE).write_text(json.dumps({**real, "instance": "other"}))
    assert engine_status(home) is None
    (home / embedded.STATE).write_text(json.dumps(real))
    assert engine_url(home) == url


def test_errors_say_why_it_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match=r"cannot be used.*FACTORY_HOME"):
        engine_url(tmp_path / "file" / "home")
    with pytest.raises(EngineError, match=r"misreads \* \? in a path"):
        engine_url(tmp_path / "what?*")

    taken = tmp_path / "taken"
    taken.mkdir()
    hold = "from chdb import _chdb; c = _chdb.connect('data'); print('held', flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", hold], cwd=taken, **pipes) as holder:  # type: ignore[call-overload]
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(EngineError, match=r"did not start:(.|\n)*Cannot lock file(.|\n)*engine\.log"):
            engine_url(taken)
        holder.kill()
    assert engine_status(taken) is None


def test_engine_of_another_host_on_the_same_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second container that shares the folder sees the lock but cannot reach the port."""
    engine_url(home)
    state = home / embedded.STATE
    real = state.read_text()
    found = json.loads(real)
    monkeypatch.setattr(embedded, "STOP_SECONDS", 0.1)
    state.write_text(json.dumps({**found, "port": 1, "owner": {**found["owner"], "host": "elsewhere"}}))
    with pytest.raises(EngineError, match=r"held by an engine that does not answer here \(process \d+ on elsewhere\)"):
        engine_url(home)
    state.write_text(real)


def test_stop_does_not_wait_for_a_long_write(home: Path) -> None:
    warehouse = Warehouse(home=home)
    warehouse.execute("CREATE TABLE default.t (a UInt64) ENGINE = MergeTree ORDER BY a")
    sql = "INSERT INTO default.t SELECT number + sleep(1) FROM numbers(60) SETTINGS max_block_size = 1"
    failures: list[EngineError] = []

    def write() -> None:
        try:
            warehouse.execute(sql)
        except EngineError as error:
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    other = Warehouse(home=home)
    wait_for(lambda: other.scalar("SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO default.t%'"))
    before = time.monotonic()
    assert stop_engine(home)
    assert time.monotonic() - before < embedded.STOP_SECONDS, "it left by itself, not by SIGKILL"
    writer.join()
    assert "may or may not have been applied" in str(failures[0])
    assert Warehouse(home=home).scalar("SELECT count() FROM default.t") == 0


def test_read_goes_on_when_the_engine_dies_in_the_middle(home: Path) -> None:
    warehouse = Warehouse(home=home)
    warehouse.scalar("SELECT 1")
    pid = pid_of(home)

    def kill() -> None:
        other = Warehouse(home=home)
        wait_for(
            lambda: other.scalar("SELECT count() FROM system.processes WHERE query LIKE '%slowly%' AND read_rows > 3")
        )
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    sql = "SELECT number, repeat('x', 1000000) AS slowly, sleep(0.1) FROM numbers(15) SETTINGS max_block_size = 1"
    assert warehouse.query(sql).num_rows == 15
    killer.join()
    assert pid_of(home) != pid


def test_engine_may_open_many_files(home: Path) -> None:
    """A usual soft limit is 1024; the engine takes what it can get."""
    code = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]));"
    subprocess.run([sys.executable, "-c", code + ASK, str(home)], check=True, capture_output=True)
    line = next(line for line in Path(f"/proc/{pid_of(home)}/limits").read_text().splitlines() if "open files" in line)
    assert line.split()[3] == line.split()[4]


def test_a_copy_of_a_running_folder_has_an_engine_of_its_own(home: Path, tmp_path: Path) -> None:
    original = Warehouse(home=home)
    original.execute("CREATE TABLE default.t (a UInt8) ENGINE = MergeTree ORDER BY a")
    copy, moved = tmp_path / "copy", tmp_path / "moved"
    subprocess.run(["cp", "-a", str(home), str(copy)], check=True)
    assert engine_status(copy) is None
    assert not stop_engine(copy), "what runs is the original's"
    assert pid_of(home)
    try:
        other = Warehouse(home=copy)
        other.execute("DROP TABLE IF EXISTS default.t SYNC")
        assert pid_of(copy) != pid_of(home)
        assert original.scalar("SELECT count() FROM system.tables WHERE name = 't'") == 1
        # A copy in the original's place: who was connected to the original goes on with the copy.
        home.rename(moved)
        stop_engine(copy)
        copy.rename(home)
        assert original.scalar("SELECT count() FROM system.tables WHERE name = 't'") == 0
        assert Warehouse(home=moved).scalar("SELECT count() FROM system.tables WHERE name = 't'") == 1
    finally:
        for folder in (copy, moved):
            stop_engine(folder)


def test_a_state_of_another_boot_is_not_believed(home: Path) -> None:
    engine_url(home)
    state = home / embedded.STATE
    real = state.read_text()
    found = json.loads(real)
    state.write_text(json.dumps({**found, "owner": {**found["owner"], "boot": "another"}}))
    assert engine_status(home) is None
    state.write_text(real)
    assert engine_status(home) is not None


def test_an_engine_whose_log_is_gone_is_still_an_error_of_ours(tmp_path: Path) -> None:
    """As where a data folder is removed while something asks for its engine."""
    assert embedded._tail(tmp_path / "engine.log", 0) == "(its log is gone)"


def test_an_engine_that_leaves_is_awaited_not_complained_about(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It removes its state, and a moment later lets go of its lock."""
    home.mkdir()
    with open(home / embedded.LOCK, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        threading.Timer(0.3, fcntl.flock, (held, fcntl.LOCK_UN)).start()
        assert stop_engine(home)
        fcntl.flock(held, fcntl.LOCK_EX)
        monkeypatch.setattr(embedded, "STOP_SECONDS", 0.1)
        with pytest.raises(EngineError, match="does not say which process it is"):
            stop_engine(home)
    assert not stop_engine(home)
