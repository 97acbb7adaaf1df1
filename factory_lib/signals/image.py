"""What an image is (header and decode status) and how good it looks (brightness, contrast, sharpness, entropy)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from factory_lib.signals.brightness import brightness
from factory_lib.signals.member import Member
from factory_lib.signals.resampling import resized
from factory_lib.signals.signal import signal


class ImageHeader(NamedTuple):
    """What a file says of its image, and whether its pixels decode.

    Attributes:
        width: pixels as stored; null where the file is no image.
        height: pixels as stored.
        format: Pillow's name, such as `JPEG`.
        mode: Pillow's pixel mode as stored, such as `RGB`, `L`, `CMYK`.
        frames: pictures in the file.
        orientation: EXIF orientation, 1 to 8, not applied to width and height.
        bytes: size of the file.
        decodes: whether all pixels of the first frame can be decoded.
        problem: why not, null where it decodes.
    """

    width: np.uint32 | None
    height: np.uint32 | None
    format: str | None
    mode: str | None
    frames: np.uint32 | None
    orientation: np.uint8 | None
    bytes: np.uint64
    decodes: bool
    problem: str | None


@signal
def image_header(image: Member) -> ImageHeader:
    """Width, height, format, mode, frames, EXIF orientation, bytes, and whether the image decodes.

    A file that is no image is a value, too (`decodes` false, `problem` says why): the error column is for samples
    that cannot be read.
    """
    from factory_lib.signals.task import describe

    size = np.uint64(len(image.data))
    try:
        header = image.header()
    except Exception as error:
        return ImageHeader(None, None, None, None, None, None, size, False, describe(error))
    try:
        image.pixels()
        problem = None
    except Exception as error:
        problem = describe(error)
    return ImageHeader(
        np.uint32(header.width),
        np.uint32(header.height),
        header.format,
        header.mode,
        np.uint32(header.frames),
        np.uint8(header.orientation),
        size,
        problem is None,
        problem,
    )


class Quality(NamedTuple):
    """How an image looks; `dark`, `light`, `entropy` and `blurry` with cleanvision's definitions and bars, of the
    picture that all others see: turned, as RGB. `signals.cleanvision` has the scores that the package itself gives.

    Attributes:
        brightness: mean over pixels of sqrt(.241 R² + .691 G² + .068 B²) / 255, 0 to 1.
        dark: 99th percentile of that brightness; an image is dark below .32.
        light: 1 - its 5th percentile; an image is washed out below .05.
        contrast: standard deviation of the luma / 255, 0 to .5.
        sharpness: variance of the Laplacian of the luma (3 x 3, mirrored border); blurry below about 100.
        blurry: cleanvision's blur score, 0 to 1; blurry below .29.
        entropy: Shannon entropy of the histogram of all bands (one band for a grey image), bits; low below 3.
        aspect: shorter / longer side; odd below .35.
    """

    brightness: float
    dark: float
    light: float
    contrast: float
    sharpness: float
    blurry: float
    entropy: float
    aspect: float


@signal
def quality(image: Member) -> Quality:
    """Brightness, dark and light scores, contrast, sharpness, blur score, entropy and aspect ratio."""
    pixels, levels = image.pixels(), image.levels()
    height, width = levels.shape
    mean, fifth, ninety_ninth = brightness(pixels)
    return Quality(
        brightness=mean,
        dark=ninety_ninth,
        light=1 - fifth,
        contrast=_spread(levels) / 255,
        sharpness=_laplacian_variance(levels),
        blurry=_blur_score(image),
        entropy=float((image.luma() if image.mode == "L" else image.picture()).entropy()),
        aspect=min(width, height) / max(width, height),
    )


def _spread(levels: NDArray[np.uint8]) -> float:
    """Standard deviation of the levels."""
    import cv2

    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(levels))
    # the sums that these were made of are whole numbers, and exact
    total, squares = round(mean * levels.size), round((deviation**2 + mean**2) * levels.size)
    return math.sqrt(squares * levels.size - total * total) / levels.size


def _laplacian_variance(levels: NDArray[np.uint8]) -> float:
    """Variance of the 4-neighbour Laplacian, borders mirrored without repeating the edge (OpenCV's default)."""
    import cv2

    values = cv2.Laplacian(levels, cv2.CV_16S)
    # both are whole numbers, and in double precision as good as exact
    total, squares = round(cv2.sumElems(values)[0]), round(cv2.norm(values, cv2.NORM_L2SQR))
    return (squares * values.size - total * total) / values.size**2


def _blur_score(image: Member) -> float:
    """cleanvision: edges and spread of the histogram of the image at 64 pixels, min(b + s, 1)."""
    from PIL import Image, ImageFilter

    small = image.levels()
    height, width = small.shape
    longest = max(width, height)
    if longest > 64:
        wide, high = (max(1, round(side * 64 / longest)) for side in (width, height))
        small = resized(image, wide, high, "BICUBIC")
    edges = np.asarray(Image.fromarray(small).filter(ImageFilter.FIND_EDGES)).std()
    spread = 1 - np.exp(-0.01 * np.bincount(small.ravel(), minlength=256).std())
    return float(min(1 - np.exp(-0.01 * edges) + (spread if spread > 0.18 else 0), 1))
