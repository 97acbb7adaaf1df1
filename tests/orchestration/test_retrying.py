"""What may pass is tried again, with the shards that failed alone; what would fail alike is not."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from factory_lib import DatasetQuery
from factory_lib.errors import (
    CommitError,
    DiskFull,
    EngineError,
    EngineUnreachable,
    FactoryError,
    NotFound,
    SourceError,
    StoreError,
)
from factory_lib.orchestration import retrying
from factory_lib.orchestration.retrying import is_transient, tried
from factory_lib.orchestration.runs.running import run_graph
from factory_lib.orchestration.stage import stage
from factory_lib.settings import settings
from factory_lib.sources.webdataset import WebDataset
from factory_lib.storage.store import store
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.embedded import engine_status
from factory_lib.warehouse.versions import resolve, versions
from tests.dagster_graph import graph, look, over_samples, run, write_tar
from tests.stub_s3 import StubS3

NAMES = ["a", "b", "c"]


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_SECONDS", 0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    for name in NAMES:
        write_tar(folder / f"{name}.tar", [name, name * 2])
    return folder


@pytest.fixture
def instance(engine: None) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def lines(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [event.user_message for event in instance.all_logs(run_id)]


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def passing(text: str = "503") -> StoreError:
    error = StoreError(text)
    error.is_transient = True
    return error


@pytest.mark.parametrize(
    ("error", "worth_it"),
    [
        (EngineUnreachable("gone"), True),
        (EngineError("memory", code=241), True),
        (EngineError("too many queries", code=202), True),
        (EngineError("throwIf", code=395), False),
        (EngineError("the folder cannot be used"), False),
        (DiskFull("full", code=243), False),
        (CommitError("sealed"), False),
        (passing(), True),
        (StoreError("403"), False),
        (caused(SourceError("cannot be read"), passing()), True),
        (caused(SourceError("not a tar"), ValueError("header")), False),
        (ConnectionResetError("by a client in a stage's own code"), True),
        (TimeoutError("in a stage's own code"), True),
        (ValueError("wrong"), False),
        (FileNotFoundError("model.bin"), False),
        (MemoryError(), False),
        (NotFound("no such column"), False),
    ],
)
def test_what_is_worth_another_try(error: Exception, worth_it: bool) -> None:
    assert is_transient(error) is worth_it


def test_waits_grow_and_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(retrying, "FIRST_SECONDS", 20.0)
    monkeypatch.setattr(time, "sleep", waited.append)
    said: list[str] = []

    def fails() -> None:
        raise ConnectionResetError("reset by s3://key:secret@host/b")

    with pytest.raises(ConnectionResetError):
        tried(fails, said.append)
    assert [15 <= waited[0] <= 25, 30 <= waited[1] <= 50, 60 <= waited[2] <= 100] == [True] * 3
    assert said == [
        f"try {n} of 4 in {wait:.0f} s: ConnectionResetError: reset by s3://host/b"
        for n, wait in zip((2, 3, 4), waited, strict=True)
    ]
    monkeypatch.setenv("FACTORY_STAGE_RETRIES", "0")
    waited.clear()
    with pytest.raises(ConnectionResetError):
        tried(fails, said.append)
    assert waited == []


def test_only_the_shards_that_failed_are_tried_again(
    folder: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = WebDataset.read

    def flaky(self: WebDataset, shard: Any, report: Any) -> Any:
        read.append(shard.name)
        if shard.name == "b" and read.count("b") < 3:
            raise passing("503 SlowDown")
        return original(self, shard, report)

    monkeypatch.setattr(WebDataset, "read", flaky)
    look(instance, folder)
    done = run(graph(folder), instance, ["samples"], NAMES)
    assert done.success
    assert read.count("c") <= 2  # with b, and without it
    assert [str(v) for v in versions(warehouse(), "samples")] == ["samples.v1", "samples.v2"]
    assert set(resolve(warehouse(), "samples").shards) == set(NAMES)
    told = [line for line in lines(instance, done.run_id) if line.startswith("try ")]
    assert [line[:10] for line in told] == ["try 2 of 4", "try 3 of 4"]
    made = [e.partition for e in done.get_asset_materialization_events()]
    assert sorted(str(p) for p in made) == NAMES


def test_bad_code_is_not_tried_again(folder: Path, instance: dg.DagsterInstance) -> None:
    called: list[int] = []

    @stage(group="test")
    def wrong(samples: DatasetQuery) -> DatasetQuery:
        called.append(1)
        return samples.filter(samples.no_such_verb)  # type: ignore[attr-defined]

    outcome = run_graph(instance, over_samples(folder, wrong))
    [error] = outcome.errors
    assert error.startswith("wrong: AttributeError: 'DatasetQuery' object has no attribute 'no_such_verb'")
    assert error.endswith("· repeat: factory run --select wrong")
    assert called == [1]


def test_a_body_that_meets_an_outage_is_called_again(folder: Path, instance: dg.DagsterInstance) -> None:
    called: list[int] = []

    @stage(group="test")
    def asks(samples: DatasetQuery) -> DatasetQuery:
        called.append(1)
        if len(called) < 3:
            raise TimeoutError("a service of ours")
        return samples

    assert run_graph(instance, over_samples(folder, asks)).errors == []
    assert len(called) == 3


def test_an_interrupt_ends_the_waiting_and_nothing_is_tried_again(
    folder: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "FIRST_SECONDS", 100.0)
    called: list[int] = []

    @stage(group="test")
    def asks(samples: DatasetQuery) -> DatasetQuery:
        called.append(1)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        raise TimeoutError("a service of ours")

    with pytest.raises(KeyboardInterrupt):
        run_graph(instance, over_samples(folder, asks))
    assert called == [1]
    assert instance.get_runs()[0].status == dg.DagsterRunStatus.CANCELED
    told = lines(instance, instance.get_runs()[0].run_id)
    assert any(line.startswith("try 2 of 4 in ") for line in told)


def test_an_engine_that_is_killed_in_the_middle_fails_no_stage(
    folder: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, killed = DatasetQuery.save, []

    def save(self: DatasetQuery, *args: Any, **kwargs: Any) -> Any:
        if not killed:
            status = engine_status(settings().home)
            assert status is not None
            killed.append(status["pid"])
            threading.Timer(0.05, os.kill, (status["pid"], signal.SIGKILL)).start()
            time.sleep(0.05)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(DatasetQuery, "save", save)
    look(instance, folder)
    outcome = run_graph(instance, graph(folder))
    assert outcome.errors == []
    assert DatasetQuery("chosen").count() == 2  # captions of one and of two letters
    status = engine_status(settings().home)
    assert status is not None
    assert status["pid"] != killed[0]


def test_a_store_that_answers_503_may_pass_and_one_that_refuses_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.bin").write_bytes(b"abc")
    with StubS3(tmp_path, unavailable=1.0) as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(FactoryError) as flaky:
            store().read("s3://stub/a.bin")
        assert is_transient(flaky.value)
    with pytest.raises(FactoryError) as missing:
        store().read(str(tmp_path / "b.bin"))
    assert not is_transient(missing.value)
