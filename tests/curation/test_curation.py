"""Near-duplicates against a brute-force comparison, rules at their boundaries, rejections against a count by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from factory_lib import C, DatasetQuery
from factory_lib.curation.alignment import AlignmentFilter, clip_score, with_score
from factory_lib.curation.basic import BasicFilter
from factory_lib.curation.duplicates import near_duplicates
from factory_lib.curation.funnel import funnel, rejections
from factory_lib.curation.rules import JudgedRules, Without, all_of, keep
from factory_lib.errors import QueryError

HEADER = pa.struct([("width", pa.uint32()), ("height", pa.uint32()), ("decodes", pa.bool_())])
STATS = pa.struct([("n_words", pa.int64()), ("n_chars", pa.int64()), ("is_file_name", pa.bool_())])


def _hashed(phash: list[int | None], dhash: list[int | None], sides: list[int], shards: list[str]) -> DatasetQuery:
    headers = [{"width": side, "height": side, "decodes": True} for side in sides]
    table = pa.table(
        {
            "shard": shards,
            "key": [str(n) for n in range(len(phash))],
            "image_header": pa.array(headers, HEADER),
            "phash": pa.array(phash, pa.uint64()),
            "dhash": pa.array(dhash, pa.uint64()),
        }
    )
    DatasetQuery.from_arrow(table, shard="shard").save("hashed")
    return DatasetQuery("hashed")


def _brute_force(query: DatasetQuery, distance: int) -> dict[int, int]:
    """sample id -> the best sample near it, for those that have a better one near: by comparing all pairs."""
    rows = query.select("shard", "position", "sample_id", "image_header", "phash", "dhash").to_arrow().to_pylist()
    ranks = [(-(r["image_header"]["width"] ** 2), r["shard"], r["position"], r["sample_id"]) for r in rows]
    found = {}
    for i, row in enumerate(rows):
        near = [
            ranks[j]
            for j, other in enumerate(rows)
            if ranks[j] < ranks[i]
            and any(
                row[h] is not None and other[h] is not None and (row[h] ^ other[h]).bit_count() <= distance
                for h in ("phash", "dhash")
            )
        ]
        if near:
            found[row["sample_id"]] = min(near)[3]
    return found


@pytest.mark.parametrize("distance", [0, 3, 6])
def test_near_duplicates_are_those_that_comparing_all_pairs_finds(engine: None, distance: int) -> None:
    rng = np.random.default_rng(distance)
    base = rng.integers(0, 2**63, 40, dtype=np.uint64)
    phash: list[int | None] = []
    for _ in range(400):
        value = int(rng.choice(base))
        for bit in rng.choice(64, rng.integers(0, 10), replace=False):
            value ^= 1 << int(bit)
        phash.append(value)
    dhash: list[int | None] = [int(v) for v in rng.integers(0, 2**63, 400, dtype=np.uint64)]
    phash[7] = None  # an image that could not be hashed
    dhash[11] = dhash[12]  # near by the other hash alone
    sides = [int(s) for s in rng.integers(90, 95, 400)]
    query = _hashed(phash, dhash, sides, [f"s{n % 4}" for n in range(400)])
    expected = _brute_force(query, distance)
    assert len(expected) > 10
    rows = near_duplicates(query, "hashes", distance=distance).to_arrow().to_pylist()
    gone = {row["sample_id"]: row["duplicate_of"] for row in rows if not row["kept"]}
    assert gone.keys() == expected.keys()
    for sample, better in expected.items():
        end = better
        while end in expected:  # of a chain the best end stays
            end = expected[end]
        assert gone[sample] == end


def test_the_larger_picture_stays_and_then_the_earlier_shard(engine: None) -> None:
    query = _hashed([1, 1, 1, 8], [1, 1, 1, 0xFFFF], [100, 200, 200, 100], ["a", "c", "b", "a"])
    keys = {r["sample_id"]: r["key"] for r in query.select("sample_id", "key").to_arrow().to_pylist()}
    rows = near_duplicates(query, "hashes").filter(~C.kept).to_arrow().to_pylist()
    # 0: small, and 1: as large as 2 but in a later shard. 3 has hashes 2 (phash: 1 ^ 8) bits away: it is small, too.
    assert {keys[r["sample_id"]]: keys[r["duplicate_of"]] for r in rows} == {"0": "2", "1": "2", "3": "2"}


def test_a_distance_that_the_bands_cannot_find_is_refused(engine: None) -> None:
    query = _hashed([1], [1], [100], ["a"])
    with pytest.raises(QueryError, match="0 to 6"):
        near_duplicates(query, "hashes", distance=7)


def _samples() -> DatasetQuery:
    rows = [
        ("good", 80, 80, True, 3, 6, False, 0.5),
        ("narrow", 240, 80, True, 3, 6, False, None),  # exactly 3 : 1, no score: kept
        ("too narrow", 241, 80, True, 3, 6, False, 0.1),
        ("too small", 79, 300, True, 3, 6, False, 0.1),
        ("broken", None, None, False, 3, 6, False, 0.1),
        ("few words", 80, 80, True, 2, 9, False, 0.1),
        ("few letters", 80, 80, True, 3, 5, False, 0.1),
        ("file", 80, 80, True, 3, 9, True, 0.1),
        ("unsafe", 80, 80, True, 3, 6, False, 0.51),
        ("broken and unsafe", None, None, False, 3, 6, False, 0.9),
    ]
    table = pa.table(
        {
            "key": [r[0] for r in rows],
            "image_header": pa.array([{"width": r[1], "height": r[2], "decodes": r[3]} for r in rows], HEADER),
            "caption_stats": pa.array([{"n_words": r[4], "n_chars": r[5], "is_file_name": r[6]} for r in rows], STATS),
            "punsafe": pa.array([r[7] for r in rows], pa.float32()),
        }
    )
    DatasetQuery.from_arrow(table).save("rows")
    return DatasetQuery("rows")


def test_the_basic_filter_keeps_what_meets_every_rule_at_its_boundary(engine: None) -> None:
    query = _samples()
    kept = query.filter(all_of(BasicFilter().rules(query.columns)))
    assert kept.to_arrow()["key"].to_pylist() == ["good", "narrow"]
    assert "storage: mask" in kept.explain()


def test_rejections_blame_the_first_rule_that_is_broken(engine: None) -> None:
    query = _samples()
    assert rejections(query, BasicFilter().rules(query.columns)) == {
        "image does not decode": 2,
        "shorter side below 80 px": 1,
        "aspect ratio above 3": 1,
        "caption has fewer than 3 words": 1,
        "caption has fewer than 6 characters": 1,
        "caption is a file name": 1,
        "unsafe": 1,
    }


def test_rules_on_columns_that_are_not_there_are_left_out(engine: None) -> None:
    assert list(BasicFilter().rules(["image_header", "caption"])) == [
        "image does not decode",
        "shorter side below 80 px",
        "aspect ratio above 3",
    ]


def _pool(rows: int, **lacking: int) -> DatasetQuery:
    """Good samples; of each kind of input so many lack it."""
    header = [{"width": None, "height": None, "decodes": False} if n < lacking.get("pictures", 0)
              else {"width": 99, "height": 99, "decodes": True} for n in range(rows)]  # fmt: skip
    stats = [None if n < lacking.get("captions", 0) else {"n_words": 4, "n_chars": 20, "is_file_name": False}
             for n in range(rows)]  # fmt: skip
    stats = [{"n_words": 0, "n_chars": 2, "is_file_name": False} if n < lacking.get("words", 0) else s
             for n, s in enumerate(stats)]  # fmt: skip
    unsafe = [0.8 if "unsafe" in lacking else n / rows / 3 for n in range(rows)]
    columns = {"image_header": pa.array(header, HEADER), "caption_stats": pa.array(stats, STATS), "punsafe": unsafe}
    return DatasetQuery(DatasetQuery.from_arrow(pa.table(columns)).save("pool"))


@pytest.mark.parametrize(
    ("lacking", "number", "kept", "said"),
    [
        ("captions", 100, 100, "0 of 100 samples have a caption: rules on captions removed nothing"),
        ("captions", 91, 100, "9 of 100 samples have a caption"),
        ("words", 100, 100, "0 of 100 samples have a caption"),
        ("pictures", 100, 100, "0 of 100 pictures decode: rules on pictures removed nothing"),
        ("pictures", 95, 100, "5 of 100 samples have a width and a height: rules on sides removed nothing"),
        ("unsafe", 1, 100, "punsafe does not spread"),
        ("captions", 90, 10, ""),  # a tenth has some: the others lack them
        ("pictures", 50, 50, ""),
    ],
)
def test_what_nearly_all_samples_lack_removes_none(
    engine: None, lacking: str, number: int, kept: int, said: str
) -> None:
    query = _pool(100, **{lacking: number})
    judged = BasicFilter().judged(query)
    assert keep(query, BasicFilter()).samples.count() == kept
    assert said in judged.remark
    assert bool(said) == bool(judged.remark)


def test_a_pool_whose_pictures_lie_elsewhere_is_judged_by_the_sides_that_the_source_says(engine: None) -> None:
    table = pa.table(
        {"key": list("abcd"), "original_width": [300, 50, 0, None], "original_height": [300, 300, 0, None]}
    )
    query = DatasetQuery(DatasetQuery.from_arrow(table).save("pool"))
    judged = BasicFilter().judged(query)
    assert keep(query, BasicFilter()).samples.to_arrow()["key"].to_pylist() == ["a"]
    assert judged.remark == "No pictures and captions: rules on them removed nothing."
    unknown = query.mutate(original_width=0)
    assert keep(unknown, BasicFilter()).samples.count() == 4


def test_clip_has_no_say_where_nearly_nothing_can_be_scored(engine: None) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2000, 8)).astype(np.float32).tolist()
    texts = [vector if n < 150 else [] for n, vector in enumerate(vectors)]
    kind = pa.list_(pa.float32())
    captions = [f"caption {n}" if n < 150 else None for n in range(2000)]
    table = pa.table({"caption": captions, "clip": pa.array(vectors, kind), "clip_text": pa.array(texts, kind)})
    scored = with_score(DatasetQuery(DatasetQuery.from_arrow(table).save("pool")))
    verdict = AlignmentFilter().verdict(scored)
    assert not verdict.may_judge
    assert "150 of 2,000 samples have a picture and a caption" in verdict.found
    assert AlignmentFilter().judged(scored).rules == {}
    assert AlignmentFilter(min_known=0.05).judged(scored).rules


def test_sides_are_those_of_the_download_where_the_source_says_them(engine: None) -> None:
    query = _samples().mutate(original_width=200, original_height=200)
    rules = BasicFilter().rules(query.columns)
    assert "too small" in query.filter(all_of(rules)).to_arrow()["key"].to_pylist()


def test_the_clip_score_is_the_cosine_and_a_sample_without_one_goes(engine: None) -> None:
    table = pa.table(
        {
            "key": ["same", "slanted", "opposite", "none"],
            "clip": pa.array([[1, 0], [1, 0], [1, 0], [1, 0]], pa.list_(pa.float32())),
            "clip_text": pa.array([[2, 0], [1, 1], [-1, 0], [0, 0]], pa.list_(pa.float32())),
        }
    )
    DatasetQuery.from_arrow(table).save("vectors")
    scored = DatasetQuery("vectors").mutate(clip_score=clip_score())
    scores = scored.to_arrow()["clip_score"].to_pylist()
    assert scores[:3] == pytest.approx([1, 0.5**0.5, -1], abs=1e-6)
    kept = keep(scored, AlignmentFilter(min_score=0.7, min_auc=0)).samples
    assert kept.to_arrow()["key"].to_pylist() == ["same", "slanted"]
    # a bar that nobody reaches gives way to the best share: the better two of three with a score
    few = AlignmentFilter(min_score=1.5, min_share=0.5, min_auc=0)
    assert few.threshold(scored) == pytest.approx(0.5**0.5, abs=1e-6)
    assert keep(scored, few).samples.to_arrow()["key"].to_pylist() == ["same", "slanted"]


def test_a_funnel_compares_each_version_with_the_one_before(engine: None) -> None:
    _samples()
    first = DatasetQuery("rows").filter(C.key != "file").save("first")
    kept = keep(DatasetQuery("first"), Only("good"))
    second = kept.samples.save("second", context={"removed": kept.removed(), "remark": "Only one was good."})
    steps = funnel([first, second])
    assert [(s.version, s.rows_in, s.rows) for s in steps] == [("first.v1", 9, 9), ("second.v1", 9, 1)]
    assert steps[1].kept == pytest.approx(1 / 9)
    assert steps[1].reasons == {"not good": 8}
    assert steps[1].remark == "Only one was good."


class Only:
    """Keeps samples of one key."""

    def __init__(self, key: str) -> None:
        self.key = key

    def judged(self, pool: DatasetQuery) -> JudgedRules:
        return JudgedRules({f"not {self.key}": C.key == self.key})


def test_filters_together_keep_what_all_of_them_keep_and_blame_the_first(engine: None) -> None:
    table = pa.table({"key": list("abcd"), "n": [1, 2, 3, 4]})
    pool = DatasetQuery(DatasetQuery.from_arrow(table).save("pool"))
    gone = pool.filter(C.n >= 3)
    kept = keep(pool, Without(gone, "named"), Only("a"), Only("a"))
    assert kept.samples.to_arrow()["key"].to_pylist() == ["a"]
    assert kept.removed() == {"named": 2, "not a": 1}
    assert kept.judged.remark == ""
    everything = keep(pool)
    assert everything.samples.count() == 4
    assert everything.removed() == {}


@pytest.mark.parametrize(("by", "said"), [("n", False), ("thumbnail", True), ("empty", True), (None, False)])
def test_a_finding_by_what_no_sample_has_says_so(engine: None, by: str | None, said: bool) -> None:
    table = pa.table({"key": list("ab"), "n": [1, 2], "empty": pa.array([None, None], pa.string())})
    pool = DatasetQuery(DatasetQuery.from_arrow(table).save("pool"))
    kept = keep(pool, Without(pool.filter("0"), "copy", by=by))
    assert kept.samples.count() == 2
    assert bool(kept.judged.remark) == said


def test_what_has_no_value_is_named_by_no_finding(engine: None) -> None:
    table = pa.table({"key": list("abcd"), "url": pa.array(["u", None, "v", "u"])})
    pool = DatasetQuery(DatasetQuery.from_arrow(table).save("pool"))
    kept = keep(pool, Without(pool.filter(C.key.isin(["a", "b"])), "copy", on="url"))
    assert kept.samples.to_arrow()["key"].to_pylist() == ["b", "c"]
    assert kept.removed() == {"copy": 2}
