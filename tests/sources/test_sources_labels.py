"""Captions and labels that lie apart from their pictures, boxes, and columns in the names of folders."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_lib import open_source
from factory_lib.errors import SourceError
from factory_lib.sources.account import lines, losses
from factory_lib.sources.boxes import boxes_of
from factory_lib.sources.classes import NamedClasses
from factory_lib.sources.parallel import folders_beside
from factory_lib.sources.shards import ShardReport
from tests.layouts import jpeg, tar
from tests.samples import rows

OBJECT = (
    "<object><name>{name}</name><pose>Left</pose><difficult>1</difficult>"
    "<bndbox><xmax>35</xmax><xmin>8</xmin><ymin>12</ymin><ymax>49.5</ymax></bndbox></object>"
)
VOC = "<annotation><filename>x.jpg</filename><size><width>96</width><height>80</height></size>{objects}</annotation>"


def write(root: Path, files: dict[str, str | bytes]) -> str:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(root)


def captions(root: str, **options: Any) -> dict[str, str | None]:
    return {row["key"]: row["caption"] for row in rows(open_source(root, **options))}


@pytest.mark.parametrize(
    ("picture", "text"),
    [
        ("images/{n}.jpg", "captions/{n}.txt"),
        ("images/{n}.jpg", "labels/{n}.caption"),
        ("{n}.jpg", "captions/{n}.txt"),
        ("img/{n}.PNG", "{n}.txt"),
        ("a/train/images/ü {n}.jpg", "a/train/text/ü {n}.TXT"),
        ("train/images/{n}.v2.jpg", "labels/train/{n}.v2.txt"),
    ],
)
def test_captions_in_a_folder_of_their_own(picture: str, text: str, tmp_path: Path) -> None:
    """Also for other pictures of the same names, whose captions lie nearer to them."""
    pairs = {}
    for n in range(3):
        for split in ("", "other/"):
            pairs |= {split + picture.format(n=n): jpeg(n), split + text.format(n=n): f"{split}{n}"}
    source = open_source(write(tmp_path, pairs))
    found = {row["key"]: row["caption"] for row in rows(source)}
    stem = picture.rpartition(".")[0]
    assert found == {split + stem.format(n=n): f"{split}{n}" for n in range(3) for split in ("", "other/")}
    assert not losses(source.account.data())
    assert all(len({file.uri for file in shard.files}) == 6 for shard in source.shards())


def test_texts_of_several_folders_are_columns_of_their_own(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {}
    for n in range(10):
        files |= {f"images/{n}.jpg": jpeg(n % 4), f"prompts/{n}.txt": f"p{n}", f"captions/{n}.txt": f"c{n}"}
        files |= {f"meta/{n}.json": json.dumps({"n": n})}
    source = open_source(write(tmp_path, files | {"captions/99.txt": "of nothing"}))
    assert [(row["caption"], row["prompts_txt"], row["n"]) for row in rows(source)] == [
        (f"c{n}", f"p{n}", n) for n in range(10)
    ]
    left = [(entry["examples"], entry["loss"]) for entry in source.account.data() if not entry["used"]]
    assert left == [(["captions/99.txt"], True)]


def test_folders_in_pairs_and_folders_that_cannot_be_told_apart(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {}
    for pair in ("a", "b", "c"):
        files |= {f"{pair}_img/{n}.jpg": jpeg(n) for n in range(3)} | {f"{pair}_txt/{n}.txt": pair for n in range(3)}
    assert set(captions(write(tmp_path / "pairs", files)).values()) == {"a", "b", "c"}
    files = {f"{folder}/{n}.jpg": jpeg(n) for folder in ("a", "b") for n in range(3)}
    source = open_source(write(tmp_path / "which", files | {f"words/{n}.txt": "of which?" for n in range(3)}))
    assert len(rows(source)) == 6
    assert losses(source.account.data()) == 3


def test_thousands_of_folders_with_the_same_names() -> None:
    """The captions of each class lie in a folder of its own: not each is compared with each."""
    paths = [f"{kind}/c{number}/0.{end}" for number in range(3000) for kind, end in (("img", "jpg"), ("txt", "txt"))]
    found = folders_beside(paths)
    assert {folder: one.pictures for folder, one in found.items()} == {f"txt/c{n}": f"img/c{n}" for n in range(3000)}


def test_names_that_begin_alike_are_different_samples(tmp_path: Path) -> None:
    names = ["a", "a.k", "a-1", "a b"]
    files = {f"{name}.{kind}": name for name in names for kind in ("txt",)} | {f"{name}.jpg": jpeg(0) for name in names}
    assert captions(write(tmp_path, files)) == {name: name for name in names}


def yolo(box: tuple[int, int, int, int], sides: tuple[int, int]) -> str:
    """A box in pixels as YOLO writes it."""
    (x, y, width, height), (across, down) = box, sides
    return f"3 {(x + width / 2) / across} {(y + height / 2) / down} {width / across} {height / down}"


@given(st.lists(st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 50)] * 2), min_size=1, max_size=4))
def test_boxes_of_yolo_are_those_in_pixels(boxes: list[tuple[int, int, int, int]]) -> None:
    content = "\n".join(yolo(box, (90, 100)) for box in boxes).encode()
    found = boxes_of([content], NamedClasses())
    assert found is not None
    columns = found.read([content, None, b""], pa.array(["a", "b", "c"]), ShardReport(""))
    read, none, empty = columns["relative_bboxes"].to_pylist()
    assert (none, empty) == (None, [])
    for box, relative in zip(boxes, read, strict=True):
        assert [side * n for side, n in zip(relative, (90, 100, 90, 100), strict=True)] == pytest.approx(box, abs=1e-3)


def test_yolo_with_the_names_of_each_data_set(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "a/data.yaml": "train: ../train\nnames: ['cat', 'dog']\n",
        "b/obj.names": "plane\r\ntrain\r\n",
        "b/1.jpg": jpeg(1), "b/1.txt": "1 0.5 0.5 1 1 0.25",
    }  # fmt: skip
    for split in ("train", "valid"):
        files |= {f"a/{split}/images/{n}.jpg": jpeg(n) for n in range(3)}
        files |= {
            f"a/{split}/labels/0.txt": "",
            f"a/{split}/labels/1.txt": "0 .5 .5 .2 .4\r\n1 .1 .1 .3 .1 .3 .5\r\n7 1",
        }
    source = open_source(write(tmp_path, files))
    report = ShardReport("")
    found = {row["key"]: row for s in source.shards() for b in source.read(s, report) for row in b.to_pylist()}
    assert "caption" not in source.schema.names
    assert [found[f"a/valid/images/{n}"]["categories"] for n in range(3)] == [[], ["cat", "dog"], None]
    row = found["a/train/images/1"]
    assert row["category_ids"] == [0, 1]
    assert [box == pytest.approx(want) for box, want in zip(row["relative_bboxes"], ([0.4, 0.3, 0.2, 0.4], [0.1, 0.1, 0.2, 0.4]), strict=True)]  # fmt: skip
    assert [json.loads(shape or "[]") for shape in row["relative_segmentations"]] == [[], [[0.1, 0.1, 0.3, 0.1, 0.3, 0.5]]]  # fmt: skip
    assert (found["b/1"]["categories"], found["b/1"]["scores"]) == (["train"], [0.25])
    assert report.counts["bad_labels"] == 2
    assert not losses(source.account.data())


def test_keypoints_of_yolo(tmp_path: Path) -> None:
    files = {"images/1.jpg": jpeg(1), "labels/1.txt": "0 .5 .5 1 1 .1 .2 2 .3 .4 1"}
    found = rows(open_source(write(tmp_path, files | {"pose.yaml": "kpt_shape: [2, 3]\nnames: {0: man}"})))
    assert [json.loads(one) for one in found[0]["relative_keypoints"]] == [[0.1, 0.2, 2, 0.3, 0.4, 1]]
    assert (found[0]["categories"], found[0]["relative_bboxes"]) == (["man"], [[0, 0, 1, 1]])


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_pascal_voc_in_folders_zips_and_tars(compression: int, tmp_path: Path) -> None:
    files: dict[str, bytes] = {"VOC/ImageSets/Main/train.txt": b"0\n1\n"}
    for n in range(3):
        objects = "".join(OBJECT.format(name=name) for name in ("dog", "Katze ü")[:n])
        files |= {f"VOC/JPEGImages/{n}.jpg": jpeg(n), f"VOC/Annotations/{n}.xml": VOC.format(objects=objects).encode()}
    write(tmp_path / "folder", dict(files))
    with zipfile.ZipFile(tmp_path / "voc.zip", "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    tar(tmp_path / "0.tar", [(name.rpartition("/")[2], data) for n in range(3) for name, data in files.items() if f"/{n}." in name])  # fmt: skip
    for where in ("folder", "voc.zip", "0.tar"):
        source = open_source(str(tmp_path / where), unpack_to=str(tmp_path / "unpacked"))
        found = rows(source)
        assert [row["categories"] for row in found] == [[], ["dog"], ["dog", "Katze ü"]]
        assert found[1]["bboxes"] == [[8, 12, 27, 37.5]]
        assert {(row["width"], row["height"]) for row in found} == {(96, 80)}
        assert json.loads(found[1]["objects"][0])["pose"] == "Left"
        assert not losses(source.account.data())


def test_labels_that_are_damaged_are_counted(tmp_path: Path) -> None:
    sound = VOC.format(objects=OBJECT.format(name="dog"))
    bad = [sound[:90], '<!DOCTYPE a [<!ENTITY x "y">]>' + sound.replace("dog", "&x;"), sound.replace("35", "nan"), ""]
    files: dict[str, str | bytes] = {f"{n}.jpg": jpeg(n % 4) for n in range(10)}
    files |= {f"{n}.xml": bad[n] if n < len(bad) else sound for n in range(10)}
    source, report = open_source(write(tmp_path, files)), ShardReport("")
    found = [row["categories"] for batch in source.read(source.shards()[0], report) for row in batch.to_pylist()]
    assert found == [None, None, [], None] + [["dog"]] * 6
    assert report.counts["bad_labels"] == 4


def test_texts_that_look_like_labels_only_in_part_stay_captions(tmp_path: Path) -> None:
    texts = ["0 0.5 0.5 0.1 0.1", "a dog", "1 2 3 4 5", "7 items"]
    files = {f"{n}.{kind}": data for n in range(4) for kind, data in (("jpg", jpeg(n)), ("txt", texts[n]))}
    assert list(captions(write(tmp_path, files)).values()) == texts


def test_partitions_are_columns(tmp_path: Path) -> None:
    table = pa.table(
        {"url": [f"http://x/{n}" for n in range(6)], "lang": ["en", "zh/TW", None, "en", "a b", "en"],
         "year": [2020, 2021, 2020, 7, 7, 7], "code": ["007", "7", "8", "9", "10", "11"]}
    )  # fmt: skip
    pq.write_to_dataset(table, str(tmp_path / "t"), partition_cols=["lang", "year", "code"])
    (tmp_path / "t" / "_SUCCESS").touch()
    source = open_source(str(tmp_path / "t"))
    found = {row["url"]: (row["lang"], row["year"], row["code"]) for row in rows(source)}
    assert found == {row["url"]: (row["lang"], row["year"], row["code"]) for row in table.to_pylist()}
    assert not losses(source.account.data())
    one = open_source(str(tmp_path / "t" / "lang=en" / "year=2020"))
    assert [(row["lang"], row["year"], row["code"]) for row in rows(one)] == [("en", 2020, "007")]


PLACES = [("en", "2020"), ("en", "07"), ("a b", "2021"), (None, "2020")]
FOLDERS = ["lang=en/year=2020", "lang=en/year=07", "lang=a%20b/year=2021", "lang=__HIVE_DEFAULT_PARTITION__/year=2020"]


@pytest.mark.parametrize("kind", ["tars", "two tars a shard", "compressed", "pictures"])
def test_tars_and_pictures_have_the_columns_of_their_folders(kind: str, tmp_path: Path) -> None:
    for number, folder in enumerate(FOLDERS):
        (tmp_path / "in" / folder).mkdir(parents=True)
        if kind == "pictures":
            (tmp_path / "in" / folder / f"{number}.jpg").write_bytes(jpeg(number))
            continue
        tar(tmp_path / "in" / folder / "0.tar", [(f"{number}.jpg", jpeg(number)), (f"{number}.json", b'{"own": 1}')])
        if kind == "compressed":
            data = (tmp_path / "in" / folder / "0.tar").read_bytes()
            (tmp_path / "in" / folder / "0.tar").unlink()
            (tmp_path / "in" / folder / "0.tar.gz").write_bytes(gzip.compress(data))
    options = {"tars_per_shard": 2} if kind == "two tars a shard" else {}
    options = {"unpack_to": str(tmp_path / "out")} if kind == "compressed" else options
    source = open_source(str(tmp_path / "in"), **options)
    found = {int(row["key"][-1]): (row["lang"], row["year"]) for row in rows(source)}
    assert found == dict(enumerate(PLACES))
    assert {field.name: str(field.type) for field in source.schema if field.name in ("lang", "year")} == {
        "lang": "string", "year": "string",
    }  # fmt: skip
    assert sum(entry["count"] for entry in source.account.data() if entry["kind"] == "columns") == len(source.schema)


def test_a_field_of_a_sample_counts_before_the_name_of_its_folder(tmp_path: Path) -> None:
    for lang in ("en", "de"):
        tar(tmp_path / f"lang={lang}" / "n=3" / "0.tar", [("1.jpg", jpeg(0)), ("1.json", b'{"lang": "own"}')])
    assert [(row["lang"], row["n"]) for row in rows(open_source(str(tmp_path)))] == [("own", 3)] * 2


def test_a_column_of_the_file_counts_before_that_of_its_folder(tmp_path: Path) -> None:
    for name, columns in (("lang=en", {"lang": ["own"]}), ("lang=de", {"text": ["x"]})):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"url": [name], **columns}), tmp_path / name / "0.parquet")
    assert {row["url"]: row["lang"] for row in rows(open_source(str(tmp_path)))} == {"lang=en": "own", "lang=de": "de"}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("file_name", "train/{n:05d}.jpg"),
        ("image_path", "C:\\photos\\{n:05d}.png"),
        ("filename", "{n:05d}"),
        ("image_id", "{n}"),
        ("key", "{n:05d}.jpg"),
    ],
)
def test_metadata_names_the_files_of_samples_in_tars(
    column: str, value: str, tmp_path: Path, factory_home: Path
) -> None:
    for number in range(2):
        members = [(f"train/{n:05d}.jpg", jpeg(n % 4)) for n in range(number * 3, number * 3 + 3)]
        tar(tmp_path / "tars" / f"{number}.tar", members)
    lines = [f"{value.format(n=n)},caption {n}" for n in (5, 3, 1, 0, 2)]
    (tmp_path / "m.csv").write_text("\n".join([f"{column},text", *lines, lines[0]]))
    source = open_source(str(tmp_path / "tars"), metadata=str(tmp_path / "m.csv"))
    report = ShardReport("")
    read = [row for s in source.shards() for b in source.read(s, report) for row in b.to_pylist()]
    assert {row["key"]: row["caption"] for row in read} == {
        f"train/{n:05d}": None if n == 4 else f"caption {n}" for n in range(6)
    }
    assert {row["key"]: row["captions"] for row in read} == {
        f"train/{n:05d}": None if n == 4 else [f"caption {n}"] * (2 if n == 5 else 1) for n in range(6)
    }
    assert report.counts["no_metadata"] == 1
    assert not losses(source.account.data())


def test_all_captions_of_a_sample_in_a_tar_are_kept(tmp_path: Path, factory_home: Path) -> None:
    random = np.random.default_rng(0)
    said = pd.DataFrame({"file_name": [f"{n:03d}.jpg" for n in random.integers(0, 40, 150)], "n": range(150)})
    said["text"] = [None if n % 7 == 0 else f"caption {n}" for n in said["n"]]
    for number in range(2):
        tar(tmp_path / "tars" / f"{number}.tar", [(f"{n:03d}.jpg", jpeg(n % 4)) for n in range(number, 50, 2)])
    for number in range(3):  # the second caption of a sample may be in another table
        (tmp_path / "m").mkdir(exist_ok=True)
        said[said["n"] % 3 == number].to_parquet(tmp_path / "m" / f"{number}.parquet")
    source = open_source(str(tmp_path / "tars"), metadata=str(tmp_path / "m"))
    ordered = pd.concat([said[said["n"] % 3 == number] for number in range(3)])
    expected = {
        name.removesuffix(".jpg"): [text for text in rows["text"] if isinstance(text, str)] or None
        for name, rows in ordered.groupby("file_name")
    }
    found = {row["key"]: row["captions"] for row in rows(source)}
    assert found == {f"{n:03d}": expected.get(f"{n:03d}") for n in range(50)}
    assert any("every caption" in line or "captions" in line for line in lines(source.account.data()))
    whole = {f"{n:03d}": said[said["file_name"] == f"{n:03d}.jpg"] for n in range(50)}
    firsts = {key: ordered[ordered["file_name"] == f"{key}.jpg"]["text"].iloc[0] for key in whole if len(whole[key])}
    assert {row["key"]: row["caption"] for row in rows(source)} == {
        key: firsts[key] if isinstance(firsts.get(key), str) else None for key in whole
    }


def test_captions_of_tars_without_repeated_rows_are_no_list(tmp_path: Path, factory_home: Path) -> None:
    tar(tmp_path / "tars" / "0.tar", [(f"{n}.jpg", jpeg(n)) for n in range(3)])
    (tmp_path / "m.csv").write_text("file_name,text\n" + "".join(f"{n}.jpg,c{n}\n" for n in range(3)))
    assert "captions" not in open_source(str(tmp_path / "tars"), metadata=str(tmp_path / "m.csv")).schema.names
    (tmp_path / "m.csv").write_text("file_name,said\n0.jpg,a\n0.jpg,b\n1.jpg,c\n")
    report = ShardReport("")
    source = open_source(str(tmp_path / "tars"), metadata=str(tmp_path / "m.csv"), caption="said")
    read = [row for s in source.shards() for b in source.read(s, report) for row in b.to_pylist()]
    assert [(row["caption"], row["captions"]) for row in read] == [("a", ["a", "b"]), ("c", ["c"]), (None, None)]
    source = open_source(str(tmp_path / "tars"), metadata=str(tmp_path / "m.csv"))
    list(source.read(source.shards()[0], report))
    assert report.counts["repeated_rows"] == 1


def test_names_without_folders_do_not_join_what_several_folders_have(tmp_path: Path, factory_home: Path) -> None:
    tar(tmp_path / "tars" / "0.tar", [(f"{folder}/{n}.jpg", jpeg(n)) for folder in "ab" for n in range(3)])
    (tmp_path / "m.csv").write_text("file_name,text\n" + "".join(f"{n}.jpg,c{n}\n" for n in range(3)))
    with pytest.raises(SourceError, match="names none of its first samples"):
        open_source(str(tmp_path / "tars"), metadata=str(tmp_path / "m.csv"))
    (tmp_path / "m.csv").write_text("f,text\n" + "".join(f"x/{f}/{n}.jpg,{f}{n}\n" for f in "ab" for n in range(3)))
    found = captions(str(tmp_path / "tars"), metadata=str(tmp_path / "m.csv"), on="f")
    assert found == {f"{folder}/{n}": f"{folder}{n}" for folder in "ab" for n in range(3)}
