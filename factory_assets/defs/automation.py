"""What runs by itself: the shard sensor, the automation conditions of the stages, alerts, the nightly round."""

import dagster as dg

from factory_assets.defs.training import tell_worth_training
from factory_assets.partitions import SHARDS
from factory_lib.orchestration.alerts.sensors import failure_sensor, mail_sensor, red_check_sensor
from factory_lib.orchestration.automation.sensor import FewRunsSensor
from factory_lib.orchestration.housekeeping import as_published, nightly_round
from factory_lib.orchestration.source.shard_watch import shard_sensor

shard_watch = shard_sensor(asset=dg.AssetKey("source_shards"), partitions=SHARDS)

factory_automation = FewRunsSensor(
    "factory_automation",
    description="Runs stages whose code, input or shards changed.",
    tells=[tell_worth_training],
)

failed_runs = failure_sensor()
red_checks = red_check_sensor()
mail_of_failed_runs = mail_sensor()  # none where no mail is configured


@dg.asset(
    group_name="operations",
    kinds={"clickhouse"},
    owners=["team:platform"],
    check_specs=[as_published("warehouse_summary")],
)
def warehouse_summary(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """What the warehouse holds, whether it is as published, and what killed runs left in it, which is swept."""
    return nightly_round(context.instance, context.job_def.asset_layer.asset_graph)


nightly = dg.ScheduleDefinition(
    name="nightly",
    target=dg.AssetSelection.assets("warehouse_summary"),
    cron_schedule="0 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Sweeps what killed runs left, verifies versions, and sums up the warehouse.",
)
