"""Follows one sample from a version back to its source, from each table to the one whose rows it was made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from factory_lib.errors import EngineError
from factory_lib.history.dropping import why_dropped
from factory_lib.history.finding import Place
from factory_lib.history.origins import known_versions, read_records
from factory_lib.plan.nodes import PARENT
from factory_lib.plan.sqltext import literal
from factory_lib.plan.storing import SYSTEM
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.provenance import Provenance
from factory_lib.warehouse.versions import Version

DUPLICATE_OF = "duplicate_of"
"""Column of a table of near-duplicates: the `sample_id` of the better sample."""

Row = dict[str, Any]
_SETTINGS = {"prefer_column_name_to_alias": 1}


@dataclass(frozen=True)
class Failure:
    """A condition of a query that the sample does not meet.

    Attributes:
        condition: as Python.
        values: the columns that it asks about.
    """

    condition: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Mention:
    """Another table that a stage looked the sample up in, such as one of near-duplicates.

    Attributes:
        values: what stands there of it.
        duplicate_of: the sample that it is a near-duplicate of: key, sample_id, and where its bytes are.
    """

    version: str
    values: Mapping[str, Any]
    duplicate_of: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Stop:
    """The sample in one version on its way.

    Attributes:
        is_there: whether it is in the version; None where that cannot be told, as the version was dropped.
        row: what the version has of it.
        record: what made the shard that it is in, or would be in.
        base_row: what the version has of it whose rows this one was made of.
        failures, reason: why it is not there although it was before.
        mentions: tables beside, in which it stands.
    """

    name: str
    is_there: bool | None
    row: Row | None
    record: Provenance | None
    base_row: Row | None = None
    failures: Sequence[Failure] = ()
    reason: str = ""
    mentions: Sequence[Mention] = ()


def sample_history(version: Version, place: Place) -> Iterator[Stop]:
    """The stops of a sample, from a version back to the source.

    Args:
        place: where it is, in the version or in one that it was made of.
    """
    walk = _SampleWalk(version.warehouse, place)
    uuid: str | None = version.uuid
    walk.names[version.uuid] = str(version)
    while uuid is not None:
        stop, uuid = walk.stop(uuid)
        yield stop


def pointers_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a row that point at bytes."""
    return {name: v for name, v in row.items() if isinstance(v, dict) and v.keys() == {"uri", "offset", "size"}}


class _SampleWalk:
    def __init__(self, warehouse: Warehouse, place: Place) -> None:
        self.warehouse = warehouse
        self.place = place
        self.names: dict[str, str] = {}
        self.rows: dict[str, Row | None] = {}

    def stop(self, uuid: str) -> tuple[Stop, str | None]:
        """The sample in a version, and the version that this one's rows come from."""
        version, row = self._version(uuid), self._row(uuid)
        maker = self._maker(version, row)
        record = read_records(self.warehouse, [maker]).get(maker) if maker else None
        record = record or read_records(self.warehouse, [uuid]).get(uuid)
        parents = [p["uuid"] for p in record.parents] if record else []
        self.names |= {p["uuid"]: p["name"] for p in record.parents} if record else {}
        base = next((p for p in parents if self._row(p)), parents[0] if parents else None)
        base_row = self._row(base) if base else None
        if row is not None and row.get(PARENT) is not None and base_row is None:
            base = None  # it was made here, of a sample with another id
        is_there = (row is not None) if version else None
        failures: tuple[Failure, ...] = ()
        reason = ""
        if is_there is False and base is not None and base_row is not None:
            assert version is not None
            failures, reason = self._why(version, maker, record, base, base_row)
        mentions = [self._mention(p, base, base_row or {}) for p in parents if p != base and self._row(p)]
        return Stop(self.names[uuid], is_there, row, record, base_row, failures, reason, mentions), base

    def _version(self, uuid: str) -> Version | None:
        known = known_versions(self.warehouse, [uuid]).get(uuid)
        if known is None or not known.is_there:
            return None
        dataset, _, number = known.name.rpartition(".v")
        return Version(dataset, int(number), uuid, self.warehouse)

    def _row(self, uuid: str) -> Row | None:
        """What a version has of the sample; None where it is not in it, or the version was dropped."""
        if uuid not in self.rows:
            version = self._version(uuid)
            self.rows[uuid] = None if version is None else self._read(version, self.place.sample_id)
        return self.rows[uuid]

    def _read(self, version: Version, sample_id: int) -> Row | None:
        """The row of a sample: looked for in its shard first, if the version has such a shard."""
        first = [f"AND shard = {literal(self.place.shard)}"] if self.place.shard in version.shards else []
        for where in [*first, ""]:
            query = f"SELECT * FROM {version.table} WHERE sample_id = {int(sample_id)} {where} LIMIT 1"
            if rows := self.warehouse.rows(query):
                return rows[0]
        return None

    def _maker(self, version: Version | None, row: Row | None) -> str | None:
        """The version that made the shard that the sample is in, or would be in."""
        if version is None:
            return None
        shard = version.shards.get(row["shard"] if row else self.place.shard)
        return shard.origin if shard else None

    def _why(
        self, version: Version, maker: str | None, record: Provenance | None, base: str, base_row: Row
    ) -> tuple[tuple[Failure, ...], str]:
        """The conditions that the sample does not meet, or another reason why a version does not have it."""
        conditions = record.predicates if record else []
        table = self._version(base)
        assert table is not None
        met = [self._is_met(table, base_row, c["sql"]) if c["sql"] else None for c in conditions]
        failures = tuple(
            Failure(c["python"], {n: base_row[n] for n in c["columns"] if n in base_row})
            for c, holds in zip(conditions, met, strict=True)
            if holds is False
        )
        if failures:
            return failures, ""
        open_ = [c["python"] for c, holds in zip(conditions, met, strict=True) if holds is None]
        if open_:
            return (), "it does not meet one of these, on values that were not kept: " + "; ".join(open_)
        if self.place.shard not in version.shards and "copy" not in (record.storage if record else ""):
            return (), f"{version} has no shard {self.place.shard!r}"
        why = why_dropped(self.warehouse, maker or version.uuid, self.place.sample_id)
        return (), why or "its query keeps other rows"

    def _is_met(self, table: Version, row: Row, condition: str) -> bool | None:
        """Whether a row meets a condition; None when the engine cannot tell any more."""
        where = f"shard = {literal(row['shard'])} AND position = {int(row['position'])}"
        query = f"SELECT ifNull(({condition}), 0) != 0 FROM {table.table} WHERE {where}"
        try:
            return bool(self.warehouse.scalar(query, settings=_SETTINGS))
        except EngineError:
            return None

    def _mention(self, uuid: str, base: str | None, base_row: Row) -> Mention:
        row = self._row(uuid) or {}
        own = {n: v for n, v in row.items() if n not in SYSTEM and n not in base_row and n not in pointers_of(row)}
        better = None
        table = self._version(base) if base else None
        if row.get(DUPLICATE_OF) is not None and table is not None:
            found = self.warehouse.rows(
                f"SELECT * FROM {table.table} WHERE sample_id = {int(row[DUPLICATE_OF])} LIMIT 1"
            )
            better = {n: found[0][n] for n in ("key", "sample_id", *pointers_of(found[0]))} if found else None
        return Mention(self.names[uuid], own, better)
