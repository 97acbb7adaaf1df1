"""All of Dagster that is private to it and used here, each with what it waits for.

No other module imports `dagster._…`: an upgrade that moves one of these fails here, and one that changes what they do
fails the tests named. What Dagster makes public is then taken from `dagster`.

* Data versions by partition: Dagster stamps one on all partitions of a run (dagster#18649, dagster#34013), so
  `partition_events` writes the events itself, with tags as Dagster names them, and has Dagster write none
  (`SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION`); held by `tests/orchestration/test_dagster_partition_events.py`.
* Which partitions are behind: the graph does not show it for partitioned assets (dagster#22553), so `unsynced` and
  `staleness` compare the tags of the newest events, and `unsynced` asks a run storage who it is (`SqlRunStorage`) to
  keep what it found for that one. Until an automation condition can be written against public classes, `IsBehind`
  builds on that of Dagster's own (`SubsetAutomationCondition`, `record`, `EntitySubset`).
* What checks said, and how sensors are, is read from the storages: `AssetCheckExecutionRecordStatus`, `Instigator…`,
  `TickStatus`, `SensorType`; held by `tests/orchestration/test_stage_checks.py`.
* How a run's steps ended is `StepEventStatus`.
* A range of partitions in one run: only tags ask for it (`ASSET_PARTITION_RANGE_…`), and what a sensor found
  (`SensorExecutionData`) is changed accordingly (`copy`, `PARTITION_NAME_TAG`); held by
  `tests/orchestration/test_dagster_automation.py`.
* A run in this process that is interrupted is to be known as canceled: what ended a step (`ErrorSource`) and the id of
  a run before it begins (`make_new_run_id`) say which one; held by `tests/orchestration/test_dagster_running.py`.
* An instance that differs from what its `dagster.yaml` says is made of a reference (`InstanceRef`); one that captures
  no output (`NoOpComputeLogManager`) leaves a terminal alone.
* Types of what public methods give, for annotations: `AssetGraph`, `BaseAssetGraph`, `BaseAssetNode`.
"""

from __future__ import annotations

from dagster._core.asset_graph_view.entity_subset import EntitySubset
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph, BaseAssetNode
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    INPUT_EVENT_POINTER_TAG_PREFIX,
    NULL_EVENT_POINTER,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.definitions.declarative_automation.operands.subset_automation_condition import (
    SubsetAutomationCondition,
)
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.definitions.sensor_definition import SensorExecutionData, SensorType
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from dagster._core.events import AssetMaterializationPlannedData, DagsterEventBatchMetadata, generate_event_batch_id
from dagster._core.execution.plan.objects import ErrorSource
from dagster._core.execution.stats import StepEventStatus
from dagster._core.instance.ref import InstanceRef
from dagster._core.scheduler.instigation import InstigatorStatus, TickStatus
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    GRPC_INFO_TAG,
    PARTITION_NAME_TAG,
)
from dagster._core.utils import make_new_run_id
from dagster._record import copy, record
from dagster._time import get_current_timestamp
from dagster._utils.schedules import cron_string_iterator, is_valid_cron_string
from dagster._utils.warnings import disable_dagster_warnings

__all__ = [
    "ASSET_PARTITION_RANGE_END_TAG",
    "ASSET_PARTITION_RANGE_START_TAG",
    "CODE_VERSION_TAG",
    "DATA_VERSION_IS_USER_PROVIDED_TAG",
    "DATA_VERSION_TAG",
    "DEFAULT_DATA_VERSION",
    "GRPC_INFO_TAG",
    "INPUT_EVENT_POINTER_TAG_PREFIX",
    "NULL_EVENT_POINTER",
    "PARTITION_NAME_TAG",
    "SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION",
    "AssetCheckExecutionRecordStatus",
    "AssetGraph",
    "AssetMaterializationPlannedData",
    "BaseAssetGraph",
    "BaseAssetNode",
    "DagsterEventBatchMetadata",
    "EntitySubset",
    "ErrorSource",
    "InstanceRef",
    "InstigatorStatus",
    "InstigatorType",
    "NoOpComputeLogManager",
    "SensorExecutionData",
    "SensorType",
    "SqlRunStorage",
    "StepEventStatus",
    "SubsetAutomationCondition",
    "TickStatus",
    "copy",
    "cron_string_iterator",
    "disable_dagster_warnings",
    "generate_event_batch_id",
    "get_current_timestamp",
    "get_input_data_version_tag",
    "get_input_event_pointer_tag",
    "is_valid_cron_string",
    "make_new_run_id",
    "record",
]
