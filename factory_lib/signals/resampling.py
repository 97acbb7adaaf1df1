"""Small versions of a picture's luma, level for level as Pillow makes them, for a fraction of its time.

Pillow scales in two passes, across and down. Each output level is a sum of input levels times whole numbers, the
filter's weights in units of 2⁻²², rounded half up and cut to 0…255 after each pass (`Resample.c`, 8 bits per channel).
It multiplies number by number; for hashes of 32 x 32 and 9 x 8 pixels that takes longer than decoding the picture. Here
a pass is a matrix product in float32, and the few sums that lie so near a half that its error could turn them are made
again from whole numbers.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

_UNIT = 1 << 22
_ROWS = 512
_GROUP = 16
"""Outputs that are computed together, from all inputs that any of them needs."""

_Kernel: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def resized(
    luma: Image.Image, levels: NDArray[np.float32], width: int, height: int, name: Literal["LANCZOS", "BICUBIC"]
) -> NDArray[np.uint8]:
    """What `luma.resize((width, height), …)` gives.

    Args:
        luma: of mode L.
        levels: the same as an array (rows, columns).
        width, height: of the result, pixels.
        name: of the filter, as in `PIL.Image.Resampling`.

    Returns:
        uint8 (height, width).
    """
    same = luma.width == width or luma.height == height
    # Where the height shrinks by more than twice what the width does, Pillow 13 goes down first, Pillow 12 does not.
    tall = luma.height - height > max(0, 2 * (luma.width - width))
    if same or tall or not _recurs(luma.size, (width, height), name):
        from PIL.Image import Resampling

        return np.asarray(luma.resize((width, height), Resampling[name]))
    across = np.empty((len(levels), width), np.float32)
    for start in range(0, len(levels), _ROWS):
        across[start : start + _ROWS] = _pass(levels[start : start + _ROWS], _weights(luma.width, width, name))
    return _pass(across.T, _weights(luma.height, height, name)).T.astype(np.uint8)


def _recurs(given: tuple[int, int], wanted: tuple[int, int], name: str) -> bool:
    """Whether there were such sizes before, not long ago: weights take as long to make as one picture to scale."""
    return next(_sights(given, wanted, name)) > 1


@functools.lru_cache(maxsize=64)
def _sights(given: tuple[int, int], wanted: tuple[int, int], name: str) -> Iterator[int]:
    return itertools.count()


class _Weights(NamedTuple):
    """What outputs are made of.

    Attributes:
        groups: which outputs, which inputs they need, and their shares, float32 (inputs, outputs).
        whole: all shares in units of 2⁻²², whole numbers as float32 (outputs, inputs).
        doubt: how far a sum in float32 may be off, levels, float32 (outputs,).
    """

    groups: tuple[tuple[slice, slice, NDArray[np.float32]], ...]
    whole: NDArray[np.float32]
    doubt: NDArray[np.float32]


def _pass(levels: NDArray[np.float32], weights: _Weights) -> NDArray[np.float32]:
    """Levels (n, inputs) to levels (n, outputs)."""
    sums = np.empty((len(levels), len(weights.whole)), np.float32)
    for outputs, inputs, shares in weights.groups:
        np.matmul(levels[:, inputs], shares, out=sums[:, outputs])
    sums += np.float32(0.5)
    found = np.floor(sums)
    sums -= found
    sums -= np.float32(0.5)
    np.abs(sums, out=sums)
    unsure = np.flatnonzero(sums > np.float32(0.5) - weights.doubt)
    for start in range(0, len(unsure), _ROWS):
        rows, places = np.divmod(unsure[start : start + _ROWS], len(weights.whole))
        exact = np.einsum("ij,ij->i", levels[rows], weights.whole[places], dtype=np.float64)
        found[rows, places] = np.floor((exact + _UNIT // 2) / _UNIT)
    return found.clip(0, 255, out=found)


@functools.lru_cache(maxsize=128)
def _weights(inputs: int, outputs: int, name: str) -> _Weights:
    """The weights of a pass, as Pillow computes them."""
    kernel, support = _KERNELS[name]
    scale = inputs / outputs
    stretch = max(scale, 1.0)
    center = (np.arange(outputs)[:, None] + 0.5) * scale
    first = np.maximum((center - support * stretch + 0.5).astype(np.int64), 0)
    last = np.minimum((center + support * stretch + 0.5).astype(np.int64), inputs)
    places = first + np.arange((last - first).max())
    shares = np.where(places < last, kernel((places - center + 0.5) * (1 / stretch)), 0)
    shares /= np.cumsum(shares, axis=1)[:, -1:]  # summed one after the other
    units = np.trunc(shares * _UNIT + np.copysign(0.5, shares))
    whole = np.zeros((outputs, max(inputs, int(places.max()) + 1)))
    whole[np.arange(outputs)[:, None], places] = units
    whole = whole[:, :inputs]
    groups = []
    for start in range(0, outputs, _GROUP):
        end = min(start + _GROUP, outputs)
        needed = slice(int(first[start, 0]), int(last[end - 1, 0]))
        groups.append((slice(start, end), needed, (whole[start:end, needed].T / _UNIT).astype(np.float32)))
    # n products and sums of them are off by n + 1 roundings of 2⁻²⁴ of the sum of their sizes at most, and half more is
    # added (Higham, Accuracy and Stability of Numerical Algorithms, 3.1)
    sizes = 255 * np.abs(whole).sum(axis=1) / _UNIT + 1
    doubt = (np.maximum(last - first, 1)[:, 0] + 4) * 2.0**-24 * sizes
    return _Weights(tuple(groups), whole.astype(np.float32), doubt.astype(np.float32))


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


_KERNELS: dict[str, tuple[_Kernel, float]] = {"LANCZOS": (_lanczos, 3.0), "BICUBIC": (_bicubic, 2.0)}
