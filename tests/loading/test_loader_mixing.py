"""Several versions mixed by weight: exact shares, nothing lost, the same batches on any number of ranks."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from factory_lib.errors import LoaderError
from factory_lib.loading.dataset import BatchDataset, to_torch
from factory_lib.loading.mixing import mix
from factory_lib.loading.shares import Shares
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


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.integers(1, 10**6), st.floats(1e-6, 1e6)), min_size=1, max_size=9),
    st.integers(0, 5),
    st.integers(0, 10**12),
)
def test_every_source_has_had_its_share_wherever_the_sequence_is_cut(weights, seed, position):
    shares = Shares(weights, seed)
    before, after = shares.before(position), shares.before(position + 1)
    assert sum(before) == position
    assert sorted(late - early for early, late in zip(before, after, strict=True)) == [0] * (len(weights) - 1) + [1]
    exact = [Fraction(str(weight)) for weight in weights]
    for count, weight in zip(before, exact, strict=True):
        assert abs(count - position * weight / sum(exact)) <= 1 + math.log2(len(weights))


def test_a_rare_version_comes_as_rarely_as_it_is_to():
    shares = Shares([100_000, 1], seed=0)
    assert [shares.before(n * 100_001)[1] for n in (1, 10, 1000)] == [1, 10, 1000]


def test_shares_are_those_of_the_weights_and_small_versions_start_over(tables):
    mixed = mix(load(tables), [2, 1, 1], seed=1, rows_per_epoch=1024)
    assert len(mixed) == 1024 // 64
    seen = [row for batch in mixed for row in rows(batch)]
    shares = Counter(source for source, _ in seen)
    assert shares == {0: 512, 1: 256, 2: 256}
    assert len({row for row in seen if row[0] == 0}) == 512  # none twice before all were seen
    small = Counter(number for source, number in seen if source == 2)
    assert set(small.values()) == {6, 7}  # 40 rows, 256 drawn
    again = [row for batch in mixed for row in rows(batch)]
    assert again != seen
    assert len({row for row in seen + again if row[0] == 0}) == 700  # the second epoch goes on where the first ended


def test_columns_of_lists_look_alike_in_every_batch_whatever_is_in_it(tables):
    """Equal lists in all versions are a tensor; others are ragged, also in a batch where they happen to be equal."""

    def vectors(count: int, length: int) -> pa.Array:
        return pa.array([[float(n)] * length for n in range(count)], pa.list_(pa.float32()))

    def tags(count: int) -> pa.Array:
        return pa.array([None if n % 3 == 0 else ["tag"] * (n % 3) for n in range(count)])

    wide = [t.append_column("tags", tags(len(t))).append_column("vector", vectors(len(t), 4)) for t in tables]
    narrow = tables[1].append_column("tags", tags(300)).append_column("vector", vectors(300, 2))
    options = {"members": [], "columns": ["number", "vector", "tags"]}

    def one(rows: pa.Table, name: str) -> BatchDataset:
        return to_torch(reader_of(rows), name, global_batch_size=64, **options)

    single = next(iter(one(wide[0], "w0")))
    assert single["vector"].shape == (64, 4)
    assert single["tags"][:1] == [None if single["number"][0] % 3 == 0 else ["tag"] * int(single["number"][0] % 3)]
    alike = next(iter(mix([one(wide[0], "w0"), one(wide[1], "w1")], [1, 1])))
    assert torch.equal(alike["vector"][:, 0], alike["number"].float())
    for batch in mix([one(wide[0], "w0"), one(narrow, "n")], [1, 1]):
        data, offsets = batch["vector"]["data"], batch["vector"]["offsets"]
        for index, (source, number) in enumerate(zip(batch["source"], batch["number"], strict=True)):
            assert data[offsets[index] : offsets[index + 1]].tolist() == [float(number)] * (2 if source else 4)


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
