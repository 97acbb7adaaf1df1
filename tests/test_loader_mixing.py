"""Several versions mixed by weight: exact shares, nothing lost, the same batches on any number of ranks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory_lib.errors import LoaderError
from factory_lib.loading.dataset import BatchDataset, to_torch
from factory_lib.loading.mixing import CYCLE, Mix, mix
from tests.loading_rows import jpeg, reader_of, write_shards

SIZES = (700, 300, 40)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[pa.Table]:
    return [write_shards(tmp_path_factory.mktemp("mixed"), [size // 2, size - size // 2]) for size in SIZES]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_HOME", str(tmp_path))


def load(tables: list[pa.Table], **arguments) -> list[BatchDataset]:
    arguments = {"members": ["image"], "columns": ["number"], "decoders": "raw", "global_batch_size": 64, **arguments}
    return [to_torch(reader_of(table), f"source-{i}", **arguments) for i, table in enumerate(tables)]


def rows(batch: dict) -> list[tuple[int, int]]:
    """(source, number) of each row, its bytes checked."""
    data, offsets = batch["image"]["data"], batch["image"]["offsets"].tolist()
    for index, number in enumerate(batch["number"].tolist()):
        assert data[offsets[index] : offsets[index + 1]].numpy().tobytes() == jpeg(number)
    return list(zip(batch["source"].tolist(), batch["number"].tolist(), strict=True))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=9), st.integers(0, 5), st.integers(0, 10_000))
def test_positions_of_sources_are_counted_without_gaps(weights, seed, start):
    order = Mix(weights, seed)
    assert order.quota.sum() == CYCLE
    assert (order.quota >= 1).all()
    stop = start + 700
    drawn = [int(order.sources(p // CYCLE)[p % CYCLE]) for p in range(start, stop)]
    spans = order.spans(start, stop)
    assert [last - first for first, last in spans] == [drawn.count(source) for source in range(len(weights))]
    assert [first for _, first in order.spans(0, start)] == [first for first, _ in spans]


def test_shares_are_those_of_the_weights_and_small_versions_start_over(tables):
    mixed = mix(load(tables), [2, 1, 1], seed=1, rows_per_epoch=CYCLE)
    assert len(mixed) == CYCLE // 64
    seen = [row for batch in mixed for row in rows(batch)]
    shares = Counter(source for source, _ in seen)
    assert shares == {0: 512, 1: 256, 2: 256}
    assert len({row for row in seen if row[0] == 0}) == 512  # none twice before all were seen
    small = Counter(number for source, number in seen if source == 2)
    assert set(small.values()) == {6, 7}  # 40 rows, 256 drawn
    again = [row for batch in mixed for row in rows(batch)]
    assert again != seen
    assert len({row for row in seen + again if row[0] == 0}) == 700  # the second epoch goes on where the first ended


@pytest.mark.parametrize("world", [2, 3, 8])
def test_ranks_share_each_batch(tables, world):
    whole = [sorted(rows(batch)) for batch in mix(load(tables), [5, 2, 1])]
    ranks = [mix(load(tables, rank=rank, world_size=world), [5, 2, 1]) for rank in range(world)]
    for expected, *parts in zip(whole, *ranks, strict=True):
        sizes = [len(part["number"]) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert sorted(row for part in parts for row in rows(part)) == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_resume_is_exact(tables, workers):
    whole = [rows(batch) for batch in mix(load(tables), [1, 1, 1])]
    first = mix(load(tables, num_workers=workers), [1, 1, 1])
    for _, batch in zip(range(5), first, strict=False):
        rows(batch)
    state = first.state_dict()
    rest = mix(load(tables), [1, 1, 1])
    rest.load_state_dict(state)
    assert [rows(batch) for batch in rest] == whole[5:]
    with pytest.raises(LoaderError, match="weights"):
        mix(load(tables), [1, 1, 2]).load_state_dict(state)


def test_what_cannot_be_mixed_is_said(tables):
    with pytest.raises(LoaderError, match="one positive weight each"):
        mix(load(tables), [1, 1])
    with pytest.raises(LoaderError, match="Give collate to mix"):
        mix(load(tables, collate=dict), [1, 1, 1])
    first, second, _ = load(tables)
    other = load(tables, columns=["caption"])[1]
    with pytest.raises(LoaderError, match="different columns"):
        list(mix([first, other], [1, 1]))
    shapes = [load(tables, decoders="pillow", image_size=size)[i] for i, size in enumerate((8, 16))]
    with pytest.raises(LoaderError, match="tensors that differ.*image_size"):
        list(mix(shapes, [1, 1]))
    joined = next(iter(mix([first, second], [1, 1], collate=lambda batch: batch["source"])))
    assert joined.shape == (64,)
