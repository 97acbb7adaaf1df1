"""Brightness of a picture as cleanvision sees it: sqrt(.241 R² + .691 G² + .068 B²) / 255 of each pixel, 0 to 1."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_EXACT_WEIGHTS = np.array([[0.241], [0.691], [0.068]])
_WEIGHTS = _EXACT_WEIGHTS.T.astype(np.float32)
_DOUBT = 1e-3
"""How far a brightness in float32 may be off, of 255."""

_BLOCK = 1 << 15

_SAMPLE = 1 << 14
"""Pixels, about, that say at which level to look for a percentile: to count all levels takes longer than all else."""


def brightness(pixels: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Mean, 5th and 99th percentile (linear interpolation) of the brightness of the pixels, 0 to 1.

    Args:
        pixels: RGB, (height, width, 3).
    """
    import cv2

    colours = pixels.reshape(1, -1, 3)
    count = colours.shape[1]
    levels = np.empty((1, count), np.uint8)
    squares = np.empty((1, min(count, _BLOCK), 3), np.float32)
    total = 0.0
    for start in range(0, count, _BLOCK):
        block = colours[:, start : start + _BLOCK]
        mine = squares[:, : block.shape[1]]
        mine.fill(0)
        cv2.accumulateSquare(block, mine)
        roots = cv2.transform(mine, _WEIGHTS)
        cv2.sqrt(roots, roots)
        total += cv2.sumElems(roots)[0]
        cv2.convertScaleAbs(roots, levels[:, start : start + _BLOCK])
    some = np.cumsum(np.bincount(levels[0, :: max(1, count // _SAMPLE)], minlength=256))
    fifth, ninety_ninth = (_percentile(colours[0], levels[0], some, share) for share in (0.05, 0.99))
    return total / count / 255, fifth, ninety_ninth


def _percentile(colours: NDArray[np.uint8], levels: NDArray[np.uint8], some: NDArray[np.int64], share: float) -> float:
    """A percentile of the brightness, as cleanvision has numpy compute it in float64.

    Looked at in float64 are only the pixels whose level is that of the percentile.

    Args:
        colours: of the pixels, (n, 3).
        levels: their brightness of 255, rounded from float32, (n,).
        some: of some of the pixels, how many have at most each level, (256,).
        share: below the percentile, 0 to 1.
    """
    rank = (len(levels) - 1) * share
    first, second = int(rank), min(int(rank) + 1, len(levels) - 1)
    low, below, upto = _level(levels, first, int(np.searchsorted(some, some[-1] * share)))
    high = low if second < upto else int(levels[levels > low].min())
    if low == high and low in (0, 255) and _plain(colours, low, first, second):
        return _ranked(np.full((1, 3), low, np.uint8), 0, 0)[0]
    near = levels == low if low == high else (levels >= low) & (levels <= high)
    one, other = _ranked(colours.take(np.flatnonzero(near), axis=0), first - below, second - below)
    # float32 may have put a pixel on the wrong side of a half, but not far from it
    if (low and one * 255 < low - 0.5 + _DOUBT) or (high < 255 and other * 255 > high + 0.5 - _DOUBT):
        one, other = _ranked(colours, first, second)
    return _between(one, other, rank - first)


def _plain(colours: NDArray[np.uint8], level: int, first: int, second: int) -> bool:
    """Whether the pixels of two ranks are pure black (or white), as a plain ground is: none is darker (brighter)."""
    import cv2

    plain = cv2.countNonZero(cv2.inRange(colours[None], (level,) * 3, (level,) * 3))
    return second < plain if level == 0 else first >= len(colours) - plain


def _level(levels: NDArray[np.uint8], rank: int, guess: int) -> tuple[int, int, int]:
    """The level of the pixel of a rank, and how many have less, and at most, that; a good guess is a short way."""
    level, below, upto = guess, _count(levels, guess - 1), _count(levels, guess)
    while below > rank:
        level, below, upto = level - 1, _count(levels, level - 2), below
    while upto <= rank:
        level, below, upto = level + 1, upto, _count(levels, level + 1)
    return level, below, upto


def _count(levels: NDArray[np.uint8], level: int) -> int:
    """How many have at most a level."""
    return int(np.count_nonzero(levels <= level)) if level >= 0 else 0


def _ranked(colours: NDArray[np.uint8], first: int, second: int) -> tuple[float, float]:
    """The brightness of the pixels of two ranks, in float64."""
    planes = colours.T.astype(np.float64, order="C")
    planes *= planes
    planes *= _EXACT_WEIGHTS
    squares = planes[0]
    squares += planes[1]
    squares += planes[2]
    squares.partition((first, second))  # the root of the larger one is not smaller
    return math.sqrt(squares[first]) / 255, math.sqrt(squares[second]) / 255


def _between(one: float, other: float, part: float) -> float:
    """As `numpy.percentile` interpolates."""
    return one + (other - one) * part if part < 0.5 else other - (other - one) * (1 - part)
