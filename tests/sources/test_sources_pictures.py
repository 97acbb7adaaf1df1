"""Folders of pictures with tables that describe them, and tables in every format: counted against the files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyarrow import feather

from factory_lib import open_source
from factory_lib.errors import SourceError
from factory_lib.sources.folder import FOLDERS_APART
from tests.samples import read_all, rows, write_tar

CAPTIONS = ["a red fox", 'a "quoted", dog', "zwei\nZeilen", "", "007"]


def jpeg(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4 + number, 4), (number * 20, 0, 0)).save(out, "JPEG")
    return out.getvalue()


def pictures(folder: Path, count: int = 5) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:04d}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(jpeg(number))
    return names


def bytes_at(pointer: dict[str, Any]) -> bytes:
    with open(pointer["uri"], "rb") as file:
        file.seek(pointer["offset"])
        return file.read(pointer["size"])


def as_csv(frame: pd.DataFrame, path: Path) -> None:
    frame.to_csv(path.with_suffix(".csv"), index=False, quoting=csv.QUOTE_NONNUMERIC)


def as_jsonl(frame: pd.DataFrame, path: Path) -> None:
    frame.to_json(path.with_suffix(".jsonl"), orient="records", lines=True)


def as_parquet(frame: pd.DataFrame, path: Path) -> None:
    frame.to_parquet(path.with_suffix(".parquet"))


@pytest.mark.parametrize("write", [as_csv, as_jsonl, as_parquet])
def test_metadata_beside_pictures(tmp_path: Path, write: Callable[[pd.DataFrame, Path], None]) -> None:
    for split in ("train", "test"):
        names = pictures(tmp_path / split)
        frame = pd.DataFrame({"file_name": names, "text": [f"{split} {c}" for c in CAPTIONS], "n": range(5)})
        write(frame.iloc[::-1], tmp_path / split / "metadata")
    source = open_source(str(tmp_path))
    assert source.format == "folder"
    found = {row["key"]: row for row in rows(source, "key", "image", "caption", "n")}
    assert len(found) == 10
    for split in ("train", "test"):
        for number, caption in enumerate(CAPTIONS):
            row = found[f"{split}/{number:04d}"]
            assert (row["caption"], row["n"]) == (f"{split} {caption}", number)
            assert bytes_at(row["image"]) == jpeg(number)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("filepath", "images/{name}"),
        ("image_path", "/other/machine/data/{name}"),
        ("image", "./images/{name}"),
        ("id", "{stem}"),
        ("image_id", "{number}"),
    ],
)
def test_pictures_are_named_in_many_ways(tmp_path: Path, column: str, value: str) -> None:
    names = pictures(tmp_path / "images")
    lines = [value.format(name=n, stem=n[:-4], number=int(n[:-4])) + f"\tcaption {n}" for n in names]
    (tmp_path / "captions.tsv").write_text("\n".join([f"{column}\ttitle", *lines]))
    found = rows(open_source(str(tmp_path)), "key", "title")
    assert [row["title"] for row in found] == [f"caption {name}" for name in names]


def test_several_captions_of_a_picture_are_all_kept(tmp_path: Path) -> None:
    names = pictures(tmp_path / "Images", 2)
    lines = [f"{name}#{n}\tcaption {n} of {name}" for n in range(3) for name in names]
    (tmp_path / "captions.token").write_text("not read\n")
    (tmp_path / "captions.tsv").write_text("\n".join(lines))
    found = rows(open_source(str(tmp_path)), "caption", "captions")
    assert found == [
        {"caption": f"caption 0 of {name}", "captions": [f"caption {n} of {name}" for n in range(3)]} for name in names
    ]


def test_rows_without_a_picture_and_pictures_without_a_row(tmp_path: Path) -> None:
    pictures(tmp_path, 3)
    (tmp_path / "metadata.csv").write_text("file_name,text\n0001.jpg,one\ngone.jpg,lost\n0002.jpg,two\n")
    table, reports = read_all(open_source(str(tmp_path)))
    assert table["caption"].to_pylist() == [None, "one", "two"]
    [report] = reports.values()
    assert report.counts["missing_pictures"] == 1
    assert "'gone.jpg'" in report.problems[0]


def img2dataset_files(root: Path, keys: str) -> None:
    """What `img2dataset --output_format files` writes: two shards, a failed row in each."""
    for shard in range(2):
        folder = root / f"{shard:05d}"
        folder.mkdir(parents=True)
        records = []
        for n in range(4):
            key = f"{shard * 10_000 + n:09d}"
            status = "success" if n else "failed_to_download"
            records.append(
                {"url": f"http://x/{key}", "caption": f"caption {key}", "key": int(key) if keys == "int" else key}
                | {"status": status, "error_message": None if n else "HTTP Error 404: Not Found", "width": 4 + n}
            )
            if n:
                (folder / f"{key}.jpg").write_bytes(jpeg(n))
                (folder / f"{key}.txt").write_text(f"caption {key}")
                (folder / f"{key}.json").write_text(json.dumps(records[-1]))
        pq.write_table(pa.Table.from_pylist(records[::-1]), root / f"{shard:05d}.parquet")
        (root / f"{shard:05d}_stats.json").write_text(json.dumps({"count": 4, "successes": 3}))


@pytest.mark.parametrize("keys", ["text", "int"])
def test_files_that_img2dataset_wrote(tmp_path: Path, keys: str) -> None:
    img2dataset_files(tmp_path, keys)
    source = open_source(str(tmp_path))
    assert source.format == "img2dataset"
    table, reports = read_all(source)
    found = table.to_pylist()
    assert [row["key"] for row in found] == [f"{s * 10_000 + n:09d}" for s in range(2) for n in (1, 2, 3)]
    assert [row["url"] for row in found] == [f"http://x/{row['key']}" for row in found]
    assert [row["caption"] for row in found] == [f"caption {row['key']}" for row in found]
    assert [row["width"] for row in found] == [5, 6, 7] * 2
    assert [bytes_at(row["image"]) for row in found] == [jpeg(n) for n in (1, 2, 3)] * 2
    assert list(reports) == ["00000", "00001"]
    assert reports["00001"].counts == {"failed_rows": 1, "failed: HTTP Error 404: Not Found": 1}


def test_integer_keys_of_img2dataset_match_the_zero_padded_names_in_the_tar(tmp_path: Path) -> None:
    keys = [7, 12, 3]
    write_tar(tmp_path / "00000.tar", [(f"{key:09d}.jpg", jpeg(0)) for key in keys])
    records = [{"key": key, "url": f"u{key}", "status": "success", "error_message": None} for key in sorted(keys)]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "00000.parquet")
    table, reports = read_all(open_source(str(tmp_path)))
    assert table["key"].to_pylist() == [f"{key:09d}" for key in keys]
    assert table["url"].to_pylist() == [f"u{key}" for key in keys]
    assert reports["00000"].counts == {}


def test_coco(shared_data: Path) -> None:
    folder = shared_data / "coco_mini"
    source = open_source(str(folder))
    assert source.format == "coco"
    table, reports = read_all(source)
    instances = json.loads((folder / "annotations" / "instances_val2017.json").read_text())
    captions = json.loads((folder / "annotations" / "captions_val2017.json").read_text())
    assert table.num_rows == len(list((folder / "val2017").glob("*.jpg"))) == 25
    assert all(not report.counts for report in reports.values())
    names = {one["id"]: one["name"] for one in instances["categories"]}
    boxes = 0
    for row in table.to_pylist():
        image = next(i for i in instances["images"] if i["file_name"] == row["key"].split("/")[1] + ".jpg")
        mine = [a for a in instances["annotations"] if a["image_id"] == image["id"]]
        boxes += len(mine)
        assert row["categories"] == [names[a["category_id"]] for a in mine]
        assert row["category_ids"] == [a["category_id"] for a in mine]
        assert row["bboxes"] == pytest.approx([pytest.approx(a["bbox"], rel=1e-6) for a in mine])
        assert [json.loads(text) for text in row["segmentations"]] == [a["segmentation"] for a in mine]
        assert row["iscrowd"] == [a["iscrowd"] for a in mine]
        assert row["captions"] == [a["caption"] for a in captions["annotations"] if a["image_id"] == image["id"]]
        assert row["caption"] == row["captions"][0]
        assert (row["width"], row["height"]) == (image["width"], image["height"])
        assert row["image"]["size"] == (folder / "val2017" / image["file_name"]).stat().st_size
    assert (boxes, sum(map(len, table["captions"].to_pylist()))) == (213, 125)


def test_many_class_folders_share_shards_and_one_more_changes_few(tmp_path: Path) -> None:
    for number in range(FOLDERS_APART + 40):
        folder = tmp_path / f"n{number:04d}"
        folder.mkdir()
        (folder / "a.jpg").write_bytes(b"x")
    source = open_source(str(tmp_path))
    assert len(source.shards()) == 1
    assert [row["folder"] for row in rows(source, "folder")] == [f"n{n:04d}" for n in range(FOLDERS_APART + 40)]


def test_pictures_are_told_by_their_content_where_names_say_nothing(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number:02x}").write_bytes(jpeg(number))
    (tmp_path / "LICENSE").write_text("free")
    assert [bytes_at(row["image"]) for row in rows(open_source(str(tmp_path)), "image")] == [jpeg(n) for n in range(3)]


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize("name", ["a.tar", "a.parquet", "a.npz", "a.csv", "a.jpg", "a.arrow"])
def test_pointers_of_git_lfs_are_said_to_be_such(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(SourceError, match=rf"{name} is a Git LFS pointer: .*git lfs pull"):
        open_source(str(tmp_path))


def test_some_pictures_that_were_not_downloaded(tmp_path: Path) -> None:
    pictures(tmp_path, 2)
    (tmp_path / "0009.jpg").write_text(POINTER)
    table, reports = read_all(open_source(str(tmp_path)))
    assert table["image"].to_pylist()[2] == {"uri": "", "offset": 0, "size": 0}
    [report] = reports.values()
    assert report.counts["lfs_pointers"] == 1
    assert "'0009.jpg'" in report.problems[0]


FRAME = pd.DataFrame(
    {"uid": [f"{n:03d}" for n in range(5)], "TEXT": CAPTIONS, "n": [1, 2, 3, 4, 5], "score": [0.5, 1, 2, 3, 4.25]}
)


def stream_file(frame: pd.DataFrame, path: Path) -> None:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def ipc_file(frame: pd.DataFrame, path: Path) -> None:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


TABLES: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "t.csv": lambda f, p: f.to_csv(p, index=False, quoting=csv.QUOTE_NONNUMERIC),
    "t.tsv": lambda f, p: f.to_csv(p, index=False, sep="\t", quoting=csv.QUOTE_NONNUMERIC),
    "semicolons.csv": lambda f, p: f.to_csv(p, index=False, sep=";", quoting=csv.QUOTE_NONNUMERIC),
    "bom.csv": lambda f, p: f.to_csv(p, index=False, encoding="utf-8-sig", quoting=csv.QUOTE_NONNUMERIC),
    "utf16.csv": lambda f, p: f.to_csv(p, index=False, encoding="utf-16", quoting=csv.QUOTE_NONNUMERIC),
    "t.csv.gz": lambda f, p: f.to_csv(p, index=False, quoting=csv.QUOTE_NONNUMERIC),
    "t.csv.zst": lambda f, p: f.to_csv(p, index=False, quoting=csv.QUOTE_NONNUMERIC),
    "t.jsonl": lambda f, p: f.to_json(p, orient="records", lines=True),
    "t.jsonl.gz": lambda f, p: f.to_json(p, orient="records", lines=True),
    "array.json": lambda f, p: f.to_json(p, orient="records"),
    "t.parquet": lambda f, p: f.to_parquet(p),
    "t.feather": lambda f, p: feather.write_feather(f, str(p)),
    "old.feather": lambda f, p: feather.write_feather(f, str(p), version=1),
    "t.arrow": stream_file,
    "file.arrow": ipc_file,
    "misnamed.csv": lambda f, p: f.to_parquet(p),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TABLES)
def test_tables_in_every_format_as_source_and_as_metadata(tmp_path: Path, name: str) -> None:
    TABLES[name](FRAME, tmp_path / name)
    expected = FRAME["TEXT"].tolist()
    found, reports = read_all(open_source(str(tmp_path)))
    assert found["key"].to_pylist() == FRAME["uid"].tolist()
    assert found["caption"].to_pylist() == expected
    assert found["n"].to_pylist() == [1, 2, 3, 4, 5]
    assert found["score"].to_pylist() == FRAME["score"].tolist()
    assert all(not report.counts for report in reports.values())
    write_tar(tmp_path / "tars" / "0.tar", [(f"{n}.json", {"uid": f"{n:03d}"}) for n in (4, 0, 2)])
    joined = rows(open_source(str(tmp_path / "tars"), metadata=str(tmp_path / name)), "uid", "caption", "score")
    assert joined == [{"uid": f"{n:03d}", "caption": expected[n], "score": FRAME["score"][n]} for n in (4, 0, 2)]


def test_cells_become_what_all_cells_of_their_column_are(tmp_path: Path) -> None:
    lines = ["id,zeros,big,mixed,flag,empty,number"]
    lines += [f"{n},{n:03d},{10**20 + n},{n},true,,{n}.5" for n in range(2000)]
    lines += ["7,008,1,x,False,,NaN", "too,many,cells,in,this,one,row,here", '9,009,2,"a,b",true,,']
    (tmp_path / "t.csv").write_text("\n".join(lines))
    table, reports = read_all(open_source(str(tmp_path)))
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds | {"zeros": "string", "big": "string", "mixed": "string", "flag": "bool"} == kinds
    assert kinds | {"id": "int64", "empty": "string", "number": "double"} == kinds
    assert table["zeros"].to_pylist()[:2] == ["000", "001"]
    assert table["big"].to_pylist()[1] == str(10**20 + 1)
    assert table["mixed"].to_pylist()[-1] == "a,b"
    assert table["number"].to_pylist()[-3:] == [1999.5, None, None]
    assert reports["t"].counts == {"malformed_rows": 1}


def test_a_table_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "cc3m.tsv").write_text('a very "odd caption\thttp://x/1.jpg\nsecond\thttp://x/2\n')
    found = rows(open_source(str(tmp_path)), "caption", "url")
    assert found == [
        {"caption": 'a very "odd caption', "url": "http://x/1.jpg"},
        {"caption": "second", "url": "http://x/2"},
    ]


def test_vectors_in_a_parquet_as_metadata(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars" / "0.tar", [("b.jpg", b"b"), ("a.jpg", b"a")])
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([1, 2, 3, 4], pa.float32()), 2)
    pq.write_table(pa.table({"key": ["a", "b"], "emb": vectors}), tmp_path / "m.parquet")
    found = rows(open_source(str(tmp_path / "tars"), metadata=str(tmp_path / "m.parquet")), "key", "emb")
    assert found == [{"key": "b", "emb": [3, 4]}, {"key": "a", "emb": [1, 2]}]


def test_of_files_in_a_folder_that_differ_in_case_alone_the_first_counts(tmp_path: Path) -> None:
    for number, name in enumerate(("a.JPG", "a.jpg", "b.jpg")):
        (tmp_path / name).write_bytes(jpeg(number))
    table, reports = read_all(open_source(str(tmp_path)))
    assert [pointer["uri"] for pointer in table["image"].to_pylist()] == [str(tmp_path / n) for n in ("a.JPG", "b.jpg")]
    assert reports[tmp_path.name].counts == {"duplicate_members": 1}
    said = "1 members, of sample 'a', have the extension of one before them: the first counts"
    assert reports[tmp_path.name].problems == [said]
