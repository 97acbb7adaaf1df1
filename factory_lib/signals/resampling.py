"""Small versions of a picture's luma, level for level as Pillow makes them, for a third of its time.

Pillow scales in two passes, across and down. Each output level is a sum of input levels times whole numbers, the
filter's weights in units of 2⁻²², rounded half up and cut to 0…255 after each pass (`Resample.c`, 8 bits per channel).
It multiplies number by number, and for hashes of 32 x 32 and 9 x 8 pixels that takes longer than decoding the picture.
Here a pass is the product of a sparse matrix of whole numbers with all rows at once.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from factory_lib.signals.member import Member

_BITS = 22
_BLOCK = 1 << 18
"""Levels that are scaled at once: what is made of them stays in the cache of a core."""

Filter: TypeAlias = Literal["BOX", "BICUBIC", "LANCZOS"]
_Kernel: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def resized(image: Member, width: int, height: int, name: Filter) -> NDArray[np.uint8]:
    """What `image.luma().resize((width, height), …)` gives.

    Args:
        image: whose luma is scaled; raises as its `luma` does.
        width, height: of the result, pixels.
        name: of the filter, as in `PIL.Image.Resampling`.

    Returns:
        uint8 (height, width).
    """
    levels = image.levels()
    rows, columns = levels.shape
    # Where the height shrinks by more than twice what the width does, Pillow 13 goes down first, Pillow 12 does not.
    tall = rows - height > max(0, 2 * (columns - width))
    if columns == width or rows == height or tall or not _recurs((columns, rows), (width, height), name):
        from PIL.Image import Resampling

        return np.asarray(image.luma().resize((width, height), Resampling[name]))
    across, down = _weights(columns, width, name), _weights(rows, height, name)
    step = max(1, _BLOCK // columns)
    strips = [_pass(across, _turned(levels[start : start + step])) for start in range(0, rows, step)]
    return _pass(down, _turned(np.concatenate(strips, axis=1))).astype(np.uint8)


def _recurs(given: tuple[int, int], wanted: tuple[int, int], name: Filter) -> bool:
    """Whether there were such sizes before, not long ago: weights take as long to make as one picture to scale."""
    return next(_sights(given, wanted, name)) > 0


@functools.lru_cache(maxsize=256)
def _sights(given: tuple[int, int], wanted: tuple[int, int], name: Filter) -> Iterator[int]:
    return itertools.count()


def _turned(levels: NDArray[Any]) -> NDArray[np.int32]:
    """Columns for rows."""
    import cv2

    return cv2.transpose(levels).astype(np.int32, copy=False)


def _pass(weights: Any, levels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Levels (inputs, n) to levels (outputs, n), by weights (outputs, inputs); no sum is beyond 32 bits."""
    found: NDArray[np.int32] = weights @ levels
    found += 1 << (_BITS - 1)
    found >>= _BITS
    return found.clip(0, 255, out=found)


@functools.lru_cache(maxsize=512)
def _weights(inputs: int, outputs: int, name: Filter) -> Any:
    """The weights of a pass as Pillow computes them, a sparse matrix of int32 (outputs, inputs)."""
    from scipy.sparse import csr_array

    kernel, support = _KERNELS[name]
    scale = inputs / outputs
    stretch = max(scale, 1.0)
    center = (np.arange(outputs)[:, None] + 0.5) * scale
    first = np.maximum((center - support * stretch + 0.5).astype(np.int64), 0)
    last = np.minimum((center + support * stretch + 0.5).astype(np.int64), inputs)
    places = first + np.arange((last - first).max())
    shares = np.where(places < last, kernel((places - center + 0.5) * (1 / stretch)), 0)
    shares /= np.cumsum(shares, axis=1)[:, -1:]  # summed one after the other
    units = np.trunc(shares * (1 << _BITS) + np.copysign(0.5, shares)).astype(np.int32)
    rows, columns = np.nonzero(units)
    return csr_array((units[rows, columns], (rows, places[rows, columns])), shape=(outputs, inputs))


def _box(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    a, x = -0.5, np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where((x >= -3) & (x < 3), _sinc(x) * _sinc(x / 3), 0)


def _sinc(x: NDArray[np.float64]) -> NDArray[np.float64]:
    angle = np.where(x == 0, 1, x * np.pi)
    return np.where(x == 0, 1, np.sin(angle) / angle)


_KERNELS: dict[str, tuple[_Kernel, float]] = {
    "BOX": (_box, 0.5),
    "BICUBIC": (_bicubic, 2.0),
    "LANCZOS": (_lanczos, 3.0),
}
