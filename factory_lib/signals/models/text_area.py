"""How much of a picture is text, by the detector of PP-OCRv6."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from factory_lib.pictures import array_of
from factory_lib.signals.bundled import BundledModel, not_installed
from factory_lib.signals.onnx import OnnxModel
from factory_lib.signals.signal import signal

if TYPE_CHECKING:
    from PIL import Image

PP_OCR = BundledModel(
    name="PP-OCRv6 small, detection",
    package="rapidocr",
    file="rapidocr/models/PP-OCRv6_det_small.onnx",
    sha256="090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
    licence="Apache-2.0",
    source="https://huggingface.co/PaddlePaddle/PP-OCRv6_small_det_onnx",
)

LONGEST = 480
"""Longer side at which pictures are looked at, pixels; smaller ones stay as they are."""
_STEP = 32
"""The model takes sides that are a multiple of this."""
LARGEST = 0.2
"""Share of the picture from which on a box is no line of text: the model reads a lone thing on plain ground, such as a
shirt on a table, as one big letter."""


class TextArea(NamedTuple):
    """Text in a picture.

    Attributes:
        share: of the area of the picture that is covered by boxes around lines of text, 0 to 1.
        number: of these boxes.
    """

    share: float
    number: np.uint16


class TextDetector:
    """Boxes around lines of text, as RapidOCR makes them of what the model sees; nothing is read."""

    requires = (PP_OCR.package, "onnxruntime")

    def setup(self) -> None:
        """Load the model."""
        path = PP_OCR.path()
        try:
            from rapidocr.ch_ppocr_det.utils import DBPostProcess
        except ImportError as error:
            raise not_installed("PP-OCR's boxes are made", "rapidocr") from error
        self.model = OnnxModel(path)
        # as in RapidOCR's config.yaml
        self.boxes = DBPostProcess(thresh=0.3, box_thresh=0.5, unclip_ratio=1.6, use_dilation=True)

    def __call__(self, image: Image.Image) -> TextArea:
        """Text in a picture. One at a time: sizes differ, and on a processor several at once take longer."""
        import cv2

        levels = self._seen(image).transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1
        chances = self.model(levels)[0]
        shape = chances.shape[2:]
        boxes, _ = self.boxes(chances, shape)
        lines = [box for box in boxes if cv2.contourArea(box) < LARGEST * chances.size]
        covered = np.zeros(shape, np.uint8)
        for line in lines:
            cv2.fillPoly(covered, [line.round().astype(np.int32)], 1)
        return TextArea(float(covered.mean()), np.uint16(len(lines)))

    def _seen(self, image: Image.Image) -> NDArray[np.uint8]:
        """What the model sees of a picture: BGR, (height, width, 3)."""
        import cv2

        scale = min(1.0, LONGEST / max(image.size))
        size = tuple(max(_STEP, round(side * scale / _STEP) * _STEP) for side in image.size)
        shrinks = size[0] <= image.width and size[1] <= image.height
        scaled: NDArray[Any] = cv2.resize(
            array_of(image), size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
        return scaled[..., ::-1]


text_area = signal(TextDetector(), name="text_area")
