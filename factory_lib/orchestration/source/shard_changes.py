"""Shards as partitions: what the source holds now, compared with what the graph was told last.

The graph's memory of a shard is the newest observation of the source asset for that partition, whose data version is
the shard's fingerprint (uris, etags, sizes). A new shard becomes a partition; a changed one gets an observation, which
wakes the stages of that partition alone.

A shard that the source lists no more may come back: a listing that failed by half, a folder that was not mounted. It is
observed as it was, the check `ALL_THERE` of the source asset remembers it, and its samples stay. When it has been gone
for as long as the settings say (`FACTORY_VANISHED`), it is observed as `REMOVED`, so that an ordinary run of its
partition takes its rows out of the next version of every stage, and only then the partition itself goes.

Of several sources each is looked at by itself. One that does not answer, or lists nothing although shards of it are
known, is away: its shards are as they were, and the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import dagster as dg

from factory_lib.errors import SettingsError
from factory_lib.orchestration.dagster_internals import DATA_VERSION_TAG
from factory_lib.orchestration.events.partition_events import EMPTY, REMOVED, latest_data_versions
from factory_lib.orchestration.source.vanishing import (
    VanishedShard,
    away_sources,
    evaluation,
    missed_now,
    observation,
    vanished_shards,
)
from factory_lib.sources.shards import SourceListing, SourceShard
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.vanished import record_vanished

UNDECLARED = "?"
"""Stands for a source that is not declared any more."""


@dataclass(frozen=True)
class ShardChanges:
    """How the source differs from what the graph knows.

    Attributes:
        new: shards that the graph has no partition for, or only the memory of one removed before.
        changed: shards whose files changed under the same name, and those that are back as they were.
        vanished: shards that the source does not list any more, for the first time.
        removed: names of shards that have been gone for long enough.
        gone: removed shards that no stage holds rows of any more: their partitions can be deleted.
        missing: all shards that are not listed and whose samples stay for now, the vanished ones among them.
        back: names of shards that were missing, and are listed again.
        listing: what the source lists, and which of several sources are away.
        turned: whether other sources are away than when they were looked at last.
    """

    new: tuple[SourceShard, ...] = ()
    changed: tuple[SourceShard, ...] = ()
    vanished: tuple[VanishedShard, ...] = ()
    removed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    missing: tuple[VanishedShard, ...] = ()
    back: tuple[str, ...] = ()
    listing: SourceListing = field(default_factory=lambda: SourceListing(()))
    turned: bool = False

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.vanished or self.removed or self.gone or self.turned)

    def first(self, limit: int) -> ShardChanges:
        """At most `limit` of each kind; the rest shows again at the next comparison."""
        return replace(
            self,
            new=self.new[:limit],
            changed=self.changed[:limit],
            vanished=self.vanished[:limit],
            removed=self.removed[:limit],
            gone=self.gone[:limit],
        )

    @property
    def arriving(self) -> set[str]:
        """Names of the sources at which something comes."""
        found = {self.listing.source_of(shard.name) for shard in (*self.new, *self.changed)}
        return {source for source in found if source is not None}

    def without_arrivals(self, sources: Collection[str]) -> ShardChanges:
        """Those alone that have nothing to do with files that come at these sources."""
        source_of = self.listing.source_of
        new = tuple(shard for shard in self.new if source_of(shard.name) not in sources)
        changed = tuple(shard for shard in self.changed if source_of(shard.name) not in sources)
        return replace(self, new=new, changed=changed, back=tuple(n for n in self.back if source_of(n) not in sources))

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Name of a source -> what differs of it -> shards; a source that is no longer declared is ``"?"``."""
        names = {
            "new": [shard.name for shard in self.new],
            "changed": [shard.name for shard in self.changed],
            "not listed any more": [shard.name for shard in self.vanished],
            "removed": self.removed,
        }
        found: dict[str, dict[str, int]] = {name: {} for name in self.listing.prefixes}
        for kind, shards in names.items():
            for shard in shards:
                source = self.listing.source_of(shard)
                own = found.setdefault(UNDECLARED if source is None else source, {})
                own[kind] = own.get(kind, 0) + 1
        return {name: own for name, own in found.items() if own}

    def __str__(self) -> str:
        said = []
        for name, own in self.counts.items():
            text = ", ".join(f"{number:,} {kind}" for kind, number in own.items())
            known = "no longer declared" if name == UNDECLARED else name
            said.append(f"{known}: {text}" if known else text)
        said += [f"{name}: cannot be read ({why})" for name, why in self.listing.away.items()]
        return "; ".join(said) or "nothing changed"


def shard_changes(
    instance: dg.DagsterInstance,
    listing: SourceListing,
    *,
    asset: dg.AssetKey,
    partitions: str,
    stages: Sequence[dg.AssetKey],
) -> ShardChanges:
    """Compare what the source holds with what was observed last.

    Args:
        listing: what the source holds now.
        asset: the source asset, whose observations are the graph's memory.
        partitions: name of the dynamic partitions.
        stages: the assets with these partitions, which have to let go of a removed shard.

    Raises:
        SettingsError: the source is empty although shards are known; more likely a missing mount than an intention. Of
            several sources, all of which shards are known are.
    """
    now = {shard.name: shard for shard in listing.shards}
    known = latest_data_versions(instance, asset, observed=True)
    keys = set(instance.get_dynamic_partitions(partitions))
    alive = {name for name in keys if known.get(name) != REMOVED}
    listing = _with_empty(listing, alive)
    if alive and not now:
        raise SettingsError(
            f"The source lists no shard at all, but {len(alive)} are known (such as {min(alive)!r}).",
            "Is it mounted, and is the path right? Nothing is removed until it lists at least one shard.",
        )
    missed = {one.name: one for one in vanished_shards(instance, asset)}
    new = [shard for name, shard in now.items() if name not in keys or known.get(name) in (None, REMOVED)]
    fresh = {shard.name for shard in new}
    changed = [
        shard
        for name, shard in now.items()
        if name not in fresh and (known[name] != shard.fingerprint or name in missed)
    ]
    lost = [
        missed.get(name) or missed_now(name, known.get(name, ""))
        for name in sorted(alive - now.keys())
        if not listing.is_away(name)
    ]
    dead = sorted(name for name in keys - now.keys() if known.get(name) == REMOVED)
    missing = tuple(one for one in lost if one.until > time.time())
    return ShardChanges(
        tuple(new),
        tuple(changed),
        vanished=tuple(one for one in missing if one.name not in missed),
        removed=tuple(one.name for one in lost if one not in missing),
        gone=_let_go(instance, dead, stages),
        # of what is away it stays as it was
        missing=(*missing, *(one for one in missed.values() if listing.is_away(one.name) and one.name in alive)),
        back=tuple(sorted(missed.keys() & now.keys())),
        listing=listing,
        turned=away_sources(instance, asset).keys() != listing.away.keys(),
    )


def _with_empty(listing: SourceListing, alive: Collection[str]) -> SourceListing:
    """With those of several sources counted as away that list nothing although shards of them are known."""
    listed = {listing.source_of(shard.name) for shard in listing.shards}
    lost: dict[str, list[str]] = {}
    for shard in sorted(alive):
        source = listing.source_of(shard)
        if source is not None and source not in listed and source not in listing.away:
            lost.setdefault(source, []).append(shard)
    said = {name: f"It lists no shard at all, but {len(some)} are known." for name, some in lost.items()}
    return replace(listing, away={**listing.away, **said}) if said and listed else listing


def _let_go(instance: dg.DagsterInstance, names: Sequence[str], stages: Sequence[dg.AssetKey]) -> tuple[str, ...]:
    """Of these removed shards, those that every stage that ever made them has emptied."""
    held: set[str] = set()
    for stage in stages if names else ():
        versions = latest_data_versions(instance, stage, names)
        held |= {name for name, version in versions.items() if version != EMPTY}
    return tuple(name for name in names if name not in held)


def events_of(changes: ShardChanges, asset: dg.AssetKey) -> list[dg.AssetObservation | dg.AssetCheckEvaluation]:
    """The events that tell the graph about the changes, and whoever looks at it whether all shards are there."""
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
    differs = changes.vanished or changes.removed or changes.back or changes.turned
    judged = [evaluation(asset, changes.missing, changes.listing.away)] if differs else []
    return [*seen, *(observation(asset, one) for one in changes.vanished), *lost, *judged]


def tell_catalog(changes: ShardChanges, source: str) -> None:
    """Tell the catalog which shards are missing, for who looks at a version and not at the graph."""
    if changes.vanished or changes.removed or changes.back:
        missing = {one.name: one.since for one in changes.missing}
        record_vanished(warehouse(), source, missing, [*changes.removed, *changes.back])


def apply_changes(
    instance: dg.DagsterInstance, changes: ShardChanges, *, asset: dg.AssetKey, partitions: str, source: str
) -> None:
    """Tell an instance, and the catalog, about the changes directly, as the sensor does through the daemon.

    Args:
        source: uri of the source.
    """
    tell_catalog(changes, source)
    instance.add_dynamic_partitions(partitions, [shard.name for shard in changes.new])
    for event in events_of(changes, asset):
        instance.report_runless_asset_event(event)
    for name in changes.gone:
        instance.delete_dynamic_partition(partitions, name)
