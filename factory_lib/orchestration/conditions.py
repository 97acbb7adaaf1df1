"""When a stage runs by itself.

Built from Dagster's own conditions alone. Each part is there for a reason that `tests/test_dagster_automation.py` shows:

* `code_version_changed` and `data_version_changed` say that something is different. The edge to the upstream data has no
  `will_be_requested`: a stage waits until its input has landed and runs only if the input's content changed, so that a
  change of code which yields the same data stops there.
* `since(newly_requested)`, not `since_last_handled`: that would forget a change that lands while a run which read the old
  data is in flight.
* `missing and not failed` fills partitions and stages that are new, also on an instance that has been running for long.
* `execution_failed().newly_true()` retries once. A bare `execution_failed` would retry for ever; without it a run that
  failed after a change of code would leave its partitions on the old code for ever.
"""

from __future__ import annotations

from dagster import AssetKey, AutomationCondition


def shard_condition() -> AutomationCondition[AssetKey]:
    """For stages with partitions: run the shards that are new, whose input changed, or all when the code changed.

    A shard that is new goes through all such stages in one run (`any_deps_missing` leaves out what is requested in the
    same tick). A shard waits while its input is missing or being made.
    """
    return (
        _wanted()
        & ~AutomationCondition.any_deps_missing()
        & ~AutomationCondition.any_deps_in_progress()
        & ~AutomationCondition.in_progress()
    ).with_label("shard_is_behind")


def whole_condition() -> AutomationCondition[AssetKey]:
    """For stages over all shards at once: run when any shard of an input changed, or the code.

    It waits while shards are being made, so that a batch of new shards costs one run, but not for shards that are
    missing: one unreadable shard must not hold up the other ten thousand. It needs at least one shard of every input.
    """
    return (
        _wanted()
        & AutomationCondition.all_deps_match(~AutomationCondition.missing()).with_label("something_upstream")
        & ~AutomationCondition.any_deps_in_progress()
        & ~AutomationCondition.in_progress()
    ).with_label("dataset_is_behind")


def _wanted() -> AutomationCondition[AssetKey]:
    changed = (
        AutomationCondition.code_version_changed().with_label("new_code_version")
        | AutomationCondition.any_deps_match(AutomationCondition.data_version_changed()).with_label(
            "upstream_data_changed"
        )
    ).since(AutomationCondition.newly_requested() | AutomationCondition.initial_evaluation())
    fill = (AutomationCondition.missing() & ~AutomationCondition.execution_failed()).with_label(
        "missing_and_not_failed"
    )
    retry = AutomationCondition.execution_failed().newly_true().with_label("failed_once")
    return changed.with_label("changed") | fill | retry
