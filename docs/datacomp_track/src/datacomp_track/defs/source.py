"""The shards of the pool, and what runs by itself when there are new ones."""

import dagster as dg

from factory_assets.defs.ingest import source_shards
from factory_assets.partitions import SHARDS
from factory_lib.orchestration.automation.sensor import FewRunsSensor
from factory_lib.orchestration.source.shard_watch import shard_sensor

__all__ = ["factory_automation", "shard_watch", "source_shards"]

shard_watch = shard_sensor(asset=dg.AssetKey("source_shards"), partitions=SHARDS)
factory_automation = FewRunsSensor("factory_automation", description="Runs stages whose code, input or shards changed.")
