"""Where a version comes from: the versions and sources that it was made of, and those that these were made of.

A shard of a version was made by that version or carried over from an earlier one, and what made it may have read one
shard alone: ancestors are followed shard by shard, so that a version of 200 shards has no more than 200 of them in a
dataset, however often that was merged into.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from factory_lib.history.origins import known_versions, read_records
from factory_lib.names import CATALOG
from factory_lib.tables import arrow_table
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.provenance import Provenance
from factory_lib.warehouse.versions import Version

_DEEP = 8
"""From this generation on everything is read at once instead of generation by generation."""

Kind = Literal["made of", "carried over", "read from"]


@dataclass(frozen=True)
class Ancestor:
    """A version in the lineage of another.

    Attributes:
        name: `laion.v3`.
        is_there: whether it still is; False when it was dropped.
        python: the query that made it.
        signals: names of the signals that it computed.
    """

    name: str
    uuid: str
    is_there: bool
    rows: int | None = None
    created: str = ""
    storage: str = ""
    python: str = ""
    signals: tuple[str, ...] = ()

    @property
    def dataset(self) -> str:
        """Name of its dataset."""
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Link:
    """One step of a lineage: `child` was made of, carried shards over from, or was read from `parent`."""

    parent: str
    child: str
    kind: Kind
    shards: int


@dataclass
class Lineage:
    """The versions and sources that a version comes from.

    Attributes:
        version: its name.
        versions: name -> version, the one asked about first.
        sources: URI -> format.
        links: what was made of what.
    """

    version: str
    versions: dict[str, Ancestor] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)

    def to_arrow(self) -> pa.Table:
        """One row a link: what was made of what, and of how many shards."""
        return arrow_table(Link, self.links)


def lineage(version: Version) -> Lineage:
    """Where a version comes from, up to the sources."""
    walk = _Walk(version.warehouse)
    walk.from_version(version.uuid)
    uuids = list(walk.uuids)
    known = known_versions(version.warehouse, uuids)
    records = {**walk.records, **read_records(version.warehouse, set(uuids) - walk.records.keys())}
    names = {u: known[u].name if u in known else walk.parent_names.get(u, f"version {u[:8]}") for u in uuids}
    return Lineage(
        version=str(version),
        versions={names[u]: _ancestor(names[u], u, u in known and known[u].is_there, records.get(u)) for u in uuids},
        sources=walk.sources,
        links=[Link(names.get(p, p), names[c], kind, n) for (p, c, kind), n in walk.links.items()],
    )


class _Walk:
    """Goes from a version to its ancestors, one generation after the other, with two queries each."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse
        self.records: dict[str, Provenance] = {}
        self.parent_names: dict[str, str] = {}
        self.sources: dict[str, str] = {}
        self.links: dict[tuple[str, str, Kind], int] = {}
        self.uuids: dict[str, None] = {}
        self.shards: dict[str, dict[str, list[str]]] = {}
        self.made: set[tuple[str, str]] = set()
        self.asked: set[tuple[str, str | None]] = set()

    def from_version(self, uuid: str) -> None:
        """Follow the shards of a version to wherever they come from."""
        wanted: dict[str, set[str] | None] = {uuid: None}  # version -> shards of it, None for all
        generations = 0
        while wanted:
            generations += 1
            self._read(None if generations == _DEEP else wanted.keys() - self.shards.keys())
            self.uuids.update(dict.fromkeys(wanted))
            makers = self._makers(wanted)
            self.uuids.update(dict.fromkeys(makers))
            self.records |= read_records(self.warehouse, makers.keys() - self.records.keys())
            wanted = self._parents(makers)

    def _read(self, uuids: Collection[str] | None) -> None:
        """Who made the shards of versions; None reads it of all versions, with their records."""
        where = "" if uuids is None else " WHERE has({u:Array(UUID)}, uuid)"
        if uuids is None:
            self.records |= read_records(self.warehouse)
        elif not uuids:
            return
        rows = self.warehouse.rows(
            "SELECT toString(uuid) AS id, toString(origin) AS maker, groupArray(shard) AS shards"
            f" FROM {CATALOG}.shards{where} GROUP BY uuid, origin",
            {} if uuids is None else {"u": list(uuids)},
        )
        found: dict[str, dict[str, list[str]]] = {}
        for row in rows:
            found.setdefault(row["id"], {})[row["maker"]] = row["shards"]
        self.shards |= found

    def _makers(self, wanted: Mapping[str, set[str] | None]) -> dict[str, set[str]]:
        """The versions that made these shards, with the shards; what was there before is left out."""
        found: dict[str, set[str]] = {}
        for uuid, asked in wanted.items():
            # a version without shards, or of which none were recorded, may have parents all the same
            by_maker = self.shards.get(uuid) or {uuid: []}
            for maker, made in by_maker.items():
                shards = {s for s in made if asked is None or s in asked}
                if maker != uuid and shards:
                    self._link(maker, uuid, "carried over", len(shards))
                new = {s for s in shards if (maker, s) not in self.made}
                if new or not made:
                    self.made |= {(maker, s) for s in new}
                    found.setdefault(maker, set()).update(new)
        return found

    def _parents(self, makers: Mapping[str, set[str]]) -> dict[str, set[str] | None]:
        """What these shards were made of: versions, and the shards of them that were not asked about before."""
        wanted: dict[str, set[str] | None] = {}
        for uuid, shards in makers.items():
            record = self.records.get(uuid)
            for source in record.sources if record else []:
                self.sources[source["uri"]] = source["format"]
                self._link(source["uri"], uuid, "read from", len(shards))
            for i, parent in enumerate(record.parents if record else []):
                self.parent_names[parent["uuid"]] = parent["name"]
                self._link(parent["uuid"], uuid, "made of", len(shards))
                # A shard comes from that of the same name in the table whose rows it has, which is named first; a copy
                # mixes shards, and tables that are only looked up are read as a whole.
                narrow = i == 0 and record is not None and "copy" not in record.storage
                self._ask(wanted, parent["uuid"], shards if narrow else None)
        return wanted

    def _ask(self, wanted: dict[str, set[str] | None], uuid: str, shards: set[str] | None) -> None:
        """Want shards of a version, or all of them, unless that was asked before."""
        asked: set[tuple[str, str | None]] = {(uuid, s) for s in shards} if shards is not None else {(uuid, None)}
        if (uuid, None) in self.asked or asked <= self.asked:
            return
        self.asked |= asked
        before = wanted.get(uuid, set())
        wanted[uuid] = None if shards is None or before is None else before | shards

    def _link(self, parent: str, child: str, kind: Kind, shards: int) -> None:
        key = (parent, child, kind)
        self.links[key] = self.links.get(key, 0) + shards


def _ancestor(name: str, uuid: str, is_there: bool, record: Provenance | None) -> Ancestor:
    if record is None:
        return Ancestor(name, uuid, is_there)
    signals = tuple(signal["name"] for signal in record.signals)
    return Ancestor(name, uuid, is_there, record.rows, record.created, record.storage, record.python, signals)
