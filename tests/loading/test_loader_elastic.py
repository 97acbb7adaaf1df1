"""Any number of machines, at any time: the same batches, nothing lost, nothing twice. From tars to tensors, over
ragged shards and filtered rows."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory_lib import C, DatasetQuery
from factory_lib.loading.dataset import BatchDataset, to_torch
from tests.loading_rows import reader_of, write_shards

WORLDS = (1, 2, 3, 4, 8, 16, 96)
SHARDS = [350, 1, 0, 420, 97, 632]
BATCH = 96


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pa.Table]:
    """1,500 samples of a few bytes in ragged shards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACTORY_HOME", str(tmp_path_factory.mktemp("home")))
        yield write_shards(tmp_path_factory.mktemp("shards"), SHARDS, lambda n: b"sample %d" % n)


@st.composite
def filters(draw: st.DrawFn) -> tuple[int, float, set[int]]:
    """Which rows a filter keeps: a seed, a share, and shards of which nothing is kept."""
    gone = draw(st.sets(st.integers(0, len(SHARDS) - 1), max_size=3))
    return draw(st.integers(0, 999)), draw(st.sampled_from([0.1, 0.4, 0.9, 1.0])), gone


def kept(table: pa.Table, chosen: tuple[int, float, set[int]]) -> pa.Table:
    seed, share, gone = chosen
    keep = np.random.default_rng(seed).random(table.num_rows) < share
    keep &= ~np.isin([int(shard) for shard in table.column("shard").to_pylist()], list(gone))
    keep[[0, 900]] = True
    return table.filter(pa.array(keep))


def load(rows: pa.Table, identity: object, rank: int = 0, world: int = 1, **arguments: Any) -> BatchDataset:
    options = {"members": ["image"], "columns": ["number"], "decoders": "raw", "global_batch_size": BATCH, **arguments}
    return to_torch(reader_of(rows), str(identity), rank=rank, world_size=world, **options)


def numbers(batch: dict[str, Any]) -> list[int]:
    """The samples of a batch, each with its own bytes."""
    data, offsets = batch["image"]["data"].numpy().tobytes(), batch["image"]["offsets"].tolist()
    found = [int(n) for n in batch["number"].tolist()]
    assert [data[a:b] for a, b in itertools.pairwise(offsets)] == [b"sample %d" % n for n in found]
    return found


SETTINGS = settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SETTINGS
@given(chosen=filters(), seed=st.integers(0, 9), batch=st.sampled_from([96, 100, 192]))
def test_each_global_batch_is_the_same_set_at_any_world_size(table, chosen, seed, batch):
    rows = kept(table, chosen)
    options = {"seed": seed, "global_batch_size": batch}
    whole = [sorted(numbers(b)) for b in load(rows, chosen, **options)]
    assert set(rows.column("number").to_pylist()) == {n for one in whole for n in one}
    for world in WORLDS[1:]:
        ranks = [load(rows, chosen, rank, world, **options) for rank in range(world)]
        parts = [[numbers(b) for b in rank] for rank in ranks]
        assert [sorted(n for part in step for n in part) for step in zip(*parts, strict=True)] == whole
        sizes = {len(one) for part in parts for one in part}
        assert max(sizes) - min(sizes) <= (1 if batch % world else 0)


@SETTINGS
@given(chosen=filters(), seed=st.integers(0, 9), data=st.data())
def test_going_on_with_8_then_4_then_16_then_1_ranks_loses_and_repeats_nothing(table, chosen, seed, data):
    rows = kept(table, chosen)
    batches = rows.num_rows // BATCH
    stops = sorted(data.draw(st.lists(st.integers(0, batches), min_size=3, max_size=3), label="stops"))
    state = load(rows, chosen, seed=seed, tail="drop").state_dict()
    seen: list[int] = []
    for world, first, last in zip((8, 4, 16, 1), [0, *stops], [*stops, batches], strict=True):
        states = []
        for rank in range(world):
            part = load(rows, chosen, rank, world, seed=seed, tail="drop")
            part.load_state_dict(state)
            part.set_epoch(0)
            steps = iter(part)
            for _ in range(last - first):
                seen += numbers(next(steps))
            states.append(part.state_dict())
        assert all(other == states[0] for other in states)
        state = states[0]
    assert len(seen) == len(set(seen)) == batches * BATCH
    whole = load(rows, chosen, seed=seed, tail="drop")
    assert sorted(seen) == sorted(n for b in whole for n in numbers(b))


def test_an_epoch_for_evaluation_counts_each_sample_once_at_any_world_size(table):
    rows = kept(table, (1, 0.4, {3}))
    for world in (1, 3, 8):
        counted: Counter[int] = Counter()
        for rank in range(world):
            for batch in load(rows, "evaluation", rank, world, shuffle=False, tail="mask"):
                counted.update(batch["number"][batch["mask"]].tolist())
        assert counted == Counter(rows.column("number").to_pylist())


@pytest.mark.usefixtures("engine")
def test_a_filtered_version_of_the_warehouse_is_loaded_alike_by_all(table):
    version = DatasetQuery.from_arrow(table, shard="shard").save("elastic")
    query = DatasetQuery(version).filter(C.number % 3 != 1)
    expected = sorted(n for n in range(1500) if n % 3 != 1)
    options = {"columns": ["number"], "decoders": "raw", "global_batch_size": 40, "tail": "drop"}
    whole = [sorted(numbers(batch)) for batch in query.to_torch(**options)]
    assert sorted(n for batch in whole for n in batch) == expected
    parts = [[numbers(b) for b in query.to_torch(**options, rank=rank, world_size=4)] for rank in range(4)]
    assert [sorted(n for part in step for n in part) for step in zip(*parts, strict=True)] == whole
    other = DatasetQuery(version).filter(C.number % 3 != 2)
    assert other.to_torch(**options).state_dict()["identity"] != query.to_torch(**options).state_dict()["identity"]
