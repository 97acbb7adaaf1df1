"""Zip archives: stored members are pointed at, compressed ones unpacked once, and nothing in them is lost unsaid."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory_lib import open_source
from factory_lib.errors import SourceError
from factory_lib.sources.ziparchives import members, offsets
from factory_lib.storage.store import store
from tests.samples import read_all, rows
from tests.sources.test_sources_pictures import jpeg

PICTURES = [(f"train/{c}/{n:03d}.{'JPG' if n % 2 else 'jpg'}", jpeg(n)) for c in ("cat", "dog") for n in range(3)]


def write_zip(path: Path, content: Sequence[tuple[str, bytes | str]], compressed: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, data in content:
            archive.writestr(name, data)
    return path


def contents(found: list[dict[str, Any]], column: str = "image") -> dict[str, bytes]:
    return {row["key"]: store().read(row[column]["uri"], row[column]["offset"], row[column]["size"]) for row in found}


RIGHT = {name.rpartition(".")[0]: data for name, data in PICTURES}


class Forward(io.RawIOBase):
    """A pipe: what zipfile writes to it has its sizes behind the data."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += bytes(data)
        return len(data)


@pytest.mark.parametrize("writer", ["plain", "streamed", "extra fields"])
def test_stored_pictures_are_pointed_at(tmp_path: Path, writer: str) -> None:
    path = tmp_path / "photos.zip"
    if writer == "plain":
        write_zip(path, PICTURES)
    else:
        into = Forward() if writer == "streamed" else io.BytesIO()
        with zipfile.ZipFile(into, "w") as archive:  # type: ignore[arg-type]
            for name, data in PICTURES:
                about = zipfile.ZipInfo(name)
                about.extra = b"\xfe\xca\x04\x00abcd" if writer == "extra fields" else b""
                archive.writestr(about, data)
        path.write_bytes(bytes(into.data) if isinstance(into, Forward) else into.getvalue())
    found = rows(open_source(str(path)))
    assert contents(found) == RIGHT
    assert {row["folder"] for row in found} == {"train/cat", "train/dog"}
    assert {row["image"]["uri"] for row in found} == {str(path)}


def test_compressed_pictures_are_unpacked_once_with_their_captions(tmp_path: Path) -> None:
    table = "file_name,text\n" + "".join(
        f"{n.removeprefix('train/')},caption {i}\n" for i, (n, _) in enumerate(PICTURES)
    )
    more = [("train/metadata.csv", table), ("a.heic", b"1"), ("__MACOSX/._a.jpg", b"2"), ("notes.md", "x")]
    write_zip(tmp_path / "in" / "a.zip", [*PICTURES, *more], compressed=True)
    with pytest.raises(SourceError, match="--unpack-to"):
        open_source(str(tmp_path / "in"))
    captions = {key: f"caption {n}" for n, key in enumerate(RIGHT)}
    places = []
    for _ in range(2):
        source = open_source(str(tmp_path / "in"), unpack_to=str(tmp_path / "to"))
        found, reports = read_all(source)
        assert contents(found.to_pylist()) == RIGHT
        assert dict(zip(found["key"].to_pylist(), found["caption"].to_pylist(), strict=True)) == captions
        assert reports["a"].counts == {"members_left_out": 2}
        assert "1 members .heic (a.heic) are left out: a format that is not read" in reports["a"].problems[0]
        places.append(found["image"].to_pylist())
    assert places[0] == places[1]


def test_members_that_are_no_pictures_are_samples_as_in_a_tar(tmp_path: Path) -> None:
    sounds = [(f"{n:03d}.flac", b"sound %d" % n) for n in range(3)]
    write_zip(tmp_path / "a.zip", [*sounds, *((f"{n:03d}.json", json.dumps({"seconds": n})) for n in range(3))])
    found = rows(open_source(str(tmp_path)))
    assert contents(found, "flac") == {f"{n:03d}": b"sound %d" % n for n in range(3)}
    assert [row["seconds"] for row in found] == [0, 1, 2]


def test_arrays_of_an_npz_are_pointed_at(tmp_path: Path) -> None:
    arrays = {"a": np.arange(3), "b": np.ones((4, 5), np.float32)}
    np.savez(tmp_path / "arrays.npz", **arrays)  # type: ignore[arg-type]
    (_, report), *_ = read_all(open_source(str(tmp_path)))[1].items()
    assert "With format='zip' each array is a sample" in report.problems[0]
    found = contents(rows(open_source(str(tmp_path), format="zip")), "npy")
    for name, array in arrays.items():
        np.testing.assert_array_equal(np.load(io.BytesIO(found[name])), array)


def test_rows_that_are_pictures_are_not_copied_into_a_column(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "cifar.npz", x=pixels, y=np.arange(4))
    source = open_source(str(tmp_path))
    found = contents(rows(source), "x")
    assert all((np.frombuffer(found[str(n)], np.uint8).reshape(8, 8, 3) == pixels[n]).all() for n in range(4))
    assert any("pointers to rows of [8, 8, 3] uint8" in group["reason"] for group in source.account.data())
    np.savez_compressed(tmp_path / "cifar.npz", x=pixels, y=np.arange(4))
    packed = open_source(str(tmp_path))
    assert packed.schema.names == ["key", "y"]
    assert any("write it with numpy.savez" in group["reason"] for group in packed.account.data())


def test_pictures_and_annotations_in_archives_of_their_own(tmp_path: Path) -> None:
    write_zip(tmp_path / "val2017.zip", [("val2017/1.jpg", jpeg(1)), ("val2017/2.jpg", jpeg(2))])
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 8, "width": 8} for n in (1, 2)]
    mask = {"size": [8, 8], "counts": "52203"}
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 7, "bbox": [0, 0, 4, 4], "segmentation": mask, "iscrowd": 1},
        {"id": 2, "image_id": 2, "category_id": 7, "bbox": [1, 1, 2, 2], "segmentation": [[1, 1, 2, 2, 1, 2]], "iscrowd": 0},
    ]  # fmt: skip
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "dog"}]}
    write_zip(tmp_path / "annotations.zip", [("annotations/instances_val2017.json", json.dumps(coco))], compressed=True)
    found = {row["key"]: row for row in rows(open_source(str(tmp_path)))}
    assert contents(list(found.values())) == {"val2017/1": jpeg(1), "val2017/2": jpeg(2)}
    assert json.loads(found["val2017/1"]["segmentations"][0]) == mask
    assert [row["categories"] for row in found.values()] == [["dog"], ["dog"]]


def test_damage(tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "in" / "a.zip", PICTURES).read_bytes()
    (tmp_path / "in" / "b.zip").write_bytes(whole[:700])
    found, reports = read_all(open_source(str(tmp_path / "in")))
    assert contents(found.to_pylist()) == RIGHT
    assert reports["b"].counts == {"unreadable_archives": 1}
    packed = bytearray(write_zip(tmp_path / "rot" / "a.zip", PICTURES, compressed=True).read_bytes())
    start = packed.index(b"train/cat/001.JPG") + 40
    packed[start : start + 60] = bytes(60)
    (tmp_path / "rot" / "a.zip").write_bytes(packed)
    found, reports = read_all(open_source(str(tmp_path / "rot"), unpack_to=str(tmp_path / "to")))
    assert contents(found.to_pylist()) == {key: data for key, data in RIGHT.items() if key != "train/cat/001"}
    assert reports["a"].counts == {"unreadable_members": 1}


NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=12)


@given(st.dictionaries(NAMES, st.tuples(st.binary(max_size=40), st.binary(max_size=12)), max_size=8))
@settings(max_examples=40, deadline=None)
def test_bytes_begin_where_they_are_said_to(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, tuple[bytes, bytes]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.zip"
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as archive:
        for name, (data, extra) in content.items():
            about = zipfile.ZipInfo(name)
            about.extra = b"\xfe\xca" + len(extra).to_bytes(2, "little") + extra if extra else b""
            archive.writestr(about, data)
    path.write_bytes(into.getvalue())
    file = store().info(str(path))
    found = [about for about in members(file) if not about.is_dir()]
    for about, offset in zip(found, offsets(file, found), strict=True):
        with zipfile.ZipFile(into) as archive:
            assert into.getvalue()[offset : offset + about.file_size] == archive.read(about)
