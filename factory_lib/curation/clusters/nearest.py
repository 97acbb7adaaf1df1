"""Which centroid is nearest to each vector: products of matrices, in blocks that bound the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Metric = Literal["cosine", "euclidean", "inner_product"]
"""What nearest means: the largest cosine, the smallest distance, or the largest inner product with centroids of any
length, as DataComp's image-based filter assigns them."""

METRICS: tuple[Metric, ...] = ("cosine", "euclidean", "inner_product")

BLOCK = 1 << 13
TILE = 1 << 10
"""Vectors and centroids that are compared at once: 32 MB of scores."""

_LEAST = 16
"""Rows of a product, at least: for fewer a library takes other paths, whose last digits differ."""


def nearest(
    vectors: NDArray[np.float32], centroids: NDArray[np.float32], metric: Metric
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The nearest centroid of each vector, whatever vectors are beside it.

    Args:
        vectors: float32 (n, width), of length 1 for "cosine".
        centroids: float32 (k, width), of length 1 for "cosine".

    Returns:
        Its row, int64 (n,), of equally near ones the first; and how far it is, float32 (n,): 1 - cosine, the euclidean
        distance, or minus the inner product.
    """
    import torch

    if not len(vectors):
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    points = torch.from_numpy(vectors)
    if len(points) < _LEAST:
        points = torch.nn.functional.pad(points, (0, 0, 0, _LEAST - len(points)))
    which, scores = best_scores(points, torch.from_numpy(centroids), metric)
    which, scores = which[: len(vectors)], scores[: len(vectors)]
    return which.numpy(), distances(torch.from_numpy(vectors), scores, metric).numpy()


def best_scores(points: Tensor, centers: Tensor, metric: Metric) -> tuple[Tensor, Tensor]:
    """The centre with the highest score of each point, and that score.

    The score is the inner product; for "euclidean" less half the square of the centre's length, which orders centres
    as their distances do.

    Args:
        points: float32 (n, width).
        centers: float32 (k, width).

    Returns:
        int64 (n,), float32 (n,).
    """
    import torch

    less = centers.square().sum(1) / 2 if metric == "euclidean" else None
    which = torch.empty(len(points), dtype=torch.int64)
    scores = torch.empty(len(points))
    for start in range(0, len(points), BLOCK):
        rows = slice(start, start + BLOCK)
        for first in range(0, len(centers), TILE):
            found = points[rows] @ centers[first : first + TILE].T
            if less is not None:
                found -= less[first : first + TILE]
            best = found.max(1)
            if not first:
                scores[rows], which[rows] = best.values, best.indices
                continue
            better = best.values > scores[rows]
            scores[rows] = torch.where(better, best.values, scores[rows])
            which[rows] = torch.where(better, best.indices + first, which[rows])
    return which, scores


def distances(points: Tensor, scores: Tensor, metric: Metric) -> Tensor:
    """How far the centres are that gave these scores, float32 (n,); see `nearest`."""
    if metric == "cosine":
        return 1 - scores
    if metric == "inner_product":
        return -scores
    return (points.square().sum(1) - 2 * scores).clamp_(min=0).sqrt_()
