"""Thumbnails: what near-duplicates are compared by, a column instead of a second look at the picture."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from factory_lib.errors import SignalError
from factory_lib.signals.member import Member
from factory_lib.signals.resampling import resized
from factory_lib.signals.signal import signal

SIDE = 32
"""Side of a thumbnail, pixels."""

MARGIN_LEVELS = 16
"""Grey levels by which pixels of a margin may differ from its colour: JPEG rings that far beside an edge."""

MARGIN_SHARE = 0.99
"""Share of the pixels of a row or column that have the colour of the margin, where it belongs to one."""

LEAST_CONTENT = 0.2
"""Share of a side that has to be left between margins: what would be trimmed further is a plain picture."""


@signal(output=list[np.uint8])
def thumbnail(image: Member) -> NDArray[np.uint8]:
    """The luma at 32 x 32 (box filter), row by row: 1,024 levels.

    Where the picture has margins of one colour (a border, a pad to a square), 1,024 more: the same without them.
    """
    pixels = image.pixels()
    whole = resized(image, SIDE, SIDE, "BOX").ravel()
    box = content_box(pixels)
    if box == (0, 0, pixels.shape[1], pixels.shape[0]):
        return whole
    from PIL.Image import Resampling

    content = image.luma().crop(box).resize((SIDE, SIDE), Resampling.BOX)
    return np.concatenate([whole, np.asarray(content).ravel()])


def content_box(pixels: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is within uniform margins.

    Margins are trimmed from each side as long as a row (or column) has the colour of the outermost one.

    Args:
        pixels: RGB, (height, width, 3).
    """
    height, width = pixels.shape[:2]
    top, bottom = _margin(pixels), _margin(pixels[::-1])
    if height - top - bottom < max(1, height * LEAST_CONTENT):
        return 0, 0, width, height
    between = pixels[top : height - bottom].transpose(1, 0, 2)
    left, right = _margin(between), _margin(between[::-1])
    if width - left - right < max(1, width * LEAST_CONTENT):
        return 0, 0, width, height
    return left, top, width - right, height - bottom


def _margin(rows: NDArray[np.uint8]) -> int:
    """How many rows from the first on have one and the same colour: that of the first."""
    ranked = np.sort(rows[0], axis=0).astype(np.int16)
    last = len(ranked) - 1
    colour = (ranked[last // 2] + ranked[(last + 1) // 2]) >> 1
    others = int(len(ranked) * (1 - MARGIN_SHARE))  # pixels that may have another colour
    if (np.maximum(colour - ranked[others], ranked[last - others] - colour) > MARGIN_LEVELS).any():
        return 0
    count = 0
    step = 1  # few pictures have margins: look at one row, then at ever more
    while count < len(rows):
        block = rows[count : count + step].astype(np.int16)
        near = (np.abs(block - colour) <= MARGIN_LEVELS).all(axis=2).mean(axis=1) >= MARGIN_SHARE
        if not near.all():
            return count + int(np.argmin(near))
        count, step = count + len(block), step * 2
    return count


def planes_of(column: pa.ListArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All planes of a column of thumbnails, and the row that each is of; rows without a thumbnail have none.

    Returns:
        uint8 (planes, 32, 32), without a copy; int64 (planes,).

    Raises:
        SignalError: lists that `thumbnail` did not make.
    """
    size = SIDE * SIDE
    starts = column.offsets.to_numpy()
    lengths = np.diff(starts)
    if not np.isin(lengths, (0, size, 2 * size)).all():
        raise SignalError(
            f"A thumbnail has {int(lengths.max())} levels, not {size} or {2 * size}.",
            "Compare by the column of the signal `thumbnail`.",
        )
    data: NDArray[np.uint8] = column.values.to_numpy()[starts[0] : starts[-1]]
    return data.reshape(-1, SIDE, SIDE), np.repeat(np.arange(len(column)), lengths // size)
