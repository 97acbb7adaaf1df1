"""Values that an earlier version holds are taken over for samples whose inputs are the same, inside the warehouse.

First by place, which reads nothing: the tar is as it was, and so are the columns that the signal reads. Then by
content: where a tar was rewritten, samples that a version holds under the same id and of the same size are read again
and hashed, which costs their bytes but decodes nothing, and those whose hash is the recorded one keep their values,
wherever in the tar they are now. What is then left is looked for in the other shards of the newest versions: folders
are moved and copied, shards and keys renamed, samples moved to other shards. Samples that are nowhere alike differ for
certain, and are not read for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from factory_lib.build.reuse.alike import Alike
from factory_lib.build.reuse.contents import among, hash_rows, hash_unknown, without_value
from factory_lib.build.reuse.files import ingested_files
from factory_lib.build.reuse.identity import HASH, HashedRows
from factory_lib.build.reuse.staged import Staged
from factory_lib.build.reuse.tables import UNKNOWN_TABLE
from factory_lib.errors import EngineError
from factory_lib.plan.sqltext import quote
from factory_lib.warehouse.computed import Earlier, Held, earlier_values
from factory_lib.warehouse.scratch import scratch_table
from factory_lib.warehouse.staging import table_columns

logger = logging.getLogger(__name__)

_SHARDS_AT_ONCE = 200
_TIMES_THE_SHARDS = 4
"""Renaming leaves about as many shards as there were: where many more hold rows of the same sizes, that is chance."""


def take_over(staged: Sequence[Staged], types: Mapping[str, str]) -> None:
    """Stage the values of signals that versions hold for rows that have none yet.

    Args:
        staged: the signals' staged values, of the same rows.
        types: column -> ClickHouse type of the rows.
    """
    if not staged:
        return
    missing = {one.name: _missing_shards([one]) for one in staged}
    shards = sorted({shard for some in missing.values() for shard in some})
    if not shards:
        return
    fingerprints = [one.fingerprint for one in staged]
    for rank in earlier_values(staged[0].warehouse, fingerprints, shards):
        _take_all(_groups(staged, rank, missing, types))
        missing = {one.name: _missing_shards([one]) if missing[one.name] else [] for one in staged}
        if not any(missing.values()):
            return
    for rank in earlier_values(staged[0].warehouse, fingerprints, None, most=1):
        anywhere = {one.name: [shard for e in rank for shard in e.sources] for one in staged if missing[one.name]}
        _take_all(_alike(_groups(staged, rank, anywhere, types)))


def _take_all(groups: Iterable[_Group]) -> None:
    for group in groups:
        try:
            _take(group)
        except EngineError as error:
            if error.code != UNKNOWN_TABLE:  # the version was dropped meanwhile
                raise


@dataclass(frozen=True)
class _Group:
    """Signals that read the same, and shards of a version that hold values of all of them.

    Attributes:
        staged: their staged values -> the columns of the version.
        earlier: the version's table, what it calls what the signals read, and the shards.
        alike: where rows of other shards may be the same: which rows of the version, and of now, are looked at.
    """

    staged: tuple[tuple[Staged, Held], ...]
    earlier: Earlier
    alike: Alike | None = None

    @property
    def first(self) -> Staged:
        """One of them, to ask what all have in common."""
        return self.staged[0][0]

    def wanted(self, match: str) -> str:
        """SQL condition on the inputs: one of the signals lacks a value, and no row was found that may have it."""
        lacks = f"({' OR '.join(one.is_missing() for one, _ in self.staged)})"
        found = f"AND (shard, {self.first.identity}) NOT IN (SELECT target, identity FROM {match})" if match else ""
        return f"{lacks} {found}"

    @property
    def targets(self) -> str:
        """SQL condition on the inputs: they are in shards that may get values."""
        return "1" if self.alike else among(self.earlier.sources)

    def is_target(self, now: str, then: str) -> str:
        """SQL of whether a row of now, of this shard, may get the value of a row of then."""
        return "1" if self.alike else f"{now} = {then}"


def _groups(
    staged: Sequence[Staged], rank: Sequence[Earlier], missing: Mapping[str, Sequence[str]], types: Mapping[str, str]
) -> list[_Group]:
    found: dict[str, _Group] = {}
    columns: dict[str, dict[str, str]] = {}
    for one in staged:
        wanted = set(missing.get(one.name, ()))
        for earlier in rank:
            some = {shard: source for shard, source in earlier.sources.items() if shard in wanted}
            if not some or earlier.held.fingerprint != one.fingerprint:
                continue
            if earlier.table not in columns:
                columns[earlier.table] = _columns(one, earlier.table)
            if not _fits(one, earlier.held, columns[earlier.table], types):
                continue
            for piece in _pieces(some):
                reads = sorted(earlier.held.reads.items())
                key = repr((earlier.table, earlier.checked, one.reads, reads, sorted(piece.items())))
                known = found.get(key, _Group((), replace(earlier, sources=piece)))
                found[key] = replace(known, staged=(*known.staged, (one, earlier.held)))
    return list(found.values())


def _columns(staged: Staged, table: str) -> dict[str, str]:
    database, _, name = table.replace("`", "").partition(".")
    return table_columns(staged.warehouse, database, name)[0]


def _fits(staged: Staged, held: Held, there: Mapping[str, str], types: Mapping[str, str]) -> bool:
    """Whether a version has the columns, with the types of now: equal hashes of other types could be other values."""
    return (
        there.get(held.value) == staged.signal.output.clickhouse
        and held.error in there
        and all(c in held.reads and there.get(held.reads[c]) == types[c] for c in staged.signal.reads)
    )


def _missing_shards(staged: Sequence[Staged]) -> list[str]:
    lacks = " OR ".join(one.is_missing() for one in staged)
    rows = staged[0].warehouse.rows(f"SELECT DISTINCT shard FROM {staged[0].inputs.name} WHERE {lacks}")
    return sorted(row["shard"] for row in rows)


def _alike(groups: Sequence[_Group]) -> Iterator[_Group]:
    """The groups over the shards that hold rows like those that lack a value."""
    by_table: dict[str, list[_Group]] = {}
    for group in groups:
        by_table.setdefault(repr((group.earlier.table, [h for _, h in group.staged])), []).append(group)
    for same in by_table.values():
        first, earlier = same[0].first, same[0].earlier
        alike = Alike(first.inputs, first.reads, earlier.held, same[0].wanted(""))
        there = set(alike.shards(earlier.table))
        if len(there) > _TIMES_THE_SHARDS * len(_missing_shards([first])):
            alike = replace(alike, by_size=False)
            there = set(alike.shards(earlier.table))
        sources = {shard: source for one in same for shard, source in one.earlier.sources.items() if shard in there}
        for piece in _pieces(sources):
            yield replace(same[0], earlier=replace(earlier, sources=piece), alike=alike)


def _take(group: _Group) -> None:
    one, earlier = group.first, group.earlier
    with _match(one) as match, ingested_files(one.warehouse, earlier.sources if one.reads.members else {}) as files:
        of_then = among(earlier.sources, "_t.shard")
        where = f"{of_then} AND {group.alike.then()}" if group.alike else of_then
        rows = HashedRows(earlier.table, files, earlier.held.reads, where)
        _by_place(group, match, rows)
        if one.reads.members and (shards := _unmatched(group, match)):
            if group.alike:
                _by_likeness(group, group.alike, match, rows, shards)
            else:
                some = replace(rows, where=among(shards, "_t.shard"))
                hash_unknown(one.inputs, one.reads, group.wanted(match), some, shards)
                _by_content(group, match, some, shards)
        for staged, held in group.staged:
            value, error = f"_t.{quote(held.value)}", f"_t.{quote(held.error)}"
            found = (
                f" FROM {earlier.table} AS _t INNER JOIN {match} AS _m ON _m.shard = toString(_t.shard)"
                f" AND _m.position = _t.position WHERE {of_then}"
            )
            _tell_bare(staged, earlier, f"SELECT count(){found} AND {staged.is_bare(value, error)}")
            staged.take(
                f"SELECT _m.target AS shard, _m.position AS position, _m.identity AS identity, {value} AS value,"
                f" {error} AS error{found} AND {staged.reusable(value, error, checked=earlier.checked)}"
            )


def _by_likeness(group: _Group, alike: Alike, match: str, rows: HashedRows, shards: Sequence[str]) -> None:
    """Read and compare rows that are like rows of then: where sizes alone are equal a few of each shard, and the others
    where one of these was found."""

    def compare(where: str, some: Sequence[str]) -> None:
        hash_rows(group.first.inputs, group.first.reads, where, some)
        _by_content(group, match, rows, some)

    def found() -> dict[str, int]:
        counts = group.first.warehouse.rows(f"SELECT target, count() AS rows FROM {match} GROUP BY target")
        return {row["target"]: int(row["rows"]) for row in counts}

    compare(alike.now(rows, group.wanted(match), shards), shards)
    if not alike.by_size:
        return
    before = found()
    compare(alike.few_of_size(rows, group.wanted(match), shards), shards)
    renamed = [shard for shard, count in found().items() if count > before.get(shard, 0)]
    if renamed:
        compare(alike.of_size(rows, group.wanted(match), renamed), renamed)


def _tell_bare(staged: Staged, earlier: Earlier, count: str) -> None:
    """Say what a version lacks: neither a value nor an error means that a value was lost on its way."""
    bare = int(staged.warehouse.scalar(count))
    if bare and not (earlier.checked and staged.may_be_empty):
        version = earlier.table.replace("`", "")
        logger.warning(
            "%s has neither a value nor an error of %s in %s rows: these are computed.",
            version,
            staged.signal.name,
            bare,
        )


def _match(staged: Staged) -> AbstractContextManager[str]:
    """A table of rows of a version (`shard`, `position`) that have the inputs of rows of now (`target`, `identity`)."""
    columns = f"shard String, position UInt32, target String, identity {HASH}"
    return scratch_table(staged.warehouse, "match", columns)


def _unmatched(group: _Group, match: str) -> list[str]:
    where = f"{group.targets} AND {group.wanted(match)}"
    rows = group.first.warehouse.rows(f"SELECT DISTINCT shard FROM {group.first.inputs.name} WHERE {where}")
    return sorted(row["shard"] for row in rows)


def _by_place(group: _Group, match: str, rows: HashedRows) -> None:
    one = group.first
    wanted = (
        f"SELECT DISTINCT shard, {one.identity} AS identity FROM {one.inputs.name}"
        f" WHERE {group.targets} AND {group.wanted(match)}"
    )
    one.warehouse.execute(
        f"INSERT INTO {match} SELECT _t.shard, _t.position, _i.shard, _i.identity"
        f" FROM ({rows.by_place([one.reads])}) AS _t INNER JOIN ({wanted}) AS _i ON _i.identity = _t.identity_0"
        f" WHERE {group.is_target('_i.shard', '_t.shard')} LIMIT 1 BY _i.shard, _i.identity"
    )


def _by_content(group: _Group, match: str, rows: HashedRows, shards: Sequence[str]) -> None:
    # Several rows of now may have the same content in different places, and several of then, too.
    one, inputs = group.first, group.first.inputs
    now = replace(inputs.rows, where=without_value(inputs, group.wanted(match), shards)).by_content(one.reads)
    places = (
        f"SELECT _n.shard AS shard, _n.identity_0 AS content, groupUniqArray(_i.{one.identity}) AS places"
        f" FROM ({now}) AS _n INNER JOIN {inputs.name} AS _i ON _i.shard = _n.shard AND _i.position = _n.position"
        " GROUP BY _n.shard, _n.identity_0"
    )
    # One row of then for each content of a shard, and only then all places that have it.
    found = (
        "SELECT _t.shard AS shard, _t.position AS position, _p.shard AS target, _p.places AS places"
        f" FROM (SELECT * FROM ({rows.by_content(one.reads)}) LIMIT 1 BY shard, identity_0) AS _t"
        f" INNER JOIN ({places}) AS _p ON _p.content = _t.identity_0"
        f" WHERE {group.is_target('_p.shard', '_t.shard')} LIMIT 1 BY _p.shard, _p.content"
    )
    one.warehouse.execute(f"INSERT INTO {match} SELECT shard, position, target, arrayJoin(places) FROM ({found})")


def _pieces(sources: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Shards in pieces: the parser bounds the size of a statement."""
    items = list(sources.items())
    for i in range(0, len(items), _SHARDS_AT_ONCE):
        yield dict(items[i : i + _SHARDS_AT_ONCE])
