"""Mirrored pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from factory_lib.augmentation.operation import Keeps, Operation, SampleInMaking


@dataclass(frozen=True)
class HorizontalFlip(Operation):
    """Mirrors left and right. What a caption says of sides, and writing in the picture, are not true any more."""

    @property
    def keeps(self) -> Keeps:
        return "nothing"

    def apply(self, sample: SampleInMaking, values: Mapping[str, Any]) -> SampleInMaking:
        """The mirrored sample."""
        from PIL.Image import Transpose

        return sample.with_picture(sample.picture.transpose(Transpose.FLIP_LEFT_RIGHT))
