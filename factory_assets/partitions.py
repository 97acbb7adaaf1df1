"""Partitions of the graph."""

import dagster as dg

SHARDS = dg.DynamicPartitionsDefinition(name="shards")
"""One partition a shard: one tar, or as many as `FACTORY_TARS_PER_SHARD` says."""
