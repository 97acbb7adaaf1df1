"""Image bytes to pixels. Pillow reads everything; simplejpeg is about twice as fast on JPEGs and leaves the rest to
Pillow.

The two differ in single pixel values (inverse DCT, chroma upsampling), so the decoder is part of a loader's state.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from factory_lib.errors import LoaderError

if TYPE_CHECKING:
    from PIL import Image

Decoder = Literal["pillow", "simplejpeg", "raw"]
Decode = Callable[[memoryview], "Image.Image"]
IMAGE_MEMBERS = frozenset({"image", "img", "jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})


def decoder(name: Decoder, size: int | None = None) -> Decode:
    """A function from the bytes of an image to an RGB picture.

    Args:
        name: ``"pillow"`` or ``"simplejpeg"``.
        size: pixels that the shorter side must keep: a JPEG may be decoded at a fraction of its size, still at least
            this large.

    Raises:
        LoaderError: no such decoder, or its package is not installed.
    """
    if name == "pillow":
        return lambda data: _pillow(data, size)
    if name == "simplejpeg":
        try:
            import simplejpeg  # noqa: F401
        except ImportError:
            raise LoaderError('decoder="simplejpeg" needs a package.', "pip install simplejpeg") from None
        return lambda data: _simplejpeg(data, size)
    raise LoaderError(f"There is no decoder {name!r}.", "Known: pillow, raw, simplejpeg.")


def square(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    """The centre of a picture, its shorter side scaled to `size` (bilinear, antialiased): uint8 of shape (size, size,
    3).

    Torch's resampling is Pillow's, to the bit, and several times as fast on processors with AVX2.
    """
    import torch

    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    pixels = np.array(picture)[top : top + side, left : left + side]
    if side == size:
        return pixels
    planes = torch.from_numpy(pixels[None]).permute(0, 3, 1, 2)  # known to torch as pixels whose channels come last
    scaled = torch.nn.functional.interpolate(planes, size=(size, size), mode="bilinear", antialias=True)
    found: NDArray[np.uint8] = scaled.permute(0, 2, 3, 1)[0].numpy()
    return found


def _pillow(data: memoryview, size: int | None) -> Image.Image:
    from PIL import Image

    picture = Image.open(io.BytesIO(data))
    if size is not None and picture.format == "JPEG":
        width, height = picture.size
        scale = size / min(width, height)
        picture.draft("RGB", (int(np.ceil(width * scale)), int(np.ceil(height * scale))))
    return picture.convert("RGB")


def _simplejpeg(data: memoryview, size: int | None) -> Image.Image:
    import simplejpeg
    from PIL import Image

    if bytes(data[:3]) != b"\xff\xd8\xff":
        return _pillow(data, size)
    try:
        # Factors below 2 would save pixels and lose time: libjpeg-turbo has no fast code for them.
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=size or 0, min_width=size or 0, min_factor=2)
    except ValueError:  # CMYK and other rarities; what is broken for Pillow, too, is an error there
        return _pillow(data, size)
    return Image.fromarray(pixels)
