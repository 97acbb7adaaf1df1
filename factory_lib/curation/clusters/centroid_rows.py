"""Centroids as rows: k-means over a column of vectors, to be saved as a dataset that stays until it is made again."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from factory_lib.curation.clusters.kmeans import kmeans
from factory_lib.curation.vectors import check_vectors, width_of
from factory_lib.errors import QueryError, nearest
from factory_lib.plan.expressions import C, fn
from factory_lib.plan.nodes import Derived, RowFunction
from factory_lib.plan.select import Select
from factory_lib.plan.storing import SINGLE_SHARD, SYSTEM
from factory_lib.progress import done, track
from factory_lib.query import DatasetQuery
from factory_lib.signals.vectors import left_out, read_vectors

MOST_PER_CLUSTER = 256
"""Vectors a cluster that are looked at, at most, as in faiss: more hardly move the centroids."""

VECTORS_A_CLUSTER = 1000
MOST_CLUSTERS = 4096
"""How many clusters there are where nobody says: so many that comparing all vectors of one with each other costs less
than finding them."""

_COLUMNS = {
    **SYSTEM,
    "cluster": "UInt32",
    "centroid": "Array(Float32)",
    "size": "UInt64",
    "metric": "LowCardinality(String)",
}


def centroids(
    samples: DatasetQuery,
    vector: str,
    k: int | None = None,
    *,
    metric: Literal["cosine", "euclidean"] = "cosine",
    iterations: int = 20,
    seed: int = 0,
    most_per_cluster: int = MOST_PER_CLUSTER,
    batch: int | None = None,
) -> DatasetQuery:
    """The centroids of k clusters of samples, by k-means over a column of vectors.

    The same rows give the same centroids, in whatever order the engine reads them. Vectors that cannot be compared
    (missing, not finite, all zeros) are left out, and the log says how many.

    Args:
        samples: with the column.
        vector: the column.
        k: number of clusters; fewer come out where there are fewer different vectors. None has one for each
            `VECTORS_A_CLUSTER` vectors, at least one and at most `MOST_CLUSTERS`, and none where there is no vector.
        metric: "cosine" (spherical: vectors and centroids of length 1) or "euclidean".
        iterations: passes over the vectors, at most.
        seed: of the sample and of where clusters begin.
        most_per_cluster: k times as many vectors are looked at, at most, a sample of them where there are more; they
            are held in memory as float32.
        batch: vectors after which centroids move; None moves them after each pass, which is slower and better.

    Returns:
        One row a cluster, the largest first: `cluster`, its number from 0; `centroid`; `size`, how many of the vectors
        looked at are nearest to it; `metric`.

    Raises:
        QueryError: an argument is out of range, or the column is none of vectors; when rows are read, also where k is
            more than there are vectors, or these differ in length.
    """
    check_vectors(samples, vector, "centroids()")
    if metric not in ("cosine", "euclidean"):
        raise QueryError(
            f"centroids(metric={metric!r}): there is no such one.", nearest(metric, ("cosine", "euclidean"))
        )
    numbers = {"k": k, "iterations": iterations, "most_per_cluster": most_per_cluster, "batch": batch}
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise QueryError(f"centroids({name}={number}): it is at least 1.")
    given = samples.filter(fn.length(C[vector]) > 0).select(
        "shard", "position", "sample_id", vector=C[vector].cast("Array(Float32)")
    )
    options = {**numbers, "metric": metric, "seed": int(seed)}
    return DatasetQuery.of(Derived(given.plan, CENTROID_ROWS, options, columns=_COLUMNS))


def _centroid_rows(
    query: Select, *, k: int | None, metric: Literal["cosine", "euclidean"], iterations: int, seed: int,
    most_per_cluster: int, batch: int | None,
) -> pa.Table:  # fmt: skip
    """The rows of `centroids`, of all rows of a query."""
    rows = DatasetQuery.of(query.in_row_order())
    width, total = width_of(rows, "vector", "centroids()")
    wanted = k or min(MOST_CLUSTERS, max(1, round(total / VECTORS_A_CLUSTER)))
    if k is not None and total < k:
        raise QueryError(f"centroids(k={k}): there are {total:,} vectors.", "Ask for fewer clusters.")
    most = wanted * most_per_cluster
    some = rows.sample(most, seed=seed) if total > most else rows
    vectors, lost = _read(some, min(total, most), width, unit=metric == "cosine")
    if k is not None and len(vectors) < k:
        raise QueryError(f"centroids(k={k}): only {len(vectors):,} vectors can be compared, {lost}.")
    number = min(wanted, len(vectors))
    found = kmeans(vectors, number, metric, iterations=iterations, seed=seed, batch=batch)
    count = len(found.centroids)
    ends = pa.array(np.arange(count + 1, dtype=np.int32) * width)
    return pa.table(
        {
            "shard": pa.repeat(SINGLE_SHARD, count),
            "key": pa.array([str(number) for number in range(count)]),
            "cluster": pa.array(np.arange(count, dtype=np.uint32)),
            "centroid": pa.ListArray.from_arrays(ends, pa.array(found.centroids.reshape(-1))),
            "size": pa.array(found.sizes.astype(np.uint64)),
            "metric": pa.repeat(metric, count),
        }
    )


CENTROID_ROWS = RowFunction(f"{__name__}:CENTROID_ROWS", "centroids", _centroid_rows)


def _read(rows: DatasetQuery, count: int, width: int, *, unit: bool) -> tuple[NDArray[np.float32], str]:
    """The vectors of some rows, in their order, float32 (n, width), and which are left out, in words.

    Args:
        count: how many rows there are.
    """
    matrix = np.empty((count, width), np.float32)
    read, faults = 0, [np.zeros(0, np.uint8)]
    with track("k-means: reading vectors", count) as progress:
        for batch in rows.select("vector").to_batches():
            found = read_vectors(batch.column(0), width, unit=unit)
            matrix[read : read + len(found.matrix)] = found.matrix
            read += len(found.matrix)
            faults.append(found.faults)
            progress.advance(batch.num_rows)
    if lost := left_out(np.concatenate(faults)):
        done(f"k-means: vectors left out, {lost}", count - read, count)
    return matrix[:read], lost
