"""Vectors of photos in the graph: their column, what is nearly the same, and what stands where there are none."""

from factory_lib.plan.expressions import fn, lit
from factory_lib.query import DatasetQuery
from factory_lib.signals.models.photos import photo_embedding

PHOTO = photo_embedding.name
EPS = 0.05
"""Photos whose cosine is above 1 - EPS are nearly the same. On 1,705 photos of clothes, one garment each, that is one
pair, a copy; at 0.1 there are seven, most of them two photos of one garment."""


def no_centroids(samples: DatasetQuery) -> DatasetQuery:
    """No centroids, where no model looked at the photos."""
    return samples.filter("0").select(cluster=lit(0).cast("UInt32"), centroid=fn.emptyArrayFloat32())


def nothing_found(samples: DatasetQuery) -> DatasetQuery:
    """A finding of no duplicates, where there is nothing to find them by."""
    nobody = lit(None).cast("Nullable(UInt64)")
    return samples.filter("0").select("shard", "position", "sample_id", "key", kept=lit(True), duplicate_of=nobody)
