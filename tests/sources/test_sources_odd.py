"""Sources that are a little different from what their format is known for: nothing of them is lost either."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tarfile
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from factory_lib import open_source
from factory_lib.errors import SourceError
from factory_lib.sources import ShardReport
from factory_lib.sources.account import losses
from tests.layouts import jpeg, tar
from tests.samples import rows

IMAGES = [{"id": n, "file_name": f"{n}.jpg", "width": 96, "height": 96} for n in range(3)]


def coco(folder: Path, document: dict[str, Any], name: str = "a.json") -> str:
    for n in range(3):
        (folder / f"{n}.jpg").write_bytes(jpeg(n))
    data = json.dumps({"images": IMAGES} | document).encode()
    packed = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}.get(Path(name).suffix, bytes)
    (folder / name).write_bytes(packed(data))
    return str(folder)


@pytest.mark.parametrize("name", ["a.json", "A.JSON", "a.json.gz", "a.json.bz2", "a.json.xz"])
def test_captions_of_coco(name: str, tmp_path: Path) -> None:
    """One that is null is none, and a number may be written as text."""
    said = [(0, "zero"), (1, None), ("2", "two"), (1, "one")]
    annotations = [{"image_id": number, "caption": text} for number, text in said]
    source = open_source(coco(tmp_path, {"annotations": annotations}, name))
    assert [(row["caption"], row["captions"]) for row in rows(source)] == [
        ("zero", ["zero"]), ("one", [None, "one"]), ("two", ["two"])
    ]  # fmt: skip
    assert not losses(source.account.data())


def test_coco_of_a_test_set_has_no_annotations(tmp_path: Path) -> None:
    found = rows(open_source(coco(tmp_path, {"categories": []})))
    assert [(row["image_id"], row["width"]) for row in found] == [(n, 96) for n in range(3)]


def test_columns_that_pictures_have_themselves_get_another_name(tmp_path: Path) -> None:
    for n in range(2):
        (tmp_path / f"{n}.jpg").write_bytes(jpeg(n))
    (tmp_path / "0.json").write_text('{"folder": "mine", "image": "i.jpg"}')
    assert [(row["folder"], row["folder_2"], row["image_2"]) for row in rows(open_source(str(tmp_path)))] == [
        ("", "mine", "i.jpg"), ("", None, None)
    ]  # fmt: skip
    (tmp_path / "0.json").unlink()
    (tmp_path / "m.csv").write_text("file_name,folder,image\n0.jpg,mine,i.jpg\n")
    found = rows(open_source(str(tmp_path)))[0]
    assert (found["folder"], found["folder_2"], found["image_2"]) == ("", "mine", "i.jpg")


def test_the_table_nearest_to_a_picture_counts(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.jpg").write_bytes(jpeg(0))
    (tmp_path / "train" / "metadata.csv").write_text("file_name,text\na.jpg,near\n")
    (tmp_path / "metadata.csv").write_text("file_name,text,more\ntrain/a.jpg,far,1\n")
    found = rows(open_source(str(tmp_path)))
    assert [(row["caption"], row["more"]) for row in found] == [("near", 1)]


def test_letters_with_accents_are_one_however_they_are_written(tmp_path: Path, factory_home: Path) -> None:
    """As macOS writes names of files, and everyone else tables."""
    apart, whole = (unicodedata.normalize(form, "café") for form in ("NFD", "NFC"))
    assert apart != whole
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"{apart}.jpg").write_bytes(jpeg(0))
    (tmp_path / "in" / "metadata.csv").write_text(f"file_name,text\n{whole}.jpg,accent\n")
    assert [row["caption"] for row in rows(open_source(str(tmp_path / "in")))] == ["accent"]
    tar(tmp_path / "0.tar", [(f"{apart}.jpg", jpeg(0))])
    for column, value in (("key", whole), ("file_name", f"{whole}.jpg")):
        (tmp_path / "m.csv").write_text(f"{column},text\n{value},accent\n")
        source = open_source(str(tmp_path / "0.tar"), metadata=str(tmp_path / "m.csv"))
        assert [row["caption"] for row in rows(source)] == ["accent"]


def test_a_picture_beside_a_table_without_rows_stays(tmp_path: Path) -> None:
    (tmp_path / "a.jfif").write_bytes(jpeg(0))
    for text in ("file_name,text\n", ""):
        (tmp_path / "metadata.csv").write_text(text)
        assert [row["key"] for row in rows(open_source(str(tmp_path)))] == ["a"]


@pytest.mark.parametrize(("name", "mode"), [("a.tbz2", "w:bz2"), ("a.txz", "w:xz"), ("A.TAR.XZ", "w:xz")])
def test_short_names_of_compressed_tars(name: str, mode: str, tmp_path: Path) -> None:
    tar(tmp_path / name, [("1.jpg", jpeg(1)), ("1.txt", b"one")], mode)
    assert tarfile.is_tarfile(tmp_path / name)
    source = open_source(str(tmp_path / name), unpack_to=str(tmp_path / "unpacked"))
    assert [(row["caption"], row["image"]["size"]) for row in rows(source)] == [("one", len(jpeg(1)))]


def test_tables_in_a_zip(tmp_path: Path, factory_home: Path) -> None:
    pq.write_table(pa.table({"url": ["http://b"], "text": ["b"]}), tmp_path / "b.parquet")
    with zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/a.csv", "url,caption\nhttp://a,a\n")
        archive.write(tmp_path / "b.parquet", "b.parquet")
    (tmp_path / "b.parquet").unlink()
    source = open_source(str(tmp_path))
    assert sorted((row["url"], row["caption"]) for row in rows(source)) == [("http://a", "a"), ("http://b", "b")]
    files = [entry["examples"] for entry in source.account.data() if entry["kind"] == "files"]
    assert sorted(files) == [["in.zip"], ["in.zip/b.parquet"], ["in.zip/x/a.csv"]]


def test_more_beside_the_bytes_of_a_picture_stands_in_the_account(tmp_path: Path) -> None:
    pictures = [{"bytes": jpeg(0), "path": "a.jpg", "page": 7}]
    pq.write_table(pa.table({"image": pictures, "text": ["x"]}), tmp_path / "t.parquet")
    source = open_source(str(tmp_path), unpack_to=str(tmp_path / "unpacked"))
    assert [(row["image"]["size"], row["caption"]) for row in rows(source)] == [(len(jpeg(0)), "x")]
    assert [entry["examples"] for entry in source.account.data() if not entry["used"]] == [["image.page"]]


def test_a_tar_without_the_table_that_others_have(tmp_path: Path) -> None:
    for number in range(2):
        tar(tmp_path / f"{number}.tar", [(f"{number}.jpg", jpeg(number))])
    pq.write_table(pa.table({"key": ["0"], "text": ["zero"]}), tmp_path / "0.parquet")
    source, report = open_source(str(tmp_path)), ShardReport("")
    found = [row["caption"] for s in source.shards() for b in source.read(s, report) for row in b.to_pylist()]
    assert found == ["zero", None]
    assert (report.counts, report.problems) == ({"no_metadata": 1}, ["there is no table beside the tar"])


def test_metadata_in_a_zip_and_in_a_text(tmp_path: Path, factory_home: Path) -> None:
    tar(tmp_path / "0.tar", [(f"{n:05d}.jpg", jpeg(n)) for n in range(3)])
    lines = [f"{n:05d}.jpg\tcaption, {n}\n" for n in range(3)]
    (tmp_path / "captions.txt").write_text("".join(lines))
    with zipfile.ZipFile(tmp_path / "m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/m.tsv", "file_name\ttext\n" + "".join(lines))
    for name in ("captions.txt", "m.zip"):
        found = rows(open_source(str(tmp_path / "0.tar"), metadata=str(tmp_path / name)))
        assert [row["caption"] for row in found] == [f"caption, {n}" for n in range(3)]


def test_members_that_belong_to_no_sample_are_counted(tmp_path: Path) -> None:
    names = ["1.jpg", "README", "._1.jpg", "a/.DS_Store", "a/LICENSE", "a/2.jpg"]
    tar(tmp_path / "0.tar", [(name, jpeg(0)) for name in names])
    source, report = open_source(str(tmp_path)), ShardReport("")
    found = [row["key"] for batch in source.read(source.shards()[0], report) for row in batch.to_pylist()]
    assert found == ["1", "a/2"]
    assert report.counts == {"hidden_members": 2, "nameless_members": 2}
    assert "'README', 'a/LICENSE'" in report.problems[0]


@pytest.mark.parametrize("name", ["image", "captions"])
def test_what_is_no_text_is_no_key(name: str, tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg(1))
    (tmp_path / "m.csv").write_text("file_name,caption\n1.jpg,a\n1.jpg,b\n")
    with pytest.raises(SourceError, match=f"The column '{name}' of .* (points at bytes|holds lists)"):
        open_source(str(tmp_path), key=name)
