"""Alignments: how one of two copies may have to be turned, mirrored, cropped or rotated to lie on the other.

Each is an affine map of the unit square [-1, 1]²: where in a thumbnail the value of each pixel of the aligned one is
found. Pictures are trimmed before (see `signals.thumbnails`), so that borders and padding need no alignment.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from factory_lib.signals.thumbnails import SIDE

CROPS = (0.03, 0.06, 0.10)
"""Shares of a side that are cut off: on both sides for a crop to the middle, doubled on one side for a corner."""

DEGREES = (-4, -2, 2, 4)

_TURNS = {
    "same": ((1, 0), (0, 1)),
    "mirrored": ((-1, 0), (0, 1)),
    "upside down": ((1, 0), (0, -1)),
    "rotated by 180": ((-1, 0), (0, -1)),
    "rotated by 90": ((0, 1), (-1, 0)),
    "rotated by 270": ((0, -1), (1, 0)),
    "transposed": ((0, 1), (1, 0)),
    "transposed and rotated by 180": ((0, -1), (-1, 0)),
}
_CORNERS = {
    "middle": (0, 0),
    "top left": (-1, -1),
    "top right": (1, -1),
    "bottom left": (-1, 1),
    "bottom right": (1, 1),
}


@functools.cache
def alignments() -> dict[str, NDArray[np.float32]]:
    """Name -> affine map, float32 (2, 3): from the coordinates of the aligned thumbnail to those of the given one."""
    found = {name: np.array([[*turn[0], 0], [*turn[1], 0]]) for name, turn in _TURNS.items()}
    for share in CROPS:
        for where, (right, down) in _CORNERS.items():
            left = 1 - (2 * share if where == "middle" else share)
            shift = 0 if where == "middle" else share
            found[f"cropped to {left:.0%}, {where}"] = np.array([[left, 0, right * shift], [0, left, down * shift]])
    for degrees in DEGREES:
        cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        found[f"rotated by {degrees}"] = np.array([[cos, -sin, 0], [sin, cos, 0]])
    return {name: matrix.astype(np.float32) for name, matrix in found.items()}


def resampling(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """The linear map, float32 (1024, 1024), that aligns a flattened thumbnail: bilinear, edges repeated."""
    places = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    across, down = np.meshgrid(places, places)
    x, y = (
        np.clip((row[0] * across + row[1] * down + row[2] + 1) / 2 * SIDE - 0.5, 0, SIDE - 1).ravel() for row in matrix
    )
    left, top = np.minimum(x.astype(np.int64), SIDE - 2), np.minimum(y.astype(np.int64), SIDE - 2)
    right, low = x - left, y - top
    found = np.zeros((SIDE * SIDE, SIDE * SIDE), np.float32)
    pixel = np.arange(SIDE * SIDE)
    for step, weight in ((0, 1 - low), (1, low)):
        for stride, share in ((0, 1 - right), (1, right)):
            np.add.at(found, (pixel, (top + step) * SIDE + left + stride), weight * share)
    return found
