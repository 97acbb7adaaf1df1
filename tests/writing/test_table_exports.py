"""Exports as tables and as COCO, read by pyarrow, `datasets`, the csv module and the json module."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from factory_lib import C, DatasetQuery, export, lit
from factory_lib.writing import CocoExport, CsvExport, HuggingFaceExport, ParquetExport
from tests.samples import write_tar
from tests.writing.exports import contents, pool, sample

__all__ = ["pool"]

NAMES = ["key", "caption", "uid", "width", "score", "license"]


def expected(name: str) -> list[Any]:
    """What a column of the pool has."""
    if name == "key":
        return [f"{n:06d}" for n in range(60)]
    return [sample(n)["txt"] if name == "caption" else sample(n)["json"][name] for n in range(60)]


def test_parquet_has_attributes_and_pointers(pool: Path, tmp_path: Path) -> None:
    export("pool", str(tmp_path / "out"), ParquetExport(samples_per_file=40))
    table = pa.concat_tables([pq.read_table(tmp_path / "out" / f"0000{n}.parquet") for n in range(2)])
    assert table.column_names == ["image", "seg_npy", *NAMES]
    assert {name: table[name].to_pylist() for name in NAMES} == {name: expected(name) for name in NAMES}
    where = table["seg_npy"][7].as_py()
    data = Path(where["uri"]).read_bytes()
    assert data[where["offset"] : where["offset"] + where["size"]] == sample(7)["seg.npy"]
    DatasetQuery.from_source(str(tmp_path / "out")).save("again")
    again = DatasetQuery("again").order_by("key")
    assert again.select(*NAMES, "image").to_arrow() == DatasetQuery("pool").select(*NAMES, "image").to_arrow()


def test_parquet_has_vectors_and_bytes_when_asked(pool: Path, tmp_path: Path) -> None:
    vectors = pa.table(
        {"key": expected("key"), "v": pa.array([[n, 0.5] for n in range(60)], pa.list_(pa.float32(), 2))}
    )
    DatasetQuery("pool").add_columns(vectors, on="key").save("vectors")
    export("vectors", str(tmp_path / "out"), ParquetExport(images=True, members=["image"], columns=["v", "key"]))
    table = pq.read_table(tmp_path / "out" / "00000.parquet")
    assert table.column_names == ["image", "v", "key"]
    assert table["v"].to_pylist() == [[n, 0.5] for n in range(60)]
    assert [sample(n).get("jpg", sample(n).get("png")) for n in range(60)] == table["image"].to_pylist()
    assert table["image"].type == pa.binary()


def test_pointers_go_out_without_credentials(engine: None, tmp_path: Path) -> None:
    pointer = {"uri": "https://user:topsecret@example.org/a.jpg?sig=alsosecret", "offset": 0, "size": 3}
    kind = pa.struct([("uri", pa.string()), ("offset", pa.uint64()), ("size", pa.uint64())])
    rows = pa.table({"key": ["a"], "image": pa.array([pointer], kind)})
    DatasetQuery.from_arrow(rows).save("hidden")
    for format in (ParquetExport(), CsvExport()):
        export("hidden", str(tmp_path / format.name), format)
    uri = pq.read_table(tmp_path / "parquet" / "00000.parquet")["image"][0].as_py()["uri"]
    assert uri.startswith("https://example.org/a.jpg")
    for data in contents(tmp_path).values():
        assert b"topsecret" not in data
        assert b"alsosecret" not in data


LOAD = """
import json, sys, hashlib
from datasets import Image, load_dataset
rows = load_dataset(sys.argv[1], split="train", cache_dir=sys.argv[2])
assert isinstance(rows.features["image"], Image)
raw = rows.cast_column("image", Image(decode=False))
print(json.dumps({
    "columns": rows.column_names,
    "sizes": [list(row["image"].size) for row in rows],
    "images": [hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in raw],
    "paths": [row["image"]["path"] for row in raw],
    "captions": rows["caption"][:] if isinstance(rows["caption"], list) else list(rows["caption"]),
}))
"""


def test_datasets_loads_the_folder(pool: Path, tmp_path: Path) -> None:
    import hashlib

    pytest.importorskip("datasets")
    export("pool", str(tmp_path / "out"), HuggingFaceExport(samples_per_file=25))
    files = sorted(path.name for path in (tmp_path / "out" / "data").iterdir())
    assert files == [f"train-0000{n}-of-00003.parquet" for n in range(3)]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "out"), str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        env={"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "PATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["columns"] == ["image", "seg_npy", *NAMES]
    assert found["sizes"] == [[16, 12]] * 60
    pictures = [sample(n).get("jpg", sample(n).get("png")) for n in range(60)]
    assert found["images"] == [hashlib.sha256(one).hexdigest() for one in pictures]
    assert found["paths"] == [f"{n:06d}.{'png' if n % 5 == 4 else 'jpg'}" for n in range(60)]
    assert found["captions"] == expected("caption")


def test_csv_is_read_back(pool: Path, tmp_path: Path) -> None:
    odd = DatasetQuery("pool").mutate(odd=lit('a, "b"\n☃'), tags=C.caption.cast("String")).limit(30)
    listed = odd.add_columns(pa.table({"key": expected("key"), "boxes": [[[0.5, n]] for n in range(60)]}), on="key")
    export(
        listed,
        str(tmp_path / "out"),
        CsvExport(samples_per_file=20, columns=["key", "odd", "score", "boxes", "license"]),
    )
    rows = []
    for name in ("00000.csv", "00001.csv"):
        with open(tmp_path / "out" / name, newline="", encoding="utf-8") as file:
            rows += list(csv.DictReader(file))
    assert len(rows) == 30
    for n, row in enumerate(rows):
        assert (row["key"], row["odd"], float(row["score"])) == (f"{n:06d}", 'a, "b"\n☃', n / 8)
        assert json.loads(row["boxes"]) == [[0.5, float(n)]]
        assert {"image_uri", "image_offset", "image_size", "seg_npy_uri"} <= row.keys()


def test_coco_comes_out_as_it_went_in(engine: None, shared_data: Path, tmp_path: Path) -> None:
    DatasetQuery.from_source(str(shared_data / "coco_mini")).save("coco")
    export("coco", str(tmp_path / "out"), CocoExport())
    for kind in ("instances", "captions"):
        (original,) = (shared_data / "coco_mini" / "annotations").glob(f"{kind}*.json")
        before, after = (
            json.loads(path.read_text()) for path in (original, tmp_path / "out" / "annotations" / f"{kind}.json")
        )
        names = {image["id"]: image["file_name"] for image in before["images"]}
        assert {image["id"]: image["file_name"].rpartition("/")[2] for image in after["images"]} == names
        sizes = {image["id"]: (image["width"], image["height"]) for image in before["images"]}
        assert {image["id"]: (image["width"], image["height"]) for image in after["images"]} == sizes
        assert len({one["id"] for one in after["annotations"]}) == len(before["annotations"])
        if kind == "captions":
            found, wanted = (sorted((a["image_id"], a["caption"]) for a in d["annotations"]) for d in (after, before))
            assert found == wanted
            continue
        keys = ("image_id", "category_id", "iscrowd", "segmentation")
        found, wanted = (
            sorted((json.dumps([a[key] for key in keys]), a["area"], a["bbox"]) for a in d["annotations"])
            for d in (after, before)
        )
        assert [(one[0], one[1]) for one in found] == [(one[0], one[1]) for one in wanted]
        assert np.allclose([one[2] for one in found], [one[2] for one in wanted], rtol=1e-6)
        used = {a["category_id"] for a in before["annotations"]}
        assert {c["id"]: c["name"] for c in after["categories"]} == {
            c["id"]: c["name"] for c in before["categories"] if c["id"] in used
        }
        for image in after["images"]:
            original_bytes = next((shared_data / "coco_mini").rglob(names[image["id"]])).read_bytes()
            assert (tmp_path / "out" / image["file_name"]).read_bytes() == original_bytes
    DatasetQuery.from_source(str(tmp_path / "out")).save("again")
    columns = ["image_id", "bboxes", "categories", "captions", "width"]
    before_rows, after_rows = (
        DatasetQuery(name).order_by("image_id").select(*columns).to_arrow() for name in ("coco", "again")
    )
    assert after_rows == before_rows


def test_coco_of_boxes_without_numbers(engine: None, tmp_path: Path) -> None:
    about = {
        "width": 100,
        "height": 50,
        "relative_bboxes": [[0.1, 0.2, 0.5, 0.5], [0, 0, 1, 1]],
        "categories": ["dog", "cat"],
    }
    write_tar(tmp_path / "in" / "a.tar", [("x.jpg", b"\xff\xd8\xff"), ("y.jpg", b"\xff\xd8\xff")])
    DatasetQuery.from_source(str(tmp_path / "in")).save("two")
    rows = pa.table({"key": ["x"], **{name: [value] for name, value in about.items()}})
    DatasetQuery("two").add_columns(rows, on="key").save("boxes")
    export("boxes", str(tmp_path / "out"), CocoExport(images=False))
    assert contents(tmp_path / "out").keys() == {"annotations/instances.json", "provenance.json"}
    found = json.loads((tmp_path / "out" / "annotations" / "instances.json").read_text())
    assert found["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert [image["file_name"] for image in found["images"]] == ["x.jpg", "y.jpg"]
    assert [(a["image_id"], a["category_id"], a["bbox"], a["area"]) for a in found["annotations"]] == [
        (1, 2, [10, 10, 50, 25], 1250),
        (1, 1, [0, 0, 100, 50], 5000),
    ]


def annotated(tmp_path: Path, **columns: list[Any]) -> dict[str, Any]:
    """What COCO's JSON says of samples with these columns, and of the export."""
    keys = [f"k{n}" for n in range(len(next(iter(columns.values()))))]
    write_tar(tmp_path / "in" / "a.tar", [(f"{key}.jpg", b"\xff\xd8\xff") for key in keys])
    DatasetQuery.from_source(str(tmp_path / "in")).save("plain")
    DatasetQuery("plain").add_columns(pa.table({"key": keys, **columns}), on="key").save("annotated")
    made = export("annotated", str(tmp_path / "out"), CocoExport(images=False))
    found: dict[str, Any] = json.loads((tmp_path / "out" / "annotations" / "instances.json").read_text())
    return found | {"left_out": made.left_out, "said": made.provenance["left_out"]}


def test_a_number_of_two_names_is_no_category(engine: None, tmp_path: Path) -> None:
    found = annotated(
        tmp_path,
        bboxes=[[[0.0, 0.0, 4.0, 4.0], [1.0, 1.0, 2.0, 2.0]], [[0.0, 0.0, 3.0, 3.0], [0.0, 0.0, 1.0, 1.0]]],
        category_ids=[[1, 2], [1, 7]],
        categories=[["person", "dog"], ["aeroplane", None]],
        supercategories=[["being", "being"], [None, None]],
    )
    assert found["categories"] == [
        {"id": 1, "name": "7"},
        {"id": 2, "name": "aeroplane"},
        {"id": 3, "name": "dog", "supercategory": "being"},
        {"id": 4, "name": "person", "supercategory": "being"},
    ]
    assert [one["category_id"] for one in found["annotations"]] == [4, 3, 2, 1]


def test_what_says_no_category_is_of_none(engine: None, tmp_path: Path) -> None:
    box = [0.0, 0.0, 1.0, 1.0]
    found = annotated(
        tmp_path, bboxes=[[box, box, box]], category_ids=[[0, None, None]], categories=[["cat", "ant", None]]
    )
    assert found["categories"] == [{"id": 0, "name": "cat"}, {"id": 1, "name": "ant"}]
    first, second, none = (one["category_id"] for one in found["annotations"])
    assert (first, second) == (0, 1)
    assert none not in (0, 1)


def test_numbers_and_outlines_that_are_none_end_no_export(engine: None, tmp_path: Path) -> None:
    box = [0.0, 0.0, 1.0, 1.0]
    found = annotated(
        tmp_path,
        bboxes=[[box, box, box]],
        category_ids=[["n02084071", "n02121808", "2"]],
        categories=[["dog", None, None]],
        segmentations=[["[[1, 2, 3, 4]]", "[[1, 2", None]],
    )
    names = {one["id"]: one["name"] for one in found["categories"]}
    assert [names[one["category_id"]] for one in found["annotations"]] == ["dog", "n02121808", "2"]
    assert [one.get("segmentation") for one in found["annotations"]] == [[[1, 2, 3, 4]], None, None]
    assert found["left_out"] == {"segmentations": 1}


def test_boxes_that_are_none_are_counted(engine: None, tmp_path: Path) -> None:
    whole = [0.0, 0.0, 2.0, 3.0]
    found = annotated(
        tmp_path,
        bboxes=[[whole, [0.0, float("nan"), 1.0, 1.0], [0.0, 0.0, float("inf"), 1.0], [1.0, 2.0]], None, []],
        areas=[[float("nan"), 1.0, 1.0, 1.0], None, None],
        relative_bboxes=[None, [[0.0, 0.0, 0.5, 0.5]], [[0.0, 0.5, 0.5, 0.5]]],
        width=[10, 20, None],
        height=[10, 40, 10],
    )
    # Three boxes of the first sample are none; the second's are in shares, and the third's sides are not known.
    assert [(one["image_id"], one["bbox"], one["area"]) for one in found["annotations"]] == [
        (1, whole, 6.0),
        (2, [0.0, 0.0, 10.0, 20.0], 200.0),
    ]
    assert found["left_out"] == found["said"] == {"boxes": 4}


@pytest.mark.parametrize("format", [ParquetExport(samples_per_file=40), HuggingFaceExport(samples_per_file=40)])
def test_croissant_reads_the_tables_by_what_is_said_of_them(pool: Path, tmp_path: Path, format: ParquetExport) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    vectors = pa.table({"key": expected("key"), "v": pa.array([[n, 0.5] for n in range(60)], pa.list_(pa.float32()))})
    DatasetQuery("pool").add_columns(vectors, on="key").save("described")
    made = export("described", str(tmp_path / "out"), format)
    assert {"README.md", "croissant.json"} <= made.files.keys()
    dataset = mlcroissant.Dataset(str(tmp_path / "out" / "croissant.json"))
    assert dataset.metadata.issues.errors == set()
    assert (dataset.metadata.name, str(dataset.metadata.version)) == ("described", "1.0.0")
    fields = {field.id: field for field in dataset.metadata.record_sets[0].fields}
    table = pq.read_table(next((tmp_path / "out").rglob("*.parquet")))
    assert [name.removeprefix("samples/") for name in fields] == table.column_names
    assert fields["samples/v"].repeated
    rows = sorted(dataset.records("samples"), key=lambda row: row["samples/key"])
    assert [row["samples/key"].decode() for row in rows] == expected("key")
    assert [row["samples/width"] for row in rows] == expected("width")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| `caption` | string |" in card
    assert "60 samples" in card
    assert "described.v1" in card


def test_an_export_as_parquet_comes_back_by_ingesting_it(pool: Path, tmp_path: Path) -> None:
    export("pool", str(tmp_path / "out"), ParquetExport(samples_per_file=40, columns=[*NAMES, "shard", "position"]))
    DatasetQuery.from_source(str(tmp_path / "out")).save("back")
    columns = [*NAMES, "image"]
    back = DatasetQuery("back").order_by("key").select(*columns).to_arrow()
    assert back == DatasetQuery("pool").order_by("key").select(*columns).to_arrow()
