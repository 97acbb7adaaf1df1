"""Boxes in columns of samples, as shares of the sides of the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDES = ("x0", "y0", "x1", "y1")
_FAR = 1
"""Shares that a detector's box does not reach out of the picture: numbers beyond are pixels."""


def boxes_of(value: Any, column: str) -> NDArray[np.float64]:
    """The boxes of a sample: left, top, right, bottom, in shares of the picture's sides.

    Args:
        value: a list of boxes, each four numbers or something with `x0`, `y0`, `x1`, `y1`; four numbers a box in one
            list; what a detector gave, with its `boxes`; None or empty where there are none.
        column: where they stand, for messages.

    Returns:
        float64 (n, 4). A part of a box may lie outside of the picture.

    Raises:
        ValueError: something is no box, holds nothing, or is not in shares: no part of it is in the picture, or it
            reaches as far out of it as the picture is wide or high.
    """
    if isinstance(value, dict):
        if value.get("number", 0) is None:
            raise ValueError(f"{column} has no answer for this sample")
        value = value["boxes"]
    if value is None or not len(value):
        return np.zeros((0, 4))
    rows = [_row(one) for one in value] if isinstance(value[0], dict | list | tuple | np.ndarray) else [list(value)]
    if any(len(row) % 4 for row in rows):
        raise ValueError(f"{column} has a box of {len(rows[0])} numbers, not of left, top, right and bottom")
    boxes = np.array([number for row in rows for number in row], np.float64).reshape(-1, 4)  # None becomes NaN
    if not np.isfinite(boxes).all():
        raise ValueError(f"{column} has a box with numbers that are not finite")
    if (boxes[:, :2] > boxes[:, 2:]).any():
        raise ValueError(f"{column} has a box whose right or bottom side comes before its left or top side")
    if (boxes[:, :2] == boxes[:, 2:]).any():
        raise ValueError(f"{column} has an empty box: its sides are at the same place")
    if ((boxes[:, :2] >= 1) | (boxes[:, 2:] <= 0)).any() or (boxes <= -_FAR).any() or (boxes >= 1 + _FAR).any():
        raise ValueError(
            f"{column} has a box outside of the picture, or far out of it: boxes are shares of its sides, from 0 to 1"
        )
    return boxes


def _row(one: Any) -> list[Any]:
    return [one[side] for side in SIDES] if isinstance(one, dict) else list(one)
