"""What an image is (header and decode status) and how good it looks (brightness, contrast, sharpness, entropy)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from factory_lib.signals.member import Member
from factory_lib.signals.signal import signal

if TYPE_CHECKING:
    from PIL import Image

_WEIGHTS = np.array([0.241, 0.691, 0.068], dtype=np.float32)


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
        image.picture()
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
    """How an image looks; `dark`, `light`, `entropy` and `blurry` with cleanvision's definitions and bars.

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
    picture = image.picture()
    luma = image.luma()
    levels = np.asarray(luma)
    mean, fifth, ninety_ninth = _brightness(image.pixels())
    return Quality(
        brightness=mean,
        dark=ninety_ninth,
        light=1 - fifth,
        contrast=_spread(luma) / 255,
        sharpness=_laplacian_variance(levels),
        blurry=_blur_score(luma),
        entropy=float((luma if image.mode == "L" else picture).entropy()),
        aspect=min(picture.size) / max(picture.size),
    )


def _spread(luma: Image.Image) -> float:
    """Standard deviation of the levels, from their histogram."""
    counts = np.asarray(luma.histogram(), np.float64)
    levels = np.arange(256)
    mean = counts @ levels / counts.sum()
    return float(np.sqrt(counts @ (levels - mean) ** 2 / counts.sum()))


def _brightness(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> tuple[float, float, float]:
    """Mean, 5th and 99th percentile (linear interpolation) of the brightness of the pixels.

    Sorted are only the pixels near a percentile, found by a coarse histogram: sorting all takes longer than decoding.
    """
    squares = pixels.astype(np.float32)
    squares *= squares
    sums = (squares @ _WEIGHTS).ravel()
    coarse = (sums * (4095 / 65025)).astype(np.uint16)
    reached = np.cumsum(np.bincount(coarse))
    percentiles = []
    for share in (0.05, 0.99):
        rank = (len(sums) - 1) * share
        first, second = int(rank), min(int(rank) + 1, len(sums) - 1)
        low, high = np.searchsorted(reached, (first, second), side="right")
        near = np.sort(sums[(coarse >= low) & (coarse <= high)])
        below = int(reached[low - 1]) if low else 0
        one, other = np.sqrt(near[[first - below, second - below]].astype(np.float64)) / 255
        percentiles.append(float(one + (other - one) * (rank - first)))
    mean = float(np.sqrt(sums, out=sums).mean(dtype=np.float64)) / 255
    return mean, percentiles[0], percentiles[1]


def _laplacian_variance(levels: np.ndarray[Any, np.dtype[np.uint8]]) -> float:
    """Variance of the 4-neighbour Laplacian, borders mirrored without repeating the edge (OpenCV's default)."""
    wide = np.pad(levels.astype(np.int16), 1, mode="reflect" if min(levels.shape) > 1 else "edge")
    laplacian = wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:] - 4 * wide[1:-1, 1:-1]
    values = laplacian.ravel().astype(np.float64)  # whole numbers to 1,020, of which sums of squares stay exact
    mean = float(values.sum()) / len(values)
    return float(values @ values) / len(values) - mean * mean


def _blur_score(luma: Image.Image) -> float:
    """cleanvision: edges and spread of the histogram of the image at 64 pixels, min(b + s, 1)."""
    from PIL import ImageFilter

    longest = max(luma.size)
    if longest > 64:
        width, height = (max(1, round(side * 64 / longest)) for side in luma.size)
        luma = luma.resize((width, height))
    edges = np.asarray(luma.filter(ImageFilter.FIND_EDGES)).std()
    spread = 1 - np.exp(-0.01 * np.std(luma.histogram()))
    return float(min(1 - np.exp(-0.01 * edges) + (spread if spread > 0.18 else 0), 1))
