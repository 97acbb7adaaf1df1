"""Parts of pictures: the middle, somewhere, a box."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from factory_lib.augmentation.boxes import boxes_of
from factory_lib.augmentation.operation import Keeps, Operation, SampleInMaking
from factory_lib.errors import QueryError


@dataclass(frozen=True)
class CenterCrop(Operation):
    """The middle of a picture. One that is smaller is not made a sample of.

    Attributes:
        width, height: of the part, in pixels.
    """

    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise QueryError(f"{self}: a part has a pixel at least in width and height.")

    @property
    def keeps(self) -> Keeps:
        return "nothing"

    def apply(self, sample: SampleInMaking, values: Mapping[str, Any]) -> SampleInMaking:
        """The part as a sample."""
        width, height = sample.picture.size
        free = width - self.width, height - self.height
        if min(free) < 0:
            raise ValueError(f"{width} x {height} pixels are less than the part has, {self.width} x {self.height}")
        left, top = self._corner(*free, values)
        return sample.with_picture(sample.picture.crop((left, top, left + self.width, top + self.height)))

    def _corner(self, free_x: int, free_y: int, values: Mapping[str, Any]) -> tuple[int, int]:
        return free_x // 2, free_y // 2


@dataclass(frozen=True)
class RandomCrop(CenterCrop):
    """A part of a picture that lies anywhere, at the same place for the same key and seed.

    Attributes:
        seed: another one gives other places.
    """

    seed: int = 0

    @property
    def reads(self) -> tuple[str, ...]:
        return ("key",)

    def _corner(self, free_x: int, free_y: int, values: Mapping[str, Any]) -> tuple[int, int]:
        identity = f"{self.seed}\n{values['key']}".encode()
        drawn = random.Random(int.from_bytes(hashlib.sha256(identity).digest()[:8]))
        return drawn.randint(0, free_x), drawn.randint(0, free_y)


@dataclass(frozen=True)
class CropToBox(Operation):
    """What is in a box, the first one of a sample that has several. Without a box there is no new sample.

    Attributes:
        boxes: column of the boxes, as `boxes.boxes_of` reads them. What lies outside of the picture is cut off.
    """

    boxes: str

    @property
    def keeps(self) -> Keeps:
        return "nothing"

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.boxes,)

    def apply(self, sample: SampleInMaking, values: Mapping[str, Any]) -> SampleInMaking:
        """The content of the box as a sample."""
        boxes = boxes_of(values[self.boxes], self.boxes)
        if not len(boxes):
            raise ValueError(f"{self.boxes} has no box")
        width, height = sample.picture.size
        x0, y0, x1, y1 = boxes[0].clip(0, 1) * [width, height, width, height]
        part = (round(x0), round(y0), round(x1), round(y1))
        if part[0] == part[2] or part[1] == part[3]:
            raise ValueError(f"{self.boxes} has a first box without a pixel of the {width} x {height} in it")
        return sample.with_picture(sample.picture.crop(part))
