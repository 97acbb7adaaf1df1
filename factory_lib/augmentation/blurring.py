"""Faces blurred as img2dataset blurs them, which has it from ImageNet's face obfuscation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory_lib.augmentation.boxes import boxes_of
from factory_lib.augmentation.operation import Operation, SampleInMaking
from factory_lib.errors import QueryError

GROWTH = 0.1
"""A box grows on each side by this share of its longer side."""
RADIUS = 0.1
"""Radius of the Gauss filter, as a share of the longest side of all boxes of the picture."""
MOST_STRENGTH = 10.0


@dataclass(frozen=True)
class BlurFaces(Operation):
    """Blurs what is in boxes; a picture without boxes keeps its bytes.

    A sample whose boxes are not known for sure (NaN, empty, less than a pixel, none in the picture, a detector's error
    in `<boxes>_error`) is not made: its faces would go unblurred.

    Attributes:
        boxes: column of the boxes, as `boxes.boxes_of` reads them: DataComp's `face_bboxes`, or those of a detector.
        strength: how many times img2dataset's the radius is: its filter leaves of a large face what people know it by.
    """

    boxes: str = "face_bboxes"
    strength: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", float(self.strength))  # 3 and 3.0 blur alike: they are one operation
        if not 0 < self.strength <= MOST_STRENGTH:
            raise QueryError(f"{self}: the strength is above 0 and at most {MOST_STRENGTH:g}.", "1 is img2dataset's.")

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.boxes,)

    @property
    def reads_if_there(self) -> tuple[str, ...]:
        return (f"{self.boxes}_error",)

    def apply(self, sample: SampleInMaking, values: Mapping[str, Any]) -> SampleInMaking:
        """The sample with its faces blurred."""
        from PIL import Image

        if reason := values.get(f"{self.boxes}_error"):
            raise ValueError(f"{self.boxes} could not be computed: {reason}")
        boxes = boxes_of(values[self.boxes], self.boxes)
        if not len(boxes):
            return sample
        grown, _ = _grown(boxes, *sample.picture.size)
        if (grown[:, :2] >= grown[:, 2:]).any():
            width, height = sample.picture.size
            raise ValueError(f"{self.boxes} has a box without a pixel of the {width} x {height} in it")
        return sample.with_picture(Image.fromarray(blurred(np.asarray(sample.picture), boxes, self.strength)))


def blurred(pixels: NDArray[np.uint8], boxes: NDArray[np.floating], strength: float = 1.0) -> NDArray[np.uint8]:
    """A picture with boxes blurred, by the definition of img2dataset's `blurrer.py`.

    Corners are cut to whole pixels, each box grows by a tenth of its longer side, and picture and mask go through the
    same Gauss filter: `picture * (1 - mask) + filtered * mask`. The filter's radius is a tenth of the longest side, its
    standard deviation the one that OpenCV takes for such a radius: .3 (radius - 1) + .8 pixels.

    Args:
        pixels: uint8 (height, width, 3).
        boxes: (n, 4), n > 0: left, top, right, bottom in shares of the sides.
        strength: how many times as large the radius is.

    Returns:
        uint8 (height, width, 3). Pixels out of reach of a box are those that were.
    """
    import cv2

    height, width = pixels.shape[:2]
    grown, longest = _grown(boxes, width, height)
    radius = ceil(RADIUS * longest * strength)
    # The mask reaches one radius beyond the boxes, and what is filtered there looks one further.
    left, top = (grown[:, :2].min(axis=0) - 2 * radius).clip(0)
    right, bottom = (grown[:, 2:].max(axis=0) + 2 * radius).clip(max=[width, height])
    part = pixels[top:bottom, left:right].astype(np.float32) / 255
    mask = np.zeros(part.shape[:2], np.float32)
    for x0, y0, x1, y1 in grown:
        mask[y0 - top : y1 - top, x0 - left : x1 - left] = 1
    if not mask.any():
        return pixels
    size = (2 * radius + 1, 2 * radius + 1)
    filtered, soft = cv2.GaussianBlur(part, size, 0), cv2.GaussianBlur(mask, size, 0)[..., None]
    found = pixels.copy()
    found[top:bottom, left:right] = ((part * (1 - soft) + filtered * soft) * 255).astype(np.uint8)
    return found


def _grown(boxes: NDArray[np.floating], width: int, height: int) -> tuple[NDArray[np.int64], Any]:
    """What is blurred of a picture: left, top, right, bottom in pixels, int64 (n, 4); and the longest side of a box."""
    corners = np.trunc(boxes * np.array([width, height] * 2, boxes.dtype))
    longest = (corners[:, 2:] - corners[:, :2]).max(axis=1)
    grown = np.trunc(corners + GROWTH * longest[:, None] * [-1, -1, 1, 1])
    return grown.clip(0, [width - 1, height - 1] * 2).astype(np.int64), longest.max()
