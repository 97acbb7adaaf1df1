"""What an image is (header and decode status) and how good it looks (brightness, contrast, sharpness, entropy)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from factory_lib.signals.member import Member
from factory_lib.signals.signal import signal

if TYPE_CHECKING:
    from PIL import Image

_WEIGHTS = np.array([0.241, 0.691, 0.068], dtype=np.float32)
_DOUBT = 1e-3
"""How far a brightness in float32 may be off, of 255."""
_BLOCK = 1 << 14
_SAMPLE = 4096
_BESIDE = 64
"""Pixels of a sample of 4,096 within which its percentile is that of all: 4.6 standard deviations at the 5th."""


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
    mean, fifth, ninety_ninth = _brightness(image.pixels())
    return Quality(
        brightness=mean,
        dark=ninety_ninth,
        light=1 - fifth,
        contrast=_spread(luma) / 255,
        sharpness=_laplacian_variance(np.asarray(luma)),
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


def _brightness(pixels: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Mean, 5th and 99th percentile (linear interpolation) of the brightness of the pixels, 0 to 1."""
    colours = pixels.reshape(-1, 3)
    levels = np.empty(len(colours), np.uint8)
    total = 0.0
    for start in range(0, len(colours), _BLOCK):  # what is made of a block stays in the cache of a core
        squares = colours[start : start + _BLOCK].astype(np.float32)
        block = np.square(squares, out=squares) @ _WEIGHTS
        total += float(np.sqrt(block, out=block).sum())
        levels[start : start + _BLOCK] = block
    mean = total / len(colours) / 255
    return mean, _percentile(colours, levels, 0.05), _percentile(colours, levels, 0.99)


def _percentile(colours: NDArray[np.uint8], levels: NDArray[np.uint8], share: float) -> float:
    """A percentile of the brightness, as cleanvision has numpy compute it in float64.

    Looked at in float64 are only the pixels that can be the ones: a sample says which levels are near.

    Args:
        colours: of the pixels, (n, 3).
        levels: their brightness, rounded down from float32, (n,).
        share: below the percentile, 0 to 1.
    """
    rank = (len(levels) - 1) * share
    first, second = int(rank), min(int(rank) + 1, len(levels) - 1)
    sample = np.cumsum(np.bincount(levels[:: len(levels) // _SAMPLE + 1]))
    at = int(rank / len(levels) * sample[-1])
    low, high = np.searchsorted(sample, (max(0, at - _BESIDE), min(sample[-1] - 1, at + _BESIDE)), side="right")
    below = np.count_nonzero(levels < low)
    exact = _exact(colours.take(np.flatnonzero((levels >= low) & (levels <= high)), axis=0))
    if below < first and second < below + len(exact) - 1:
        exact.partition((first - below, second - below))
        one, other = float(exact[first - below]), float(exact[second - below])
        # float32 may have put a pixel on the wrong side of a whole level, but not far from it
        if low + _DOUBT < one * 255 and other * 255 < high + 1 - _DOUBT:
            return _between(one, other, rank - first)
    exact = _exact(colours)
    exact.partition((first, second))
    return _between(float(exact[first]), float(exact[second]), rank - first)


def _exact(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    red, green, blue = colours.T.astype(np.float64)
    found: NDArray[np.float64] = np.sqrt(0.241 * (red * red) + 0.691 * (green * green) + 0.068 * (blue * blue)) / 255
    return found


def _between(one: float, other: float, part: float) -> float:
    """As `numpy.percentile` interpolates."""
    return one + (other - one) * part if part < 0.5 else other - (other - one) * (1 - part)


def _laplacian_variance(levels: NDArray[np.uint8]) -> float:
    """Variance of the 4-neighbour Laplacian, borders mirrored without repeating the edge (OpenCV's default)."""
    height, width = levels.shape
    edge = 1 if min(height, width) > 1 else 0
    wide = np.empty((height + 2, width + 2), np.int16)
    wide[1:-1, 1:-1] = levels
    wide[0, 1:-1], wide[-1, 1:-1] = levels[edge], levels[-1 - edge]
    wide[1:-1, 0], wide[1:-1, -1] = levels[:, edge], levels[:, -1 - edge]
    total = squares = 0.0
    rows = max(1, _BLOCK // width)
    for top in range(0, height, rows):
        block = wide[top : top + rows + 2]
        laplacian = block[:-2, 1:-1] + block[2:, 1:-1]
        laplacian += block[1:-1, :-2]
        laplacian += block[1:-1, 2:]
        laplacian -= block[1:-1, 1:-1] << 2
        values = laplacian.ravel().astype(np.float64)  # whole numbers to 1,020, of which sums of squares stay exact
        total += float(values.sum())
        squares += float(values @ values)
    mean = total / levels.size
    return squares / levels.size - mean * mean


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
