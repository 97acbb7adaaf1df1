"""The cluster of each sample as a signal: the nearest of some centroids, computed shard by shard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from factory_lib.build.dependencies import versions_read
from factory_lib.curation.clusters.nearest import METRICS, Metric
from factory_lib.curation.clusters.nearest import nearest as nearest_of
from factory_lib.errors import QueryError, nearest
from factory_lib.plan.expressions import C
from factory_lib.query import DatasetQuery
from factory_lib.signals.signal import Signal, signal
from factory_lib.signals.vectors import REASONS, read_vectors
from factory_lib.warehouse.client import warehouse

BATCH = 1 << 10


class Assigned(NamedTuple):
    """The cluster of a sample.

    Attributes:
        cluster: its number.
        distance: to its centroid: 1 - cosine, the euclidean distance, or minus the inner product.
    """

    cluster: np.uint32
    distance: np.float32


@dataclass(frozen=True, eq=False)
class NearestCentroid:
    """Vectors to the nearest of some centroids.

    Attributes:
        centroids: float32 (k, width), of length 1 for "cosine".
        clusters: the number of each, uint32 (k,).
        metric: what nearest means.
        looks_up: the versions that they came from.
    """

    centroids: NDArray[np.float32]
    clusters: NDArray[np.uint32]
    metric: Metric
    looks_up: tuple[str, ...] = field(default=(), compare=False)

    def __call__(self, vectors: pa.Array) -> list[Assigned | Exception]:
        """The clusters of some vectors; of one that cannot be compared the error."""
        if not len(self.centroids):
            return [ValueError("there are no centroids")] * len(vectors)
        given = read_vectors(vectors, self.centroids.shape[1], unit=self.metric == "cosine")
        which, far = nearest_of(given.matrix, self.centroids, self.metric)
        assigned = map(Assigned, self.clusters[which], far)
        return [next(assigned) if error is None else error for error in given.errors()]


def cluster_of(
    centroids: DatasetQuery, vector: str, *, metric: Metric | None = None, name: str | None = None
) -> Signal:
    """The signal that finds the cluster of each sample: its values follow from the vector and the centroids alone.

    What it makes is a column of `cluster` and `distance`. Its fingerprint holds the centroids: the same ones, saved
    anew, change nothing, and others have every sample computed again. Without any centroid no sample has a cluster.

    Args:
        centroids: rows with `cluster` and `centroid`, as `centroids()` makes them, or your own.
        vector: the column of vectors.
        metric: what nearest means; None takes that which the centroids were made with, "cosine" where they do not say.
        name: of the column; default `<vector>_cluster`.

    Raises:
        QueryError: a column is missing, a centroid cannot be compared with, or the numbers of clusters are none, or
            are not each the number of one.
    """
    for column in ("cluster", "centroid"):
        if column not in centroids.columns:
            raise QueryError(
                f"cluster_of() reads the column {column!r} of centroids, which they do not have.",
                f"centroids() of samples makes them. {nearest(column, centroids.columns)}".strip(),
            )
    told = [name for name in ("metric",) if name in centroids.columns]
    rows = centroids.select("cluster", "centroid", *told).order_by(C.cluster).to_arrow()
    chosen = metric or (rows.column("metric")[0].as_py() if told and len(rows) else "cosine")
    if chosen not in METRICS:
        raise QueryError(f"cluster_of(metric={chosen!r}): there is no such one.", nearest(chosen, METRICS))
    target = NearestCentroid(
        _matrix(rows.column("centroid").combine_chunks(), unit=chosen == "cosine"),
        _numbers(rows.column("cluster").combine_chunks()),
        chosen,
        tuple(map(str, versions_read(warehouse(), centroids.plan))),
    )
    return signal(target, name=name or f"{vector}_cluster", output=Assigned, inputs={"vectors": vector}, batch=BATCH)


def _numbers(column: pa.Array) -> NDArray[np.uint32]:
    """Numbers of clusters, uint32 (k,).

    Args:
        column: in their order.

    Raises:
        QueryError: they are not whole numbers from 0 on, one is missing, or one stands twice.
    """
    try:
        numbers = column.cast(pa.uint32())
    except pa.ArrowInvalid as error:
        raise QueryError(f"cluster_of(): clusters have whole numbers from 0 to 2^32 - 1, and here {error}.") from error
    if numbers.null_count:
        raise QueryError(f"cluster_of(): {numbers.null_count:,} centroids have no number in 'cluster'.")
    found: NDArray[np.uint32] = numbers.to_numpy()
    again = found[1:][found[1:] == found[:-1]]
    if len(again):
        raise QueryError(f"cluster_of(): there are several centroids of cluster {again[0]}.", "Filter for one of each.")
    return found


def _matrix(column: pa.Array, *, unit: bool) -> NDArray[np.float32]:
    """Centroids as float32 (k, width).

    Raises:
        QueryError: one cannot be compared with.
    """
    if not len(column):
        return np.zeros((0, 0), np.float32)
    width = column.value_lengths().fill_null(0)[0].as_py()
    found = read_vectors(column, width, unit=unit, zeros=not unit)
    wrong = np.flatnonzero(found.faults)
    if len(wrong):
        raise QueryError(f"cluster_of(): centroid {wrong[0]} is {REASONS[int(found.faults[wrong[0]])]}.")
    return found.matrix
