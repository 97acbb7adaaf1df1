"""DataComp's baselines on rows at the edges of their rules, against its definitions in pandas and numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory_lib import C, DatasetQuery
from factory_lib.curation import keep
from factory_lib.curation.datacomp import (
    BASELINES,
    CaptionAndSize,
    ClipScore,
    ImageBased,
    ImageBasedClipScore,
    Laion2B,
    TextBased,
    baseline,
)
from factory_lib.curation.tokens import split_words
from factory_lib.errors import ColumnNotFound, QueryError
from tests.curation.datacomp_definitions import (
    B32,
    L14,
    basic,
    from_fraction,
    from_threshold,
    kept_by,
    laion2b,
    saved,
    uids,
)


@pytest.fixture(scope="module")
def scores(engine_for_all: None) -> list[float]:
    """Those of a dataset `scored`, many of them equal."""
    found = np.random.default_rng(0).integers(0, 60, 150).astype(np.float32) / 100
    DatasetQuery.from_arrow(pa.table({"n": range(150), L14: found})).save("scored")
    return [float(score) for score in found]


@settings(max_examples=40)
@given(
    n=st.integers(1, 150),
    fraction=st.floats(0, 1, exclude_max=True) | st.sampled_from([0.01, 0.07, 0.1, 0.29, 0.3, 0.57, 0.58]),
)
def test_a_fraction_keeps_one_more_and_ties(scores: list[float], n: int, fraction: float) -> None:
    pool = DatasetQuery("scored").filter(C.n < n)
    kept = keep(pool, ClipScore(fraction=fraction)).samples.select(L14).to_arrow()[L14].to_pylist()
    best = sorted(scores[:n], reverse=True)
    number = int(n * fraction)
    assert sorted(kept, reverse=True) == [score for score in best if score >= best[number]]
    assert len(kept) >= number + 1


def odd() -> pd.DataFrame:
    """Rows at the edges of every rule."""
    rows: list[dict[str, Any]] = []

    def add(text: str = "one two three", width: float = 400, height: float = 300, **more: Any) -> None:
        row = {"text": text, "original_width": width, "original_height": height, "fasttext": "en", "cld3": "en"}
        rows.append({**row, B32: 0.5, L14: 0.5, **more})

    for text in (
        "one two three",
        "one two",
        "one\u2003two\u00a0three",
        "a\x1cb\x85cde",
        "a b c",
        "a b cd",
        "\U0001f457 x \U0001f457 ",
        "",
    ):
        add(text)
    for width, height in ((200, 200), (199, 200), (200, 600), (200, 601), (601, 200), (0, 0), (0, 300), (300, 0)):
        add(width=width, height=height)
    for width, height in ((np.nan, 300), (300, np.nan), (np.nan, np.nan)):
        add(width=width, height=height)
    for code in (None, "EN", "de", ""):
        add(fasttext=code)
        add(cld3=code)
    below = float(np.nextafter(np.float32(0.28), np.float32(0)))
    for score in (0.28, float(np.float32(0.28)), below, np.nan, np.inf, -np.inf, 0.0):
        add(**{B32: score, L14: score})
    frame = pd.DataFrame(rows).astype({B32: np.float32, L14: np.float32})
    frame["uid"] = [f"{number:032x}" for number in range(len(frame))]
    return frame


def test_rows_at_the_edges(engine: None) -> None:
    frame = odd()
    saved(frame)
    for filter_, definition in (
        (CaptionAndSize(), basic),
        (Laion2B(), laion2b),
        (ClipScore(threshold=0.28), from_threshold(L14, 0.28)),
        (ClipScore(fraction=0.1), from_fraction(L14, 0.1)),
        (ClipScore(fraction=0.95), from_fraction(L14, 0.95)),
    ):
        assert kept_by(filter_) == sorted(frame[definition(frame)].uid), filter_
    assert 3 < basic(frame).sum() < len(frame) - 10


def test_words_are_those_of_python(engine: None) -> None:
    spaces = [chr(code) for code in range(0x110000) if chr(code).isspace()]
    texts = [f"{space}a{space}{space}b{space}" for space in spaces]
    texts += ["", " ", "a\u200bb", "a\u180eb", "a\0b c", "é ü", "\ufeffa b"]
    table = pa.table({"n": range(len(texts)), "caption": texts})
    found = DatasetQuery.from_arrow(table).mutate(words=split_words()).order_by("n").to_arrow()["words"].to_pylist()
    assert found == [len(text.split()) for text in texts]
    assert len(spaces) == 29


def test_the_fraction_is_of_all_samples_whether_they_have_a_score_or_not(engine: None) -> None:
    scores = pa.array([0.9, None, 0.8, None, 0.7, float("nan"), 0.6, None, 0.5, None], pa.float32())
    DatasetQuery.from_arrow(pa.table({"uid": [f"{n}" for n in range(10)], L14: scores})).save("pool")
    assert kept_by(ClipScore(fraction=0.3)) == ["0", "2", "4", "6"]
    # the eighth best has no score: all that have one are kept
    for fraction in (0.5, 0.7):
        kept = keep(DatasetQuery("pool"), ClipScore(fraction=fraction))
        assert kept.samples.order_by("uid").to_arrow()["uid"].to_pylist() == ["0", "2", "4", "6", "8"]
        said = f"no {L14}, which fewer than the best {fraction:g} have"
        assert (kept.removed(), kept.judged.remark) == ({said: 5}, "")


@pytest.mark.parametrize("baseline", [ClipScore(fraction=0.7), ClipScore(threshold=0.5)])
def test_where_no_sample_has_a_score_all_are_kept(engine: None, baseline: ClipScore) -> None:
    scores = pa.array([None, float("nan"), float("nan")], pa.float32())
    DatasetQuery.from_arrow(pa.table({"uid": list("abc"), L14: scores})).save("pool")
    kept = keep(DatasetQuery("pool"), baseline)
    assert (kept.samples.count(), kept.removed()) == (3, {})
    assert kept.judged.remark.startswith("Of no sample it is known whether it is ")


def test_what_can_be_judged_of_no_sample_removes_none(engine: None) -> None:
    frame = odd()
    frame["fasttext"] = None
    saved(frame)
    kept = keep(DatasetQuery("pool"), CaptionAndSize())
    assert "'not English by lang_fasttext.language': removed nothing for it" in kept.judged.remark
    assert uids(kept.samples) == sorted(frame[basic(frame.assign(fasttext="en"))].uid)


def test_reasons_say_why(engine: None) -> None:
    saved(odd())
    removed = keep(DatasetQuery("pool"), CaptionAndSize(max_aspect=2.5)).removed()
    assert removed == {
        "not English by lang_fasttext.language": 4,
        "caption of fewer than 3 words": 2,
        "caption of fewer than 6 characters": 1,
        "shorter side below 200 px": 7,
        "aspect ratio above 2.5": 3,
    }


def test_other_columns(engine: None) -> None:
    frame = odd()
    table = pa.table({"id": frame.uid, "alt": frame.text, "lang": frame.fasttext, "w": frame.original_width})
    pool = DatasetQuery.from_arrow(table).mutate(h=C.w)
    filter_ = CaptionAndSize(language="lang", caption="alt", width="w", height="h")
    expected = frame[basic(frame.assign(original_height=frame.original_width))]
    version = pool.save("pool")
    found = keep(DatasetQuery(version), filter_).samples.select("id").to_arrow()["id"].to_pylist()
    assert sorted(found) == sorted(expected.uid)


def test_names_and_parameters() -> None:
    assert baseline("clip_score", fraction=0.3) == ClipScore(fraction=0.3)
    target = DatasetQuery.of(DatasetQuery.from_arrow(pa.table({"a": [1]})).plan)
    assert baseline("image_based", target=target) == ImageBased(target)
    assert {name for name, kind in BASELINES.items() if kind not in (ImageBased, ImageBasedClipScore, ClipScore)} == {
        "no_filter", "basic_filter", "text_based", "laion2b",
    }  # fmt: skip
    with pytest.raises(QueryError, match="no baseline 'clip_scores'.*Did you mean 'clip_score'"):
        baseline("clip_scores")
    with pytest.raises(QueryError, match="no parameter 'min_word'.*Did you mean 'min_words'"):
        baseline("basic_filter", min_word=2)
    with pytest.raises(QueryError, match="missing 1 required positional argument: 'target'.*It takes target"):
        baseline("image_based")


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "one of them"),
        ({"threshold": 0.3, "fraction": 0.3}, "one of them"),
        ({"threshold": float("nan")}, "a finite number"),
        ({"fraction": 1.0}, r"from 0 to below 1. NoFilter\(\) keeps all"),
        ({"fraction": -0.1}, "from 0 to below 1"),
    ],
)
def test_thresholds_and_fractions_that_cannot_be(parameters: dict[str, float], said: str) -> None:
    with pytest.raises(QueryError, match=said):
        ClipScore(**parameters)  # type: ignore[arg-type]


def test_columns_and_targets_that_are_not_there(engine: None) -> None:
    table = pa.table({"caption": ["a"], "near": pa.array([None], pa.uint32())})
    pool = DatasetQuery(DatasetQuery.from_arrow(table).save("pool"))
    with pytest.raises(ColumnNotFound, match=r"no column 'original_width' in pool.v1"):
        keep(pool, CaptionAndSize())
    with pytest.raises(ColumnNotFound, match=r"no column 'lang_fasttext'.*add_signals\(language.lang_fasttext\)"):
        keep(pool, TextBased())
    with pytest.raises(ColumnNotFound, match=r"no column 'l14_img_cluster'.*add_signals\(cluster_of\(centroids"):
        keep(pool, ImageBased(pool))
    with pytest.raises(QueryError, match="No sample of pool.v1 has a value of near: there is nothing"):
        keep(pool, ImageBased(pool, cluster="near"))
