"""What a signal says that it takes of a machine: read by the pool, and by nothing that decides what is computed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from factory_lib.compute.gpus import gpus_here, gpus_of, processes_on
from factory_lib.compute.run import compute
from factory_lib.errors import SignalError
from factory_lib.settings import workers_for
from factory_lib.signals import signal
from factory_lib.signals.resources import Resources
from tests.signal_rows import jpeg, no_workers_left, packed, small_tasks, table

__all__ = ["no_workers_left", "small_tasks"]


def seen(key: str) -> str:
    return f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {os.environ.get('OMP_NUM_THREADS')} {os.getpid()}"


def test_resources_are_declared_and_change_no_fingerprint() -> None:
    plain = signal(seen, output=str)
    told = signal(seen, output=str, gpus=0.5, cpus=2, memory=3 * 2**30)
    assert told.resources == Resources(0.5, 2.0, 3 * 2**30)
    assert plain.resources == Resources(0, 1, 0)
    assert told.fingerprint == plain.fingerprint == plain.needing(gpus=1).fingerprint
    assert plain.needing(gpus=1).resources.gpus == 1
    assert told.named("other").resources == told.resources
    assert str(told.resources) == "0.5 GPUs, 2 cores, 3 GiB of memory"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gpus": 1.5}, r"signal 'seen': gpus=1.5: above one, GPUs are whole. Give 2."),
        ({"gpus": -1}, "gpus=-1 is no amount"),
        ({"cpus": 0}, "cpus=0: something has to compute"),
        ({"memory": float("nan")}, "memory=nan is no amount"),
        ({"memory": "8GB"}, "memory='8GB' is no amount"),
    ],
)
def test_amounts_that_say_nothing_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(SignalError, match=message):
        signal(seen, output=str, **given)  # type: ignore[call-overload]


def test_a_process_has_room_for_all_its_signals() -> None:
    half, small, two = Resources(gpus=0.5, memory=5), Resources(gpus=0.25, cpus=3, memory=1), Resources(gpus=2)
    assert Resources.together([half, small]) == Resources(0.75, 3, 6)
    assert Resources.together([half, half, half]) == Resources(1, 1, 15)
    assert Resources.together([half, two]) == Resources(2, 1, 5)


def test_processes_share_out_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("nvidia0", "nvidia7", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert gpus_here(tmp_path) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 7")
    assert gpus_here(tmp_path) == ["4", "7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert gpus_here(tmp_path) == []
    four = ["a", "b", "c", "d"]
    assert [processes_on(four, Resources(gpus=gpus)) for gpus in (0.3, 0.5, 1, 2, 3)] == [12, 8, 4, 2, 1]
    assert [gpus_of(place, four, Resources(gpus=2)) for place in range(2)] == [["a", "b"], ["c", "d"]]
    assert [gpus_of(place, four[:2], Resources(gpus=0.5)) for place in range(4)] == [["a"], ["b"], ["a"], ["b"]]


def test_as_many_processes_as_cores_and_memory_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FACTORY_WORKERS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr("factory_lib.settings.processes_that_fit", lambda size: 2**35 // size)
    assert [workers_for(), workers_for(cpus=3), workers_for(cpus=99), workers_for(memory=2**33)] == [8, 2, 1, 4]
    monkeypatch.setenv("FACTORY_WORKERS", "3")
    assert workers_for(memory=2**33) == 3


def test_each_process_sees_its_own_gpu_and_its_threads(
    tmp_path: Path, small_tasks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    told = signal(lambda image, key: seen(key), name="seen", output=str, inputs={"image": Image.Image, "key": str},
                  gpus=1, cpus=2)  # fmt: skip
    rows = packed(tmp_path / "a", [jpeg(number) for number in range(64)])
    found = {tuple(text.split()) for text in table(compute([told], [rows], workers=9))["seen"].to_pylist()}
    assert {(gpu, threads) for gpu, threads, _ in found} == {("4", "2"), ("7", "2")}
    assert len({process for *_, process in found}) == 2
    plain = table(compute([told.needing()], [rows], workers=2))["seen"].to_pylist()
    assert {text.rpartition(" ")[0] for text in plain} == {f"4,7 {os.environ['OMP_NUM_THREADS']}"}


def test_a_signal_that_needs_a_gpu_where_none_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    rows = packed(tmp_path / "a", [None] * 3)
    with pytest.raises(SignalError, match=r"need 2 GPUs, and this machine shows 0\. Is CUDA_VISIBLE_DEVICES"):
        table(compute([signal(seen, output=str, gpus=2)], [rows]))
