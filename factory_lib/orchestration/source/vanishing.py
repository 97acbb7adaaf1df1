"""Shards that the source lists no more: marked at first, as they may come back, and said to whoever looks."""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from factory_lib.orchestration.checks.evaluations import as_event
from factory_lib.orchestration.dagster_internals import DATA_VERSION_TAG, AssetCheckExecutionRecordStatus
from factory_lib.settings import vanished_hours

ALL_THERE = "all_there"
"""The check of the source asset that all shards are."""

DECIDED = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}

_SINCE = "since"
"""What its outcome has as JSON: shard -> [Unix time since when it is missed, fingerprint]."""

_AWAY = "away"
"""And of several sources those that are away, as JSON: name -> why."""

_NAMED = 5


@dataclass(frozen=True)
class VanishedShard:
    """A shard that the source lists no more, and whose samples are still there.

    Attributes:
        name: of the shard.
        fingerprint: under which it was seen last.
        since: when it was first missed, in seconds of Unix time.
    """

    name: str
    fingerprint: str
    since: float

    @property
    def until(self) -> float:
        """When its samples are dropped, in seconds of Unix time; infinite where they are kept."""
        return self.since + 3600 * vanished_hours()

    def __str__(self) -> str:
        fate = "kept" if math.isinf(self.until) else f"dropped after {_time(self.until)}"
        return f"{self.name} is gone at the source since {_time(self.since)}; its samples are {fate}"


def missed_now(name: str, fingerprint: str) -> VanishedShard:
    """A shard that is missed for the first time."""
    return VanishedShard(name, fingerprint, time.time())


def vanished_shards(instance: dg.DagsterInstance, asset: dg.AssetKey) -> list[VanishedShard]:
    """The shards that the source did not list when it was looked at last, and whose samples are still there.

    The graph's memory of them is the newest outcome of the check `ALL_THERE`.
    """
    found = _remembered(instance, asset, _SINCE)
    return [VanishedShard(name, fingerprint, since) for name, (since, fingerprint) in sorted(found.items())]


def away_sources(instance: dg.DagsterInstance, asset: dg.AssetKey) -> dict[str, str]:
    """Of several sources, those that were away when they were looked at last -> why."""
    return _remembered(instance, asset, _AWAY)


def _remembered(instance: dg.DagsterInstance, asset: dg.AssetKey, what: str) -> dict[str, Any]:
    known = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(asset, ALL_THERE), limit=1, status=DECIDED
    )
    event = known[0].event.dagster_event if known and known[0].event else None
    told = event.event_specific_data if event else None
    listed = told.metadata.get(what) if isinstance(told, dg.AssetCheckEvaluation) else None
    return dict(listed.value) if isinstance(listed, dg.JsonMetadataValue) and isinstance(listed.value, dict) else {}


def observation(asset: dg.AssetKey, shard: VanishedShard) -> dg.AssetObservation:
    """The event that marks a shard: it is as it was, and not listed."""
    return dg.AssetObservation(
        asset,
        partition=shard.name,
        tags={DATA_VERSION_TAG: shard.fingerprint},
        metadata={"gone_since": _time(shard.since)},
        description=str(shard),
    )


def evaluation(
    asset: dg.AssetKey, missing: Sequence[VanishedShard], away: Mapping[str, str] | None = None
) -> dg.AssetCheckEvaluation:
    """The outcome of the check that all shards are at the source: yellow where some are not, or a source is away."""
    return as_event(_outcome(missing, away or {}), asset, ALL_THERE)


def check_all_there(instance: dg.DagsterInstance, asset: dg.AssetKey) -> dg.AssetCheckResult:
    """The same, of what was seen when the source was looked at last."""
    return _outcome(vanished_shards(instance, asset), away_sources(instance, asset))


def _outcome(missing: Sequence[VanishedShard], away: Mapping[str, str]) -> dg.AssetCheckResult:
    said = [f"{name} cannot be read, and its samples stay: {why}" for name, why in away.items()]
    if missing:
        more = f"; and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
        named = f"{'; '.join(map(str, missing[:_NAMED]))}{more}"
        said.append(f"{named}. FACTORY_VANISHED says what becomes of them.")
    since = {one.name: [one.since, one.fingerprint] for one in missing}
    return dg.AssetCheckResult(
        passed=not said,
        severity=dg.AssetCheckSeverity.WARN,
        description=" ".join(said) or "The source lists every shard that samples were read from.",
        metadata={
            "missing": len(missing),
            _SINCE: dg.MetadataValue.json(since),
            **({_AWAY: dg.MetadataValue.json(dict(away))} if away else {}),
        },
    )


def _time(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
