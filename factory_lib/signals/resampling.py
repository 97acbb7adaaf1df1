"""Small versions of a picture's luma, level for level as Pillow makes them, for a fraction of its time.

Pillow scales in two passes, across and down. Each output level is a sum of input levels times whole numbers, the
filter's weights in units of 2⁻²², rounded and cut to 0…255 after each pass (`Resample.c`, 8 bits per channel). Sums of
whole numbers below 2⁵³ are exact in float64 in any order, so a pass is a matrix product. Pillow multiplies number by
number; for hashes of 32 x 32 and 9 x 8 pixels that takes longer than decoding the picture.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

_UNIT = 1 << 22
_ROWS = 512
_GROUP = 8
"""Outputs that are computed together, from all inputs that any of them needs."""

Levels: TypeAlias = NDArray[np.uint8] | NDArray[np.float64]


def lanczos(luma: Levels, width: int, height: int) -> NDArray[np.uint8]:
    """As `Image.resize((width, height), LANCZOS)` of a picture of mode L.

    Args:
        luma: (rows, columns) of whole numbers, 0 to 255.
        width, height: of the result, pixels.
    """
    return _resized(luma, width, height, _lanczos, 3.0)


def bicubic(luma: Levels, width: int, height: int) -> NDArray[np.uint8]:
    """As `Image.resize((width, height), BICUBIC)`, see `lanczos`."""
    return _resized(luma, width, height, _bicubic, 2.0)


def box(luma: Levels, width: int, height: int) -> NDArray[np.uint8]:
    """As `Image.resize((width, height), BOX)`, see `lanczos`."""
    return _resized(luma, width, height, _box, 0.5)


_Kernel: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]
_Weights: TypeAlias = tuple[tuple[slice, slice, NDArray[np.float64]], ...]
"""Groups of outputs: which they are, which inputs they need, and the weights (inputs, outputs)."""


def _resized(luma: Levels, width: int, height: int, kernel: _Kernel, support: float) -> NDArray[np.uint8]:
    rows, columns = luma.shape
    across: NDArray[Any] = luma
    if width != columns:
        across = np.empty((rows, width))
        for start in range(0, rows, _ROWS):
            block = luma[start : start + _ROWS].astype(np.float64, copy=False)
            for outputs, inputs, weights in _weights(columns, width, kernel, support):
                across[start : start + _ROWS, outputs] = block[:, inputs] @ weights
        across = _rounded(across)
    if height == rows:
        return across.astype(np.uint8)
    down = np.empty((height, width))
    across = across.astype(np.float64, copy=False)
    for outputs, inputs, weights in _weights(rows, height, kernel, support):
        down[outputs] = weights.T @ across[inputs]
    return _rounded(down).astype(np.uint8)


def _rounded(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums in units of 2⁻²² as levels, half up; changed in place."""
    sums += _UNIT // 2
    sums *= 1 / _UNIT  # a power of two: exact
    np.floor(sums, out=sums)
    return sums.clip(0, 255, out=sums)


@functools.lru_cache(maxsize=128)
def _weights(inputs: int, outputs: int, kernel: _Kernel, support: float) -> _Weights:
    """The weights of a pass, as Pillow computes them."""
    scale = inputs / outputs
    stretch = max(scale, 1.0)
    center = (np.arange(outputs)[:, None] + 0.5) * scale
    first = np.maximum((center - support * stretch + 0.5).astype(np.int64), 0)
    last = np.minimum((center + support * stretch + 0.5).astype(np.int64), inputs)
    places = first + np.arange((last - first).max())
    shares = np.where(places < last, kernel((places - center + 0.5) * (1 / stretch)), 0)
    shares /= np.cumsum(shares, axis=1)[:, -1:]  # summed one after the other
    whole = np.trunc(shares * _UNIT + np.copysign(0.5, shares))
    dense = np.zeros((max(inputs, int(places.max()) + 1), outputs))
    dense[places, np.arange(outputs)[:, None]] = whole
    groups = []
    for start in range(0, outputs, _GROUP):
        end = min(start + _GROUP, outputs)
        needed = slice(int(first[start, 0]), int(last[end - 1, 0]))
        groups.append((slice(start, end), needed, np.ascontiguousarray(dense[needed, start:end])))
    return tuple(groups)


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where((x >= -3) & (x < 3), _sinc(x) * _sinc(x / 3), 0)


def _sinc(x: NDArray[np.float64]) -> NDArray[np.float64]:
    angle = np.where(x == 0, 1, x * np.pi)
    return np.where(x == 0, 1, np.sin(angle) / angle)


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    a, x = -0.5, np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _box(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)
