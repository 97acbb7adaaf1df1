"""The order of samples, against its definition."""

from __future__ import annotations

import hashlib
import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory_lib.errors import LoaderError
from factory_lib.loading.order import (
    LANES,
    Order,
    OrderKey,
    batch_count,
    default_lanes,
    default_units,
    own_lanes,
    rank_positions,
)

WORLDS = (1, 2, 3, 4, 8, 16, 96)


def philox_words(key: tuple[int, int], counter: list[int], count: int) -> list[int]:
    """Philox4x64-10, written from the paper (Salmon et al. 2011); numpy counts before it draws."""
    mask = (1 << 64) - 1
    words: list[int] = []
    while len(words) < count:
        for i in range(4):
            counter[i] = (counter[i] + 1) & mask
            if counter[i]:
                break
        c, (k0, k1) = list(counter), key
        for _ in range(10):
            high0, low0 = divmod(0xD2E7470EE14C6C93 * c[0], 1 << 64)
            high1, low1 = divmod(0xCA5A826395121157 * c[2], 1 << 64)
            c = [high1 ^ c[1] ^ k0, low1, high0 ^ c[3] ^ k1, low0]
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
        words += c
    return words[:count]


def sequence_by_definition(key: OrderKey, epoch: int, cuts: list[int]) -> list[int]:
    """The whole sequence, from the words of the module's docstring and plain lists."""
    digest = hashlib.blake2b(f"{key.identity}\0{key.seed}\0{epoch}".encode(), digest_size=16).digest()
    words_key = (int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little"))

    def shuffled(items: list, purpose: int, *place: int) -> list:
        words = philox_words(words_key, [0, purpose, *place, 0, 0][:4], len(items))
        return [item for _, item in sorted(zip(words, items, strict=True), key=lambda pair: pair[0])]

    edges = sorted({0, *cuts, key.rows})
    units = []
    for start, stop in itertools.pairwise(edges):
        parts = -(-(stop - start) // key.unit_rows)
        inner = [start + i * (stop - start) // parts for i in range(parts + 1)]
        units += [list(range(a, b)) for a, b in itertools.pairwise(inner)]
    stream = [(row, number) for number, unit in enumerate(shuffled(units, 0)) for row in unit]
    lanes, window = [], min(key.window_rows, key.rows // key.lanes + 1)
    for lane in range(key.lanes):
        length = key.rows // key.lanes + (lane < key.rows % key.lanes)
        own, stream = stream[:length], stream[length:]
        windows: dict[int, list[int]] = {}
        begin = 0
        for _, unit in itertools.groupby(own, key=lambda pair: pair[1]):
            rows = [row for row, _ in unit]
            windows.setdefault((begin + lane * window // key.lanes) // window, []).extend(rows)
            begin += len(rows)
        lanes.append([row for number, rows in windows.items() for row in shuffled(rows, 1, lane, number)])
    return [lanes[g % key.lanes][g // key.lanes] for g in range(key.rows)]


@st.composite
def tables(draw: st.DrawFn) -> tuple[OrderKey, int, np.ndarray]:
    """Ragged shards, some filtered down to a few rows, some to none."""
    shards = draw(st.lists(st.integers(0, 400), min_size=1, max_size=8).filter(any))
    key = OrderKey(
        identity=draw(st.sampled_from(["a", "b"])),
        rows=sum(shards),
        seed=draw(st.integers(0, 3)),
        unit_rows=draw(st.sampled_from([1, 2, 7, 64, 1000])),
        window_rows=draw(st.sampled_from([1, 3, 16, 1000])),
        lanes=draw(st.sampled_from([1, 8, 96])),
    )
    return key, draw(st.integers(0, 2)), np.cumsum(shards)[:-1]


@settings(max_examples=25, deadline=None)
@given(tables())
def test_sequence_is_the_defined_permutation(table):
    key, epoch, cuts = table
    expected = sequence_by_definition(key, epoch, cuts.tolist())
    assert sorted(expected) == list(range(key.rows))
    order = Order(key, epoch, cuts)
    assert order.rows(np.arange(key.rows)).tolist() == expected
    backwards = np.arange(key.rows)[::-1]
    assert Order(key, epoch, cuts).rows(backwards).tolist() == expected[::-1]


def test_golden_values():
    """Pinned: a checkpoint of today resumes with the library of any later day."""
    order = Order(OrderKey("d8c1", rows=1000, seed=7, unit_rows=10, window_rows=4), epoch=2, cuts=np.array([137, 600]))
    assert order.rows(np.array([0, 1, 2, 95, 96, 97, 500, 998, 999])).tolist() == GOLDEN
    assert [order.substitute(5, attempt) for attempt in range(3)] == GOLDEN_SUBSTITUTES
    assert order.sample_seed(12) == GOLDEN_SEED


@pytest.mark.parametrize("key_change", [{"seed": 8}, {"identity": "d8c2"}, {"epoch": 3}])
def test_every_part_of_the_key_changes_the_order(key_change):
    base = {"identity": "d8c1", "seed": 7, "epoch": 2}

    def sequence(identity: str, seed: int, epoch: int) -> list[int]:
        return Order(OrderKey(identity, 500, seed=seed, unit_rows=5), epoch).rows(np.arange(500)).tolist()

    assert sequence(**base) != sequence(**{**base, **key_change})


@settings(max_examples=15, deadline=None)
@given(tables(), st.sampled_from([96, 192, 512, 100]))
def test_batch_sets_are_the_same_at_any_world_size(table, global_batch):
    key, epoch, cuts = table
    order = Order(key, epoch, cuts)
    for batch in range(batch_count(key.rows, global_batch, "repeat")):
        start = batch * global_batch
        parts = {w: [rank_positions(key, start, global_batch, r, w) for r in range(w)] for w in WORLDS}
        whole = np.arange(start, start + global_batch)
        for world, ranks in parts.items():
            sizes = [len(part) for part in ranks]
            assert max(sizes) - min(sizes) <= (global_batch % world > 0)
            assert np.array_equal(np.sort(np.concatenate(ranks)), whole)
            one = np.sort(np.concatenate([order.rows(part) for part in ranks]))
            assert np.array_equal(one, np.sort(order.rows(whole)))


@settings(max_examples=30, deadline=None)
@given(tables(), st.data())
def test_resume_at_other_world_sizes_loses_and_repeats_nothing(table, data):
    key, epoch, cuts = table
    global_batch = 96
    batches = key.rows // global_batch
    stops = sorted(data.draw(st.lists(st.integers(0, batches), min_size=3, max_size=3)))
    seen: list[int] = []
    for world, first, last in zip((8, 4, 16, 1), [0, *stops], [*stops, batches], strict=True):
        orders = [Order(key, epoch, cuts) for _ in range(world)]  # every rank starts anew, as after a restart
        for batch in range(first, last):
            for rank, order in enumerate(orders):
                seen += order.rows(rank_positions(key, batch * global_batch, global_batch, rank, world)).tolist()
    assert len(seen) == len(set(seen)) == batches * global_batch


def test_ranks_keep_to_their_own_lanes_and_units():
    key = OrderKey("x", rows=96 * 100, unit_rows=50, window_rows=20)
    order = Order(key)
    owners: dict[int, set[int]] = {}
    for rank in range(8):
        for start in range(0, key.rows, 192):
            positions = rank_positions(key, start, 192, rank, 8)
            assert set((positions % LANES // 12).tolist()) == {rank}
            for row in order.rows(positions).tolist():
                owners.setdefault(row // 50, set()).add(rank)
    assert len(owners) == 192
    assert sum(len(ranks) for ranks in owners.values()) <= 192 + 7  # units at a border of ranks: twice


@pytest.mark.parametrize(("global_batch", "foreign"), [(480, 0.0), (512, 0.04), (256, 0.08), (100, 0.13)])
def test_batches_that_the_lanes_do_not_divide_take_few_rows_from_other_lanes(global_batch, foreign):
    key = OrderKey("x", rows=96 * 100, unit_rows=50, window_rows=20)
    lanes = [own_lanes(key, rank, 8) for rank in range(8)]
    assert np.array_equal(np.concatenate(lanes), np.arange(LANES))
    strange = 0
    for start in range(0, key.rows - global_batch, global_batch):
        for rank in range(8):
            positions = rank_positions(key, start, global_batch, rank, 8)
            strange += int((~np.isin(positions % LANES, lanes[rank])).sum())
    assert strange <= foreign * key.rows


def test_tail_is_repeated_or_dropped():
    assert batch_count(1000, 96, "drop") == 10
    assert batch_count(1000, 96, "repeat") == batch_count(1000, 96, "mask") == 11
    assert batch_count(1000, 96, "drop", start=500) == 5
    assert batch_count(1000, 96, "repeat", start=1000) == 0
    order = Order(OrderKey("x", rows=1000, unit_rows=9))
    assert order.rows(np.arange(1000, 1056)).tolist() == order.rows(np.arange(56)).tolist()


def test_unshuffled_is_storage_order():
    key = OrderKey("x", rows=1000, shuffle=False)
    assert Order(key).rows(np.arange(995, 1002)).tolist() == [995, 996, 997, 998, 999, 0, 1]
    assert rank_positions(key, 96, 96, 1, 4).tolist() == list(range(120, 144))


@settings(max_examples=20, deadline=None)
@given(tables(), st.data())
def test_substitutes_come_from_the_same_window_of_the_same_lane(table, data):
    key, epoch, cuts = table
    order = Order(key, epoch, cuts)
    position = data.draw(st.integers(0, key.rows - 1))
    row = int(order.rows(np.array([position]))[0])
    lane, at = position % key.lanes, position // key.lanes
    lanes = np.array([lane])
    window = order.window_rows(lanes, order.windows(lanes, np.array([at])))[0].tolist()
    assert row in window
    tries = [order.substitute(position, attempt) for attempt in range(len(window) - 1)]
    if len(window) > 1:
        assert sorted([*tries, row]) == sorted(window)
    assert tries == [Order(key, epoch, cuts).substitute(position, attempt) for attempt in range(len(tries))]


def test_windows_mix_shards():
    """16 shards of 2,000: each batch of 480 sees all of them, and storage neighbours rarely meet."""
    unit, window = default_units(32_000, 6_000)
    order = Order(OrderKey("x", rows=32_000, unit_rows=unit, window_rows=window), cuts=np.arange(2000, 32_000, 2000))
    rows = order.rows(np.arange(31_680)).reshape(-1, 480)
    assert (np.apply_along_axis(lambda batch: len(np.unique(batch // 2000)), 1, rows) >= 15).all()
    neighbours = sum(np.isin(batch + 1, batch).sum() for batch in rows) / rows.size
    assert neighbours < 480 / (window * 96)  # as in a shuffle of all current windows


def test_hundred_million_rows_seek_in_the_middle_within_bounds():
    rows = 100_000_000
    unit, window = default_units(rows, 8_500)
    key = OrderKey("x", rows=rows, unit_rows=unit, window_rows=window)
    tracemalloc.start()
    order = Order(key, 3, np.arange(10_000, rows, 10_000))
    batch = order.rows(rank_positions(key, rows // 2, 480, 3, 8))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(np.unique(batch)) == 60
    assert order.nbytes <= kept <= 10_000_000


@pytest.mark.parametrize("name", ["rows", "unit_rows", "window_rows", "lanes"])
def test_impossible_keys_are_refused(name):
    with pytest.raises(LoaderError, match=f"{name}=0"):
        OrderKey(**{"identity": "x", "rows": 10, name: 0})


def test_cuts_beyond_the_rows_are_refused():
    with pytest.raises(LoaderError, match="10 rows"):
        Order(OrderKey("x", rows=10), cuts=np.array([11]))


GOLDEN = [235, 153, 914, 814, 238, 154, 479, 433, 395]
GOLDEN_SUBSTITUTES = [715, 718, 719]
GOLDEN_SEED = 17395887890430024111


@pytest.mark.parametrize(
    ("rows", "lanes"), [(10**8, 96), (1536, 96), (1535, 48), (768, 48), (400, 24), (200, 12), (5, 6)]
)
def test_small_versions_have_fewer_lanes(rows, lanes):
    assert default_lanes(rows) == lanes
