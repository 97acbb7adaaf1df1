"""What goes wrong during a training: damaged shards, slow samples, outages, and every way in which a process ends."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from factory_lib.errors import FileMissing, LoaderError
from factory_lib.loading.dataset import BatchDataset, to_torch
from factory_lib.storage import retry
from tests.loading_rows import jpeg, reader_of, write_shards

ROOT = Path(__file__).resolve().parents[2]
SHARDS = [60] * 8
ROWS = sum(SHARDS)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_HOME", str(tmp_path / "home"))


def load(rows: pa.Table, **arguments: Any) -> BatchDataset:
    options = {"members": ["image"], "columns": ["number"], "global_batch_size": 48, "progress": False, **arguments}
    return to_torch(reader_of(rows), "damage", **options)


def numbers(dataset: BatchDataset) -> list[int]:
    return [number for batch in dataset for number in batch["number"].tolist()]


@pytest.mark.parametrize("damage", ["zeroed", "cut", "overwritten", "deleted"])
@pytest.mark.parametrize("decoders", ["pillow", "raw"])
def test_one_damaged_shard_among_many_ends_no_training(tmp_path, damage, decoders, caplog):
    rows = write_shards(tmp_path / "shards", SHARDS)
    shard = tmp_path / "shards" / "00003.tar"
    size = shard.stat().st_size
    if damage == "zeroed":
        shard.write_bytes(bytes(size))
    elif damage == "cut":
        os.truncate(shard, 0)
    dataset = load(rows, tail="mask", decoders=decoders)
    if damage == "overwritten":
        shard.write_bytes(bytes(size))
        os.utime(shard, (1, 1))
    elif damage == "deleted":
        shard.unlink()
    broken = set() if (damage, decoders) == ("zeroed", "raw") else set(range(180, 240))  # bytes are bytes
    with caplog.at_level(logging.WARNING):
        counted = [n for batch in dataset for n in batch["number"][batch["mask"]].tolist()]
    assert sorted(counted) == sorted(set(range(ROWS)) - broken)
    assert dataset.counters["substituted"] == len(broken)
    assert sum("00003.tar" in record.getMessage() for record in caplog.records) == (2 if broken else 0)


def test_too_many_broken_samples_are_an_error_at_the_end_of_the_epoch(tmp_path):
    rows = write_shards(tmp_path / "shards", SHARDS)
    dataset = load(rows, max_broken=0.1)
    (tmp_path / "shards" / "00003.tar").unlink()
    delivered = []
    with pytest.raises(FileMissing, match=r"60 of 480 samples of epoch 0 .*12\.5%, more than max_broken=0\.1.*00003"):
        delivered += [batch["number"] for batch in dataset]
    assert len(delivered) == 0  # the list was not finished
    steps = iter(load(rows, max_broken=0.1))
    assert sum(len(next(steps)["number"]) for _ in range(10)) == ROWS
    with pytest.raises(FileMissing):
        next(steps)


def test_transforms_draw_the_same_whoever_makes_the_batch(tmp_path):
    rows = write_shards(tmp_path / "shards", [30, 30])

    def drawn(picture: Any, rng: np.random.Generator) -> torch.Tensor:
        return torch.tensor([np.random.rand(), random.random(), torch.rand(1).item(), rng.random()])

    def seen(**arguments: Any) -> dict[int, list[float]]:
        dataset = load(rows, transform=drawn, global_batch_size=20, **arguments)
        return {
            int(n): image.tolist()
            for batch in dataset
            for n, image in zip(batch["number"], batch["image"], strict=True)
        }

    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    alone = seen()
    assert np.array_equal(before, np.random.get_state()[1])
    assert len({value for values in alone.values() for value in values}) == 240
    assert seen(num_workers=1, start_method="fork") == alone
    assert {**seen(rank=0, world_size=2), **seen(rank=1, world_size=2)} == alone
    other = load(rows, transform=drawn, global_batch_size=20)
    other.set_epoch(1)
    assert all(
        image.tolist() != alone[int(n)]
        for batch in other
        for n, image in zip(batch["number"], batch["image"], strict=True)
    )


def test_a_sample_that_takes_too_long_is_named(tmp_path):
    rows = write_shards(tmp_path / "shards", [5])
    dataset = load(rows, transform=lambda picture: time.sleep(60), sample_seconds=0.05, global_batch_size=5)
    with pytest.raises(LoaderError, match=r"00000\.tar.* took longer than 0\.05 s"):
        list(dataset)


def test_batches_of_like_shape_on_any_number_of_ranks(tmp_path):
    def picture(number: int) -> bytes:
        return jpeg(number, *((64, 32) if number % 3 == 0 else (32, 32)))

    rows = write_shards(tmp_path / "shards", [50, 46], picture)
    rows = rows.append_column("width", pa.array([64 if n % 3 == 0 else 32 for n in range(96)]))
    rows = rows.append_column("height", pa.array([32] * 96))
    options = {"buckets": [(16, 16), (16, 32)], "global_batch_size": 16, "tail": "drop"}
    whole = list(load(rows, **options))
    assert {tuple(batch["image"].shape[1:]) for batch in whole} == {(16, 16, 3), (16, 32, 3)}
    for batch in whole:
        wide = batch["image"].shape[2] == 32
        assert all((n % 3 == 0) == wide for n in batch["number"].tolist())
        assert batch["image"][:, 8, 8, 0].tolist() == [n % 251 for n in batch["number"].tolist()]
    assert sorted(n for batch in whole for n in batch["number"].tolist()) == list(range(96))
    ranks = [load(rows, rank=rank, world_size=2, **options) for rank in range(2)]
    for batch, *parts in zip(whole, *ranks, strict=True):
        assert sorted(n for part in parts for n in part["number"].tolist()) == sorted(batch["number"].tolist())
    first = load(rows, **options)
    steps = iter(first)
    next(steps)
    rest = load(rows, **options, rank=1, world_size=2)
    rest.load_state_dict(first.state_dict())
    assert len(list(rest)) == 5
    with pytest.raises(LoaderError, match="global_batch_size=16"):
        load(rows, **{**options, "global_batch_size": 8}).load_state_dict(first.state_dict())


def test_outages_are_waited_out_told_once_and_counted(monkeypatch, caplog):
    monkeypatch.setenv("FACTORY_RETRY_SECONDS", "100")
    monkeypatch.setattr(retry, "_last_failure", float("-inf"))
    retry.take_counters()
    waits: list[float] = []
    left = [ConnectionResetError(f"reset {n}") for n in range(8)]

    def action() -> str:
        if left:
            raise left.pop()
        return "done"

    with caplog.at_level(logging.WARNING):
        assert retry.with_retries(action, waits.append) == "done"
    assert [record.getMessage().count("FACTORY_RETRY_SECONDS") for record in caplog.records] == [1]
    counters = retry.take_counters()
    assert counters["retries"] == 8
    assert counters["retry_seconds"] == pytest.approx(sum(waits))
    left[:] = [ConnectionResetError(f"reset {n}") for n in range(1000)]
    waits.clear()
    with pytest.raises(ConnectionResetError, match=r"reset \d"):
        retry.with_retries(action, waits.append)
    assert 100 - retry.LONGEST_WAIT_SECONDS < sum(waits) <= 100
    with retry.impatient():
        waits.clear()
        with pytest.raises(ConnectionResetError):
            retry.with_retries(action, waits.append)
    assert len(waits) == retry.ATTEMPTS - 1


ENDINGS = {"error": "raise SystemError", "exit": "sys.exit()", "del": "del steps, dataset; time.sleep(1)"}
ENDINGS |= {"SIGTERM": "time.sleep(60)", "SIGKILL": "time.sleep(60)"}
TRAINING = """
import os, sys, time
import pyarrow as pa
from torch.utils.data import DataLoader
from factory_lib.loading.dataset import to_torch

rows = pa.table({"shard": ["a"] * 50, "number": range(50), "vector": [[1.0] * 9000] * 50})
options = {"columns": ["vector"], "global_batch_size": 5, "start_method": "fork"}
dataset = to_torch(rows.to_reader, "x", num_workers=1, **options)
steps = iter(dataset)
outer = iter(DataLoader(to_torch(rows.to_reader, "x", **options), batch_size=None, num_workers=1))
next(steps), next(outer)
print("ready", flush=True)
"""


def test_nothing_is_left_whatever_ends_a_training(tmp_path):
    """No process, which would keep the pipe open, and no shared memory."""
    before = set(os.listdir("/dev/shm"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    running = {}
    for name, ending in ENDINGS.items():
        command = [sys.executable, "-c", TRAINING + ending]
        environment = {**environment, "FACTORY_HOME": str(tmp_path / name)}
        running[name] = subprocess.Popen(command, stdout=-1, stderr=-1, env=environment, cwd=tmp_path)
    for name, process in running.items():
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", process.stderr
        if name.startswith("SIG"):
            process.send_signal(getattr(signal, name))
        assert process.communicate(timeout=60)[0] == b""  # ends when the last process that has it open does
    assert not {name for name in set(os.listdir("/dev/shm")) - before if name.startswith(("torch_", "pymp", "psm"))}
