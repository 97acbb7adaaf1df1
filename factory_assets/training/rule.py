"""When a model is trained by itself: by how much the training set changed, by a schedule, or never."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib.errors import NotFound, SettingsError
from factory_lib.orchestration.automation.conditions import subset_of
from factory_lib.orchestration.behind.staleness import why_stale
from factory_lib.orchestration.behind.unsynced import CODE, MISSING, behind
from factory_lib.orchestration.checks.evaluations import as_event
from factory_lib.orchestration.dagster_internals import (
    EntitySubset,
    SubsetAutomationCondition,
    cron_string_iterator,
    get_current_timestamp,
    is_valid_cron_string,
    record,
)
from factory_lib.settings import training_rule
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import Version, latest, resolve

if TYPE_CHECKING:
    from factory_lib.orchestration.dagster_internals import BaseAssetGraph

WORTH_TRAINING = "worth_training"
"""Name of the check that says what has come and what is waited for."""


@dataclass(frozen=True)
class Rule:
    """When to train.

    Attributes:
        share: of samples that are new, changed or gone since the last training; None where a schedule says when.
        cron: the schedule; empty where there is none.
    """

    share: float | None = None
    cron: str = ""

    @staticmethod
    def of(text: str) -> Rule:
        """Read `10%`, `0.1`, a cron schedule, or `never`.

        Raises:
            SettingsError: it is none of these.
        """
        said = text.strip()
        if said == "never":
            return Rule()
        try:
            share = float(said.rstrip("% ")) / (100 if said.endswith("%") else 1)
            if 0 <= share <= 1:
                return Rule(share=share)
        except ValueError:
            if is_valid_cron_string(said):
                return Rule(cron=said)
        raise SettingsError(
            f"FACTORY_TRAIN={text!r} is no rule for training.",
            "Say a share (10%), a cron schedule (0 2 * * 0) or never.",
        )


@dataclass(frozen=True)
class Due:
    """Whether a model is to be trained now.

    Attributes:
        is_due: whether it is.
        said: what has come since the last training, what is waited for, and what it would cost.
        share: of samples that are new, changed or gone; None where that does not matter.
    """

    is_due: bool
    said: str
    share: float | None = None


def due(instance: dg.DagsterInstance, graph: BaseAssetGraph[Any], model: dg.AssetKey, training_set: str) -> Due:
    """Whether a model is to be trained now, by the rule of the settings.

    Args:
        model: the asset that trains.
        training_set: the dataset that it trains on.
    """
    rule = Rule.of(training_rule())
    reasons = {part.reason for part in behind(instance, graph, model)}
    facts, when = _last(instance, model)
    cost = f" The last training took {facts['seconds']:,.0f} s." if "seconds" in facts else ""
    if not reasons:
        return Due(False, f"The model is up to date.{cost}")
    if rule == Rule():
        return Due(False, f"It is trained by hand alone (FACTORY_TRAIN=never).{cost}")
    if MISSING in reasons:
        return Due(True, "No model was trained yet.")
    share, told = _share(facts, training_set)
    code = f"The code of the training changed ({_which(instance, graph, model)})" if CODE in reasons else ""
    if rule.cron:
        at = next(cron_string_iterator(when, rule.cron, None)).timestamp()
        said = f"{code or told}; it is trained at {_time(at)} ({rule.cron}).{cost}"
        return Due(at <= get_current_timestamp(), said, share)
    if code:
        return Due(True, f"{code}: it is trained.{cost}")
    assert rule.share is not None
    if share is None:
        return Due(True, f"{told}{cost}")
    is_due = share > 0 and share >= rule.share
    wanted = "it is trained" if is_due else f"{rule.share:.0%} are waited for"
    return Due(is_due, f"{told}; {wanted}.{cost}", share)


def _which(instance: dg.DagsterInstance, graph: BaseAssetGraph[Any], model: dg.AssetKey) -> str:
    """What of the code changed, by name."""
    parts = [part for change in why_stale(instance, graph, model).code for part in change.components or ()]
    return ", ".join(f"{part.name}: {part.change}" for part in parts[:3]) or "what it was is not known"


def _last(instance: dg.DagsterInstance, model: dg.AssetKey) -> tuple[dict[str, Any], float]:
    """What is recorded of the last training, and when it was."""
    event = instance.get_latest_materialization_event(model)
    made = event.asset_materialization if event is not None else None
    if event is None or made is None:
        return {}, 0.0
    return {name: value.value for name, value in made.metadata.items()}, event.timestamp


def _share(facts: dict[str, Any], training_set: str) -> tuple[float | None, str]:
    """Share of samples that came, changed or went since a training; None where its version is gone."""
    now = latest(warehouse(), training_set)
    try:
        before = resolve(warehouse(), str(facts["trained_on"]))
    except (KeyError, NotFound):
        return None, "Nobody knows what the last model was trained on"
    if now is None or before.uuid != facts.get("table"):
        return None, f"{facts['trained_on']}, which the last model was trained on, is gone"
    differ, of = _changed(before, now)
    share = differ / of if of else 0.0
    return share, f"{share:.1%} of {of:,} samples are new, changed or gone since {before}"


@lru_cache(maxsize=8)
def _changed(before: Version, now: Version) -> tuple[int, int]:
    """How many samples differ between two versions, and how many there are in either."""
    from factory_lib.history.comparing import compare

    found = compare(before, now)
    return found.added + found.removed + found.changed, before.rows + found.added


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


@record
class TrainingIsDue(SubsetAutomationCondition[dg.AssetKey]):
    """True when the rule of the settings says that the model is to be trained.

    Attributes:
        training_set: the dataset that it trains on.
    """

    training_set: str

    @property
    def name(self) -> str:
        """What the UI calls it."""
        return "training_is_due"

    def compute_subset(self, context: dg.AutomationContext[dg.AssetKey]) -> EntitySubset[dg.AssetKey]:
        """The model, or nothing."""
        found = due(context.asset_graph_view.instance, context.asset_graph, context.key, self.training_set)
        return subset_of(context, [None] if found.is_due else [])


def check_worth_training(found: Due) -> dg.AssetCheckResult:
    """What is waited for, as a check that passes."""
    metadata = {} if found.share is None else {"changed_share": found.share}
    return dg.AssetCheckResult(
        check_name=WORTH_TRAINING, passed=True, description=found.said, metadata={**metadata, "due": found.is_due}
    )


def evaluation_of(found: Due, model: dg.AssetKey) -> dg.AssetCheckEvaluation:
    """The same, to be recorded outside of a run."""
    return as_event(check_worth_training(found), model, WORTH_TRAINING)
