"""Hashes that differ in few bits: against comparing all with all."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from factory_lib.curation.duplicates import hamming as module
from factory_lib.curation.duplicates.hamming import keys_for, nearby


def planted(seed: int, count: int, rows: int, kinds: int, bits: int) -> NDArray[np.uint64]:
    """Hashes of 63 bits, of few kinds that differ in some bits."""
    random = np.random.default_rng(seed)
    base = random.integers(0, 2**63, kinds, dtype=np.uint64) << np.uint64(1)
    words = base[random.integers(0, kinds, (rows, count))]
    for _ in range(bits):
        words ^= np.uint64(1) << random.integers(1, 64, words.shape, dtype=np.uint64)
    return words


def all_pairs(words: NDArray[np.uint64], distance: int) -> dict[tuple[int, int], int]:
    """(smaller, larger) -> bits, of all pairs that are near in some row."""
    nearest = np.bitwise_count(words[:, :, None] ^ words[0]).min(axis=0)
    nearest = np.minimum(nearest, nearest.T)
    return {(i, j): int(nearest[i, j]) for i, j in zip(*np.nonzero(np.triu(nearest <= distance, 1)), strict=True)}


def found_pairs(words: NDArray[np.uint64], distance: int) -> dict[tuple[int, int], int]:
    """The same as `nearby` finds it; what it says of each pair is checked."""
    pairs, reasons = nearby(words, distance)
    small, large = (pairs >> np.uint64(32)).astype(int), (pairs & np.uint64(2**32 - 1)).astype(int)
    row, swapped, bits = reasons & 127, reasons >> 7 & 1, reasons >> 8
    probe, base = np.where(swapped, large, small), np.where(swapped, small, large)
    assert (np.bitwise_count(words[row, probe] ^ words[0, base]) == bits).all()
    found = dict(zip(zip(small.tolist(), large.tolist(), strict=True), bits.tolist(), strict=True))
    assert len(found) == len(pairs)
    return found


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 120),
    kinds=st.integers(1, 40),
    bits=st.integers(0, 6),
    distance=st.sampled_from([0, 3, 10, 32]),
)
def test_few_hashes_are_all_compared(seed: int, count: int, kinds: int, bits: int, distance: int) -> None:
    words = planted(seed, count, 3, kinds, bits)
    assert found_pairs(words, distance) == all_pairs(words, distance)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), kinds=st.integers(30, 200), bits=st.integers(0, 5))
def test_pairs_of_bytes_find_what_differs_in_six_bits(seed: int, kinds: int, bits: int) -> None:
    words = planted(seed, 200, 3, kinds, bits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ALL", 0)
        patch.setattr(module, "keys_for", lambda probes, count: list(combinations(range(8), 2)))
        found = found_pairs(words, 10)
    near = all_pairs(words, 10)
    assert {pair for pair, differ in near.items() if differ <= 6} <= found.keys() <= near.keys()


@pytest.mark.parametrize("key", [(0, 1), (2, 5), (1, 4, 6)])
def test_a_key_finds_what_has_these_bytes_in_common(key: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ALL", 0)
    monkeypatch.setattr(module, "keys_for", lambda probes, count: [key])
    words = planted(0, 600, 3, 300, 3)
    mask = np.uint64(sum(255 << 8 * (7 - byte) for byte in key))
    differ = words[:, :, None] ^ words[0]
    bits = np.where(differ & mask, 64, np.bitwise_count(differ)).min(axis=0)
    bits = np.minimum(bits, bits.T)
    expected = {(i, j): int(bits[i, j]) for i, j in zip(*np.nonzero(np.triu(bits <= 10, 1)), strict=True)}
    assert len(expected) > 100
    assert found_pairs(words, 10) == expected


def test_of_very_many_alike_only_neighbours_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ALL", 0)
    monkeypatch.setattr(module, "MOST", 8)
    monkeypatch.setattr(module, "keys_for", lambda probes, count: [(0, 1)])
    words = planted(0, 3_000, 2, 1, 0) ^ (
        np.random.default_rng(1).integers(0, 2**40, (2, 3_000), np.uint64) << np.uint64(1)
    )
    words[1, :50] = words[0, 100:150] ^ np.uint64(2)  # in the last byte: they stand next to each other
    found = found_pairs(words, 3)
    assert {(place, 100 + place) for place in range(50)} <= found.keys()


@pytest.mark.parametrize(
    ("probes", "count", "bits"),
    [(27 << 14, 1 << 14, 6), (27 << 20, 1 << 20, 5), (27 << 21, 1 << 21, 3), (1 << 60, 1 << 50, 3)],
)
def test_whichever_bytes_differ_some_key_is_left(probes: int, count: int, bits: int) -> None:
    keys = [set(key) for key in keys_for(probes, count)]
    assert len({frozenset(key) for key in keys}) == len(keys)
    for differing in combinations(range(8), bits):
        assert any(not key & set(differing) for key in keys), differing
