"""Brightness of a picture as cleanvision sees it: sqrt(.241 R² + .691 G² + .068 B²) / 255 of each pixel, 0 to 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_WEIGHTS = np.array([[0.241, 0.691, 0.068]], np.float32)
_DOUBT = 1e-3
"""How far a brightness in float32 may be off, of 255."""

_BLOCK = 1 << 17


def brightness(pixels: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Mean, 5th and 99th percentile (linear interpolation) of the brightness of the pixels, 0 to 1.

    Args:
        pixels: RGB, (height, width, 3).
    """
    import cv2

    colours = pixels.reshape(1, -1, 3)
    count = colours.shape[1]
    levels = np.empty(count, np.uint8)
    counts = np.zeros(256, np.int64)
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
        rounded = cv2.convertScaleAbs(roots)
        levels[start : start + _BLOCK] = rounded[0]
        counts += cv2.calcHist([rounded], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    ranked = np.cumsum(counts)
    return (
        total / count / 255,
        _percentile(colours[0], levels, ranked, 0.05),
        _percentile(colours[0], levels, ranked, 0.99),
    )


def _percentile(
    colours: NDArray[np.uint8], levels: NDArray[np.uint8], ranked: NDArray[np.int64], share: float
) -> float:
    """A percentile of the brightness, as cleanvision has numpy compute it in float64.

    Looked at in float64 are only the pixels whose level is that of the percentile.

    Args:
        colours: of the pixels, (n, 3).
        levels: their brightness of 255, rounded from float32, (n,).
        ranked: pixels with at most each level, (256,).
        share: below the percentile, 0 to 1.
    """
    rank = (len(levels) - 1) * share
    first, second = int(rank), min(int(rank) + 1, len(levels) - 1)
    # plain numbers: numpy would make the levels as wide as its own
    low, high = (int(level) for level in np.searchsorted(ranked, (first, second), side="right"))
    below = int(ranked[low - 1]) if low else 0
    exact = _exact(colours.take(np.flatnonzero((levels >= low) & (levels <= high)), axis=0))
    exact.partition((first - below, second - below))
    one, other = float(exact[first - below]), float(exact[second - below])
    # float32 may have put a pixel on the wrong side of a half, but not far from it
    if (low and one * 255 < low - 0.5 + _DOUBT) or (high < 255 and other * 255 > high + 0.5 - _DOUBT):
        exact = _exact(colours)
        exact.partition((first, second))
        one, other = float(exact[first]), float(exact[second])
    return _between(one, other, rank - first)


def _exact(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    red, green, blue = colours.T.astype(np.float64)
    found: NDArray[np.float64] = np.sqrt(0.241 * (red * red) + 0.691 * (green * green) + 0.068 * (blue * blue)) / 255
    return found


def _between(one: float, other: float, part: float) -> float:
    """As `numpy.percentile` interpolates."""
    return one + (other - one) * part if part < 0.5 else other - (other - one) * (1 - part)
