"""Where a version comes from: the versions and sources that it was made of, and those that these were made of.

A shard of a version was made by that version or carried over from an earlier one, and what made it may have read one
shard alone: ancestors are followed shard by shard, so that a version of 200 shards has no more than 200 of them in a
dataset, however often that was merged into.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from factory_lib.history.origins import KnownVersion, known_versions
from factory_lib.names import CATALOG
from factory_lib.tables import arrow_table
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.schema import ensure_tables
from factory_lib.warehouse.versions import Version

_AT_ONCE = 1_000
"""Versions that one statement names; a server takes no longer lists."""

SETTINGS = {"max_recursive_cte_evaluation_depth": 100_000, "max_threads": 1}
"""For statements that walk over versions: as deep as they may go. More threads make a generation, 5 ms, longer."""

PARENTS = (
    "SELECT uuid, parent.uuid AS parent, place = 1 AND position(storage, 'copy') = 0 AS by_shard"
    f" FROM {CATALOG}.versions ARRAY JOIN parents AS parent, arrayEnumerate(parents) AS place"
)
"""What versions were made of. A shard comes from that of the same name in the table whose rows it has, which is named
first (`by_shard`); a copy mixes shards, and tables that are only looked up are read as a whole."""

_ASKED = (
    "SELECT DISTINCT parent AS version, if(by_shard, made, '') AS shard, NOT (by_shard AND recorded) AS whole,"
    f" generation + 1 AS step FROM walk INNER JOIN ({PARENTS}) AS parents ON parents.uuid = maker"
)


def _makers(asked: str, versions: str) -> str:
    """Who made the shards of versions that are asked for; `versions` picks these alone from the catalog.

    A version without shards, or of which none were recorded, may have parents all the same: it is its own maker.
    """
    return (
        "SELECT DISTINCT version, if(recorded, origin, version) AS maker, made, recorded, step AS generation FROM"
        f" (SELECT uuid, origin, shard AS made, true AS recorded FROM {CATALOG}.shards WHERE uuid IN ({versions}))"
        f" AS shards RIGHT JOIN ({asked}) AS asked ON uuid = version WHERE whole OR NOT recorded OR made = shard"
    )


_FIRST = _makers("SELECT {u:UUID} AS version, '' AS shard, true AS whole, 0 AS step", "SELECT {u:UUID}")
_NEXT = _makers(_ASKED, f"SELECT parent FROM ({PARENTS}) WHERE uuid IN (SELECT maker FROM walk)")
_WALK = (
    f"WITH RECURSIVE walk AS ({_FIRST} UNION ALL {_NEXT})"
    " SELECT toString(version) AS version, toString(maker) AS maker, groupUniqArrayIf(made, recorded) AS shards"
    " FROM walk GROUP BY version, maker ORDER BY min(generation)"
)

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
    """The versions and sources that a version comes from, or the versions that come from it.

    Attributes:
        version: its name.
        versions: name -> version, the one asked about first.
        sources: URI -> format.
        links: what was made of what.
        down: whether it is what comes from the version.
    """

    version: str
    versions: dict[str, Ancestor] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    down: bool = False

    def _repr_html_(self) -> str:
        from factory_lib.history.shown import lineage_page

        return lineage_page(self)

    def to_arrow(self) -> pa.Table:
        """One row a link: what was made of what, and of how many shards."""
        return arrow_table(Link, self.links)


@dataclass(frozen=True)
class Recorded:
    """What the catalog says of a version that stands in a lineage.

    Attributes:
        parents: UUID -> name, of versions that it was made of.
        sources: URI -> format.
    """

    ancestor: Ancestor
    parents: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)


def lineage(version: Version) -> Lineage:
    """Where a version comes from, up to the sources.

    Raises:
        EngineError: the catalog was edited so that a version comes from itself.
    """
    ensure_tables(version.warehouse)
    rows = version.warehouse.rows(_WALK, {"u": version.uuid}, SETTINGS)
    uuids = dict.fromkeys(uuid for row in rows for uuid in (row["version"], row["maker"]))
    known = recorded(version.warehouse, uuids)
    names = {uuid: one.ancestor.name for uuid, one in known.items()}
    made: dict[str, set[str]] = {}
    links = []
    for row in rows:
        made.setdefault(row["maker"], set()).update(row["shards"])
        if row["maker"] != row["version"]:
            links.append(Link(names[row["maker"]], names[row["version"]], "carried over", len(row["shards"])))
    for uuid, shards in made.items():
        child = known[uuid]
        links += [Link(names.get(u, name), names[uuid], "made of", len(shards)) for u, name in child.parents.items()]
        links += [Link(uri, names[uuid], "read from", len(shards)) for uri in child.sources]
    return Lineage(
        version=str(version),
        versions={one.ancestor.name: one.ancestor for one in known.values()},
        sources={uri: kind for uuid in made for uri, kind in known[uuid].sources.items()},
        links=links,
    )


def put_together(name: str, inputs: Sequence[Lineage]) -> Lineage:
    """The lineage of something that is no version, such as a model, by those of the versions that it was made of."""
    found = Lineage(name, {name: Ancestor(name, "", is_there=True)})
    for one in inputs:
        found.versions |= one.versions
        found.sources |= one.sources
        found.links.append(Link(one.version, name, "made of", 0))
    found.links += dict.fromkeys(link for one in inputs for link in one.links)
    return found


def recorded(warehouse: Warehouse, uuids: Iterable[str]) -> dict[str, Recorded]:
    """What the catalog says of versions by their UUIDs; one of which it knows nothing is called by its UUID."""
    wanted = list(uuids)
    rows: dict[str, dict[str, Any]] = {}
    known: dict[str, KnownVersion] = {}
    for start in range(0, len(wanted), _AT_ONCE):
        some = wanted[start : start + _AT_ONCE]
        known |= known_versions(warehouse, some)
        found = warehouse.rows(
            "SELECT toString(uuid) AS id, rows, JSONExtractString(record, 'created') AS created, storage,"
            " JSONExtractString(record, 'python') AS python, signals.name AS signals,"
            " arrayMap(p -> (toString(p.uuid), p.name), parents) AS parents, sources"
            f" FROM {CATALOG}.versions WHERE has({{u:Array(UUID)}}, uuid)",
            {"u": some},
        )
        rows |= {row.pop("id"): row for row in found}
    said = {uuid: name for row in rows.values() for uuid, name in map(_pair, row["parents"])}
    names = {u: known[u].name if u in known else said.get(u, f"version {u[:8]}") for u in wanted}
    return {u: _recorded(names[u], u, u in known and known[u].is_there, rows.get(u)) for u in wanted}


def _recorded(name: str, uuid: str, is_there: bool, row: dict[str, Any] | None) -> Recorded:
    if row is None:
        return Recorded(Ancestor(name, uuid, is_there))
    signals = tuple(row["signals"])
    ancestor = Ancestor(name, uuid, is_there, row["rows"], row["created"], row["storage"], row["python"], signals)
    return Recorded(ancestor, dict(map(_pair, row["parents"])), dict(map(_pair, row["sources"])))


def _pair(value: Any) -> tuple[str, str]:
    first, second = value.values() if isinstance(value, dict) else value
    return first, second
