"""Vectors of photos in the graph: their column, how many clusters they make, and what stands where there are none."""

from factory_lib.plan.expressions import C, fn, lit
from factory_lib.query import DatasetQuery
from factory_lib.signals.models.photos import photo_embedding

PHOTO = photo_embedding.name
EPS = 0.05
"""Photos whose cosine is above 1 - EPS are nearly the same. On 1,705 photos of clothes, one garment each, that is one
pair, a copy; at 0.1 there are seven, most of them two photos of one garment."""
SAMPLES_A_CLUSTER, MOST_CLUSTERS = 1000, 50_000
"""Photos in a cluster, about; and as many clusters as SemDeDup has, at most."""


def has_vectors(samples: DatasetQuery) -> bool:
    """Whether some of the samples have a vector."""
    return PHOTO in samples.columns and bool(samples.filter(fn.notEmpty(C[PHOTO])).limit(1).count())


def clusters_for(samples: DatasetQuery) -> int:
    """How many clusters their photos are to make."""
    return min(MOST_CLUSTERS, 1 + samples.filter(fn.notEmpty(C[PHOTO])).count() // SAMPLES_A_CLUSTER)


def no_centroids(samples: DatasetQuery) -> DatasetQuery:
    """No centroids, where no model looked at the photos."""
    return samples.filter("0").select(cluster=lit(0).cast("UInt32"), centroid=fn.emptyArrayFloat32())


def nothing_found(samples: DatasetQuery) -> DatasetQuery:
    """A finding of no duplicates, where there is nothing to find them by."""
    nobody = lit(None).cast("Nullable(UInt64)")
    return samples.filter("0").select("shard", "position", "sample_id", "key", kept=lit(True), duplicate_of=nobody)
