"""What signals may cost others: processes that die, calls that never return, parents that are gone, memory."""

from __future__ import annotations

import os
import re
import signal as system_signals
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from factory_lib.errors import SignalError
from factory_lib.signals import Signal, compute, dispatch, engine, pool, reading, signal
from tests.test_signals_engine import packed, table

ENDLESS = "a" * 40 + "!"


@pytest.fixture(autouse=True)
def _by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SMALL_ROWS", 0)
    monkeypatch.setattr(engine, "TASK_ROWS", 32)


@pytest.fixture(scope="module", autouse=True)
def _no_workers_left() -> Iterator[None]:
    yield
    pool.stop_workers()


def dying(folder: Path, deaths: dict[str, int], *, batch: int = 0) -> Signal:
    """A signal whose process dies at some samples, so many times."""

    def one(key: str) -> str:
        for death in range(deaths.get(key, 0)):
            try:
                (folder / f"{key}-{death}").touch(exist_ok=False)
            except FileExistsError:
                continue
            os.kill(os.getpid(), system_signals.SIGKILL)
        return key

    if batch:
        return signal(lambda image, key: [one(k) for k in key], name="dies", output=str, batch=batch,
                      inputs={"image": bytes, "key": str})  # fmt: skip
    return signal(lambda image, key: one(key), name="dies", output=str, inputs={"image": bytes, "key": str})


@pytest.mark.parametrize(("ordered", "batch"), [(True, 0), (False, 4)])
def test_only_what_kills_its_process_alone_is_blamed(tmp_path: Path, ordered: bool, batch: int) -> None:
    """Samples whose process died once, or twice, have a value: only those that killed it alone again have none."""
    rows = packed(tmp_path / "a", [b"x"] * 60)
    deaths = {"key0007": 9, "key0040": 2}
    batches = list(compute([dying(tmp_path, deaths, batch=batch)], [rows], workers=2, ordered=ordered))
    if ordered:
        assert pa.Table.from_batches(batches)["position"].to_pylist() == list(range(60))
    found = table(iter(batches))
    assert found["position"].to_pylist() == list(range(60))
    lost = [number for number, value in enumerate(found["dies"].to_pylist()) if value is None]
    assert lost == [7]
    assert [number for number, error in enumerate(found["dies_error"].to_pylist()) if error is not None] == lost


def test_a_signal_that_kills_at_every_sample_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "MAX_IN_A_ROW", 2)
    rows = packed(tmp_path / "a", [b"x"] * 64)
    every = signal(lambda image: os._exit(7), name="every", output=int, inputs={"image": bytes})
    with pytest.raises(SignalError, match="ended with status 7|ends at every sample"):
        table(compute([every], [rows], workers=2))


def test_a_call_that_never_returns_is_ended_and_its_sample_named(tmp_path: Path) -> None:
    """Asleep, busy in Python, and busy in C without letting go of the interpreter; alone and in a batch."""

    def hang(key: str) -> int:
        if key == "key0005":
            time.sleep(1000)
        while key == "key0023":
            pass
        if key == "key0061":
            re.match(r"(a+)+$", ENDLESS)
        return int(key[3:])

    rows = packed(tmp_path / "a", [b"x"] * 64)
    one = signal(lambda image, key: hang(key), name="one", output=int, timeout=0.5,
                 inputs={"image": bytes, "key": str})  # fmt: skip
    found = table(compute([one], [rows], workers=2))
    assert [n for n, value in enumerate(found["one"].to_pylist()) if value != n] == [5, 23, 61]
    assert found["one_error"][23].as_py() == "SignalTimeout: one had not returned after 0.5 s"
    few = signal(lambda image, key: [hang(k) for k in key], name="few", output=int, timeout=0.5, batch=8,
                 inputs={"image": bytes, "key": str})  # fmt: skip
    found = table(compute([few], [rows.slice(0, 32)], workers=2))
    assert [n for n, value in enumerate(found["few"].to_pylist()) if value != n] == [5, 23]


def test_a_call_that_never_returns_in_this_process_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(key: str) -> str:
        if key == "key0001":
            time.sleep(1000)
        try:
            while key == "key0002":
                pass
        except Exception:
            return "caught"
        return key

    before = system_signals.getsignal(system_signals.SIGVTALRM)
    monkeypatch.setenv("FACTORY_SIGNAL_TIMEOUT", "0.3")
    rows = packed(tmp_path / "a", [b"x"] * 4)
    found = table(compute([signal(hang, name="hang")], [rows], workers=1))
    assert found["hang"].to_pylist() == ["key0000", None, None, "key0003"]
    assert found["hang_error"][1].as_py() == "SignalTimeout: hang had not returned after 0.3 s"
    assert system_signals.getsignal(system_signals.SIGVTALRM) == before


def test_a_setup_that_never_returns_ends_the_run(tmp_path: Path) -> None:
    class Waiting:
        def setup(self) -> None:
            time.sleep(1000)

        def __call__(self, caption: str) -> int:
            return 1

    rows = packed(tmp_path / "a", [b"x"] * 20)
    with pytest.raises(SignalError, match=r"'waiting': setup\(\) had not returned after 1 s"):
        table(compute([signal(Waiting, name="waiting", timeout=0.1)], [rows], workers=2))


def test_a_timeout_is_a_number_of_seconds() -> None:
    with pytest.raises(SignalError, match="timeout=-1"):
        signal(lambda caption: 1, name="one", output=int, timeout=-1)
    declared = signal(lambda caption: 1, name="one", output=int, timeout=5)
    assert declared.components == signal(lambda caption: 1, name="one", output=int).components


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    """Also while they compute, and while another process holds the parent's end of their sockets open."""
    script = textwrap.dedent(
        f"""
        import os, sys, time
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from pathlib import Path
        from factory_lib.signals import compute, engine, signal
        from tests.test_signals_engine import packed
        engine.SMALL_ROWS = 0

        @signal
        def slow(image: bytes, key: str) -> int:
            Path({str(tmp_path)!r}, str(os.getpid())).touch()
            if key != "key0000":
                time.sleep(600)
            return 1

        rows = packed(Path({str(tmp_path / "packed")!r}), [b"x"] * 200)
        running = compute([slow], [rows], workers=2)
        import threading
        def fork():
            while len([p for p in os.listdir({str(tmp_path)!r}) if p.isdigit()]) < 2:
                time.sleep(0.05)
            child = os.fork()
            if child == 0:
                time.sleep(30)
                os._exit(0)
            Path({str(tmp_path)!r}, f"child-{{child}}").touch()
        threading.Thread(target=fork).start()
        next(running)
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    try:
        children = wait_for(lambda: list(tmp_path.glob("child-*")))
    finally:
        parent.kill()
        parent.wait()
    workers = [int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()]
    assert len(workers) == 2
    wait_for(lambda: not any(alive(worker) for worker in workers))
    os.kill(int(children[0].name.removeprefix("child-")), system_signals.SIGKILL)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def test_tasks_are_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of columns, too: rows of long texts are cut into tasks that fit."""
    monkeypatch.setattr(reading, "TASK_BYTES", 100_000)
    rows = packed(tmp_path / "a", [None] * 64)
    long = pa.array(["x" * (1000 * number) for number in range(64)])
    rows = rows.set_column(rows.schema.get_field_index("caption"), "caption", long)
    length = signal(lambda caption: len(caption) + 1, name="length", output=int, inputs={"caption": str})
    plan = reading.Plan.of([length], rows.schema)
    cut = list(reading.tasks([rows], plan, 64))
    assert pa.Table.from_batches(cut)["caption"].to_pylist() == long.to_pylist()
    assert all(task.nbytes <= 110_000 or task.num_rows == 1 for task in cut)
    assert len(cut) < 64
