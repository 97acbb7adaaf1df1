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

    which, far = nearest_centers(torch.from_numpy(vectors), torch.from_numpy(centroids), metric)
    return which.numpy(), far.numpy()


def nearest_centers(points: Tensor, centers: Tensor, metric: Metric) -> tuple[Tensor, Tensor]:
    """The nearest centre of each point, and how far it is: `nearest` for tensors.

    The highest score is nearest: the inner product, and for "euclidean" less half the square of the centre's length,
    which orders centres as their distances do.
    """
    import torch

    which, far = torch.empty(len(points), dtype=torch.int64), torch.empty(len(points))
    euclidean = metric == "euclidean"
    # squares of large coordinates leave no digits for small distances: both from the middle of the centres
    origin = centers.mean(0) if euclidean else None
    if origin is not None:
        centers = centers - origin
    less = centers.square().sum(1) / 2 if euclidean else None
    for start in range(0, len(points), BLOCK):
        rows = slice(start, start + BLOCK)
        some = points[rows] if origin is None else points[rows] - origin
        best, scores = _best_scores(some, centers, less)
        which[rows] = best
        if euclidean:
            far[rows] = (some - centers[best]).square_().sum(1).sqrt_()
        else:
            far[rows] = (1 - scores).clamp_(min=0) if metric == "cosine" else -scores
    return which, far


def _best_scores(points: Tensor, centers: Tensor, less: Tensor | None) -> tuple[Tensor, Tensor]:
    """The centre with the highest score of each point of a block, int64 (n,), and that score, float32 (n,).

    Args:
        less: what goes off the inner products with each centre, float32 (k,).
    """
    import torch

    count = len(points)
    if count < _LEAST:
        points = torch.nn.functional.pad(points, (0, 0, 0, _LEAST - count))
    which, scores = torch.zeros(len(points), dtype=torch.int64), torch.full((len(points),), -torch.inf)
    for first in range(0, len(centers), TILE):
        found = points @ centers[first : first + TILE].T
        if less is not None:
            found -= less[first : first + TILE]
        best = found.max(1)
        better = best.values > scores
        scores = torch.where(better, best.values, scores)
        which = torch.where(better, best.indices + first, which)
    return which[:count], scores[:count]
