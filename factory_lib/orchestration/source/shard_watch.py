"""The shard sensor: looks at the source, waits until what comes has come, and tells the graph."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import dagster as dg

from factory_lib.errors import FileMissing, SettingsError, SourceError
from factory_lib.orchestration.source.shard_changes import ShardChanges, events_of, shard_changes, tell_catalog
from factory_lib.orchestration.source.shards import ShardSource
from factory_lib.settings import settle_seconds
from factory_lib.sources.grouping import grouping_advice
from factory_lib.sources.shards import SourceShard

SHARDS_A_TICK = 5000
"""How many shards of a kind one tick of the sensor announces at most: a tick has to end within Dagster's 60 seconds."""

LONGEST_WAITS = 10
"""A source that never comes to rest is taken as it is after so many times the settling time."""


@dataclass(frozen=True)
class Settling:
    """What the sensor remembers of a source between ticks, to tell whether files are still coming.

    Attributes:
        listing: hash of what the source listed.
        since: when it listed that first, in seconds of Unix time.
        first: when the first change was seen that was not told yet.
    """

    listing: str = ""
    since: float = 0.0
    first: float = 0.0

    @classmethod
    def read(cls, cursor: str | None) -> dict[str, Settling]:
        """Of each source, as a tick before left it; the beginning where that cannot be read."""
        try:
            return {source: cls(**said) for source, said in json.loads(cursor or "{}").items()}
        except (ValueError, TypeError, AttributeError):
            return {}

    def at(self, shards: Iterable[SourceShard], now: float) -> Settling:
        """After another look at the source, which has changes that were not told yet."""
        text = "".join(f"{shard.name}\t{shard.fingerprint}\n" for shard in shards)
        listing = hashlib.sha256(text.encode()).hexdigest()
        return Settling(listing, self.since if listing == self.listing else now, self.first or now)

    def seconds_left(self, now: float) -> float:
        """How long the source has to stay as it is before its changes are told; 0 for no longer."""
        settle = settle_seconds()
        return max(0.0, min(self.since + settle, self.first + LONGEST_WAITS * settle) - now)


def shard_sensor(
    *,
    asset: dg.AssetKey,
    partitions: dg.DynamicPartitionsDefinition,
    seconds: int = 30,
) -> dg.SensorDefinition:
    """A sensor that adds partitions for new shards and announces changed, vanished and removed ones.

    It starts no run: the automation conditions of the stages do. Its memory of shards is the instance, so that it can
    be stopped, reset or run twice without harm; its cursor only says how long the source has been at rest. Shards that
    arrive together are announced together, when nothing changed for `FACTORY_SETTLE_SECONDS`.

    Args:
        asset: the source asset that stands for what the source holds.
        partitions: the dynamic partitions of the stages.
        seconds: how often it looks.
    """
    name = partitions.name
    assert name is not None

    @dg.sensor(
        name="shard_watch",
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks for new, changed and removed shards at the source.",
    )
    def watch(context: dg.SensorEvaluationContext, source: ShardSource) -> dg.SensorResult | dg.SkipReason:
        if not source.uri:
            return dg.SkipReason("No source is configured. Set FACTORY_SOURCE to a path or URI of tars.")
        assert context.repository_def is not None
        graph = context.repository_def.asset_graph
        stages = sorted(key for key in graph.materializable_asset_keys if graph.get(key).partitions_def == partitions)
        try:
            listing = source.open().listing()
            changes = shard_changes(context.instance, listing, asset=asset, partitions=name, stages=stages)
        except SettingsError as error:
            return dg.SkipReason(str(error))
        except (SourceError, FileMissing) as error:
            # Nothing has come yet. Of a source that had shards, the same is a failure that someone has to see.
            if context.instance.get_dynamic_partitions(name):
                raise
            return dg.SkipReason(f"Waiting for the first shard. {error}")
        tell_catalog(changes, source.uri)
        return _told(context, partitions, asset, changes)

    return watch


def _told(
    context: dg.SensorEvaluationContext,
    partitions: dg.DynamicPartitionsDefinition,
    asset: dg.AssetKey,
    changes: ShardChanges,
) -> dg.SensorResult | dg.SkipReason:
    """What the tick comes to: the changes, those that don't wait for files to come, or why there are none."""
    now, shards = time.time(), changes.listing.shards
    before, arriving = Settling.read(context.cursor), changes.arriving
    settling = {
        source: before.get(source, Settling()).at(own, now)
        for source, own in changes.listing.by_source(arriving).items()
    }
    waits = {source: left for source, one in settling.items() if (left := one.seconds_left(now))}
    tell = changes.without_arrivals(waits).first(SHARDS_A_TICK)
    cursor = json.dumps(
        {source: asdict(one if source in waits else replace(one, first=0.0)) for source, one in settling.items()}
    )
    if not tell:
        context.update_cursor(cursor)
        why = f"Nothing changed among {len(shards):,} shards{_of_others(changes)}."
        if waits:
            why = f"{changes} of {len(shards):,} shards: told when nothing more comes for {max(waits.values()):.0f} s."
        return dg.SkipReason(why)
    context.log.info(f"{tell} of {len(shards):,} shards")
    if tell.new and (advice := grouping_advice(shards)):
        context.log.warning(advice)
    requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
    if tell.new:
        requests.append(partitions.build_add_request([shard.name for shard in tell.new]))
    if tell.gone:
        requests.append(partitions.build_delete_request(list(tell.gone)))
    return dg.SensorResult(dynamic_partitions_requests=requests, asset_events=events_of(tell, asset), cursor=cursor)


def _of_others(changes: ShardChanges) -> str:
    """Which of several sources are left aside for being away."""
    said = "; ".join(f"{name} cannot be read: {why}" for name, why in changes.listing.away.items())
    return f" ({said})" if said else ""
