"""Shards as partitions: what the source holds now, compared with what the graph was told last.

The graph's memory of a shard is the newest observation of the source asset for that partition, whose data version is
the shard's fingerprint (uris, etags, sizes). A new shard becomes a partition; a changed one gets an observation, which
wakes the stages of that partition alone; a removed one is observed as `REMOVED`, so that an ordinary run of its
partition takes its rows out of the next version of every stage, and only then the partition itself goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib.errors import FileMissing, SettingsError, SourceError
from factory_lib.orchestration.dagster_internals import DATA_VERSION_TAG
from factory_lib.orchestration.partition_events import EMPTY, latest_data_versions

if TYPE_CHECKING:
    from factory_lib.query import DatasetQuery
    from factory_lib.sources import Source, SourceShard

REMOVED = "removed"
"""Data version under which a shard is observed that the source no longer has."""

SHARDS_A_TICK = 500
"""How many shards one tick of the sensor announces at most: a tick has to end within Dagster's 60 seconds."""


class ShardSource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where the shards are.

    Attributes:
        uri: path or URI of the source; empty when none is configured.
        tars_per_shard: how many tars make one shard, that is one partition.
        format: of the source; empty to find out.
        metadata, on: tables whose columns are joined to the samples, and the column to join by; empty for none.
        image, caption, key, key_pattern: what of the source becomes these columns, and how names are split (see
            `factory_lib.sources.mapping.Mapping`); empty for what the source says.
        members, columns: what alone is taken; empty for all.
        drop_columns: what is left out.
    """

    uri: str = ""
    tars_per_shard: int = 1
    format: str = ""
    metadata: str = ""
    on: str = ""
    image: str = ""
    caption: str = ""
    key: str = ""
    key_pattern: str = ""
    members: list[str] = []
    columns: list[str] = []
    drop_columns: list[str] = []

    def open(self) -> Source:
        """The source.

        Raises:
            SettingsError: no source is configured.
            SourceError: there is nothing readable at the uri.
        """
        from factory_lib.sources import open_source

        if not self.uri:
            raise SettingsError("No source of shards is configured.", "Set FACTORY_SOURCE to a path or URI of tars.")
        said: dict[str, Any] = {name: value or None for name, value in self.config().items() if name != "uri"}
        return open_source(self.uri, **said)

    def config(self) -> dict[str, Any]:
        """The fields with their values, as run configuration takes them."""
        return {name: getattr(self, name) for name in type(self).model_fields if not name.startswith("_")}

    @classmethod
    def mapped(cls, uri: str, tars_per_shard: int, mapping: Mapping[str, str]) -> ShardSource:
        """A source with what settings say of it: names and values, those of lists with commas between.

        Raises:
            SourceError: there is no such name.
        """
        from factory_lib.sources.mapping import from_words

        return cls(uri=uri, tars_per_shard=tars_per_shard, **from_words(mapping))

    def query(self, shards: Sequence[str]) -> DatasetQuery:
        """The samples of these shards; one that the source no longer has contributes none."""
        from factory_lib.query import DatasetQuery

        source = self.open()
        there = {shard.name for shard in source.shards()}
        return DatasetQuery.from_source(source, shards=[shard for shard in shards if shard in there])


def observe_shards(source: ShardSource) -> dg.DataVersionsByPartition:
    """The fingerprints of all shards, for an observable source asset."""
    return dg.DataVersionsByPartition({shard.name: shard.fingerprint for shard in source.open().shards()})


@dataclass(frozen=True)
class ShardChanges:
    """How the source differs from what the graph knows.

    Attributes:
        new: shards that the graph has no partition for, or only the memory of one removed before.
        changed: shards whose files changed under the same name.
        removed: names that the source no longer has.
        gone: removed shards that no stage holds rows of any more: their partitions can be deleted.
    """

    new: tuple[SourceShard, ...]
    changed: tuple[SourceShard, ...]
    removed: tuple[str, ...]
    gone: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.removed or self.gone)

    def first(self, limit: int) -> ShardChanges:
        """At most `limit` of each kind; the rest shows again at the next comparison."""
        return ShardChanges(self.new[:limit], self.changed[:limit], self.removed[:limit], self.gone[:limit])


def shard_changes(
    instance: dg.DagsterInstance,
    shards: Iterable[SourceShard],
    *,
    asset: dg.AssetKey,
    partitions: str,
    stages: Sequence[dg.AssetKey],
) -> ShardChanges:
    """Compare what the source holds with what was observed last.

    Args:
        shards: what the source holds now.
        asset: the source asset, whose observations are the graph's memory.
        partitions: name of the dynamic partitions.
        stages: the assets with these partitions, which have to let go of a removed shard.

    Raises:
        SettingsError: the source is empty although shards are known; more likely a missing mount than an intention.
    """
    now = {shard.name: shard for shard in shards}
    known = latest_data_versions(instance, asset, observed=True)
    keys = set(instance.get_dynamic_partitions(partitions))
    alive = {name for name in keys if known.get(name) != REMOVED}
    if alive and not now:
        raise SettingsError(
            f"The source lists no shard at all, but {len(alive)} are known (such as {min(alive)!r}).",
            "Is it mounted, and is the path right? Nothing is removed until it lists at least one shard.",
        )
    new = [shard for name, shard in now.items() if name not in keys or known.get(name) in (None, REMOVED)]
    fresh = {shard.name for shard in new}
    changed = [shard for name, shard in now.items() if name not in fresh and known[name] != shard.fingerprint]
    removed = sorted(alive - set(now))
    dead = sorted(name for name in keys - set(now) if known.get(name) == REMOVED)
    return ShardChanges(tuple(new), tuple(changed), tuple(removed), _let_go(instance, dead, stages))


def _let_go(instance: dg.DagsterInstance, names: Sequence[str], stages: Sequence[dg.AssetKey]) -> tuple[str, ...]:
    """Of these removed shards, those that every stage that ever made them has emptied."""
    held: set[str] = set()
    for stage in stages if names else ():
        versions = latest_data_versions(instance, stage, names)
        held |= {name for name, version in versions.items() if version != EMPTY}
    return tuple(name for name in names if name not in held)


def observations(changes: ShardChanges, asset: dg.AssetKey) -> list[dg.AssetObservation]:
    """The events that tell the graph about the changes."""
    seen = [
        dg.AssetObservation(
            asset,
            partition=shard.name,
            tags={DATA_VERSION_TAG: shard.fingerprint},
            metadata={
                "files": len(shard.files),
                "bytes": sum(file.size for file in shard.files),
                "first_file": shard.files[0].uri if shard.files else "",
            },
            description="new" if shard in changes.new else "changed",
        )
        for shard in (*changes.new, *changes.changed)
    ]
    lost = [
        dg.AssetObservation(
            asset, partition=name, tags={DATA_VERSION_TAG: REMOVED}, description="removed at the source"
        )
        for name in changes.removed
    ]
    return seen + lost


def apply_changes(instance: dg.DagsterInstance, changes: ShardChanges, *, asset: dg.AssetKey, partitions: str) -> None:
    """Tell an instance about the changes directly, as the sensor does through the daemon."""
    instance.add_dynamic_partitions(partitions, [shard.name for shard in changes.new])
    for event in observations(changes, asset):
        instance.report_runless_asset_event(event)
    for name in changes.gone:
        instance.delete_dynamic_partition(partitions, name)


def shard_sensor(
    *,
    asset: dg.AssetKey,
    partitions: dg.DynamicPartitionsDefinition,
    seconds: int = 30,
) -> dg.SensorDefinition:
    """A sensor that adds partitions for new shards and announces changed and removed ones.

    It starts no run: the automation conditions of the stages do. It keeps no cursor: the instance is its memory, so
        that
    it can be stopped, reset or run twice without harm.

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
            shards = source.open().shards()
            changes = shard_changes(context.instance, shards, asset=asset, partitions=name, stages=stages)
        except SettingsError as error:
            return dg.SkipReason(str(error))
        except (SourceError, FileMissing) as error:
            # Nothing has come yet. Of a source that had shards, the same is a failure that someone has to see.
            if context.instance.get_dynamic_partitions(name):
                raise
            return dg.SkipReason(f"Waiting for the first shard. {error}")
        now = changes.first(SHARDS_A_TICK)
        if not now:
            return dg.SkipReason(f"Nothing changed among {len(shards)} shards.")
        context.log.info(
            f"{len(now.new)} new, {len(now.changed)} changed, {len(now.removed)} removed of {len(shards)} shards"
        )
        requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
        if now.new:
            requests.append(partitions.build_add_request([shard.name for shard in now.new]))
        if now.gone:
            requests.append(partitions.build_delete_request(list(now.gone)))
        return dg.SensorResult(dynamic_partitions_requests=requests, asset_events=observations(now, asset))

    return watch
