"""Batches in blocks of shared memory: they arrive as they were, and nobody's are overwritten."""

from __future__ import annotations

import os
import pickle
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from factory_lib.loading import shared_blocks
from factory_lib.loading.dataset import BatchDataset, to_torch
from factory_lib.loading.shared_blocks import HEADER, SharedBlocks
from factory_lib.loading.workers import MAX_TOGETHER
from tests.loading_rows import reader_of, write_shards
from tests.waiting import wait_for

SIZE = 3000


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    return write_shards(tmp_path_factory.mktemp("shards"), [200], lambda n: bytes([n]) * SIZE)


def load(table: pa.Table, home: Path, **arguments: Any) -> BatchDataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACTORY_HOME", str(home))
        options = {"members": ["image"], "columns": ["number"], "decoders": "raw", "global_batch_size": 10}
        return to_torch(reader_of(table), "slabs", **{**options, **arguments})


def right(batch: dict[str, Any]) -> bool:
    expected = torch.tensor(batch["number"].tolist(), dtype=torch.uint8).repeat_interleave(SIZE)
    return torch.equal(batch["image"]["data"], expected)


def test_kept_batches_are_never_overwritten(table, tmp_path):
    """Some are kept for long, some dropped at once; each is looked at again at the end."""
    dataset = load(table, tmp_path, num_workers=2, start_method="fork")
    choice, kept = random.Random(0), []
    for _ in range(4):
        for batch in dataset:
            assert right(batch)
            if choice.random() < 0.5:
                kept.append(batch)
            if choice.random() < 0.1 and kept:
                kept.pop(choice.randrange(len(kept)))
            assert all(right(old) for old in kept)
    assert len(kept) >= 5


def test_what_a_worker_keeps_is_not_overwritten_either(table, tmp_path):
    mine: list[dict] = []

    def keep(batch: dict) -> dict:
        mine.append(batch)
        return {**batch, "whole": all(right(old) for old in mine)}

    dataset = load(table, tmp_path, num_workers=1, start_method="fork", collate=keep)
    assert all(batch["whole"] and right(batch) for batch in dataset)


def test_blocks_are_used_again(table, tmp_path):
    def counted(batch: dict) -> dict:
        return {**batch, "open": len(os.listdir("/proc/self/fd"))}

    dataset = load(table, tmp_path, num_workers=1, start_method="fork", collate=counted)
    opened = [batch["open"] for _ in range(5) for batch in dataset]
    assert len(opened) == 100
    assert max(opened) - min(opened) <= 5 * MAX_TOGETHER  # of messages made ahead, and of those on their way


def test_an_abandoned_epoch_gives_its_blocks_back(table, tmp_path):
    def counted(batch: dict) -> dict:
        return {**batch, "open": len(os.listdir("/proc/self/fd"))}

    dataset = load(table, tmp_path, num_workers=1, start_method="fork", collate=counted)
    opened = []
    for _ in range(12):
        for step, batch in enumerate(dataset):
            opened.append(batch["open"])
            if step == 2:
                break
    assert max(opened) - min(opened) <= 5 * MAX_TOGETHER


def test_a_batch_whose_worker_is_killed_before_it_arrives_is_made_again(table, tmp_path, monkeypatch):
    """It has been sent, and its block was not looked at yet."""
    looks: list[int] = []
    look = shared_blocks._memory

    def too_late(block: shared_blocks.BlockAddress) -> Any:
        looks.append(block[0])
        if len(looks) == 5:
            shared_blocks._mapped.clear()
            os.kill(block[0], 9)
            wait_for(lambda: not os.path.exists(f"/proc/{block[0]}/fd/{block[1]}"))
        return look(block)

    monkeypatch.setattr(shared_blocks, "_memory", too_late)
    dataset = load(table, tmp_path, num_workers=2, start_method="fork", shuffle=False)
    batches = list(dataset)
    assert all(right(batch) for batch in batches)
    assert [n for batch in batches for n in batch["number"].tolist()] == list(range(200))
    assert dataset.counters["restarted_workers"] == 1


def arrived(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("rows", [1, 40_000])
def test_tensors_arrive_as_they_were(rows):
    """Small ones in the message, large ones in a block."""
    pool = SharedBlocks()
    whole = torch.arange(rows * 4, dtype=torch.float32).view(rows, 4)
    value = {
        "float": whole,
        "half": whole.to(torch.bfloat16),
        "bool": whole % 3 == 0,
        "complex": whole.to(torch.complex64),
        "columns": whole[:, ::2],
        "turned": whole.T,
        "spread": whole[:1].expand(rows, 4),
        "zero": torch.tensor(7),
        "none": torch.empty(0, 3, dtype=torch.int16),
        "nested": [(whole + 1, "text"), {"deep": whole + 2}],
    }
    found = arrived(pool.packed(value))
    assert found.keys() == value.keys()
    for name in value.keys() - {"nested"}:
        assert (found[name].dtype, found[name].shape) == (value[name].dtype, value[name].shape)
        assert torch.equal(found[name], value[name]), name
    assert torch.equal(found["nested"][0][0], whole + 1)
    assert torch.equal(found["nested"][1]["deep"], whole + 2)
    assert found["nested"][0][1] == "text"


def test_views_of_one_block_hold_it_until_the_last_is_gone():
    pool = SharedBlocks()
    tensor = pool.empty((1000, 100), torch.float32)
    assert tensor is not None
    tensor[:] = torch.arange(1000)[:, None]
    halves = arrived(pool.packed([tensor[:500], tensor[500:]]))
    del tensor
    (block,) = pool._blocks
    assert not block.free
    assert halves[1][:, 3].tolist() == list(range(500, 1000))
    del halves[0]
    assert not block.free
    again = pool.empty((1000, 100), torch.float32)
    assert again is not None
    again[:] = -1
    assert halves[0][:, 3].tolist() == list(range(500, 1000))
    halves.clear()
    assert block.free


def test_no_more_blocks_than_there_may_be(monkeypatch):
    monkeypatch.setattr(shared_blocks, "MAX_BLOCKS", 3)
    pool = SharedBlocks()
    kept = [pool.empty((100_000,), torch.uint8) for _ in range(3)]
    assert pool.empty((100_000,), torch.uint8) is None
    plain = torch.ones(100_000)
    assert pool.packed(plain) is plain  # torch sends it
    kept.clear()
    large = pool.empty((10_000_000,), torch.uint8)  # those that are too small make room
    assert large is not None
    assert len(pool._blocks) == 1


def test_more_views_than_marks():
    pool = SharedBlocks()
    tensor = pool.empty((HEADER + 5, 8), torch.float32)
    assert tensor is not None
    tensor[:] = torch.arange(HEADER + 5)[:, None]
    found = arrived(pool.packed(list(tensor)))
    assert [int(row[0]) for row in found] == list(range(HEADER + 5))


def test_a_worker_that_is_gone_is_an_error_and_not_other_memory():
    pool = SharedBlocks()
    packed = pool.packed(torch.ones(100_000))
    message = pickle.dumps(packed)
    (block,) = pool._blocks
    descriptor = block.descriptor
    os.close(descriptor)
    other = os.memfd_create("other")
    try:
        assert other == descriptor
        with pytest.raises(shared_blocks.WorkerGone, match="killed before its batch had arrived"):
            pickle.loads(message)
    finally:
        os.close(other)
        block.descriptor = os.dup(2)
