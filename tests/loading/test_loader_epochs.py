"""Epochs as trainers go through them: ended early, resumed, chosen; in one process, and in a DataLoader's workers."""

from __future__ import annotations

import copy
import multiprocessing
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from factory_lib.errors import LoaderError
from factory_lib.loading.dataset import BatchDataset, to_torch
from tests.loading_rows import numbers, reader_of

ROWS, BATCH = 100, 10
TABLE = pa.table({"shard": ["a"] * 60 + ["b"] * 40, "number": range(ROWS)})
Numbers = list[list[int]]


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_HOME", str(tmp_path_factory.getbasetemp() / "epochs"))


def load(**arguments: Any) -> BatchDataset:
    options = {"columns": ["number"], "global_batch_size": BATCH, "seed": 3, "progress": False, **arguments}
    return to_torch(reader_of(TABLE), "epochs", **options)


@pytest.fixture(scope="module")
def epochs() -> list[Numbers]:
    """What an undisturbed training sees."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FACTORY_HOME", raising=False)
        dataset = load()
        found = [numbers(dataset) for _ in range(5)]
    assert all(sorted(n for batch in epoch for n in batch) == list(range(ROWS)) for epoch in found)
    assert len({str(epoch) for epoch in found}) == 5
    return found


def test_after_an_epoch_that_ended_early_comes_the_next_one(epochs):
    dataset = load()
    assert numbers(dataset, 3) == epochs[0][:3]
    assert dataset.state_dict()["samples"] == 3 * BATCH
    assert len(dataset) == 10
    assert numbers(dataset, 3) == epochs[1][:3]
    iter(dataset)  # one that delivers nothing leaves everything as it was
    assert numbers(dataset) == epochs[2]
    assert numbers(dataset, 10) == epochs[3]  # the last batch was taken, and no more asked for
    assert numbers(dataset) == epochs[4]


def test_or_the_rest_of_it_where_that_is_asked_for(epochs):
    dataset = load(early_end="continue")
    assert numbers(dataset, 3) == epochs[0][:3]
    assert len(dataset) == 7
    dataset.loader().set_epoch(1)  # a framework's count of iterations is none of epochs
    assert numbers(dataset, 4) == epochs[0][3:7]
    assert numbers(dataset) == epochs[0][7:]
    assert numbers(dataset, 10) == epochs[1]
    assert numbers(dataset) == epochs[2]
    with pytest.raises(LoaderError, match="early_end.*'continue'"):
        load(early_end="continu")


def test_resumed_epochs_end_early_too(epochs):
    before = load()
    numbers(before)
    numbers(before, 4)
    state = before.state_dict()
    for early_end, after in (("next", epochs[2]), ("continue", epochs[1][6:])):
        dataset = load(early_end=early_end)
        dataset.load_state_dict(state)
        assert len(dataset) == 6
        assert numbers(dataset, 2) == epochs[1][4:6]
        assert numbers(dataset) == after
    again = load()
    again.load_state_dict(state)
    again.set_epoch(1)
    assert numbers(again, 1) == epochs[1][4:5]
    again.set_epoch(1)  # begun already: from its start
    assert numbers(again) == epochs[1]


@pytest.mark.parametrize(("workers", "persistent"), [(1, False), (2, False), (2, True)])
def test_workers_of_a_dataloader_go_through_the_epochs(epochs, workers, persistent):
    dataset = load()
    outer = DataLoader(
        dataset, batch_size=None, num_workers=workers, persistent_workers=persistent, multiprocessing_context="fork"
    )
    torch.manual_seed(0)
    assert numbers(outer) == epochs[0]
    torch.manual_seed(0)  # the loader's seed is no sign of a new epoch
    assert numbers(outer, 3) == epochs[1][:3]
    assert numbers(outer) == epochs[2]
    dataset.set_epoch(1)
    assert numbers(outer) == epochs[1]
    with pytest.raises(LoaderError, match="num_workers"):
        dataset.state_dict()
    dataset.load_state_dict(load().state_dict() | {"epoch": 3, "samples": 7 * BATCH})
    assert numbers(outer) == epochs[3][7:]
    assert numbers(outer) == epochs[4]
    assert dataset.state_dict(batches=4)["epoch"] == 4


def test_spawned_workers_and_copies_do_so_too(epochs):
    dataset = copy.deepcopy(load())
    outer = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert [numbers(outer, 2), numbers(outer, 2)] == [epochs[0][:2], epochs[1][:2]]


def test_what_was_delivered_is_unknown_where_workers_read_ahead(epochs):
    outer = DataLoader(load(early_end="continue"), batch_size=None, num_workers=1, multiprocessing_context="fork")
    assert numbers(outer) == epochs[0]
    with pytest.raises(LoaderError, match=r"early_end=.*num_workers to to_torch"):
        numbers(outer)


@pytest.mark.parametrize(
    ("workers", "persistent", "method"),
    [(0, False, ""), (2, False, "fork"), (2, True, "fork"), (1, False, "forkserver"), (1, True, "spawn")],
)
def test_a_stateful_dataloader_resumes_in_the_middle_and_at_the_end(epochs, workers, persistent, method):
    def outer() -> StatefulDataLoader:
        options = {"multiprocessing_context": method, "persistent_workers": persistent} if workers else {}
        return StatefulDataLoader(load(), batch_size=None, num_workers=workers, **options)

    first = outer()
    assert numbers(first) == epochs[0]
    finished = first.state_dict()
    assert numbers(first, 3) == epochs[1][:3]
    middle = first.state_dict()
    del first
    second = outer()
    second.load_state_dict(middle)
    assert numbers(second) == epochs[1][3:]
    assert numbers(second) == epochs[2]
    third = outer()
    third.load_state_dict(finished)
    assert numbers(third) == epochs[1]


def test_forked_ranks_do_not_move_each_other(epochs):
    dataset = load(rank=0, world_size=1)
    context = multiprocessing.get_context("fork")
    found = context.SimpleQueue()
    for _ in range(2):
        process = context.Process(target=lambda: found.put(numbers(dataset, 2)))
        process.start()
        assert found.get() == epochs[0][:2]
        process.join()
    assert numbers(dataset, 2) == epochs[0][:2]


@pytest.mark.parametrize(
    ("arguments", "variables", "match"),
    [
        ({"world_size": 4}, {}, r"world_size=4 is half.*rank is missing"),
        ({"rank": 1}, {}, "world_size is missing"),
        ({"rank": 4, "world_size": 4}, {}, "Ranks are 0 to 3"),
        ({"world_size": 4}, {"RANK": "1", "WORLD_SIZE": "4"}, "rank is missing"),
        ({}, {"WORLD_SIZE": "4"}, "no RANK"),
        ({}, {"RANK": "0"}, "no WORLD_SIZE"),
        ({}, {"RANK": "5", "WORLD_SIZE": "4"}, "does not exist"),
        ({}, {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"}, "SLURM_STEP_NUM_TASKS"),
    ],
)
def test_half_a_geometry_is_no_geometry(monkeypatch, arguments, variables, match):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LoaderError, match=match):
        numbers(load(**arguments), 1)


def test_batch_size_counts_rows_of_a_rank(epochs):
    ranks = [load(global_batch_size=None, batch_size=5, rank=rank, world_size=2) for rank in range(2)]
    parts = [numbers(rank) for rank in ranks]
    whole = [sorted(one + other) for one, other in zip(*parts, strict=True)]
    assert whole == [sorted(batch) for batch in epochs[0]]
    with pytest.raises(LoaderError, match="two answers"):
        load(batch_size=5)
    assert len(load(global_batch_size=30, drop_last=True)) == 3
    assert len(load(global_batch_size=30, drop_last=False)) == 4
    with pytest.raises(LoaderError, match="contradict"):
        load(tail="mask", drop_last=True)


def test_states_say_all_that_differs():
    state = load().state_dict()
    with pytest.raises(LoaderError, match=r"seed=3, this loader has 4; tail='repeat'"):
        load(seed=4, tail="drop").load_state_dict(state)
    with pytest.raises(LoaderError, match="no state of a loader"):
        load().load_state_dict({"epoch": 1})
    assert state["world_size"] == 1


def test_samples_and_batches_are_changed_and_collated_as_asked():
    def doubled(sample: dict[str, Any], rng: Any) -> dict[str, Any]:
        return {"twice": 2 * sample["number"], "drawn": rng.random()}

    batch = next(iter(load(sample_transform=doubled)))
    again = next(iter(load(sample_transform=doubled)))
    assert batch["twice"].shape == (BATCH,)
    assert len(set(batch["drawn"].tolist())) == BATCH
    assert torch.equal(batch["drawn"], again["drawn"])
    listed = next(iter(load(collate_fn=lambda samples: [int(sample["number"]) for sample in samples])))
    assert listed == next(iter(load()))["number"].tolist()
