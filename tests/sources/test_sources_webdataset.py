"""WebDataset tars: keys, members, sidecars, and one schema for all shards."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory_lib.errors import FileMissing, SourceError
from factory_lib.sources import members as members_module
from factory_lib.sources import open_source
from factory_lib.sources.members import split_names
from factory_lib.sources.shards import SourceShard, find_shard
from factory_lib.storage.store import FileInfo, store
from tests.samples import read_all, rows, write_tar

NOWHERE = {"uri": "", "offset": 0, "size": 0}


def split_as_webdataset_does(name: str) -> tuple[str | None, str | None]:
    """The rule of webdataset's `base_plus_ext`, written out; a leading `./` is not part of a key."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return (folder + slash + stem, extension.lower()) if stem and extension else (None, None)


@settings(deadline=None)
@given(st.lists(st.text("ab./JPGjü", max_size=12), max_size=8))
def test_keys_and_extensions(names: list[str]) -> None:
    keys, extensions = split_names(pa.array(names, pa.string()))
    assert list(zip(keys.to_pylist(), extensions.to_pylist(), strict=True)) == [*map(split_as_webdataset_does, names)]


def test_a_sample_is_a_run_of_members_with_one_key(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        [
            ("cats/1.JPG", b"picture"),
            ("cats/.hidden.txt", "no"),
            ("README", "no extension"),
            ("cats/1.txt", "a cat\n"),
            ("cats/1.cls", " 7 "),
            ("dogs.v2/2.seg.png", b"mask"),
            ("dogs.v2/2.png", b"dog"),
            ("cats/1.txt", "again, another sample"),
        ],
    )
    source = open_source(str(path))
    assert source.schema.names == ["key", "image", "seg_png", "caption", "cls"]
    uri = str(path)
    table, reports = read_all(source)
    assert table.drop_columns("shard").to_pylist() == [
        {
            "key": "cats/1",
            "image": {"uri": uri, "offset": 512, "size": 7},
            "seg_png": NOWHERE,
            "caption": "a cat",
            "cls": 7,
        },
        {
            "key": "dogs.v2/2",
            "image": {"uri": uri, "offset": 6_656, "size": 3},
            "seg_png": {"uri": uri, "offset": 5_632, "size": 4},
            "caption": None,
            "cls": None,
        },
        {"key": "cats/1", "image": NOWHERE, "seg_png": NOWHERE, "caption": "again, another sample", "cls": None},
    ]
    counts = {"repeated_keys": 1, "no_image": 1, "hidden_members": 1, "nameless_members": 1}
    assert reports["a"].counts == counts


def test_pointers_lead_to_the_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = {f"{n:04d}": rng.bytes(int(rng.integers(0, 3_000))) for n in range(300)}
    path = write_tar(tmp_path / "a.tar", [(f"{key}.jpg", data) for key, data in pictures.items()])
    for row in rows(open_source(str(path)), "key", "image"):
        pointer = row["image"]
        [view] = store().read_ranges(pointer["uri"], [(pointer["offset"], pointer["size"])])
        assert bytes(view) == pictures[row["key"]]


def test_of_several_images_the_first_format_counts(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        [("1.png", b"one"), ("1.jpg", b"two!"), ("2.png", b"three"), ("3.webp", b"four four")],
    )
    found = rows(open_source(str(path)), "key", "image", "png")
    assert [(row["image"]["size"], row["png"]["size"]) for row in found] == [(4, 3), (5, 0), (9, 0)]


def test_a_member_that_comes_again_begins_another_sample_of_its_key(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("0.jpg", b"zero"), ("0.txt", "zero")])
    members = [
        ("1.jpg", b"first"), ("1.txt", "a"), ("1.jpg", b"second one"), ("1.TXT", "b"), ("1.txt", "only text"),
        ("2.txt", "c"), ("2.unknown", b""), ("2.other", b""), ("2.jpg", b"two"),
    ]  # fmt: skip
    write_tar(tmp_path / "b.tar", members)
    table, reports = read_all(open_source(str(tmp_path), schema_tars=1))
    assert table["key"].to_pylist() == ["0", "1", "1", "1", "2"]
    assert [pointer["size"] for pointer in table["image"].to_pylist()] == [4, 5, 10, 0, 3]
    assert table["caption"].to_pylist() == ["zero", "a", "b", "only text", "c"]
    assert reports["b"].counts == {"repeated_keys": 2, "no_image": 1, "unknown_members": 2}
    assert reports["b"].problems[1:] == [
        "2 samples have a key that occurred before, in b.tar: members of a sample stand together in a tar, each once"
    ]


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_samples_of_one_key_are_cut_alike_wherever_the_pass_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(members_module, "_MEMBERS_AT_ONCE", at_once)
    path = write_tar(
        tmp_path / "a.tar", [(f"k.{end}", f"{n}") for n in range(50) for end in ("jpg", "txt")[: 1 + n % 2]]
    )
    table, reports = read_all(open_source(str(path)))
    assert table["caption"].to_pylist() == [f"{n}" if n % 2 else None for n in range(50)]
    assert reports["a"].samples == 50


def test_more_extensions_than_bits_are_told_apart(tmp_path: Path) -> None:
    names = [f"e{n:02}" for n in range(40)]
    path = write_tar(tmp_path / "a.tar", [(f"{key}.{name}", b"x") for key in "ab" for name in names])
    table, reports = read_all(open_source(str(path)))
    assert table["key"].to_pylist() == ["a", "b"]
    assert reports["a"].counts == {}


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_headers_without_bytes_begin_no_sample(tmp_path: Path, kind: int) -> None:
    name = "folder/" + "long" * 50
    with tarfile.open(tmp_path / "a.tar", "w", format=kind) as tar:
        for n in range(2):
            for end in ("jpg", "txt"):
                header = tarfile.TarInfo(f"{name}.{end}")
                header.size = 1
                tar.addfile(header, io.BytesIO(f"{n}".encode()))
                header.type, header.size, header.linkname = tarfile.LNKTYPE, 0, f"{name}.{end}"
                tar.addfile(header)
    table, reports = read_all(open_source(str(tmp_path / "a.tar")))
    assert table["key"].to_pylist() == [name, name]
    assert table["caption"].to_pylist() == ["0", "1"]
    assert reports["a"].counts == {"repeated_keys": 1, "links": 4}


def test_json_fields_become_typed_columns(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        [
            (
                "1.json",
                {"n": 1, "x": 1, "ok": True, "s": "a", "nest": {"b": [1]}, "mixed": 1, "void": None, "WIDTH": 640},
            ),
            ("2.json", {"n": 2**40, "x": 0.5, "ok": None, "s": "ü", "nest": [1, "z"], "mixed": "m", "WIDTH": 480}),
            ("3.json", {"big": 2**70}),
        ],
    )
    source = open_source(str(path))
    types = {field.name: str(field.type) for field in source.schema}
    assert types == {
        "key": "string", "n": "int64", "x": "double", "ok": "bool", "s": "string", "nest": "string",
        "mixed": "string", "void": "string", "width": "int32", "big": "string",
    }  # fmt: skip
    assert rows(source, *list(types)[1:]) == [
        {
            "n": 1,
            "x": 1.0,
            "ok": True,
            "s": "a",
            "nest": '{"b":[1]}',
            "mixed": "1",
            "void": None,
            "width": 640,
            "big": None,
        },
        {
            "n": 2**40,
            "x": 0.5,
            "ok": None,
            "s": "ü",
            "nest": '[1,"z"]',
            "mixed": "m",
            "void": None,
            "width": 480,
            "big": None,
        },
        dict.fromkeys(list(types)[1:]) | {"big": str(2**70)},
    ]


def test_half_characters_in_json_are_replaced(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar", [("1.json", b'{"s": "a\\ud83d b"}'), ("2.json", b'\xef\xbb\xbf {"s": "with a BOM"}\n')]
    )
    assert rows(open_source(str(path)), "s") == [{"s": "a\ufffd b"}, {"s": "with a BOM"}]


def test_names_of_columns(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        [
            ("1.jpg", b"x"),
            ("1.url.txt", "https://x"),
            ("1.syn.json", {"a": 1}),
            ("1.Emb.NPY", b"v"),
            ("1.json", {"TEXT": "from json", "key": "1", "position": 3, "image": "i", "2x": 1, "a-b": 1, "a b": 2}),
        ],
    )
    source = open_source(str(path))
    assert source.schema.names == [
        "key", "image", "emb_npy", "url_txt", "syn_json", "caption", "position_", "image_2", "c2x", "a_b", "a_b_2",
    ]  # fmt: skip
    [row] = rows(source, "url_txt", "syn_json", "caption", "position_", "image_2", "a_b_2")
    assert row == {
        "url_txt": "https://x", "syn_json": '{"a": 1}', "caption": "from json", "position_": 3, "image_2": "i",
        "a_b_2": 2,
    }  # fmt: skip


def test_caption_of_the_text_counts_and_json_fills_in(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        [
            ("1.txt", "text"),
            ("1.json", {"caption": "json"}),
            ("2.json", {"caption": "only json"}),
            ("3.txt", "only text"),
        ],
    )
    assert rows(open_source(str(path)), "caption") == [
        {"caption": "text"}, {"caption": "only json"}, {"caption": "only text"},
    ]  # fmt: skip


def test_bad_sidecars_are_counted_and_null(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        [
            ("1.jpg", b"x"), ("1.json", b'{"a": '), ("1.txt", b"caf\xe9"), ("1.cls", "cat"),
            ("2.jpg", b"x"), ("2.json", b"[1, 2]"), ("2.txt", "\ufffd is fine"), ("2.cls", "5"),
            ("3.jpg", b"x"), ("3.json", b"[" * 100_000), ("3.cls", str(2**70)),
            ("4.jpg", b"x"), ("4.json", {"a": 4}), ("4.txt", b"x" * (2**20 + 1)), ("4.cls", "-6"),
        ],
    )  # fmt: skip
    table, reports = read_all(open_source(str(path)))
    assert table["a"].to_pylist() == [None, None, None, 4]
    assert table["cls"].to_pylist() == ["cat", "5", str(2**70), "-6"]  # a name: so the class is text
    assert table["json"].to_pylist() == [None, "[1,2]", None, None]
    assert table["caption"].to_pylist() == ["caf\ufffd", "\ufffd is fine", None, None]
    assert reports["a"].counts == {"bad_json": 2, "bad_utf8": 1, "oversized_members": 1}
    assert "json of samples '1', '3' is not a JSON object" in reports["a"].problems


def test_later_shards_keep_the_schema_of_the_first(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("1.jpg", b"x"), ("1.json", {"n": 1, "s": "a"})])
    write_tar(tmp_path / "1.tar", [("2.jpg", b"x"), ("2.json", {"n": 2.5, "s": 3, "late": 1}), ("2.depth.png", b"d")])
    write_tar(tmp_path / "2.tar", [("3.jpg", b"x"), ("3.json", {"n": 3.0, "s": {"deep": 1}})])
    table, reports = read_all(open_source(str(tmp_path), schema_tars=1))
    assert table.select(["n", "s"]).to_pylist() == [
        {"n": 1, "s": "a"},
        {"n": None, "s": "3"},
        {"n": 3, "s": '{"deep":1}'},
    ]
    assert reports["1"].counts == {"misfit_values": 1, "unknown_fields": 1, "unknown_members": 1}
    assert reports["1"].problems[0].startswith("1 members, of sample '2', are in no column")
    assert reports["1"].problems[1] == "json field 'n' of sample '2' does not fit int64: left null"
    assert "json fields 'late' are in no column" in reports["1"].problems[2]
    assert reports["2"].counts == {}
    wide = open_source(str(tmp_path), schema_tars=3)
    assert {field.name: str(field.type) for field in wide.schema if field.name in {"n", "s", "late"}} == {
        "n": "double", "s": "string", "late": "int64",
    }  # fmt: skip


def test_samples_are_never_cut_where_batches_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("factory_lib.sources.tar.LOCAL_WINDOW_BYTES", 2_048)
    monkeypatch.setattr(members_module, "_MEMBERS_AT_ONCE", 4)
    entries = [(f"{n:02d}.{extension}", f"{n}") for n in range(30) for extension in ("jpg", "txt", "cls")]
    source = open_source(str(write_tar(tmp_path / "a.tar", entries)))
    table, reports = read_all(source)
    assert table["key"].to_pylist() == [f"{n:02d}" for n in range(30)]
    assert table["cls"].to_pylist() == [*range(30)]
    assert table["caption"].to_pylist() == [str(n) for n in range(30)]
    assert reports["a"].counts == {}
    [shard] = source.shards()
    assert len(list(source.read(shard, reports["a"]))) > 5


def test_shards_are_named_after_files_and_grouped(tmp_path: Path) -> None:
    for name in ("b/0.tar", "a/0.tar", "a/1.tar", "a.0.tar", "we ird&/x.y.tar"):
        write_tar(tmp_path / name, [("1.jpg", b"x")])
    shards = open_source(str(tmp_path)).shards()
    names = [shard.name for shard in shards]
    assert sorted(names) == names
    plain = {"a.1", "b.0", "we_ird_.x.y"}
    assert plain < set(names)
    [first, second] = set(names) - plain
    assert {first.split("-")[0], second.split("-")[0]} == {"a.0"}
    grouped = open_source(str(tmp_path), tars_per_shard=2).shards()
    assert [len(shard.files) for shard in grouped] == [2, 2, 1]
    assert all(shard.name.endswith(".x2") for shard in grouped)
    with pytest.raises(SourceError, match=r"has no shard 'b.1'. Did you mean"):
        find_shard(open_source(str(tmp_path)), "b.1")


def test_rows_of_grouped_tars_follow_each_other(tmp_path: Path) -> None:
    for n in range(3):
        write_tar(tmp_path / f"{n}.tar", [(f"{n}{k}.jpg", b"x") for k in range(2)])
    table, reports = read_all(open_source(str(tmp_path), tars_per_shard=2))
    assert table.group_by("shard", use_threads=False).aggregate([("key", "list")]).to_pylist() == [
        {"shard": "0.x2", "key_list": ["00", "01", "10", "11"]},
        {"shard": "2.x2", "key_list": ["20", "21"]},
    ]
    assert reports["0.x2"].samples == 4


def test_fingerprint_changes_with_every_file(tmp_path: Path) -> None:
    files = (FileInfo("a", 1, "x"), FileInfo("b", 2, "y"))
    base = SourceShard("s", files).fingerprint
    assert base == SourceShard("other", files).fingerprint
    others = [
        (FileInfo("a", 1, "x"),),
        (FileInfo("a", 1, "z"), files[1]),
        (FileInfo("a", 3, "x"), files[1]),
        (FileInfo("c", 1, "x"), files[1]),
        files[::-1],
    ]
    assert len({base, *(SourceShard("s", other).fingerprint for other in others)}) == 6


def test_damaged_tars_beside_good_ones(tmp_path: Path) -> None:
    good = write_tar(tmp_path / "0.tar", [(f"{n}.jpg", b"x" * 600) for n in range(5)])
    (tmp_path / "1.tar").write_bytes(good.read_bytes()[:2_500])
    (tmp_path / "2.tar").write_bytes(b"")
    (tmp_path / "3.tar").write_bytes(b"not a tar at all" * 100)
    table, reports = read_all(open_source(str(tmp_path)))
    assert table["shard"].value_counts().to_pylist() == [{"values": "0", "counts": 5}, {"values": "1", "counts": 1}]
    assert {name: report.counts for name, report in reports.items()} == {
        "0": {}, "1": {"damaged_tars": 1}, "2": {"unreadable_tars": 1}, "3": {"unreadable_tars": 1},
    }  # fmt: skip
    assert reports["1"].problems[0].startswith("1.tar: truncated at offset 2500: ")


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(SourceError, match=r"holds no samples of a known format: 1 x .md. Known: WebDataset tars"):
        open_source(str(tmp_path))
    with pytest.raises(SourceError, match=r"holds no samples in the format 'webdataset'"):
        open_source(str(tmp_path), format="webdataset")
    with pytest.raises(SourceError, match=r"no format 'webdatset'. Did you mean 'webdataset'"):
        open_source(str(tmp_path), format="webdatset")
    with pytest.raises(FileMissing, match=r"Did you mean 'notes.md'"):
        open_source(str(tmp_path / "note.md"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="it is empty"):
        open_source(str(tmp_path / "empty"))
    with pytest.raises(SourceError, match=r"a.tar has no members with an extension. No sample was found in 1 tar."):
        open_source(str(write_tar(tmp_path / "a.tar", [])))
    with pytest.raises(SourceError, match="tars_per_shard is 0"):
        open_source(str(write_tar(tmp_path / "b.tar", [("1.jpg", b"x")])), tars_per_shard=0).shards()
