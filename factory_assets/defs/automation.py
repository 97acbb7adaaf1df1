"""What runs by itself: the shard sensor, the automation conditions of the stages, the nightly schedule."""

import dagster as dg

from factory_assets.partitions import SHARDS
from factory_lib.orchestration.shards import shard_sensor

shard_watch = shard_sensor(asset=dg.AssetKey("source_shards"), partitions=SHARDS)

factory_automation = dg.AutomationConditionSensorDefinition(
    "factory_automation",
    target=dg.AssetSelection.all(),
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Runs stages whose code, input or shards changed.",
)
