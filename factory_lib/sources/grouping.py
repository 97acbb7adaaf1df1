"""How many tars make a shard: so many that a dataset does not have more shards than it can bear.

A shard is a partition of the database. A version shares the files of all that it does not change by a link for each,
the engine opens every part of every version when it starts, and Dagster keeps a row for every partition of every stage:
all of that grows with the number of shards, whatever is in them (`bench.shards` measures it).
"""

from __future__ import annotations

from collections.abc import Sequence

from factory_lib.sources.detect import TAR_SUFFIXES
from factory_lib.sources.shards import SourceShard

MOST_SHARDS = 1000
"""Shards that a source is taken in without a word."""

SECONDS_A_SHARD = 0.005
"""What a commit takes for each shard that it carries over, of 40 columns, in CPU seconds (`bench.shards`)."""


def grouping_advice(shards: Sequence[SourceShard]) -> str:
    """What to say of a source with too many shards, in a sentence; empty for one with few, or whose shards are no tars.

    Args:
        shards: all shards of the source, as they are grouped now.
    """
    tars = sum(file.path.lower().endswith(TAR_SUFFIXES) for shard in shards for file in shard.files)
    if len(shards) <= MOST_SHARDS or tars < len(shards):
        return ""
    group = _rounded_up(-(-tars // MOST_SHARDS))
    return (
        f"{tars:,} tars in {len(shards):,} shards: every commit carries over each shard that it does not change, about"
        f" {len(shards) * SECONDS_A_SHARD:.0f} s here. With FACTORY_TARS_PER_SHARD={group} they are"
        f" {-(-tars // group):,}. Say it before the first ingest: shards that are grouped otherwise are other shards."
    )


def _rounded_up(number: int) -> int:
    """The next number with one digit, or with two where the second is a 5: 12 -> 15, 31 -> 35, 128 -> 150."""
    if number < 10:
        return number
    step: int = 5 * 10 ** (len(str(number)) - 2)
    return -(-number // step) * step
