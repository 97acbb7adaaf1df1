"""Makes versions again from what was recorded of them, and compares.

Each shard is made by the recipe of the version that made it, from the versions and sources that it was made of, under a
staging name that is dropped again. Values of signals are computed anew. Shards are equal when their content
fingerprints are.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa

from factory_lib.build.changed_files import changed_members
from factory_lib.build.ledger import Ledger
from factory_lib.build.recipes import NotReproducible, Prepared, prepared
from factory_lib.build.session import discard, settled
from factory_lib.errors import FactoryError
from factory_lib.history.matching import Matching, ShardDifference
from factory_lib.history.origins import known_versions, read_records
from factory_lib.names import STAGING
from factory_lib.plan.nodes import Table
from factory_lib.plan.restriction import narrowed
from factory_lib.plan.sql import Rendering
from factory_lib.redaction import without_credentials
from factory_lib.tables import arrow_table
from factory_lib.warehouse import provenance
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.derive import conform, derive
from factory_lib.warehouse.provenance import ShardRecord
from factory_lib.warehouse.staging import StagingTable
from factory_lib.warehouse.versions import Version, content_fingerprints

_COMMENT = re.compile(r"/\*.*?\*/")
"""What stands for rows that only code makes."""
Verdict = Literal["equal", "different", "not reproducible"]


@dataclass(frozen=True)
class ShardOutcome:
    """What became of one shard.

    Attributes:
        made_by: the version that made it.
        reason: why it differs or cannot be made again; empty where the figures say it.
        added, removed, changed, moved: samples that differ in what was made again.
        columns: column -> samples that differ in it.
    """

    shard: str
    made_by: str
    verdict: Verdict
    reason: str = ""
    added: int = 0
    removed: int = 0
    changed: int = 0
    moved: int = 0
    columns: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Reproduction:
    """A version and what was made again of it.

    Attributes:
        shards: all its shards, and those that only came about in making it again.
        unpinned: what is not as it was when the version was made.
    """

    version: str
    shards: Sequence[ShardOutcome]
    unpinned: Sequence[str]
    seconds: float

    @property
    def is_equal(self) -> bool:
        """Whether all shards are equal."""
        return all(shard.verdict == "equal" for shard in self.shards)

    def count(self, verdict: Verdict) -> int:
        """How many shards there are of a verdict."""
        return sum(shard.verdict == verdict for shard in self.shards)

    def _repr_html_(self) -> str:
        from factory_lib.history.shown import reproduction_page

        return reproduction_page(self)

    def to_arrow(self) -> pa.Table:
        """One row a shard: whether it came out equal, what differs, and why."""
        return arrow_table(ShardOutcome, self.shards)


def reproduce(version: Version, say: Callable[[str], None] = lambda _: None) -> Reproduction:
    """Make a version again and compare.

    Args:
        say: told what is going on.
    """
    started = time.monotonic()
    work = _Work(version, say)
    by_maker: dict[str, list[str]] = {}
    for name, shard in version.shards.items():
        by_maker.setdefault(shard.origin, []).append(name)
    found: list[ShardOutcome] = []
    for maker, shards in (by_maker or {version.uuid: []}).items():
        found += work.outcomes(maker, shards)
    outcomes = sorted(found, key=lambda one: one.shard)
    return Reproduction(str(version), outcomes, list(work.unpinned), round(time.monotonic() - started, 3))


@dataclass(frozen=True)
class _Rebuilt(Version):
    """Rows that were made again, as something that can be compared with a version."""

    stage: StagingTable
    sources: Mapping[str, str]

    @property
    def table(self) -> str:
        return self.stage.name

    @cached_property
    def source(self) -> Table:
        return self.stage.source()

    @cached_property
    def shards(self) -> Mapping[str, ShardRecord]:
        rows = self.stage.shard_rows()
        return {s: ShardRecord(s, rows.get(s, 0), self.uuid, "", self.sources.get(s, "")) for s in self.sources}


class _Work:
    """Makes the shards of one version again, maker by maker."""

    def __init__(self, version: Version, say: Callable[[str], None]) -> None:
        self.version = version
        self.warehouse = version.warehouse
        self.say = say
        self.unpinned: dict[str, None] = {}

    def outcomes(self, maker: str, shards: Sequence[str]) -> list[ShardOutcome]:
        """What becomes of shards that one version made."""
        name = _name(self.warehouse, maker)
        try:
            return list(self._compared(maker, name, shards))
        except NotReproducible as error:
            return _all(shards, name, "not reproducible", error.message)
        except FactoryError as error:
            return _all(shards, name, "not reproducible", f"making it again fails: {error}")

    def _compared(self, maker: str, name: str, shards: Sequence[str]) -> Iterator[ShardOutcome]:
        recipe = self._recipe(maker)
        recast = [s for s in shards if s in set(recipe.get("recast", ()))]
        own = [s for s in shards if s not in recast]
        if own or not shards:
            self.say(f"making {len(own):,} shards of {name} again")
            evolved = bool(recipe.get("evolved"))
            with self._rebuilt(maker, recipe, own) as (rebuilt, changed):
                for shard, reason in changed.items():
                    yield ShardOutcome(shard, name, "not reproducible", reason)
                yield from self._verdicts(rebuilt, [s for s in own if s not in changed], name, evolved)
        yield from self._recast(recipe, recast)

    def _recast(self, recipe: Mapping[str, Any], shards: Sequence[str]) -> Iterator[ShardOutcome]:
        """Shards that an earlier version made and that got other columns when they were carried over."""
        base = provenance.read_shards(self.warehouse, recipe["carried"]["uuid"]) if shards else {}
        by_maker: dict[str, list[str]] = {}
        for shard in shards:
            by_maker.setdefault(base[shard].origin, []).append(shard)
        for maker, made in by_maker.items():
            name = _name(self.warehouse, maker)
            earlier = self._recipe(maker)
            again = [s for s in made if s in set(earlier.get("recast", ()))]
            yield from self._recast(earlier, again)
            if own := [s for s in made if s not in again]:
                self.say(f"making {len(own):,} shards of {name} again")
                with self._rebuilt(maker, earlier, own) as (rebuilt, changed):
                    yield from (ShardOutcome(s, name, "not reproducible", why) for s, why in changed.items())
                    yield from self._verdicts(rebuilt, [s for s in own if s not in changed], name, evolved=True)

    def _recipe(self, maker: str) -> dict[str, Any]:
        found = provenance.read_recipes(self.warehouse, [maker]).get(maker)
        if found is None:
            raise NotReproducible("What made it was not recorded such that it can be run again.")
        return found

    @contextmanager
    def _rebuilt(
        self, maker: str, recipe: Mapping[str, Any], shards: Sequence[str]
    ) -> Iterator[tuple[_Rebuilt, dict[str, str]]]:
        """The rows of shards, made again, and the shards that cannot be, with reasons."""
        made = provenance.read_shards(self.warehouse, maker)
        again = _prepared(self.warehouse, recipe)
        self._note(maker, recipe, again)
        changed = {**changed_members(self.warehouse, again.query), **again.changed}
        wanted = [s for s in shards if s not in changed]
        query = again.query
        if set(wanted) != {s for s, known in made.items() if known.origin == maker} - set(recipe.get("recast", ())):
            query = narrowed(query, wanted) or query
            if query is again.query and changed:
                raise NotReproducible("; ".join(list(changed.values())[:3]))
        ledger = Ledger(fresh=True)
        stage: StagingTable | None = None
        try:
            stage, _, _ = derive(self.warehouse, STAGING, settled(query, ledger))
            sources = {**_sources(self.warehouse, recipe), **ledger.shard_sources}
            # Shards that the maker did not make, or which later versions replaced, are no part of the comparison.
            extra = set(stage.shard_rows()) - made.keys() if query is again.query else set()
            kept = dict.fromkeys([*wanted, *sorted(extra)])
            rebuilt = _Rebuilt("rebuilt", 1, stage.uuid, self.warehouse, stage, {s: sources.get(s, "") for s in kept})
            yield rebuilt, {s: why for s, why in changed.items() if s in shards}
        finally:
            if stage is not None:
                stage.drop()
            for finish in ledger.finish:
                finish()
            discard(query)

    def _note(self, maker: str, recipe: Mapping[str, Any], again: Prepared) -> None:
        """Remember what is not as it was when a version was made."""
        self.unpinned |= dict.fromkeys(again.unpinned)
        record = read_records(self.warehouse, [maker]).get(maker)
        package = provenance.package_version()
        if record is not None and record.code.get("package", package) != package:
            self.unpinned[f"Dataset Factory is {package}, it was {record.code['package']}"] = None
        engine = self.warehouse.version
        if recipe.get("engine", engine) != engine:
            self.unpinned[f"ClickHouse is {engine}, it was {recipe['engine']}"] = None
        if record is not None and not again.changed:
            text = without_credentials(Rendering(inline=True).select(again.query))
            if _COMMENT.sub("", text) != _COMMENT.sub("", record.sql):
                self.unpinned["the query becomes other SQL than was recorded"] = None

    def _verdicts(
        self, rebuilt: _Rebuilt, shards: Sequence[str], made_by: str, evolved: bool
    ) -> Iterator[ShardOutcome]:
        """Compare shards with those of the version."""
        if evolved and _fits(rebuilt.stage.columns(), self.version.columns):
            conform(rebuilt.stage, self.version.columns, self.version.source.unit)
        yield from (
            ShardOutcome(s, made_by, "different", f"{one.rows:,} rows that the version does not have", added=one.rows)
            for s, one in rebuilt.shards.items()
            if s not in shards
        )
        ours = self.version.fingerprints(shards)
        theirs = content_fingerprints(self.warehouse, rebuilt.table, rebuilt.columns, rebuilt.sources)
        yield from (ShardOutcome(s, made_by, "equal") for s in shards if ours[s] == theirs[s])
        different = [s for s in shards if ours[s] != theirs[s]]
        old, new = self.version.columns, rebuilt.columns
        columns = {n: rebuilt.shards[s].rows for s in different[:1] for n in old.keys() ^ new.keys()}
        columns |= {n: 0 for n in old if n in new and old[n] != new[n]}
        same = [n for n in old if n in new and old[n] == new[n]]
        for shard, found in (Matching(self.version, rebuilt, same).of(different) if different else {}).items():
            yield _different(shard, made_by, found, columns)


def _different(shard: str, made_by: str, found: ShardDifference, columns: Mapping[str, int]) -> ShardOutcome:
    reason = ""
    if columns:
        reason = f"columns that only one has, or of another type: {', '.join(sorted(columns))}"
    elif found.is_empty:
        reason = "the same rows, from other files"
    elif not (found.added or found.removed or found.changed):
        reason = "the same samples in another order"
    return ShardOutcome(
        shard,
        made_by,
        "different",
        reason,
        found.added,
        found.removed,
        found.changed,
        found.moved,
        {**found.columns, **{n: k or found.rows_after for n, k in columns.items()}},
    )


def _fits(own: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether columns become the wanted ones by adding some, and by taking NULL in."""

    def bare(kind: str) -> str:
        return kind.replace("Nullable(", "(").replace("(", "").replace(")", "")

    return own.keys() <= wanted.keys() and all(bare(t) == bare(wanted[n]) for n, t in own.items())


def _prepared(wh: Warehouse, recipe: Mapping[str, Any]) -> Prepared:
    """The query of a recipe, over the versions as they are named now."""
    uuids = _tables(recipe)
    names = {uuid: known.name for uuid, known in known_versions(wh, uuids).items() if known.is_there} if uuids else {}
    return prepared(recipe, names)


def _tables(recipe: Mapping[str, Any]) -> list[str]:
    return [node["uuid"] for node in recipe.get("nodes", ()) if node.get("uuid")]


def _sources(wh: Warehouse, recipe: Mapping[str, Any]) -> dict[str, str]:
    """Shard -> fingerprint of the files that its rows point into, as of the versions that a query reads."""
    found: dict[str, str] = {}
    for uuid in _tables(recipe):
        for name, shard in provenance.read_shards(wh, uuid).items():
            if shard.source:
                found.setdefault(name, shard.source)
    return found


def _name(wh: Warehouse, uuid: str) -> str:
    known = known_versions(wh, [uuid]).get(uuid)
    return known.name if known else f"version {uuid[:8]}"


def _all(shards: Iterable[str], made_by: str, verdict: Verdict, reason: str) -> list[ShardOutcome]:
    return [ShardOutcome(shard, made_by, verdict, reason) for shard in shards] or [
        ShardOutcome("", made_by, verdict, reason)
    ]
