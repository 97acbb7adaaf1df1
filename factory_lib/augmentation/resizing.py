"""Other sizes, by img2dataset's rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from factory_lib.augmentation.operation import Keeps, Operation, SampleInMaking
from factory_lib.errors import QueryError, nearest

Mode = Literal["keep_ratio", "keep_ratio_largest", "center_crop", "border", "fixed"]


@dataclass(frozen=True)
class Resize(Operation):
    """Scales a picture as img2dataset does: by areas where it becomes smaller, by Lanczos where it grows.

    Attributes:
        size: a length in pixels.
        mode: what gets that length: "keep_ratio", the shorter side; "keep_ratio_largest", the longer one;
            "center_crop", the shorter one, and the middle square is kept; "border", the longer one, and white is added
            to a square; "fixed", both, whatever that does to the picture.
        only_if_bigger: pictures that are no larger stay as they are, without a border or a cut.
    """

    size: int
    mode: Mode = "keep_ratio_largest"
    only_if_bigger: bool = False

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise QueryError(f"Resize(mode={self.mode!r}): there is no such mode.", nearest(self.mode, get_args(Mode)))
        if self.size < 1:
            raise QueryError(f"Resize(size={self.size}): a side has a pixel at least.")

    @property
    def keeps(self) -> Keeps:
        return "nothing" if self.mode in ("center_crop", "border") else "shares"

    def apply(self, sample: SampleInMaking, values: Mapping[str, Any]) -> SampleInMaking:
        """The sample in its new size."""
        import cv2
        from PIL import Image

        width, height = sample.picture.size
        side = min(width, height) if self.mode in ("keep_ratio", "center_crop") else max(width, height)
        smaller = side > self.size
        if self.only_if_bigger and not smaller:
            return sample
        scale = self.size / side
        to = (
            (self.size, self.size) if self.mode == "fixed" else tuple(max(round(x * scale), 1) for x in (width, height))
        )
        pixels = np.asarray(sample.picture)
        if to != (width, height):
            pixels = cv2.resize(pixels, to, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LANCZOS4)
        if self.mode == "center_crop":
            top, left = ((length - self.size) // 2 for length in pixels.shape[:2])
            pixels = pixels[top : top + self.size, left : left + self.size]
        if self.mode == "border":
            top, left = ((self.size - length) // 2 for length in pixels.shape[:2])
            square = np.full((self.size, self.size, 3), 255, np.uint8)
            square[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
            pixels = square
        return sample.with_picture(Image.fromarray(np.ascontiguousarray(pixels)))
