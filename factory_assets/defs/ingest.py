"""From shards in storage to a dataset of pointers and attributes."""

import dagster as dg

from factory_assets.partitions import SHARDS
from factory_lib.orchestration.source.shards import ShardSource, observe_shards
from factory_lib.orchestration.stage import stage
from factory_lib.query import DatasetQuery


@dg.observable_source_asset(
    partitions_def=SHARDS,
    group_name="ingest",
    tags={"dagster/kind/tar": ""},
    description="Shards at the source. The data version of each is a fingerprint of its files: uris, etags, sizes.",
)
def source_shards(source: ShardSource) -> dg.DataVersionsByPartition:
    """What the source holds now."""
    return observe_shards(source)


@stage(group="ingest", partitions=SHARDS, deps=["source_shards"], kinds=["tar"])
def samples(context: dg.AssetExecutionContext, source: ShardSource) -> DatasetQuery:
    """One row a sample: where its bytes are (uri, offset, size) and everything the source says of it.

    Nothing is copied but text and numbers; images stay in their tars.
    """
    return source.query(context.partition_keys)
