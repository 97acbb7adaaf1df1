"""Worker processes of the engine: what happens to samples whose process dies, to setups that fail, to code that changes."""

from __future__ import annotations

import itertools
import os
import signal as system_signals
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyarrow as pa
import pytest

from factory_lib.compute.run import compute
from factory_lib.errors import SignalError
from factory_lib.signals import signal
from tests.signal_rows import dying, jpeg, no_workers_left, packed, process_id, red, small_tasks, table

__all__ = ["no_workers_left", "small_tasks"]


def test_a_killed_process_is_replaced_and_its_task_tried_again(tmp_path: Path, small_tasks: None) -> None:
    rows = packed(tmp_path / "a", [jpeg(number) for number in range(60)])
    found = table(compute([dying(tmp_path, {"key0020": 1})], [rows], workers=2))
    assert found["dies"].to_pylist() == [f"key{number:04d}" for number in range(60)]
    assert found["dies_error"].null_count == 60


@pytest.mark.parametrize("ordered", [False, True])
def test_a_sample_that_kills_every_process_is_an_error(tmp_path: Path, small_tasks: None, ordered: bool) -> None:
    rows = packed(tmp_path / "a", [jpeg(number) for number in range(60)])
    batches = list(compute([dying(tmp_path, {"key0020": 9}), red], [rows], workers=2, ordered=ordered))
    found = pa.Table.from_batches(batches)
    if ordered:
        assert found["position"].to_pylist() == list(range(60))
    found = found.sort_by("position")
    lost = [number for number, value in enumerate(found["dies"].to_pylist()) if value is None]
    assert lost == [20]
    assert found["dies_error"][20].as_py() == (
        "WorkerDied: the process computing it was killed by SIGKILL (out of memory?)"
    )
    assert found["red_error"][20].as_py() == found["dies_error"][20].as_py()


def test_a_process_that_dies_while_idle_is_replaced(tmp_path: Path, small_tasks: None) -> None:
    rows = packed(tmp_path / "a", [jpeg(number) for number in range(40)])
    for one in set(table(compute([process_id], [rows], workers=2))["process_id"].to_pylist()):
        os.kill(one, system_signals.SIGKILL)
    assert table(compute([red], [rows], workers=2))["red"].to_pylist() == list(range(40))


def test_setup_that_dies_again_and_again_ends_the_run(tmp_path: Path, small_tasks: None) -> None:
    class Dying:
        def setup(self) -> None:
            os._exit(3)

        def __call__(self, caption: str) -> int:
            return 1

    rows = packed(tmp_path / "a", [None] * 20)
    with pytest.raises(SignalError, match="ended with status 3 while it set the signals up"):
        table(compute([signal(Dying, name="dying")], [rows], workers=2))


def test_setup_runs_once_a_process_and_its_failure_ends_the_run(tmp_path: Path, small_tasks: None) -> None:
    class Counted:
        def __init__(self, folder: Path, broken: bool = False) -> None:
            self.folder, self.broken = folder, broken

        def setup(self) -> None:
            if self.broken:
                raise SignalError("No weights.", "Fetch them.")
            (self.folder / f"setup-{os.getpid()}-{time.monotonic_ns()}").touch()

        def __call__(self, caption: str) -> int:
            return os.getpid()

    folder = tmp_path / "setups"
    folder.mkdir()
    rows = packed(tmp_path / "a", [None] * 64)
    counted = signal(Counted(folder), name="counted")
    for _ in range(2):
        ids = {one for one in table(compute([counted], [rows], workers=2))["counted"].to_pylist() if one}
    assert len(list(folder.iterdir())) == len(ids) == 2
    with pytest.raises(SignalError, match=r"setup\(\) failed with SignalError: No weights"):
        table(compute([signal(Counted(folder, broken=True), name="counted")], [rows], workers=2))
    assert table(compute([red], [packed(tmp_path / "b", [jpeg(1)] * 20)], workers=2))["red"].null_count == 0


def test_giving_up_in_the_middle_leaves_no_process_computing(tmp_path: Path, small_tasks: None) -> None:
    @signal
    def slow(image: bytes) -> int:
        time.sleep(0.05)
        return os.getpid()

    rows = packed(tmp_path / "a", [jpeg(number) for number in range(400)])
    running = compute([slow], [rows], workers=2)
    first = next(running)
    running.close()
    for one in set(first.column("slow").to_pylist()):
        with pytest.raises(ProcessLookupError):
            os.kill(one, 0)
    assert table(compute([red], [rows.slice(0, 30)], workers=2))["red"].to_pylist() == list(range(30))


def test_computations_at_the_same_time_do_not_share_processes(tmp_path: Path, small_tasks: None) -> None:
    rows = packed(tmp_path / "a", [jpeg(number) for number in range(40)])
    under_way = compute([red, process_id], [rows], workers=2)
    begun = next(under_way)
    other = table(compute([red, process_id], [rows], workers=2))
    one = table(itertools.chain([begun], under_way))
    assert one["red"].to_pylist() == other["red"].to_pylist() == list(range(40))
    assert not set(one["process_id"].to_pylist()) & set(other["process_id"].to_pylist())


def test_a_script_without_a_main_guard_and_its_lambdas_run_in_processes(tmp_path: Path) -> None:
    packed(tmp_path / "a", [jpeg(number) for number in range(200)])
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import os, sys
        import pyarrow as pa
        from PIL import Image
        from factory_lib.compute.run import compute
        from factory_lib.signals import signal

        print("imported", __name__)
        OFFSET = 5

        class Base:
            def add(self, value):
                return value + OFFSET

        @signal
        class Adds(Base):
            def setup(self):
                self.ready = True
            def __call__(self, image: Image.Image) -> int:
                assert self.ready
                return self.add(image.getpixel((0, 0))[0])

        pid = signal(lambda image: os.getpid(), name="pid", output=int, inputs={"image": bytes})
        with pa.OSFile(sys.argv[1]) as file:
            rows = pa.ipc.open_file(file).read_all().to_batches()
        values = {}
        for batch in compute([Adds, pid], rows, workers=2):
            assert os.getpid() not in batch.column("pid").to_pylist()
            values |= dict(zip(batch.column("position").to_pylist(), batch.column("adds").to_pylist()))
        print(sorted(values) == list(range(200)), all(value == at + 5 for at, value in values.items()))
        """)
    )
    rows = packed(tmp_path / "a", [jpeg(number) for number in range(200)])
    with pa.OSFile(str(tmp_path / "rows.arrow"), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
        writer.write(rows)
    root = str(Path(__file__).parents[2])
    ran = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "rows.arrow")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
        timeout=120,
    )
    assert ran.stdout.split("\n")[:2] == ["imported __main__", "True True"], ran.stderr
    assert ran.stderr == ""


def test_code_edited_while_processes_are_kept_is_loaded_anew(
    tmp_path: Path, small_tasks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    module = tmp_path / "edited_while_kept.py"
    text = "from factory_lib.signals import signal\nADDED = 1\n\n@signal\ndef adds(position: int, image: bytes) -> int:\n    return position + ADDED\n"
    module.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    import edited_while_kept  # type: ignore[import-not-found]

    rows = packed(tmp_path / "a", [jpeg(number) for number in range(30)])

    def values() -> list[int]:
        found: list[int] = table(compute([edited_while_kept.adds], [rows], workers=2))["adds"].to_pylist()
        return found

    assert values() == [number + 1 for number in range(30)]
    module.write_text(text.replace("ADDED = 1", "ADDED = 20"))
    importlib.reload(edited_while_kept)
    assert values() == [number + 20 for number in range(30)]
    edited_while_kept.ADDED = 5  # in this process alone
    assert values() == [number + 5 for number in range(30)]
