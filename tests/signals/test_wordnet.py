"""WordNet's first senses, as NLTK 3.8.1 found them in the whole of WordNet 3.0, and captions that name a class."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from factory_lib import DatasetQuery
from factory_lib.errors import FileMissing, SignalError
from factory_lib.signals.entities import wordnet_entity
from factory_lib.signals.wordnet import DEBIAN_FOLDER, WordNetFiles

EXTRACT = Path(__file__).parents[1] / "fixtures" / "wordnet"
"""Of WordNet 3.0 the lines that its `nltk.csv` needs: `nltk.corpus.wordnet.synsets(word)[0].offset()` of each word."""


def known() -> dict[str, int | None]:
    with open(EXTRACT / "nltk.csv") as lines:
        rows = list(csv.DictReader(lines))
    return {row["word"]: int(row["first_synset"]) if row["first_synset"] else None for row in rows}


@pytest.mark.parametrize("folder", [str(EXTRACT), DEBIAN_FOLDER])
def test_first_synsets_are_those_of_nltk(folder: str) -> None:
    if not Path(folder).is_dir():
        pytest.skip(f"{folder} is not there: apt install wordnet-base")
    wordnet = WordNetFiles(folder).load()
    expected = known()
    assert {word: wordnet.first_synset(word) for word in expected} == expected
    # what the words were chosen for: irregular forms, two endings, an ending that is another word, case, punctuation
    assert expected["Dogs"] == expected["dog"] == 2084071
    assert expected["dog,"] is None
    assert expected["mice"] == 2330245
    assert expected["cathedralses"] is not None
    assert expected["was"] == 9152944  # Washington


def test_an_entity_is_the_first_word_that_names_a_class(tmp_path: Path) -> None:
    classes = tmp_path / "classes.txt"
    classes.write_text("n02084071\r\n\n  n07891726  \n")
    entity = wordnet_entity(str(classes), wordnet=str(EXTRACT))
    assert entity.one("two Dogs and wine") == "Dogs"
    assert entity.one("white wine\u2003dog") == "wine"
    assert entity.one("a dog, a mouse") == ""
    assert entity.one("") == ""


def test_the_kind_of_word_is_not_compared(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("v02084071")
    assert wordnet_entity(str(tmp_path / "classes.txt"), wordnet=str(EXTRACT)).one("dog") == "dog"


def test_captions_of_a_dataset(engine: None, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("n02084071")
    captions = ["my dog", "no pet", None, "DOGS bark"] * 50
    pool = DatasetQuery.from_arrow(pa.table({"caption": captions}))
    pool.add_signals(wordnet_entity(str(tmp_path / "classes.txt"), wordnet=str(EXTRACT))).save("pool")
    found = DatasetQuery("pool").select("wordnet_entity", "wordnet_entity_error").to_arrow()
    assert found["wordnet_entity"].to_pylist() == ["dog", "", None, "DOGS"] * 50
    assert found["wordnet_entity_error"].to_pylist() == [None, None, "no caption", None] * 50


def test_values_depend_on_what_the_files_hold_and_not_on_where_they_are(tmp_path: Path) -> None:
    copied = tmp_path / "wordnet"
    shutil.copytree(EXTRACT, copied)
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("n02084071")
    one = wordnet_entity(str(tmp_path / "a.txt"), wordnet=str(EXTRACT)).fingerprint
    assert wordnet_entity(str(tmp_path / "b.txt"), wordnet=str(copied)).fingerprint == one
    (copied / "noun.exc").write_text("")
    assert wordnet_entity(str(tmp_path / "b.txt"), wordnet=str(copied)).fingerprint != one
    (tmp_path / "a.txt").write_text("n02084072")
    assert wordnet_entity(str(tmp_path / "a.txt"), wordnet=str(EXTRACT)).fingerprint != one


def test_wrong_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("n02084071\n\nn123\n")
    with pytest.raises(SignalError, match=r"classes.txt, line 3: 'n123' is no WordNet id"):
        wordnet_entity(str(tmp_path / "classes.txt"), wordnet=str(EXTRACT)).one("dog")
    (tmp_path / "classes.txt").write_text("\n")
    with pytest.raises(SignalError, match="it lists no WordNet id"):
        wordnet_entity(str(tmp_path / "classes.txt"), wordnet=str(EXTRACT)).one("dog")
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfen02084071")
    with pytest.raises(SignalError, match=r"classes.txt, line 1: b'\\xff' is no UTF-8"):
        wordnet_entity(str(tmp_path / "classes.txt"), wordnet=str(EXTRACT)).one("dog")
    (tmp_path / "classes.txt").write_text("n02084071\n")
    with pytest.raises(SignalError, match=r"has no index.noun. Debian has it \(apt install wordnet-base\)"):
        _ = wordnet_entity(str(tmp_path / "classes.txt"), wordnet=str(tmp_path / "nowhere")).fingerprint
    with pytest.raises(FileMissing, match="no_classes.txt does not exist"):
        _ = wordnet_entity(str(tmp_path / "no_classes.txt"), wordnet=str(EXTRACT)).fingerprint
    shutil.copytree(EXTRACT, tmp_path / "wordnet")
    (tmp_path / "wordnet" / "index.verb").write_text("bark v 1 1\n")
    with pytest.raises(SignalError, match="index.verb, line 1: 'bark v 1 1' is no line of WordNet's index"):
        WordNetFiles(str(tmp_path / "wordnet")).load()
    (tmp_path / "wordnet" / "noun.exc").write_bytes("men man\ncafés café\n".encode("latin-1"))
    with pytest.raises(SignalError, match=r"noun.exc, line 2: b'\\xe9' is no UTF-8.*Save the file as UTF-8"):
        WordNetFiles(str(tmp_path / "wordnet")).load()
