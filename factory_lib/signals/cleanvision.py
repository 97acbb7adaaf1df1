"""What the package cleanvision sees in a picture, number by number: https://github.com/cleanlab/cleanvision, 0.3.

It looks at a picture as the file has it, in its own mode and not turned; `signals.image.quality` looks at what all
others here see. For photos both are nearly the same, for pictures with a palette or transparency they are not.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from factory_lib.signals.brightness import brightness
from factory_lib.signals.member import Member
from factory_lib.signals.signal import signal

if TYPE_CHECKING:
    from PIL import Image

LONGEST = 64
"""Longer side at which blur is looked for, pixels."""
BLUR_FACTOR = 0.01
COLOURFUL = 0.18
"""Up to this, how the levels are spread says nothing against blur."""
ENTROPY_FACTOR = 0.1


class CleanvisionScores(NamedTuple):
    """cleanvision's scores, 0 to 1, lower for worse; an issue below the threshold that its name says.

    Attributes:
        dark: 99th percentile of the brightness, sqrt(.241 R² + .691 G² + .068 B²) / 255; .32.
        light: 1 - its 5th percentile; .05.
        odd_aspect_ratio: shorter / longer side; .35.
        low_information: a tenth of the entropy of the histogram of all bands, in bits, at most 1; .3.
        blurry: of the picture at 64 pixels, 1 - exp(-.01 s) of the standard deviation s of its edges, and the same of
            its histogram where that is above .18, at most 1; .29.
        grayscale: whether its mode is `L`, which is an issue.
        size: square root of the number of pixels; whether that is odd is a matter of the pool.
    """

    dark: np.float64
    light: np.float64
    odd_aspect_ratio: np.float64
    low_information: np.float64
    blurry: np.float64
    grayscale: bool
    size: np.float64


@signal
def cleanvision(image: Member) -> CleanvisionScores:
    """cleanvision's scores: dark, light, odd aspect ratio, low information, blurry, greyscale, size."""
    image.picture()  # decodes it, or says why that cannot be
    stored = image._open()  # that picture as the file has it
    width, height = stored.size
    fifth, ninety_ninth = _percentiles(stored, image)
    return CleanvisionScores(
        dark=np.float64(ninety_ninth),
        light=np.float64(1 - fifth),
        odd_aspect_ratio=np.float64(min(width / height, height / width)),
        low_information=np.float64(min(ENTROPY_FACTOR * stored.entropy(), 1)),
        blurry=_blur_score(stored),
        grayscale=stored.mode == "L",
        size=np.float64(math.sqrt(width) * math.sqrt(height)),
    )


def _percentiles(stored: Image.Image, image: Member) -> tuple[float, float]:
    """5th and 99th percentile of the brightness: of three bands and more that of the first three, else of the first."""
    if stored.mode == "RGB" and stored is image.picture():
        return brightness(image.pixels())[1:]
    values = np.asarray(stored)
    if values.ndim == 3 and values.shape[2] >= 3:
        return brightness(np.ascontiguousarray(values[:, :, :3]))[1:]
    fifth, ninety_ninth = np.percentile((values if values.ndim == 2 else values[:, :, 0]) / 255.0, [5, 99])
    return float(fifth), float(ninety_ninth)


def _blur_score(stored: Image.Image) -> np.float64:
    from PIL import ImageFilter, ImageStat

    width, height = stored.size
    ratio = max(width, height) / LONGEST
    size = (max(int(width // ratio), 1), max(int(height // ratio), 1))
    levels = (stored.resize(size) if ratio > 1 else stored).convert("L")
    edges = np.sqrt(ImageStat.Stat(levels.filter(ImageFilter.FIND_EDGES)).var[0])
    spread = 1 - np.exp(-1 * np.std(levels.histogram()) * BLUR_FACTOR)
    score = 1 - np.exp(-1 * edges * BLUR_FACTOR) + (spread if spread > COLOURFUL else 0)
    return np.float64(min(score, 1))
