"""Image bytes to pixels. Pillow reads everything; simplejpeg is about twice as fast on JPEGs and leaves the rest to
Pillow. Each gives what it has, so that nothing is copied that nobody asked for: Pillow a picture, simplejpeg an array.

Both see what `pictures` says (orientation, alpha, depth). They differ in single pixel values (inverse DCT, chroma
upsampling), so the decoder is part of a loader's state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Union

import numpy as np
import torch
from numpy.typing import NDArray

from factory_lib.errors import LoaderError
from factory_lib.pictures import EXTENSIONS, check_pixels, decode, jpeg_orientation, open_picture

if TYPE_CHECKING:
    from PIL import Image

Decoder = Literal["pillow", "simplejpeg", "raw"]
Pixels = NDArray[np.uint8]
Picture = Union["Image.Image", Pixels]  # RGB; an array has the shape (height, width, 3)
Decode = Callable[[memoryview], Picture]
IMAGE_MEMBERS = frozenset({"image", "img", *EXTENSIONS})


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


def as_image(picture: Picture) -> Image.Image:
    """The picture as Pillow's."""
    if not isinstance(picture, np.ndarray):
        return picture
    from PIL import Image

    return Image.fromarray(picture)


def fitted(picture: Picture, out: torch.Tensor) -> None:
    """Write the largest centred part of a picture that has the shape of `out`, scaled (bilinear, antialiased), to
    `out`: uint8 of shape (height, width, 3), contiguous.

    Torch's resampling is Pillow's, to the bit, and several times as fast on processors with AVX2.
    """
    pixels = np.asarray(picture)
    (height, width), (rows, columns) = pixels.shape[:2], out.shape[:2]
    high, wide = min(height, max(1, width * rows // columns)), min(width, max(1, height * columns // rows))
    left, top = (width - wide) // 2, (height - high) // 2
    centre = torch.from_numpy(np.require(pixels[top : top + high, left : left + wide], requirements=["C", "W"]))
    if (high, wide) == (rows, columns):
        out.copy_(centre)
        return
    # Both are known to torch as planes whose channels come last, and the result goes where it belongs: what the public
    # function returns has its planes one after the other, and turning that back takes longer than the resampling.
    planes, target = (pixels[None].permute(0, 3, 1, 2) for pixels in (centre, out))
    torch.ops.aten._upsample_bilinear2d_aa.out(planes, list(target.shape[2:]), False, None, None, out=target)


def _pillow(data: memoryview, size: int | None) -> Image.Image:
    return decode(open_picture(data), size)


def _simplejpeg(data: memoryview, size: int | None) -> Picture:
    import simplejpeg

    if bytes(data[:3]) != b"\xff\xd8\xff":
        return _pillow(data, size)
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        check_pixels(width, height)
        # Factors below 2 would save pixels and lose time: libjpeg-turbo has no fast code for them.
        found: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=size or 0, min_width=size or 0, min_factor=2)
    except ValueError:  # CMYK and other rarities; what is broken for Pillow, too, is an error there
        return _pillow(data, size)
    return _turned(found, jpeg_orientation(data))


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """Pixels as an EXIF orientation says that they are to be seen."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    down, across = orientation in {3, 4, 7, 8}, orientation in {2, 3, 6, 7}
    return pixels[:: -1 if down else 1, :: -1 if across else 1]
