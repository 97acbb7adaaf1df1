"""Shards come and go: what was compared is not compared again, and what is found is what is found from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from factory_lib import DatasetQuery
from factory_lib.curation import near_duplicates
from factory_lib.curation.duplicates import distinct as module
from factory_lib.curation.duplicates.copies import Compared, copies, copies_in
from factory_lib.curation.duplicates.distinct import Pairs, Thumbnails
from factory_lib.history.reproducing import reproduce
from factory_lib.warehouse.client import warehouse

SIDE = 32
EDITS = (
    lambda t: t,
    lambda t: t[:, ::-1],
    np.rot90,
    lambda t: (t * 0.7).astype(np.uint8),
    lambda t: np.concatenate([t[:, 1:], t[:, -1:]], 1),
)


def plane(seed: int, edit: int = 0) -> NDArray[np.uint8]:
    """A scene like no other seed's, edited."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8)).astype(np.float32)
    from PIL import Image

    smooth = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    found: NDArray[np.uint8] = np.ascontiguousarray(EDITS[edit](smooth.clip(0, 255).astype(np.uint8)))
    return found


def thumbnails(pictures: Sequence[tuple[int, ...]]) -> Thumbnails:
    """Of samples: seed and edit of the plane of each, and of a trimmed one where there are four numbers."""
    planes = [plane(*two) for one in pictures for two in (one[:2], one[2:]) if two]
    owners = [row for row, one in enumerate(pictures) for _ in range(len(one) // 2)]
    return Thumbnails(np.array(planes, np.uint8).reshape(-1, SIDE, SIDE), np.array(owners, np.int64))


def compared(given: Thumbnails) -> Compared:
    """What a search among some thumbnails found."""
    found = copies(given, 0.85, 10)
    rows, numbers = given.numbers()
    distinct, places = np.unique(numbers, return_inverse=True)
    one, other = places[np.searchsorted(rows, found.one)], places[np.searchsorted(rows, found.other)]
    return Compared(distinct, Pairs(one, other, found.score, found.alignment).where(one != other))


def listed(pairs: Pairs) -> list[tuple[int, int, float, int]]:
    columns = (pairs.one, pairs.other, pairs.score, pairs.alignment)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[set[bytes]]:
    """The pairs of planes that are compared."""
    seen: list[set[bytes]] = []
    real = module.correlations

    def correlations(planes, outlines, near, sure):  # type: ignore[no-untyped-def]
        seen.extend({planes[a].tobytes(), planes[b].tobytes()} for a, b in zip(near.probe, near.base, strict=True))
        return real(planes, outlines, near, sure)

    monkeypatch.setattr(module, "correlations", correlations)
    return seen


PICTURE = st.tuples(st.integers(0, 3), st.integers(0, 4))
BORDERED = st.builds(lambda one, two: one + two, PICTURE, PICTURE)


@settings(max_examples=30, deadline=None)
@given(
    pictures=st.lists(st.one_of(PICTURE, BORDERED), min_size=1, max_size=14),
    before=st.lists(st.one_of(PICTURE, BORDERED), max_size=10),
    every=st.booleans(),
)
def test_what_is_known_makes_no_difference(
    pictures: list[tuple[int, ...]], before: list[tuple[int, ...]], every: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "keys_for", lambda probes, count: [] if every else [(0, 1), (2, 3), (4, 5), (6, 7)])
        now = thumbnails(pictures)
        assert listed(copies(now, 0.85, 10, compared(thumbnails(before)))) == listed(copies(now, 0.85, 10))


def test_only_what_is_new_is_compared(looked_at: list[set[bytes]]) -> None:
    old = [(seed % 5, seed % 3) for seed in range(12)]
    known = compared(thumbnails(old))
    looked_at.clear()
    copies(thumbnails([*old, (1, 4), (7, 0)]), 0.85, 10, known)
    assert looked_at
    assert all({plane(1, 4).tobytes(), plane(7, 0).tobytes()} & two for two in looked_at)
    looked_at.clear()
    copies(thumbnails(old[3:]), 0.85, 10, known)
    assert looked_at == []


@settings(max_examples=12, deadline=None)
@given(
    pictures=st.lists(st.one_of(PICTURE, BORDERED), max_size=4),
    reference=st.lists(st.one_of(PICTURE, BORDERED), max_size=4),
)
def test_what_is_in_a_reference_is_what_is_paired_with_any_of_it_alone(
    pictures: list[tuple[int, ...]], reference: list[tuple[int, ...]]
) -> None:
    expected = {}
    for row, one in enumerate(pictures):
        alone = [listed(copies(thumbnails([one, other]), 0.85, 10)) for other in reference]
        scores = [pairs[0][2] if pairs else 0.0 for pairs in alone]
        if any(scores):
            expected[row] = (scores.index(max(scores)), max(scores))
    found = copies_in(thumbnails(reference), thumbnails(pictures), 0.85, 10)
    assert {one: (other, score) for one, other, score, _ in listed(found)} == expected


def test_where_other_keys_are_looked_up_everything_is_compared_again(
    looked_at: list[set[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [(seed, 0) for seed in range(6)] + [(seed, 1) for seed in range(6)]
    known = compared(thumbnails(old))
    looked_at.clear()
    # one more, and not all are compared with all any more
    monkeypatch.setattr(module, "keys_for", lambda probes, count: [] if count <= 12 else [(0, 1), (2, 3)])
    copies(thumbnails([*old, (9, 0)]), 0.85, 10, known)
    assert len(looked_at) >= 6


# in the warehouse ------------------------------------------------------------------------------------------------------

SHARDS = {
    "a": [(0, 0), (1, 0), (2, 0)],
    "b": [(0, 1), (3, 0), (3, 4)],
    "c": [(1, 3), (0, 3), (4, 0)],
    "d": [(4, 2), (2, 0), (5, 0)],
}
Rows = list[dict[str, object]]


def save_pool(shards: Sequence[str]) -> None:
    rows = [(shard, f"{shard}{n}", plane(*one).ravel()) for shard in shards for n, one in enumerate(SHARDS[shard])]
    columns = dict(zip(("shard", "key", "thumbnail"), map(list, zip(*rows, strict=True)), strict=True))
    types = pa.schema([("shard", pa.string()), ("key", pa.string()), ("thumbnail", pa.list_(pa.uint8()))])
    DatasetQuery.from_arrow(pa.table(columns, schema=types), shard="shard").save("pool")


def arrivals(orders: Sequence[Sequence[str]]) -> Iterator[Rows]:
    """What is found after each arrival."""
    for there in orders:
        save_pool(there)
        version = near_duplicates(DatasetQuery("pool")).save("near")
        yield DatasetQuery(version).order_by("shard", "position").to_arrow().to_pylist()


def groups_of(rows: Rows) -> dict[object, set[object]]:
    found: dict[object, set[object]] = {}
    for row in rows:
        found.setdefault(row["group"], set()).add(row["key"])
    return found


@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations("abcd"))
def test_the_order_in_which_shards_arrive_makes_no_difference(engine: None, order: list[str]) -> None:
    steps = list(arrivals([sorted(order[: n + 1]) for n in range(len(order))]))
    # by hand: seed 0 in a, b, c; 1 in a, c; 2 in a, d; 3 twice in b; 4 in c, d
    assert sorted(map(sorted, groups_of(steps[-1]).values())) == [
        ["a0", "b0", "c1"], ["a1", "c0"], ["a2", "d1"], ["b1", "b2"], ["c2", "d0"]
    ]  # fmt: skip
    for before, after in pairwise(steps):
        now = groups_of(after)
        untouched = {group: of for group, of in groups_of(before).items() if of in now.values()}
        assert untouched.items() <= now.items()
    assert steps[-1] == next(arrivals(["abcd"]))
    assert reproduce(near_duplicates(DatasetQuery("pool")).save("near")).is_equal  # from scratch


def test_shards_that_go_take_their_pairs_along_and_nothing_is_compared_again(
    engine: None, looked_at: list[set[bytes]]
) -> None:
    made = arrivals(["abcd", "acd", "abcd"])
    first = next(made)
    assert looked_at
    looked_at.clear()
    assert sorted(map(sorted, groups_of(next(made)).values())) == [
        ["a0", "c1"], ["a1", "c0"], ["a2", "d1"], ["c2", "d0"]
    ]  # fmt: skip
    assert looked_at == []
    assert next(made) == first
    assert all({plane(*one).tobytes() for one in SHARDS["b"]} & two for two in looked_at)


def test_other_options_other_samples_or_versions_that_are_gone_begin_anew(
    engine: None, looked_at: list[set[bytes]]
) -> None:
    first = next(arrivals(["abcd"]))
    for again, query in (
        (False, near_duplicates(DatasetQuery("pool"))),
        (True, near_duplicates(DatasetQuery("pool"), score=0.86)),
        (True, near_duplicates(DatasetQuery("pool").filter("key != 'none'"))),
    ):
        looked_at.clear()
        assert query.order_by("shard", "position").to_arrow().to_pylist() == first
        assert bool(looked_at) is again
    warehouse().execute("DROP TABLE pool.v1")
    save_pool("abcd")
    looked_at.clear()
    assert near_duplicates(DatasetQuery("pool")).count() == len(first)
    assert looked_at
