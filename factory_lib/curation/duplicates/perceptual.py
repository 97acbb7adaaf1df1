"""Near-duplicates by hashes alone: perceptual hashes that differ in few bits, found by a banded join in the warehouse.

Quick and blind: of pictures that look alike at 8 x 8 pixels it takes many for copies (of 3,498 photos of clothes it
removes 200, of which 2 are copies). `near_duplicates` looks at the pixels.

Two 64-bit hashes that differ in at most 6 bits agree in at least 2 of their 8 bytes, so candidates are pairs of hashes
that agree in some 2 bytes: one key for each of the 28 pairs of bytes. Hashes are made distinct first, so that a picture
that occurs a thousand times costs as much as one that occurs once. Work and memory grow with 28 keys a hash; the number
of candidates grows with the square of the hashes, 28 / 65,536 of all pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from factory_lib.curation.duplicates.grouping import OrderKey, shown_pixels
from factory_lib.curation.duplicates.linking import linked_groups
from factory_lib.errors import ColumnNotFound, QueryError, nearest
from factory_lib.plan.expressions import C, fn, lit, sql_text
from factory_lib.plan.operators import Expr
from factory_lib.query import DatasetQuery

DISTANCE = 6
"""Bits in which the hashes of near-duplicates differ at most. With pHash or dHash, either, this finds 99.5 % of the
copies that were re-encoded, scaled or slightly changed, without a false pair among 697,575 (see the README of the test
data)."""

CROWDED = 32
"""Hashes with the same key that are still compared within arrays: 65,000 such buckets a block take 0.5 GB."""


def near_by_hashes(
    samples: DatasetQuery, hashes: Sequence[str], distance: int = DISTANCE, keep: Sequence[OrderKey] = ()
) -> DatasetQuery:
    """Groups of samples that are near-duplicates of each other, by hashes alone.

    A sample is in the group of the best one near it: with more pixels, then of an earlier shard and position.

    Args:
        samples: with the hashes as columns; samples without a hash have no duplicates.
        hashes: columns of 64-bit perceptual hashes; being near in one of them is enough.
        distance: bits that may differ, 0 to 6.
        keep: as `near_duplicates` takes it.

    Returns:
        One row for each sample of a group, see `GROUP_COLUMNS`; `by` names the hash, `score` is the share of its bits
        that are equal.

    Raises:
        ColumnNotFound, QueryError: a column is missing, or the distance is out of range.
    """
    if not 0 <= distance <= DISTANCE:
        raise QueryError(f"near_duplicates(distance={distance}): hashes alone are compared at 0 to {DISTANCE} bits.")
    for name in hashes:
        if name not in samples.columns:
            raise ColumnNotFound(
                f"near_duplicates(by='hashes') compares by the column {name!r}, which the samples do not have.",
                nearest(name, samples.columns),
            )
    ranked = samples.select("shard", "position", "sample_id", *hashes, rank=_rank(samples))
    first, *others = [_links_by(ranked, name, distance) for name in hashes]
    rows = first.union(*others) if others else first
    # near by both hashes: the better one of the two; near the same one by both: by the one with more equal bits
    best = fn.min(fn.tuple(C.best, -C.score, C.by))
    chosen = rows.group_by("sample_id").agg(found=best)
    links = chosen.select(
        "sample_id",
        other=fn.tupleElement(fn.tupleElement(C.found, 1), 4),
        score=-fn.tupleElement(C.found, 2),
        by=fn.tupleElement(C.found, 3),
    )
    return linked_groups(samples, links, keep)


def _rank(samples: DatasetQuery) -> Expr:
    """Smaller is better: pixels, largest first, then shard and position; last the id, which is carried along."""
    pixels = shown_pixels(samples) if "image_header" in samples.columns else lit(0)
    return fn.tuple(-pixels.cast("Int64"), C.shard.cast("String"), C.position, C.sample_id)


def _links_by(ranked: DatasetQuery, name: str, distance: int) -> DatasetQuery:
    """Samples with a better one within the distance by one hash, and the best of these."""
    hashed = ranked.filter(C[name].not_null()).rename(hash=name)
    groups = hashed.group_by(hash=fn.assumeNotNull(C.hash)).agg(best=fn.min(C["rank"]))
    keyed = groups.select("hash", band=sql_text(_BANDS))
    pairs = _pairs_in_small_buckets(keyed, distance).union(_pairs_in_crowded_buckets(keyed, distance))
    nearby = pairs.join(groups, on={"other": "hash"}).select("hash", "other", "best")
    own = groups.select("hash", "best", other="hash")
    best = nearby.union(own).group_by("hash").agg(other=fn.argMin(C.other, C.best), best=fn.min(C.best))
    rows = hashed.mutate(hash=fn.assumeNotNull(C.hash)).join(best, on="hash").filter(C.best < C["rank"])
    equal_bits = (1 - fn.bitHammingDistance(C.hash, C.other) / 64).cast("Float32")
    return rows.select("sample_id", "best", score=equal_bits, by=lit(name))


def _pairs_in_small_buckets(keyed: DatasetQuery, distance: int) -> DatasetQuery:
    """Near pairs with the same key, compared within arrays: a quarter of the CPU time of a join."""
    buckets = keyed.group_by("band").agg(hashes=fn.groupArray(C.hash))
    small = buckets.filter(fn.length(C.hashes).between(2, CROWDED))
    near = f"arrayFilter(y -> y != x AND bitHammingDistance(x, y) <= {distance:d}, hashes)"
    pairs = small.select(
        pair=sql_text(f"arrayJoin(arrayFlatten(arrayMap(x -> arrayMap(y -> (x, y), {near}), hashes)))")
    )
    return pairs.select(hash=fn.tupleElement(C.pair, 1), other=fn.tupleElement(C.pair, 2))


def _pairs_in_crowded_buckets(keyed: DatasetQuery, distance: int) -> DatasetQuery:
    """Near pairs with a key that many hashes have, by a join: arrays of all their pairs would not fit into memory."""
    crowded = keyed.group_by("band").agg(n=fn.count()).filter(C.n > CROWDED)
    few = keyed.join(crowded, on="band", how="semi")
    pairs = few.join(few.rename(other="hash"), on="band")
    return pairs.filter(fn.bitHammingDistance(C.hash, C.other) <= distance, C.hash != C.other).select("hash", "other")


_PAIRS = list(combinations(range(8), 2))
_BANDS = (
    "arrayJoin(arrayMap((i, j) -> bitShiftLeft(toUInt32(8 * i + j), 16)"
    " + bitShiftLeft(bitAnd(bitShiftRight(hash, 8 * i), 255), 8) + bitAnd(bitShiftRight(hash, 8 * j), 255),"
    f" {[i for i, _ in _PAIRS]}, {[j for _, j in _PAIRS]}))"
)
"""One key for each pair of bytes of a hash: which pair, and the two bytes."""
