"""Several sources as one: shards, columns and an account of all, and what goes on while one of them is away.

The shards of a source bear its name (`photos:00000`), so that they stay what they are whatever becomes of the others,
and their rows say it in the column `source`.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from factory_lib.errors import FactoryError, SourceError, StorageAway, StoreError
from factory_lib.sources.account import Account
from factory_lib.sources.declared import DeclaredSource
from factory_lib.sources.opened import OpenedSource
from factory_lib.sources.shards import ShardReport, SourceListing, SourceShard
from factory_lib.sources.uniting import LICENSE, SOURCE, own_names, places, united, widened

FORMAT = "several"
Opener = Callable[[DeclaredSource], OpenedSource]
"""Opens one of several sources."""
SECONDS_AWAY = 10.0
"""A source that is away is not looked for again by each of its shards: only after as long."""
_OPENING = threading.Lock()


@dataclass(frozen=True)
class NamedSource:
    """One of several sources that is there."""

    declared: DeclaredSource
    source: OpenedSource

    @cached_property
    def names(self) -> dict[str, str]:
        """Column of the dataset -> column of the source."""
        return own_names(self.source.schema)

    @property
    def schema(self) -> pa.Schema:
        """Its columns as the dataset has them."""
        return pa.schema([pa.field(name, self.source.schema.field(raw).type) for name, raw in self.names.items()])

    @property
    def given(self) -> dict[str, str]:
        """Columns in which all its samples have the same."""
        license = self.declared.license
        return {SOURCE: self.declared.name} | ({} if license is None else {LICENSE: license})

    @cached_property
    def own(self) -> dict[str, SourceShard]:
        """Name of a shard in the dataset -> the shard as the source has it."""
        return {f"{self.declared.prefix}{shard.name}": shard for shard in self.source.shards()}

    def shards(self) -> list[SourceShard]:
        """Its shards as the dataset has them: they change where something else is said of the source, too."""
        said = {"mapping": self.source.mapping, **self.given} if self.source.mapping else self.given
        text = json.dumps(said, sort_keys=True)
        return [replace(shard, name=name, mapping=text) for name, shard in self.own.items()]

    @cached_property
    def files(self) -> frozenset[str]:
        """URIs of all files of its shards."""
        return frozenset(file.uri for shard in self.own.values() for file in shard.files)

    @cached_property
    def firsts(self) -> frozenset[str]:
        """URIs of the first file of each shard. Other files may be tables that other sources are joined to, too."""
        return frozenset(shard.files[0].uri for shard in self.own.values() if shard.files)

    def words(self) -> dict[str, Any]:
        """What opens the same again, wherever else something is said otherwise: as found, over what was declared."""
        found = {option: value for option, value in self.source.options.items() if value}
        return {**found, **self.declared.words()}

    def summary(self) -> dict[str, str]:
        """Which source it is, for provenance."""
        return {"name": self.declared.name, "uri": self.source.uri, "format": self.source.format}


@dataclass(frozen=True)
class UnitedSource:
    """Several sources as one.

    Attributes:
        uri: of the file that declares them.
        members: those that are there.
        away: those that are not, and why.
        opener: opens one.
        seconds: how long one may take; None for as long as it takes.
        asked: shards that are read although their sources are away: they fail, or are there after all.
    """

    uri: str
    members: tuple[NamedSource, ...]
    away: Mapping[str, tuple[DeclaredSource, FactoryError]]
    opener: Opener = field(repr=False)
    seconds: float | None = None
    asked: tuple[str, ...] = ()
    format: str = FORMAT

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of every batch of every shard."""
        return _united(self.members, self.uri)

    @property
    def places(self) -> list[str]:
        """The pointers of samples, of which the first that points somewhere says where a sample is."""
        return places(self.schema)

    @cached_property
    def account(self) -> Account:
        """What became of the files and columns of all."""
        return Account().with_those(one.source.account for one in self.members)

    @property
    def options(self) -> dict[str, Any]:
        """With which `open_source` opens the same sources again."""
        return {"sources": {one.declared.name: one.words() for one in self.members}}

    def shards(self) -> list[SourceShard]:
        """All shards of the sources that are there, by name, and those asked for."""
        there = {shard.name: shard for one in self.members for shard in one.shards()}
        asked = [SourceShard(name, ()) for name in self.asked if name not in there]
        return sorted([*there.values(), *asked], key=lambda shard: shard.name)

    def check_whole(self) -> None:
        """Raise where a source is away.

        Raises:
            SourceError, StorageAway: names it, and why.
        """
        for name, (_, error) in self.away.items():
            raise _away(name, error)

    def listing(self) -> SourceListing:
        """What the sources list, and which of them are away."""
        why = {name: error.message for name, (_, error) in self.away.items()}
        there = tuple(replace(self, asked=()).shards())
        return SourceListing(there, self._prefixes, why)

    @property
    def _prefixes(self) -> dict[str, str]:
        every = [*(one.declared for one in self.members), *(declared for declared, _ in self.away.values())]
        return {one.name: one.prefix for one in every}

    def asking_for(self, shards: Sequence[str]) -> UnitedSource:
        """The same, with those of these shards whose sources are away: others are made without them."""
        listing = self.listing()
        return replace(self, asked=tuple(shard for shard in shards if listing.is_away(shard)))

    def by_member(self, shards: Sequence[SourceShard]) -> Iterator[tuple[NamedSource, list[SourceShard]]]:
        """The shards of each source that is there, without sources that have none of them."""
        for one in self.members:
            if own := [shard for shard in shards if shard.name in one.own]:
                yield one, own

    def read(self, shard: SourceShard, report: ShardReport) -> Iterator[pa.RecordBatch]:
        """Rows of a shard in byte order.

        Raises:
            StoreError: its source is away.
        """
        member = next((one for one in self.members if shard.name in one.own), None) or self._back(shard.name)
        for batch in member.source.read(member.own[shard.name], report):
            yield widened(batch, member.names, member.given, self.schema)

    def _back(self, shard: str) -> NamedSource:
        """The source of a shard, which was away and is there after all.

        Raises:
            StoreError, SourceError: it is still away, or what it has does not go with the others: the next run sees it.
        """
        name = SourceListing((), self._prefixes).source_of(shard)
        assert name is not None
        with _OPENING:
            found, until = self._again.get(name, (None, 0.0))
            if found is None or time.monotonic() > until:
                found, until = self._opened_again(name), time.monotonic() + SECONDS_AWAY
                self._again[name] = found, until if isinstance(found, FactoryError) else math.inf
        if isinstance(found, FactoryError):
            raise _away(name, found) from found
        if shard not in found.own:
            raise _away(name, self.away[name][1])
        return found

    def _opened_again(self, name: str) -> NamedSource | FactoryError:
        """A source that was away, once more; or why that cannot be, or it does not go with the others."""
        declared, before = self.away[name]
        if not isinstance(before, StoreError):
            return before
        try:
            member = _member(declared, _opened([declared], self.opener, self.seconds), self.seconds)
        except FactoryError as now:
            return now
        if misfit := self._misfit(member):
            return SourceError(
                f"It is back, and does not go with what is read now: {misfit}", "The next run looks anew."
            )
        return member

    def _misfit(self, member: NamedSource) -> str:
        """What of a source is not as columns were settled without it; empty where all is."""
        try:
            _check_fits(self.uri, member, self.members)
        except SourceError as error:
            return error.message
        more = [name for name in member.schema.names if name not in self.schema.names]
        return f"it has the column {more[0]!r}, too." if more else ""

    @cached_property
    def _again(self) -> dict[str, tuple[NamedSource | FactoryError, float]]:
        """Name of a source that was away -> what opening it once more came to, and how long that holds."""
        return {}


def open_several(
    uri: str, declared: Sequence[DeclaredSource], opener: Opener, seconds: float | None = None
) -> UnitedSource:
    """Open several sources at once.

    One that cannot be opened, or does not go with those declared before it, counts as away.

    Args:
        uri: of the file that declares them.
        opener: opens one.
        seconds: how long one may take; one that takes longer counts as away. None for as long as it takes.

    Raises:
        FactoryError: all are away; the error is that of the first.
    """
    outcomes = _opened(declared, opener, seconds)
    members: list[NamedSource] = []
    away: dict[str, tuple[DeclaredSource, FactoryError]] = {}
    for one in declared:
        try:
            member = _member(one, outcomes, seconds)
            _check_fits(uri, member, members)
            members.append(member)
        except FactoryError as error:
            away[one.name] = (one, error)
    if not members:
        raise next(iter(away.values()))[1]
    return UnitedSource(uri, tuple(members), away, opener, seconds)


def _member(
    one: DeclaredSource, outcomes: Mapping[str, OpenedSource | Exception], seconds: float | None
) -> NamedSource:
    """A source that was opened.

    Raises:
        Exception: that it could not be, or has not answered.
    """
    outcome = outcomes.get(one.name) or StorageAway(f"It has not answered for {seconds:g} s.")
    if isinstance(outcome, Exception):
        raise outcome
    return NamedSource(one, outcome)


def _opened(
    declared: Sequence[DeclaredSource], opener: Opener, seconds: float | None
) -> dict[str, OpenedSource | Exception]:
    """Name of a source -> it, or what went wrong; nothing of one that takes too long."""
    outcomes: dict[str, OpenedSource | Exception] = {}

    def open_one(one: DeclaredSource) -> None:
        try:
            outcomes[one.name] = opener(one)
        except Exception as error:
            outcomes[one.name] = error

    # daemons: one that hangs keeps no process from ending
    threads = [threading.Thread(target=copy_context().run, args=(open_one, one), daemon=True) for one in declared]
    for thread in threads:
        thread.start()
    until = None if seconds is None else time.monotonic() + seconds
    for thread in threads:
        thread.join(None if until is None else max(0.0, until - time.monotonic()))
    return dict(outcomes)


def _away(name: str, error: FactoryError) -> FactoryError:
    kind = type(error) if isinstance(error, StorageAway) else SourceError
    return kind(f"The source {name!r} cannot be read: {error.message}", error.hint)


def _check_fits(where: str, member: NamedSource, others: Sequence[NamedSource]) -> None:
    """Raise where a source does not go with others: their samples would be there twice, or a column is of two types.

    Raises:
        SourceError: names both sources.
    """
    _united([*others, member], where)
    for other in others:
        if both := member.firsts & other.files | other.firsts & member.files:
            more = f" and {len(both) - 1:,} more files" if len(both) > 1 else ""
            raise SourceError(
                f"The sources {other.declared.name!r} and {member.declared.name!r} of {where} both have"
                f" {min(both)}{more}.",
                "Is one inside the other's folder? Name files by a pattern, or leave one of the sources out.",
            )


def _united(members: Sequence[NamedSource], where: str) -> pa.Schema:
    licensed = [one.declared.name for one in members if one.declared.license]
    return united({one.declared.name: one.schema for one in members}, licensed, where)
