"""Groups of duplicates: equal columns, several findings together, the rule that keeps one; each against a count by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory_lib import C, DatasetQuery, case
from factory_lib.curation import Without, duplicate_groups, exact_duplicates, keep, of_equal_size
from factory_lib.curation.duplicates.grouping import GROUP_COLUMNS, Links, grouped, ranks
from factory_lib.curation.duplicates.perceptual import near_by_hashes
from factory_lib.errors import ColumnNotFound, QueryError
from factory_lib.history.tracing import trace
from factory_lib.warehouse.arrow_types import POINTER_TYPE

HEADER = pa.struct([("width", pa.uint32()), ("height", pa.uint32())])
POINTER = pa.struct([("uri", pa.string()), ("offset", pa.uint64()), ("size", pa.uint64())])


def pool(**columns: Sequence[Any]) -> DatasetQuery:
    """Samples with keys 0, 1, …, in one shard where none is said."""
    count = len(next(iter(columns.values())))
    table = pa.table({"shard": ["a"] * count, "key": [str(n) for n in range(count)], **columns})
    DatasetQuery.from_arrow(table, shard="shard").save("pool")
    return DatasetQuery("pool")


def kept_of(samples: DatasetQuery, groups: DatasetQuery) -> dict[str, str]:
    """key -> key of the sample of its group that is kept, of those that go; what stands there besides is checked."""
    keys = {row["sample_id"]: row["key"] for row in samples.select("sample_id", "key").to_arrow().to_pylist()}
    rows = groups.to_arrow().to_pylist()
    members: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        members.setdefault(row["group"], []).append(row)
    for group, of in members.items():
        assert group == min(row["sample_id"] for row in of)
        [kept] = [row["sample_id"] for row in of if row["kept"]]
        assert {row["duplicate_of"] for row in of} == {None, kept}
        assert {row["matched"] for row in of} <= {row["sample_id"] for row in of}
        assert all(row["matched"] != row["sample_id"] for row in of)
    return {row["key"]: keys[row["duplicate_of"]] for row in rows if not row["kept"]}


def test_samples_with_equal_values_are_a_group_and_null_equals_nothing(engine: None) -> None:
    samples = pool(sha256=["x", "y", "x", None, None, "", "", "x"])
    found = exact_duplicates(samples, ["sha256"])
    assert kept_of(samples, found) == {"2": "0", "7": "0", "6": "5"}
    assert {k: v for k, v in found.columns.items() if k in GROUP_COLUMNS} == GROUP_COLUMNS
    assert set(found.to_arrow()["by"].to_pylist()) == {"sha256"}
    assert set(found.to_arrow()["score"].to_pylist()) == {1.0}


def test_all_of_several_columns_have_to_be_equal(engine: None) -> None:
    samples = pool(url=["u", "u", "v", "u", "u"], caption=["a", "b", "a", "a", None], n=[1, 2, 3, 4, 5])
    assert kept_of(samples, exact_duplicates(samples, ["url", "caption"])) == {"3": "0"}
    assert kept_of(samples, exact_duplicates(samples, ["url"])) == {"1": "0", "3": "0", "4": "0"}
    assert exact_duplicates(samples, ["n"]).count() == 0


def test_the_rule_says_which_one_is_kept(engine: None) -> None:
    header = pa.array([{"width": w, "height": 10} for w in (10, 30, 20, 30)], HEADER)
    samples = pool(
        sha256=["x"] * 4,
        image_header=header,
        score=[0.1, None, float("nan"), 0.3],
        source=["web", "coco", "own", "coco"],
    )

    def kept(*keep: Any) -> str:
        [one] = set(kept_of(samples, exact_duplicates(samples, ["sha256"], keep=keep)).values())
        return one

    assert kept() == "1"  # most pixels, then the first
    assert kept("-score") == "3"
    assert kept("score") == "0"
    assert kept(case((C.source == "own", 0), default=1)) == "2"
    assert kept(case((C.source == "coco", 0), default=1), "-score") == "3"
    assert kept("key") == "0"


def test_findings_together_are_one_set_of_groups(engine: None) -> None:
    samples = pool(sha256=["x", "x", "y", "y", "z", "w"], pixel_md5=["1", "2", "2", "3", "4", "5"])
    by_bytes, by_pixels = exact_duplicates(samples, ["sha256"]), exact_duplicates(samples, ["pixel_md5"])
    assert kept_of(samples, by_bytes) == {"1": "0", "3": "2"}
    both = duplicate_groups(samples, by_bytes, by_pixels)
    assert kept_of(samples, both) == {"1": "0", "2": "0", "3": "0"}
    assert kept_of(samples, duplicate_groups(samples, by_bytes, keep=["-key"])) == {"0": "1", "2": "3"}
    # what of a group is not among the samples any more connects nothing
    left = samples.filter(C.key != "1")
    assert kept_of(left, duplicate_groups(left, by_bytes, by_pixels)) == {"3": "2"}
    ids = dict(zip(*(samples.to_arrow()[name].to_pylist() for name in ("key", "sample_id")), strict=True))
    own = DatasetQuery.from_arrow(
        pa.table({"sample_id": pa.array([ids["5"]], pa.uint64()), "duplicate_of": pa.array([ids["4"]], pa.uint64())})
    )
    assert kept_of(samples, duplicate_groups(samples, own)) == {"5": "4"}


def test_columns_may_have_any_name(engine: None) -> None:
    names = ["equal_samples", "other", "value_1", "value_0", "group", "score", "by", "sample", "shard"]
    values = [1, 1, 2, 2, 3]
    samples = pool(**{name: values for name in names if name != "shard"})
    for name in names[:-1]:
        assert kept_of(samples, exact_duplicates(samples, [name])) == {"1": "0", "3": "2"}, name
    assert kept_of(samples, exact_duplicates(samples, names)) == {"1": "0", "3": "2"}
    turned = pool(value_0=[1, 1, 1, 2], value_1=[1, 2, 1, 2])
    assert kept_of(turned, exact_duplicates(turned, ["value_1", "value_0"])) == {"2": "0"}


def test_what_is_left_of_a_group_is_one(engine: None) -> None:
    samples = pool(sha256=["x", "x", "x", "y", "y", "y", "z"])
    found = DatasetQuery(exact_duplicates(samples, ["sha256"]).save("found"))
    without_kept = samples.filter(~C.key.isin(["0", "3", "4"]))
    assert kept_of(without_kept, duplicate_groups(without_kept, found)) == {"2": "1"}
    assert kept_of(without_kept, duplicate_groups(without_kept, found, keep=["-key"])) == {"1": "2"}
    assert kept_of(samples, duplicate_groups(samples, found)) == {"1": "0", "2": "0", "4": "3", "5": "3"}


def test_near_by_two_hashes_is_near_by_the_nearer_one(engine: None) -> None:
    hashes = {"phash": [0, 0b111], "dhash": [0, 0b1]}
    samples = pool(**{name: pa.array(bits, pa.uint64()) for name, bits in hashes.items()})
    for names in (["phash", "dhash"], ["dhash", "phash"]):
        rows = near_by_hashes(samples, names).to_arrow()
        assert set(zip(rows["score"].to_pylist(), rows["by"].to_pylist(), strict=True)) == {(63 / 64, "dhash")}


def test_groups_of_findings_that_are_groups_of_findings_are_the_same(engine: None) -> None:
    samples = pool(sha256=["x", "x", "y", "y"], pixel_md5=["1", "2", "2", "3"])
    once = duplicate_groups(samples, exact_duplicates(samples, ["sha256"]), exact_duplicates(samples, ["pixel_md5"]))
    twice = duplicate_groups(samples, once)
    assert kept_of(samples, once) == kept_of(samples, twice) == {"1": "0", "2": "0", "3": "0"}


def test_one_of_each_group_stays_and_a_dropped_one_says_of_which_it_is_a_copy(engine: None) -> None:
    samples = pool(sha256=["x", "y", "x", "z"])
    exact_duplicates(samples, ["sha256"]).save("same_bytes")
    kept = keep(samples, Without(DatasetQuery("same_bytes"), "copy")).samples.save("unique")
    assert DatasetQuery(kept).order_by("key").to_arrow()["key"].to_pylist() == ["0", "1", "3"]
    assert kept.provenance is not None
    assert kept.provenance.storage == "mask"
    [mention] = trace(kept, "2").steps[-1].mentions
    assert mention.duplicate_of is not None
    assert mention.duplicate_of["key"] == "0"


def test_only_samples_of_equal_size_need_be_hashed(engine: None) -> None:
    pointers = [{"uri": f"/{n}", "offset": 0, "size": size} for n, size in enumerate((5, 7, 5, 9, 7, 8))]
    samples = pool(image=pa.array(pointers, POINTER))
    assert samples.columns["image"] == POINTER_TYPE
    assert sorted(of_equal_size(samples).to_arrow()["key"].to_pylist()) == ["0", "1", "2", "4"]


def test_pairs_of_pictures_can_be_shown(engine: None) -> None:
    pointers = [{"uri": f"/{n}", "offset": 0, "size": 5} for n in range(3)]
    samples = pool(image=pa.array(pointers, POINTER), sha256=["x", "y", "x"])
    rows = exact_duplicates(samples, ["sha256"]).order_by("key").to_arrow().to_pylist()
    assert [(row["image"]["uri"], row["matched_image"]["uri"]) for row in rows] == [("/0", "/2"), ("/2", "/0")]


def test_what_cannot_be_compared_is_refused(engine: None) -> None:
    samples = pool(sha256=["x", "x"])
    with pytest.raises(ColumnNotFound, match="'sha265'.*sha256"):
        exact_duplicates(samples, ["sha265"])
    with pytest.raises(QueryError, match="by='sha256'"):
        exact_duplicates(samples, "sha256")
    with pytest.raises(QueryError, match="no finding"):
        duplicate_groups(samples)
    with pytest.raises(QueryError, match="without 'duplicate_of'"):
        duplicate_groups(samples, samples)
    nobody = samples.filter("0")
    assert duplicate_groups(nobody, exact_duplicates(nobody, ["sha256"])).count() == 0


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_groups_are_what_can_be_reached_and_the_order_of_links_says_nothing(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 30))
    ends = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda two: two[0] != two[1])
    links = data.draw(st.lists(ends, min_size=1, max_size=40))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    ids, rank = random.permutation(count).astype(np.uint64) * np.uint64(7), random.permutation(count)
    strength = {frozenset(link): np.float32(random.integers(1, 9) / 8) for link in links}

    def made(of: Sequence[tuple[int, int]]) -> list[tuple[int, ...]]:
        one, other = (np.array(end) for end in zip(*of, strict=True))
        score = np.array([strength[frozenset(link)] for link in of])
        found = grouped(Links(one, other, score), rank, ids)
        return list(zip(*(x.tolist() for x in (found.rows, found.best, found.first, found.matched)), strict=True))

    reached = {n: {n} for n in range(count)}
    for _ in range(count):
        for a, b in links:
            reached[a] = reached[b] = reached[a] | reached[b]
    expected = []
    for n in sorted({end for link in links for end in link}):
        group = sorted(reached[n])
        near = {other: strength[frozenset((n, other))] for other in group if frozenset((n, other)) in strength}
        most = min(near, key=lambda other: (-near[other], rank[other]))
        expected.append((n, min(group, key=lambda m: rank[m]), min(group, key=lambda m: ids[m]), most))
    assert made(links) == made([(b, a) for a, b in reversed(links)]) == expected


def test_ranks_are_those_of_the_engine(engine: None) -> None:
    table = pa.table(
        {
            "shard": ["b", "a", "a", "b", "a"],
            "position": pa.array([0, 1, 0, 1, 2], pa.uint32()),
            "keep_0_down": [2.0, None, float("nan"), 2.0, 1.0],
        }
    )
    assert ranks(table).tolist() == [0, 4, 3, 1, 2]
    assert ranks(table.rename_columns(["shard", "position", "keep_0_up"])).tolist() == [1, 4, 3, 2, 0]
    assert ranks(table.drop_columns(["keep_0_down"])).tolist() == [3, 1, 0, 4, 2]
