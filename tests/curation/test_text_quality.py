"""Quality of captions: each rule by hand, repetition by its definition, and pools whose captions are labels or missing."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory_assets.defs.curation import BASIC, QUALITY
from factory_lib import DatasetQuery
from factory_lib.curation import BasicFilter, CaptionFilter, all_of, keep
from factory_lib.curation.text_quality import repetition
from factory_lib.signals.text import caption_stats

FINE = [f"a photo of house number {number} by the sea" for number in range(20)]


def pool(captions: list[str | None]) -> DatasetQuery:
    table = pa.table({"n": range(len(captions)), "caption": pa.array(captions, pa.string())})
    return DatasetQuery(DatasetQuery.from_arrow(table).add_signals(caption_stats).save("pool"))


def removed(samples: DatasetQuery, texts: CaptionFilter) -> dict[str, list[int]]:
    """Reason -> the samples that do not meet it."""
    rules = texts.judged(samples).rules
    found = {reason: samples.filter(~rule).order_by("n").to_arrow()["n"].to_pylist() for reason, rule in rules.items()}
    return {reason: rows for reason, rows in found.items() if rows}


@pytest.mark.usefixtures("engine")
def test_each_rule_by_hand() -> None:
    captions = [
        "a red dress",  # 0, at the bounds
        "a dress",
        "a b c",
        "1920 1080 x",
        "IMG_20240513.jpg",
        "RED DRESS ON SALE",
        "red dress red dress red dress",  # 6: 5 pairs, 2 different
        "a cat and a cat",  # 7: 4 pairs, 3 different
        " ".join(f"word{number}" for number in range(257)),
        None,
    ]
    samples = pool([*captions, *FINE])
    words, characters = "caption has fewer than 3 words", "caption has fewer than 6 characters"
    assert removed(samples, CaptionFilter()) == {
        words: [1, 4, 9],
        characters: [2, 9],
        "caption has more than 256 words": [8, 9],
        "caption is more than 50% digits": [3, 9],  # of the file name it is half
        "caption repeats more than 30% of its pairs of words": [6, 9],
        "caption is a file name": [4, 9],
    }
    shouting = CaptionFilter(min_words=2, min_characters=1, max_capitals=0.8, max_repetition=0.2, file_names=True)
    assert removed(samples, shouting) == {
        "caption has fewer than 2 words": [4, 9],
        "caption has fewer than 1 characters": [9],
        "caption has more than 256 words": [8, 9],
        "caption is more than 50% digits": [3, 9],
        "caption is more than 80% capitals": [5, 9],
        "caption repeats more than 20% of its pairs of words": [6, 7, 9],
    }
    kept = keep(samples, CaptionFilter())
    assert kept.judged.remark == ""
    assert kept.samples.count() == samples.count() - 7


@pytest.mark.usefixtures("engine")
def test_two_filters_say_the_same_of_a_caption_and_the_default_graph_asks_once() -> None:
    samples = pool(["a dress", "a b c", "IMG_20240513.jpg", None, "", *FINE])
    basic = BasicFilter(min_words=4, min_characters=7)
    found = {reason: rule for reason, rule in basic.judged(samples).rules.items() if "caption" in reason}
    texts = CaptionFilter(min_words=4, min_characters=7).judged(samples).rules
    kept = [samples.filter(all_of(rules)).count() for rules in (found, {name: texts[name] for name in found})]
    assert kept == [len(FINE)] * 2
    asked = [set(keep(samples, *filters).judged.rules) for filters in ([BASIC], QUALITY)]
    assert not asked[0] & asked[1]
    assert "caption is more than 50% digits" in asked[1]


@pytest.mark.usefixtures("engine")
def test_captions_that_many_samples_have() -> None:
    samples = pool([*["image for this post"] * 4, *["Image for this post"] * 2, *FINE])
    texts = CaptionFilter(max_samples=3, max_shared=0.2)
    assert removed(samples, texts) == {"more than 3 samples have its caption": [0, 1, 2, 3]}
    assert removed(samples, CaptionFilter(max_samples=4)) == {}
    assert removed(samples, CaptionFilter()) == {}
    # where most samples have such captions they are labels
    labels = pool([*["a red dress"] * 6, *["a blue hat"] * 6, *FINE[:5]])
    judged = CaptionFilter(max_samples=3).judged(labels)
    assert not any("samples have its caption" in reason for reason in judged.rules)
    assert judged.remark.startswith(
        "12 of 17 samples have a caption that more than 3 samples have: captions are labels"
    )
    assert keep(labels, CaptionFilter(max_samples=3)).samples.count() == 17


@pytest.mark.usefixtures("engine")
def test_a_pool_without_captions_is_kept() -> None:
    bare = DatasetQuery.from_arrow(pa.table({"key": ["a", "b"]}))
    assert CaptionFilter().judged(bare).remark == "No column 'caption': rules on captions removed nothing."
    without = DatasetQuery.from_arrow(pa.table({"caption": ["a", "b"]}))
    assert CaptionFilter().judged(without).remark == "No column 'caption_stats': rules on captions removed nothing."
    samples = pool(["a house by the sea", *[None] * 10, " "])
    judged = CaptionFilter().judged(samples)
    assert (judged.rules, judged.remark) == ({}, "1 of 12 samples have a caption: rules on captions removed nothing.")
    assert CaptionFilter(min_known=0.05).judged(samples).rules != {}


def repeated(text: str) -> float:
    """seq-rep-2, as it is defined."""
    words = text.lower().split()
    pairs = list(zip(words, words[1:], strict=False))  # noqa: RUF007
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0


@pytest.mark.usefixtures("engine")
@settings(max_examples=15)
@given(st.lists(st.lists(st.sampled_from(["a", "B", "b", "cat", "Ä", "ä"]), max_size=12), min_size=1, max_size=30))
def test_repetition_is_as_defined(drawn: list[list[str]]) -> None:
    texts = [" ".join(words) for words in drawn]
    samples = DatasetQuery.from_arrow(pa.table({"n": range(len(texts)), "caption": texts}))
    found = samples.mutate(share=repetition()).order_by("n").to_arrow()["share"].to_pylist()
    assert found == pytest.approx([repeated(text) for text in texts])


@pytest.mark.usefixtures("engine")
def test_no_caption_has_no_repetition() -> None:
    samples = DatasetQuery.from_arrow(pa.table({"n": [0, 1], "caption": [None, "a cat and a cat"]}))
    assert samples.mutate(share=repetition()).order_by("n").to_arrow()["share"].to_pylist() == [None, 0.25]


@pytest.mark.usefixtures("engine")
def test_real_captions(shared_data: Path) -> None:
    texts = pq.read_table(shared_data / "laion400m" / "test_1000.parquet")["TEXT"].to_pylist()
    kept = keep(pool(texts), CaptionFilter())
    counted = kept.removed()
    assert counted["caption has fewer than 3 words"] == sum(len(text.split()) < 3 for text in texts)
    assert counted["caption repeats more than 30% of its pairs of words"] == sum(
        repeated(text) > 0.3 for text in texts if len(text.split()) > 2
    )
    assert counted["caption is more than 50% digits"] == 0
    assert kept.samples.count() == len(texts) - sum(counted.values()) > 0.9 * len(texts)
