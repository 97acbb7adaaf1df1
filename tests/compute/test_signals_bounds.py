"""What signals may cost others: processes that die, calls that never return, parents that are gone, memory."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest

from factory_lib import C, DatasetQuery, fn
from factory_lib.compute import dispatch, reading, run
from factory_lib.compute.run import compute
from factory_lib.errors import SignalError
from factory_lib.names import STAGING
from factory_lib.signals import signal
from factory_lib.warehouse.client import warehouse
from tests.signal_rows import dying, no_workers_left, packed, table

__all__ = ["no_workers_left"]

ENDLESS = "a" * 40 + "!"


@pytest.fixture(autouse=True)
def _by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SMALL_ROWS", 0)
    monkeypatch.setattr(run, "TASK_ROWS", 32)


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


@pytest.mark.usefixtures("engine")
def test_an_error_among_many_rows_ends_the_run() -> None:
    """The rows behind it, far more than is buffered anywhere, are in a result that the error holds."""
    DatasetQuery.from_arrow(pa.table({"key": [f"{n:06d}" for n in range(250_000)]})).save("keys")
    texts = DatasetQuery("keys").mutate(caption=fn.repeat(C.key, 40))
    bad = signal(lambda caption: 1 // (len(caption) - 240), name="bad", output=int, inputs={"caption": str})
    with pytest.raises(SignalError, match="'bad' failed at shard 'all', position 0, key '000000'"):
        texts.add_signals(bad, on_error="raise").save("texts")
    left = "SELECT name FROM system.tables WHERE database = {d:String} AND name LIKE '\\_stage\\_%'"
    assert warehouse().rows(left, {"d": STAGING}) == []


def test_a_timeout_is_a_number_of_seconds() -> None:
    with pytest.raises(SignalError, match="timeout=-1"):
        signal(lambda caption: 1, name="one", output=int, timeout=-1)
    declared = signal(lambda caption: 1, name="one", output=int, timeout=5)
    assert declared.components == signal(lambda caption: 1, name="one", output=int).components


def test_tasks_are_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of columns, too: rows of long texts are cut into tasks that fit."""
    monkeypatch.setattr(reading, "TASK_BYTES", 100_000)
    rows = packed(tmp_path / "a", [None] * 64)
    long = pa.array(["x" * (1000 * number) for number in range(64)])
    rows = rows.set_column(rows.schema.get_field_index("caption"), "caption", long)
    length = signal(lambda caption: len(caption) + 1, name="length", output=int, inputs={"caption": str})
    plan = reading.ReadPlan.of([length], rows.schema)
    cut = list(reading.tasks([rows], plan, 64))
    assert pa.Table.from_batches(cut)["caption"].to_pylist() == long.to_pylist()
    assert all(task.nbytes <= 110_000 or task.num_rows == 1 for task in cut)
    assert len(cut) < 64
