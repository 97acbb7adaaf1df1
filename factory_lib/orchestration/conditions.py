"""When a stage runs by itself.

The heart is one condition of our own, `IsBehind`: a partition is behind when it was never made, or was made by other
code or from other input than there is now. It compares what the newest event recorded with what is, and needs no
memory: nothing is lost while the daemon is down, and nothing runs twice because a tick fell into the middle of a run.
Dagster's own `data_version_changed` and `code_version_changed` tell of changes since the last tick: in a run of several
stages that takes longer than a tick, every stage would see its input change after it was requested, and run again.

Around it stand Dagster's conditions, each for a reason that `tests/orchestration/test_dagster_automation.py` shows:

* A partition that failed is not tried again and again: once at once (`newly_true`), and then when something changed.
* The edge to the inputs has no `will_be_requested`: a stage waits until its input has landed, and is behind only if the
  input's content changed; a change of code that yields the same data stops there.
"""

from __future__ import annotations

from dagster import AssetKey, AutomationCondition, AutomationContext

from factory_lib.orchestration.dagster_internals import EntitySubset, SubsetAutomationCondition, record
from factory_lib.orchestration.unsynced import behind


@record
class IsBehind(SubsetAutomationCondition[AssetKey]):
    """True for partitions that were never made, or were made by other code or from other input than there is now.

    A condition of our own is evaluated in the code location: the sensor needs `use_user_code_server=True`.
    """

    @property
    def name(self) -> str:
        """What the UI calls it."""
        return "is_behind"

    def compute_subset(self, context: AutomationContext[AssetKey]) -> EntitySubset[AssetKey]:
        """Of the candidates, those that are behind."""
        view, node = context.asset_graph_view, context.asset_graph.get(context.key)
        found = {one for part in behind(view.instance, context.asset_graph, context.key) for one in part.partitions}
        if not found:
            return context.get_empty_subset()
        if node.partitions_def is None:
            return context.candidate_subset
        keys = {key for key in found if key is not None}
        subset = view.get_subset_from_partition_keys(context.key, node.partitions_def, keys)
        return subset.compute_intersection(context.candidate_subset)


def shard_condition() -> AutomationCondition[AssetKey]:
    """For stages with partitions: run the shards that are behind.

    A shard that is new goes through all such stages in one run (`any_deps_missing` leaves out what is requested in the
    same tick). A shard waits while its input is missing or being made.
    """
    return (
        IsBehind()
        & _worth_trying()
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
        IsBehind()
        & _worth_trying()
        & AutomationCondition.all_deps_match(~AutomationCondition.missing()).with_label("something_upstream")
        & ~AutomationCondition.any_deps_in_progress()
        & ~AutomationCondition.in_progress()
    ).with_label("dataset_is_behind")


def _worth_trying() -> AutomationCondition[AssetKey]:
    """Not failed; or failed once, just now; or failed, and something changed since."""
    changed = (
        AutomationCondition.code_version_changed()
        | AutomationCondition.any_deps_match(AutomationCondition.data_version_changed())
    ).since(AutomationCondition.newly_requested() | AutomationCondition.initial_evaluation())
    failed = AutomationCondition.execution_failed()
    return (
        ~failed | failed.newly_true().with_label("failed_just_now") | changed.with_label("something_changed_since")
    ).with_label("worth_trying")
