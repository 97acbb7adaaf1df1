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
from factory_lib.curation.clusters.vectors import REASONS, read_vectors
from factory_lib.errors import QueryError, nearest
from factory_lib.plan.expressions import C
from factory_lib.query import DatasetQuery
from factory_lib.signals.signal import Signal, signal
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
        found: list[Assigned | Exception] = [ValueError(f"the vector is {REASONS.get(f)}") for f in given.faults]
        for row, cluster, distance in zip(given.rows, self.clusters[which], far, strict=True):
            found[row] = Assigned(cluster, distance)
        return found


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
        QueryError: a column is missing, or a centroid cannot be compared with.
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
        rows.column("cluster").to_numpy().astype(np.uint32),
        chosen,
        tuple(map(str, versions_read(warehouse(), centroids.plan))),
    )
    return signal(target, name=name or f"{vector}_cluster", output=Assigned, inputs={"vectors": vector}, batch=BATCH)


def _matrix(column: pa.Array, *, unit: bool) -> NDArray[np.float32]:
    """Centroids as float32 (k, width).

    Raises:
        QueryError: one cannot be compared with.
    """
    if not len(column):
        return np.zeros((0, 0), np.float32)
    found = read_vectors(column, column.value_lengths().fill_null(0).to_pylist()[0], unit=unit)
    wrong = np.flatnonzero(found.faults)
    if len(wrong):
        raise QueryError(f"cluster_of(): centroid {wrong[0]} is {REASONS[int(found.faults[wrong[0]])]}.")
    return found.matrix
