"""When a stage runs by itself.

The heart is one condition of our own, `IsBehind`: a partition is behind when it was never made, or was made by other
code or from other input than there is now. It compares what the newest event recorded with what is, and needs no
memory: nothing is lost while the daemon is down, and nothing runs twice because a tick fell into the middle of a run.
Dagster's own `data_version_changed` and `code_version_changed` tell of changes since the last tick: in a run of several
stages that takes longer than a tick, every stage would see its input change after it was requested, and run again.

Around it stand Dagster's conditions, each for a reason that `tests/orchestration/test_dagster_automation.py` shows:

* A partition that failed is not tried again and again: once at once, and then when something changed.
* What comes after a stage that is requested is requested with it, to share its run, although nobody knows yet whether
  it will be behind: runs that the automation starts make only what is (see `only_behind`). Stages over all shards can't
  share a run with those shard by shard; they wait for these.
* Nothing runs after a stage whose check `volume` is red. The stage itself does, once it is behind again.
"""

from __future__ import annotations

from collections.abc import Collection

from dagster import AssetKey, AutomationCondition, AutomationContext

from factory_lib.orchestration.automation.attempts import failures
from factory_lib.orchestration.behind.unsynced import behind
from factory_lib.orchestration.checks.stage_checks import looks_wrong
from factory_lib.orchestration.dagster_internals import EntitySubset, SubsetAutomationCondition, record


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
        found = behind(context.asset_graph_view.instance, context.asset_graph, context.key)
        return subset_of(context, {one for part in found for one in part.partitions})


def subset_of(context: AutomationContext[AssetKey], partitions: Collection[str | None]) -> EntitySubset[AssetKey]:
    """Those of the candidates that are among these partitions; None stands for an asset without."""
    node = context.asset_graph.get(context.key)
    if not partitions:
        return context.get_empty_subset()
    if node.partitions_def is None:
        return context.candidate_subset
    keys = {key for key in partitions if key is not None}
    known = context.asset_graph_view.get_subset_from_partition_keys(context.key, node.partitions_def, keys)
    return known.compute_intersection(context.candidate_subset)


@record
class GivenUp(SubsetAutomationCondition[AssetKey]):
    """True for partitions that failed, and failed again when they were tried once more."""

    @property
    def name(self) -> str:
        """What the UI calls it."""
        return "failed_twice"

    def compute_subset(self, context: AutomationContext[AssetKey]) -> EntitySubset[AssetKey]:
        """Of the candidates, those that failed twice."""
        if context.candidate_subset.is_empty:
            return context.candidate_subset
        found = failures(context.asset_graph_view.instance, context.asset_graph, context.key)
        return subset_of(context, {partition for partition, again in found.items() if again})


@record
class RequestedBefore(SubsetAutomationCondition[AssetKey]):
    """True when something upstream is requested in the same tick that can't share the run: it comes first."""

    @property
    def name(self) -> str:
        """What the UI calls it."""
        return "requested_before"

    def compute_subset(self, context: AutomationContext[AssetKey]) -> EntitySubset[AssetKey]:
        """All of the candidates, or none."""
        graph, partitions = context.asset_graph, context.partitions_def
        for key in graph.get_ancestor_asset_keys(context.key):
            requested = context.request_subsets_by_key.get(key)
            if requested is not None and not requested.is_empty and graph.get(key).partitions_def != partitions:
                return context.candidate_subset
        return context.get_empty_subset()


@record
class LooksWrong(SubsetAutomationCondition[AssetKey]):
    """True when the check `volume` of the stage itself, or of any before it, is red and nobody accepted it.

    Attributes:
        itself: ask about the stage; otherwise about all that come before it.
    """

    itself: bool

    @property
    def name(self) -> str:
        """What the UI calls it."""
        return "looks_wrong" if self.itself else "something_before_looks_wrong"

    def compute_subset(self, context: AutomationContext[AssetKey]) -> EntitySubset[AssetKey]:
        """All of the candidates, or none."""
        graph = context.asset_graph
        asked = [context.key] if self.itself else sorted(graph.get_ancestor_asset_keys(context.key))
        wrong = looks_wrong(context.asset_graph_view.instance, graph, asked)
        return context.candidate_subset if wrong else context.get_empty_subset()


def shard_condition() -> AutomationCondition[AssetKey]:
    """For stages with partitions: run the shards that are behind, and those that are requested upstream.

    A shard goes through all such stages in one run (`any_deps_missing` leaves out what is requested in the same tick).
    It waits while its input is missing or being made.
    """
    return (
        _wanted()
        & ~LooksWrong(itself=False)
        & ~AutomationCondition.any_deps_missing()
        & ~AutomationCondition.any_deps_in_progress()
        & ~AutomationCondition.in_progress()
    ).with_label("shard_is_behind")


def whole_condition(due: AutomationCondition[AssetKey] | None = None) -> AutomationCondition[AssetKey]:
    """For stages over all shards at once: run when any shard of an input changed, or the code.

    It waits while shards are being made, so that a batch of new shards costs one run, but not for shards that are
    missing: one unreadable shard must not hold up the other ten thousand. It needs at least one shard of every input.

    Args:
        due: what makes it run, instead of being behind or requested with what it comes after.
    """
    there = ~AutomationCondition.missing()
    if due is None:
        there |= AutomationCondition.will_be_requested()
    return (
        (_wanted() if due is None else due & _worth_trying())
        & AutomationCondition.all_deps_match(there).with_label("something_upstream")
        & ~RequestedBefore()
        & ~LooksWrong(itself=False)
        & ~AutomationCondition.any_deps_in_progress()
        & ~AutomationCondition.in_progress()
    ).with_label("dataset_is_behind")


def _wanted() -> AutomationCondition[AssetKey]:
    """Behind, or about to be: something that it is made of is requested and can share the run."""
    follows = AutomationCondition.any_deps_match(AutomationCondition.will_be_requested())
    return (IsBehind() & _worth_trying()) | (follows & ~LooksWrong(itself=True)).with_label("follows_what_is_requested")


def _worth_trying() -> AutomationCondition[AssetKey]:
    """Not failed twice; or something changed since."""
    changed = (
        AutomationCondition.code_version_changed()
        | AutomationCondition.any_deps_match(AutomationCondition.data_version_changed())
    ).since(AutomationCondition.newly_requested() | AutomationCondition.initial_evaluation())
    return (~GivenUp() | changed.with_label("something_changed_since")).with_label("worth_trying")
