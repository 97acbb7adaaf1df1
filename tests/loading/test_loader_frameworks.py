"""The loader in other people's training loops: nothing is dealt out twice, nothing lost on resume."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from factory_lib.errors import LoaderError
from factory_lib.loading.dataset import BatchDataset, to_torch
from tests.loading_rows import numbers, reader_of, write_shards

ROWS = 480
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    return write_shards(tmp_path_factory.mktemp("shards"), [200, 280], lambda n: n.to_bytes(2, "little"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_HOME", str(tmp_path / "home"))


def load(table: pa.Table, **arguments: Any) -> BatchDataset:
    options = {"columns": ["number"], "global_batch_size": 96, "tail": "drop", **arguments}
    return to_torch(reader_of(table), "frameworks", **options)


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="accelerate is not installed")
def test_accelerate_and_trainer_with_two_processes_see_every_sample_once(table, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
        "HF_HUB_OFFLINE": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    processes = []
    for rank in range(2):
        variables = {**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, "-m", "tests.framework_process", str(tmp_path / f"shards{rank}"), str(tmp_path)]
        processes.append(subprocess.Popen(command, cwd=ROOT, env=variables, stdout=-1, stderr=-1, text=True))
    results = []
    for process in processes:
        out, error = process.communicate(timeout=300)
        assert process.returncode == 0, error[-3000:]
        results.append(json.loads(out.splitlines()[-1]))
    assert [found["rank"] for found in results] == [[0, 2], [1, 2]]
    for found in results:
        assert "IterableDatasetShard" in found["sharded"]
        assert found["epochs"] == found["plain"][:2]
        assert (found["early"], found["rest"]) == (found["plain"][2][:2], found["plain"][3][3:])
        assert found["fifth"] == found["plain"][4]
        assert sorted(found["exam"]) == list(range(ROWS))
        _check_trainer(found)
    for epoch in range(5):
        batches = [found["plain"][epoch] for found in results]
        assert [len(part) for part in batches] == [5, 5]
        assert sorted(n for part in batches for batch in part for n in batch) == list(range(ROWS))
    assert results[0]["epochs"][0] != results[0]["epochs"][1]
    exams = [exam for found in results for exam in found["whole"]["exams"]]
    assert len(exams) == 8  # after the steps 3, 6 and 9, and at the end
    assert sorted(exams[0] + exams[4]) == list(range(ROWS))


def _check_trainer(found: dict[str, Any]) -> None:
    """Two epochs of the Trainer, three resumes (within the first epoch, at its end, within the second), an early end."""
    expected = found["plain"][0] + found["plain"][1]
    assert found["whole"]["batches"] == expected
    assert found["whole"]["steps"] == 10
    assert found["short"]["batches"] == expected[:3]
    for step, rest in found["rests"].items():
        assert rest["batches"] == expected[int(step) :], step
        assert rest["steps"] == 10
        assert rest["exams"] == found["whole"]["exams"][int(step) // 3 :]
    assert "attach(dataset, trainer)" in found["skipping"]


def test_torchrun_with_three_processes_ends_early_scores_and_resumes(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", "-m"]
    variables = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "tests.rank_process", str(tmp_path)], cwd=ROOT, env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert [found["rank"] for found in ranks] == [[0, 3], [1, 3], [2, 3]]
    assert all(found["alike"] for found in ranks)
    assert sorted(n for found in ranks for n in found["exam"]) == list(range(120))
    if ranks[0]["lightning"] is not None:
        assert sorted(n for found in ranks for n in found["lightning"]["exams"][0]) == list(range(120))
    once = [n for found in ranks for part in ("second", "rest") for batch in found[part] for n in batch]
    assert sorted(once) == list(range(120))  # the second epoch, over the resume
    assert len({n for found in ranks for batch in found["first"] for n in batch}) == 72
    assert [found["first"] for found in ranks] != [found["second"] for found in ranks]
    for found in ranks:
        if found["lightning"] is not None:
            _check_lightning(found["plain"], **found["lightning"])


def _check_lightning(plain: list[list[list[int]]], whole: Any, exams: Any, rests: Any) -> None:
    """Three epochs that end after three of five batches, a validation after each, resumes within and between them."""
    expected = [batch for epoch in plain for batch in epoch[:3]]
    assert whole == expected
    assert len(exams) == 3
    assert exams[0] == exams[1] == exams[2]
    for step, rest in rests.items():
        assert rest == expected[int(step) :], step


def test_accelerate_that_would_deal_out_anew_is_refused(table):
    accelerate = pytest.importorskip("accelerate")
    try:
        accelerator = accelerate.Accelerator(cpu=True)
        prepared = accelerator.prepare(torch.utils.data.DataLoader(load(table), batch_size=None))
        with pytest.raises(LoaderError, match=r"DataLoaderDispatcher.*dataset\.loader\(\)"):
            next(iter(prepared))
        loader = load(table).loader()
        assert accelerator.prepare(loader) is loader
        assert numbers(loader) == numbers(load(table))
    finally:
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def test_lightning_counts_epochs_and_resumes_in_the_middle_of_one(table, tmp_path):
    lightning = pytest.importorskip("pytorch_lightning")

    class Model(lightning.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.seen: list[list[int]] = []

        def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
            self.seen.append(batch["number"].tolist())
            return (self.weight * batch["number"].float()).mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 1e-6)

    def fit(name: str, checkpoint: str | None = None, **arguments: Any) -> list[list[int]]:
        keeper = lightning.callbacks.ModelCheckpoint(
            tmp_path / name, "{step}", every_n_train_steps=1, save_top_k=-1, save_on_train_epoch_end=False
        )
        options = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        trainer = lightning.Trainer(accelerator="cpu", callbacks=[keeper], max_epochs=3, **options, **arguments)
        model = Model()
        trainer.fit(model, load(table).loader(), ckpt_path=checkpoint)
        return model.seen

    plain = load(table)
    epochs = [numbers(plain) for _ in range(3)]
    expected = [batch for epoch in epochs for batch in epoch]
    assert fit("whole") == expected
    early = [batch for epoch in epochs for batch in epoch[:2]]
    assert fit("early", limit_train_batches=2) == early
    for step in (1, 2, 3):  # within an epoch that ends early, at its end, and in the next one
        assert fit(f"early{step}", str(tmp_path / "early" / f"step={step}.ckpt"), limit_train_batches=2) == early[step:]
    for step in (1, 7, 10):  # in the first epoch, in the second, and at the end of that
        assert fit(f"from{step}", str(tmp_path / "whole" / f"step={step}.ckpt")) == expected[step:], step


def test_the_loader_is_the_dataset_as_frameworks_count_it(table):
    loader = load(table).loader("cpu")
    assert isinstance(loader, torch.utils.data.DataLoader)
    assert (len(loader), loader.batch_size) == (5, None)
    first, second = numbers(loader), numbers(loader)
    assert first != second
    half = load(table).loader()
    for step, _ in enumerate(half, start=1):
        if step == 2:
            break
    rest = load(table).loader()
    rest.load_state_dict(half.state_dict())
    assert len(rest) == 5
    assert numbers(rest) == first[2:]
    rest.set_epoch(1)
    assert numbers(rest) == second


def test_an_epoch_whose_last_batch_was_taken_is_over(table):
    """Frameworks that know the length ask for no more than that; nobody is to get the same epoch again."""
    expected = load(table)
    epochs = [numbers(expected) for _ in range(3)]
    dataset = load(table)
    for epoch in range(2):
        steps = iter(dataset)
        assert numbers(next(steps) for _ in range(5)) == epochs[epoch]
    after = load(table)
    after.load_state_dict(dataset.state_dict())
    assert len(after) == 5
    assert numbers(after) == epochs[2]
    chosen = load(table)
    chosen.load_state_dict(dataset.state_dict())
    chosen.set_epoch(1)  # a script that counts epochs itself: of this one nothing is left
    assert len(chosen) == 0
    assert numbers(chosen) == []
    assert numbers(chosen) == epochs[2]
