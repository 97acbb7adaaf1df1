"""Training as an asset: real torchrun, real Pipes, a real event log; killed, resumed, compared."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
import torch
import torch.multiprocessing
from PIL import Image
from safetensors.torch import load_file
from scipy.stats import binomtest, norm

from factory_assets.training.asset import train_model
from factory_assets.training.checks import above_baseline, model_check_specs, not_worse
from factory_assets.training.config import TrainingConfig
from factory_assets.training.contrastive import contrastive_loss, new_model
from factory_assets.training.fitting import TrainingCheckpoint, batch_loss, load_checkpoint, save_checkpoint
from factory_assets.training.models import models_folder, publish, stored_models
from factory_assets.training.noise import DEVIATIONS, compare, interval
from factory_assets.training.pairs import captioned, training_batches
from factory_assets.training.ranks import Rank, accelerator_of, distributed, processes_of
from factory_assets.training.setup import trainings_folder
from factory_assets.training.torchrun import _running
from factory_lib.errors import TrainingError
from factory_lib.plan.expressions import C, case
from factory_lib.query import DatasetQuery
from factory_lib.signals.clip import Clip
from factory_lib.warehouse.embedded import engine_url

TONES = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "white": (240, 240, 240)}
TRAIN, TEST, BATCH, EPOCHS = 240, 80, 24, 6
STEPS = EPOCHS * TRAIN // BATCH
KEY = dg.AssetKey("trained_model")


@dg.asset(name="trained_model", check_specs=model_check_specs("trained_model"))
def model_asset(context: dg.AssetExecutionContext, config: TrainingConfig) -> dg.MaterializeResult:
    data = DatasetQuery("training_set")
    return train_model(context, data, data, config, code={"test": "1"})


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one colour, with a caption that names it: easy enough to be learnt in forty steps."""
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    names = rng.choice(list(TONES), TRAIN + TEST)
    for shard in range(2):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for i in range(shard, TRAIN + TEST, 2):
                pixels = np.array(TONES[names[i]])[None, None] + rng.integers(-9, 10, (48, 48, 3))
                picture = io.BytesIO()
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(picture, "JPEG")
                for suffix, data in (("jpg", picture.getvalue()), ("txt", f"all {names[i]}".encode())):
                    member = tarfile.TarInfo(f"{i:06d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return folder


@pytest.fixture
def training_set(engine: None, tars: Path) -> DatasetQuery:
    split = case((C.key < f"{TRAIN:06d}", "train"), default="test")
    return DatasetQuery(DatasetQuery.from_source(str(tars)).mutate(split=split).save("training_set"))


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """Dagster's own storage on disk, and a data folder without trainings of other tests."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


@pytest.fixture(autouse=True)
def no_trainings(factory_home: Path) -> None:
    import shutil

    for folder in ("training", "models"):
        shutil.rmtree(factory_home / folder, ignore_errors=True)


def materialize(instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    settings = {"epochs": EPOCHS, "global_batch_size": BATCH, "processes": 2, "accelerator": "cpu", "baseline": False}
    settings |= {"checkpoint_every": 7, "report_every": 5, "record_samples": True, **config}
    return dg.materialize(
        [model_asset],
        instance=instance,
        raise_on_error=False,
        run_config={
            "ops": {"trained_model": {"config": settings}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
    )


def numbers(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    [event] = result.asset_materializations_for_node("trained_model")
    return {name: value.value for name, value in event.metadata.items()}


def checks(result: dg.ExecuteInProcessResult) -> dict[str, tuple[bool, str]]:
    found = result.get_asset_check_evaluations()
    return {check.check_name: (check.passed, check.description or "") for check in found}


def samples_by_step(folder: Path) -> dict[int, list[int]]:
    """What each step saw in the end: a step that was repeated after a kill counts as it was the last time."""
    steps: dict[int, list[int]] = {}
    for path in sorted(folder.glob("model-*.samples.jsonl")):
        mine = {line["step"]: line["samples"] for line in map(json.loads, path.read_text().splitlines())}
        for step, samples in mine.items():
            steps.setdefault(step, []).extend(samples)
    return steps


def children(parent: int) -> list[int]:
    """Processes below a process, by process id."""
    listed = subprocess.run(["ps", "-axo", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    below = [parent]
    for one in below:
        below += [int(pid) for pid, above, state in rows if int(above) == one and not state.startswith("Z")]
    return below[1:]


def is_alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def until(condition: Any, seconds: float = 90.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    pytest.fail(f"{condition} did not come true")


def launcher() -> int | None:
    """The process id of the torchrun that this process started."""
    listed = subprocess.run(["ps", "-axo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    found = [int(row[0]) for row in rows if int(row[1]) == os.getpid() and "factory_assets.training.launch" in row[2]]
    return found[0] if found else None


def test_a_killed_training_goes_on_where_it_was(
    instance: dg.DagsterInstance, training_set: DatasetQuery, tmp_path: Path, factory_home: Path
) -> None:
    whole = materialize(instance)
    assert whole.success
    [folder] = trainings_folder().iterdir()
    assert folder.name.endswith("-v1")
    uninterrupted = samples_by_step(folder)
    secret = engine_url(factory_home).split("//")[1].split("@")[0]
    written = b"".join(path.read_bytes() for path in folder.iterdir())
    assert secret.encode() not in written
    folder.rename(tmp_path / "first")
    first = numbers(whole)
    assert (first["trained_on"], first["model"], first["processes"], first["steps"]) == (
        "training_set.v1",
        "v1",
        2,
        STEPS,
    )
    assert 0 < first["decode_share"] < 1
    assert 0 < first["wait_share"] < 1
    assert first["megabytes_local"] > 0
    assert first["samples_per_second"] > 0
    assert checks(whole)["above_chance"][0]
    assert "first model" in checks(whole)["not_worse_than_previous"][1]

    # The same again; killed when the event log, while the run goes on, says that it is past its second checkpoint.
    outcome: list[dg.ExecuteInProcessResult] = []
    run = threading.Thread(target=lambda: outcome.append(materialize(instance)))
    run.start()
    started = until(lambda: instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])))[0]
    agent = until(launcher)
    observed = until(
        lambda: [
            int(record.asset_observation.metadata["step"].value)
            for record in instance.fetch_observations(KEY, limit=3).records
            if record.run_id == started.run_id and record.asset_observation.metadata["step"].value >= 15
        ]
    )
    ranks = children(agent)
    assert len(ranks) >= 2
    os.killpg(agent, signal.SIGKILL)
    assert max(observed) < STEPS
    run.join(60)
    [killed] = outcome
    assert not killed.success
    until(lambda: not any(map(is_alive, ranks)), 20)

    resumed = materialize(instance)
    assert resumed.success
    later = numbers(resumed)
    assert later["resumed_at_step"] in range(14, STEPS, 7)
    assert later["steps"] == STEPS
    # What was learnt is what an uninterrupted training learns, bit by bit.
    one, other = (load_file(numbers_["weights"]) for numbers_ in (first, later))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert later["accuracy"] == first["accuracy"]
    passed, said = checks(resumed)["not_worse_than_previous"]
    assert passed
    assert "v1, trained on training_set.v1" in said

    # Every sample once in every epoch, also in the one that was killed, at the same steps as without the kill.
    [folder] = trainings_folder().iterdir()
    seen = samples_by_step(folder)
    assert seen == uninterrupted
    everything = training_set.filter(C.split == "train").select("sample_id").to_arrow()["sample_id"].to_pylist()
    per_epoch = TRAIN // BATCH
    for epoch in range(EPOCHS):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        assert sorted(sample for step in steps for sample in seen[step]) == sorted(everything)
    # One process gets the same sets of samples.
    train = captioned(training_set.filter(C.split == "train"), "caption")
    alone = training_batches(train, "caption", sample_ids=True, global_batch_size=BATCH, rank=0, world_size=1)
    for epoch in range(2):
        for step, batch in enumerate(alone, epoch * per_epoch):
            assert sorted(batch["sample_id"].tolist()) == sorted(seen[step])

    # A model that learnt nothing is worse than the one before, on the same samples. (One step at the usual rate learns
    # all there is now and then: which samples it sees depends on the version's id.)
    hardly = {"max_steps": 1, "learning_rate": 1e-9}
    short = materialize(instance, processes=1, baseline=True, record_samples=False, **hardly)
    assert short.success
    passed, said = checks(short)["not_worse_than_previous"]
    assert not passed
    assert "v2" in said
    # The log tells how it went, the baseline was trained alike, and what the training needed is gone.
    lines = [event.user_message for event in instance.all_logs(short.run_id) if "samples/s" in event.user_message]
    assert [line.split(",")[0] for line in lines] == ["model: step 1 of 1", "baseline: step 1 of 1"]
    assert all("of the time waiting for the loader" in line and "MB local" in line for line in lines)
    found = numbers(short)
    assert found["gain_over_baseline"] == pytest.approx(found["accuracy"] - found["baseline_accuracy"])
    assert "uncurated samples" in checks(short)["above_baseline"][1]
    assert [path for path in trainings_folder().iterdir() if path != folder] == []

    assert [model.number for model in stored_models(models_folder("trained_model"))] == [1, 2, 3]
    facts = stored_models(models_folder("trained_model"))[0].facts()
    assert facts["trained_on"] == "training_set.v1"
    assert facts["decoder"] == "pillow"
    assert float(facts["accuracy"]) == first["accuracy"]
    assert facts["recipe"] == later["recipe"]
    assert not any(secret in value or "://" in value for value in facts.values())
    assert Clip(first["weights"], name="trained").one("all red").shape == (64,)


def test_what_cannot_be_trained_says_why(instance: dg.DagsterInstance, training_set: DatasetQuery, tars: Path) -> None:
    uneven = materialize(instance, processes=5)
    assert "cannot be cut evenly into 5 parts" in said(uneven)
    assert "accelerator 'gpu'" in said(materialize(instance, accelerator="gpu"))


def said(result: dg.ExecuteInProcessResult) -> str:
    [failure] = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    return failure.user_failure_data.description


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
def test_on_a_gpu(instance: dg.DagsterInstance, training_set: DatasetQuery) -> None:
    result = materialize(instance, accelerator="cuda", processes=0)
    assert result.success
    found = numbers(result)
    assert (found["accelerator"], found["processes"]) == ("cuda", torch.cuda.device_count())
    assert checks(result)["above_chance"][0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_missed() -> None:
    assert accelerator_of("auto") == "cpu"
    with pytest.raises(TrainingError, match="torch sees no GPU here"):
        accelerator_of("cuda")


def test_how_many_processes() -> None:
    assert processes_of(0, "cpu", 128) == 2
    assert processes_of(4, "cpu", 128) == 4
    with pytest.raises(TrainingError, match=r"cannot be cut evenly into 3 parts.*Use global_batch_size=129"):
        processes_of(3, "cpu", 128)


CAPTIONS = ["a red dot", "a blue dot", "a red dot", "one green star", "a white star", "a blue dot"]


def _gradients(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = new_model(["red", "blue", "green", "white", "dot", "star"], 0).eval()
    here = Rank(rank, 2, torch.device("cpu"))
    towers = distributed(model, here)
    mine = slice(0, 3) if rank == 0 else slice(3, 6)
    loss = batch_loss(towers, _pictures()[mine], CAPTIONS[mine], here)
    (loss * 2).backward()
    if rank == 0:
        found = {name: value.grad for name, value in model.named_parameters()}
        torch.save({"loss": loss.detach(), **found}, Path(folder) / "gradients")
    torch.distributed.destroy_process_group()


def _pictures() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(5).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8))


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(_gradients, (port, str(tmp_path)), nprocs=2, start_method="fork")
    found = torch.load(tmp_path / "gradients")
    model = new_model(["red", "blue", "green", "white", "dot", "star"], 0).eval()
    similarity = model.log_scale.exp() * model.images(_pictures()) @ model.texts(CAPTIONS).T
    loss = contrastive_loss(similarity, torch.tensor([0, 1, 0, 2, 3, 1]))
    loss.backward()
    assert found["loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    for name, value in model.named_parameters():
        assert torch.allclose(found[name], value.grad, rtol=1e-3, atol=1e-6), name


def test_a_process_ends_with_the_one_that_started_it() -> None:
    child = "import os, time; from factory_lib.lifeline import end_with; end_with(os.getppid()); "
    child += "print(os.getpid(), flush=True); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert is_alive(pid)
        process.kill()
        until(lambda: not is_alive(pid), 10)


def test_whatever_ends_a_run_ends_its_process_group(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def interrupted() -> None:
        with log.open("wb") as file, _running(["sh", "-c", "sleep 60 & echo $!; wait"], {}, file) as process:
            started.append(process)
            until(log.read_text)
            raise KeyboardInterrupt

    started: list[subprocess.Popen] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert started[0].returncode == -signal.SIGTERM
    until(lambda: not is_alive(int(log.read_text())), 10)


def test_a_checkpoint_of_something_else_is_none(tmp_path: Path) -> None:
    path = tmp_path / "model.checkpoint"
    assert load_checkpoint(path, "a") is None
    kept = TrainingCheckpoint("a", 7, 1.5, {"w": torch.ones(2)}, {"state": {}}, {"epoch": 1, "samples": 48}, [(5, 0.5)])
    save_checkpoint(path, kept)
    found = load_checkpoint(path, "a")
    assert found is not None
    assert (found.step, found.loader, found.losses) == (7, {"epoch": 1, "samples": 48}, [(5, 0.5)])
    assert load_checkpoint(path, "b") is None
    path.write_bytes(path.read_bytes()[:-100])
    assert load_checkpoint(path, "a") is None


def test_models_never_share_a_number(tmp_path: Path) -> None:
    made = []
    for name in "abcdef":
        (tmp_path / name).write_text(name)
        made.append(threading.Thread(target=publish, args=(tmp_path / "models", tmp_path / name)))
    for thread in made:
        thread.start()
    for thread in made:
        thread.join()
    models = stored_models(tmp_path / "models")
    assert [model.number for model in models] == [1, 2, 3, 4, 5, 6]
    assert sorted(model.path.read_text() for model in models) == list("abcdef")


def test_what_counts_as_worse() -> None:
    """Two standard errors by hand: 100 pairs, 0.8 and 0.7: 2 sqrt(0.0016 + 0.0021) = 0.1217."""
    better, slightly = {"accuracy": 0.8, "pairs": 100}, {"accuracy": 0.7, "pairs": 100}
    much = {"accuracy": 0.6, "pairs": 100}
    slightly["choices"] = much["choices"] = 10
    found = above_baseline(slightly, better)
    assert found.passed
    assert found.metadata["tolerance"].value == pytest.approx(0.1217, abs=1e-4)
    assert "no difference beyond noise" in (found.description or "")
    assert not above_baseline(much, better).passed
    assert above_baseline(much, None).passed
    assert not_worse(much, None, None).passed


def test_better_within_noise_is_not_better() -> None:
    one, other = {"accuracy": 0.266, "pairs": 94}, {"accuracy": 0.160, "pairs": 94}
    assert compare(one, other).tolerance == pytest.approx(0.118, abs=1e-3)
    assert compare(one, other).verdict == "no difference"
    assert str(compare(one, other)).endswith("no difference beyond noise")
    # of the same pictures, all but ten alike, and these ten to the better
    rights = ["1" * 25 + "0" * 69, "1" * 15 + "0" * 79]
    one, other = ({"accuracy": right.count("1") / 94, "pairs": 94, "right": right} for right in rights)
    assert compare(one, other).verdict == "better"
    assert compare(other, one).verdict == "worse"
    assert compare(one, one).verdict == "no difference"


@pytest.mark.parametrize(("right", "of"), [(0, 5), (1, 10), (25, 94), (450, 500), (500, 500)])
def test_the_interval_of_an_accuracy_is_wilsons(right: int, of: int) -> None:
    confidence = float(2 * norm.cdf(DEVIATIONS) - 1)
    expected = binomtest(right, of).proportion_ci(confidence, method="wilson")
    assert interval(right / of, of) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_intervals_of_paired_differences_hold_the_true_one() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        shared = rng.random(120)
        models = [(np.where(rng.random(120) < 0.7, shared, rng.random(120)) < level) for level in (0.45, 0.35)]
        one, other = (
            {"accuracy": float(m.mean()), "pairs": 120, "right": "".join(map(str, m.astype(int)))} for m in models
        )
        found = compare(one, other)
        hits += found.low <= 0.1 <= found.high
    assert 0.93 <= hits / 2000 <= 0.99


def test_captions_that_cannot_be_told_apart_train_nothing(
    instance: dg.DagsterInstance, training_set: DatasetQuery
) -> None:
    training_set.mutate(caption=case((C.split == "test", "one caption"), default=C.caption)).save("training_set")
    result = materialize(instance)
    assert result.success
    assert "All 80 test samples have the caption 'one caption'" in numbers(result)["why"]
    assert not any(passed for passed, _ in checks(result).values())
