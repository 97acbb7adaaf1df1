"""What the user says of a source: roles of columns, chosen columns, where keys end; ids stay distinct."""

from __future__ import annotations

from pathlib import Path

import pytest

from factory_lib import DatasetQuery, open_source
from factory_lib.errors import SettingsError, SourceError
from factory_lib.settings import models, remember_source, settings
from factory_lib.sources.mapping import from_words
from tests.samples import read_all, rows, write_tar


def test_roles_and_choices(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        [("1.input.jpg", b"in"), ("1.edited.jpg", b"out!"), ("1.blip.txt", "a cat"), ("1.json", {"uid": "u1", "n": 3})],
    )
    source = open_source(str(path), image="input.jpg", caption="blip.txt", key="uid", members=[], drop_columns=["n"])
    assert source.schema.names == ["key", "image", "key_2", "caption"]  # the key of the members stays, too
    (row,) = rows(source)
    assert (row["key"], row["image"]["size"], row["caption"]) == ("u1", 2, "a cat")
    choices = {n for e in source.account.data() if e["reason"] == "left out by choice" for n in e["examples"]}
    assert {"edited_jpg", "n"} <= choices
    with pytest.raises(SourceError, match=r"nothing called 'inputs.jpg'.*Did you mean 'input_jpg'"):
        open_source(str(path), image="inputs.jpg")
    with pytest.raises(SourceError, match="does not point at bytes"):
        open_source(str(path), image="n")


def test_columns_are_called_otherwise(tmp_path: Path) -> None:
    path = str(write_tar(tmp_path / "a.tar", [("1.jpg", b"x"), ("1.txt", "t"), ("1.json", {"Score": 3, "rank": 1})]))
    (row,) = rows(open_source(path, rename={"points": "Score", "photo": "image"}))
    assert {name: row[name] for name in ("key", "caption", "points", "rank")} == {
        "key": "1", "caption": "t", "points": 3, "rank": 1,
    }  # fmt: skip
    assert row["photo"]["size"] == 1
    (row,) = rows(open_source(path, rename={"rank": "score"}))
    assert (row["rank"], row["rank_2"]) == (3, 1)
    assert from_words({"rename": "points=Score, photo=image"})["rename"] == {"points": "Score", "photo": "image"}
    for wrong, message in (
        ({"points": "scores"}, "nothing called 'scores'.*Did you mean 'score'"),
        ({"Points": "score"}, "no column can be called 'Points'. Try 'points'"),
        ({"shard": "score"}, "Try 'shard_'"),
        ({"a": "score", "b": "score"}, "'score' .* is given two names"),
    ):
        with pytest.raises(SourceError, match=message):
            open_source(path, rename=wrong)
    with pytest.raises(SourceError, match="new=old names"):
        from_words({"rename": "points"})


def test_dots_in_names_are_said_and_a_pattern_helps(tmp_path: Path) -> None:
    members = [(f"v1.{n:03d}.{e}", f"{n}") for n in range(70) for e in ("jpg", "txt")]
    path = write_tar(tmp_path / "a.tar", members)
    with pytest.raises(SourceError, match=r"140 extensions.*first dot.*--key-pattern"):
        open_source(str(path))
    for pattern in ("last-dot", r"(?P<key>.+)[.](?P<extension>jpg|txt)"):
        found = rows(open_source(str(path), key_pattern=pattern), "key", "caption")
        assert found == [{"key": f"v1.{n:03d}", "caption": f"{n}"} for n in range(70)]
    for wrong in ("(", "(.+)[.](.+)"):
        with pytest.raises(SourceError, match="key_pattern"):
            open_source(str(path), key_pattern=wrong)


def test_values_do_not_depend_on_their_neighbours(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("1.json", {"n": 1, "big": 2**64, "cls": 1})])
    write_tar(tmp_path / "1.tar", [("2.json", {"n": "12", "big": 10**400})])
    write_tar(tmp_path / "2.tar", [("3.json", {"n": "12", "big": 3}), ("4.json", {"n": "x"}), ("5.json", {"n": 5})])
    table, reports = read_all(open_source(str(tmp_path), schema_tars=1))
    assert table["n"].to_pylist() == [1, 12, 12, None, 5]
    assert table["big"].to_pylist() == [str(2**64), str(10**400), "3", None, None]
    assert reports["2"].counts == {"misfit_values": 1}


@pytest.mark.usefixtures("engine")
def test_equal_keys_keep_ids_of_their_own(tmp_path: Path) -> None:
    for name in ("0", "1"):
        write_tar(tmp_path / f"{name}.tar", [("a.txt", "one"), ("b.txt", "two"), ("a.txt", "three"), ("c.jpg", b"x")])
    version = DatasetQuery.from_source(str(tmp_path)).save("repeated")
    found = DatasetQuery(str(version)).select("key", "sample_id", "caption").to_arrow().to_pylist()
    assert len({row["sample_id"] for row in found}) == len(found) == 8


def test_what_is_said_of_a_source_is_part_of_its_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("a.jpg", "x"), ("a.blip.txt", "b"), ("a.txt", "t")])
    plain, mapped = open_source(str(tmp_path)), open_source(str(tmp_path), caption="blip.txt")
    same = open_source(str(tmp_path), caption="blip.txt")
    assert plain.shards()[0].fingerprint != mapped.shards()[0].fingerprint == same.shards()[0].fingerprint
    assert [rows(source, "caption")[0]["caption"] for source in (plain, mapped)] == ["t", "b"]


def test_settings_say_what_becomes_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_HOME", str(tmp_path / "home"))
    remember_source("s3://a/b", {"caption": "blip.txt"})
    assert (settings().source, settings().mapping) == ("s3://a/b", {"caption": "blip.txt"})
    monkeypatch.setenv("FACTORY_SOURCE", "s3://other")
    assert (settings().source, settings().mapping) == ("s3://other", {})
    monkeypatch.setenv("FACTORY_MAPPING", "image=input.jpg 'key_pattern=(?P<key>.+) x' drop_columns=a,b")
    said = from_words(settings().mapping)
    assert said == {"image": "input.jpg", "key_pattern": "(?P<key>.+) x", "drop_columns": ["a", "b"]}
    with pytest.raises(SourceError, match="no 'captoin'.*'caption'"):
        from_words({"captoin": "x"})
    monkeypatch.setenv("FACTORY_MAPPING", "image")
    with pytest.raises(SettingsError, match="FACTORY_MAPPING has 'image'"):
        settings()


def test_the_models_that_a_source_was_used_with_are_kept_with_it(
    factory_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        remember_source("s3://a/b")
        monkeypatch.delenv("FACTORY_MODELS")
        assert models() == ()
        remember_source("s3://a/b", {"caption": "txt"})
        assert models() == ()
        monkeypatch.setenv("FACTORY_SOURCE", "s3://others/c")
        assert models() == ("unsafe", "photo")
        monkeypatch.delenv("FACTORY_SOURCE")
        monkeypatch.setenv("FACTORY_MODELS", "faces, text")
        assert models() == ("faces", "text")
        monkeypatch.delenv("FACTORY_MODELS")
        remember_source("s3://others/c", {"caption": "txt"})
        assert models() == ("unsafe", "photo")
        assert settings().mapping == {"caption": "txt"}
    finally:
        (factory_home / "source").unlink()
