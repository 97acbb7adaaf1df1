"""What became of something: the versions that were made of a version, have values of a signal, or point into files.

Versions that were made of a version are found as those that it comes from are: shard by shard (see `lineage`).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import NoReturn

from factory_lib.errors import NotFound, nearest
from factory_lib.history.lineage import PARENTS, SETTINGS, Lineage, Link, recorded
from factory_lib.names import CATALOG
from factory_lib.redaction import redact
from factory_lib.storage.store import store
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.schema import ensure_tables
from factory_lib.warehouse.versions import Version

_NAMED = 5
_SHARDS = f"(SELECT groupArray(shard) FROM {CATALOG}.shards WHERE uuid = {{u:UUID}})"
_CHILDREN = f"SELECT uuid FROM ({PARENTS}) WHERE parent IN (SELECT version FROM walk)"
# A child without shards, or of which none were recorded, is made of the version all the same.
_MADE = (
    "SELECT version AS ancestor, child, 'made of' AS kind, made AS part, generation + 1 AS step FROM"
    f" (SELECT uuid, shard AS made, true AS recorded FROM {CATALOG}.shards"
    f"  WHERE uuid = origin AND uuid IN ({_CHILDREN})) AS shards RIGHT JOIN"
    "  (SELECT version, shard, generation, uuid AS child, by_shard FROM walk"
    f"  INNER JOIN ({PARENTS}) AS parents ON parents.parent = version) AS asked ON uuid = child"
    " WHERE NOT by_shard OR NOT recorded OR made = shard OR shard = ''"
)
_CARRIED = (
    "SELECT version AS ancestor, carrier AS child, 'carried over' AS kind, shard AS part, generation + 1 AS step FROM"
    f" (SELECT uuid AS carrier, origin, shard AS carried FROM {CATALOG}.shards WHERE uuid != origin"
    "  AND origin IN (SELECT version FROM walk)) AS carriers INNER JOIN walk ON origin = version AND carried = shard"
)
_WALK = (
    "WITH RECURSIVE walk AS (SELECT {u:UUID} AS parent, {u:UUID} AS version, '' AS kind,"
    f"  arrayJoin(emptyArrayToSingle({_SHARDS})) AS shard, 0 AS generation UNION ALL"
    "  SELECT DISTINCT ancestor AS parent, child AS version, kind, part AS shard, step AS generation"
    f"  FROM ({_MADE} UNION ALL {_CARRIED}))"
    " SELECT toString(parent) AS parent, toString(version) AS version, kind, uniqExactIf(shard, shard != '') AS shards"
    " FROM walk GROUP BY parent, version, kind ORDER BY min(generation), version"
)


@dataclass(frozen=True)
class Use:
    """A version that computed values of a signal, or carries over such shards, or that points into files.

    Attributes:
        version: its name.
        what: fingerprint of the signal, or URI of the file.
        shards: in how many of its shards.
        is_there: False when it was dropped.
    """

    version: str
    what: str
    shards: int
    is_there: bool


def descent(version: Version) -> Lineage:
    """What was made of a version, what was made of that, and so on.

    Raises:
        EngineError: the catalog was edited so that a version comes from itself.
    """
    ensure_tables(version.warehouse)
    rows = version.warehouse.rows(_WALK, {"u": version.uuid}, SETTINGS)
    known = recorded(version.warehouse, dict.fromkeys(row["version"] for row in rows))
    names = {uuid: one.ancestor.name for uuid, one in known.items()}
    links = [Link(names[r["parent"]], names[r["version"]], r["kind"], r["shards"]) for r in rows if r["kind"]]
    return Lineage(str(version), {one.ancestor.name: one.ancestor for one in known.values()}, {}, links, down=True)


def uses(warehouse: Warehouse, thing: str) -> list[Use]:
    """The versions that computed values of a signal or carry them over, or that point into files.

    What was made of these versions, and so may have the values, too, `descent` tells.

    Args:
        thing: a signal's name or fingerprint, or the URI of a file, of a folder of files, or of a source.

    Raises:
        NotFound: no version does.
    """
    ensure_tables(warehouse)
    if "/" in thing:
        return _of_files(warehouse, store().resolve(thing)) or _no_such_file(warehouse, store().resolve(thing))
    found = _of_signal(warehouse, thing)
    if not found:
        known = warehouse.rows(f"SELECT DISTINCT arrayJoin(signals.name) AS name FROM {CATALOG}.versions")
        hint = nearest(thing, [row["name"] for row in known]) or "Name a signal, or the URI of a file or folder."
        raise NotFound(f"No version computed values of a signal {thing!r}.", hint)
    return found


def _no_such_file(warehouse: Warehouse, uri: str) -> NoReturn:
    """Say which file may be meant: the most alike of those that have its name, or lie in its folder.

    Raises:
        NotFound: always.
    """
    folder, _, name = uri.rpartition("/")
    rows = warehouse.rows(
        f"SELECT DISTINCT uri FROM {CATALOG}.files WHERE endsWith(uri, concat('/', {{n:String}}))"
        " OR startsWith(uri, concat({f:String}, '/')) LIMIT 1000",
        {"n": name, "f": folder},
    )
    near = difflib.get_close_matches(uri, [row["uri"] for row in rows], n=1)
    sources = warehouse.rows(
        f"SELECT DISTINCT arrayJoin(sources.uri) AS uri FROM {CATALOG}.versions LIMIT {_NAMED + 1}"
    )
    known = ", ".join(row["uri"] for row in sources[:_NAMED]) + (", …" if len(sources) > _NAMED else "")
    hint = f"Did you mean {near[0]!r}?" if near else f"Sources of versions: {known}." if known else ""
    raise NotFound(f"No version points into {redact(uri)}.", hint)


def _of_signal(warehouse: Warehouse, name: str) -> list[Use]:
    prints = (
        f"SELECT DISTINCT signal.fingerprint FROM {CATALOG}.versions ARRAY JOIN signals AS signal"
        " WHERE {t:String} IN (signal.name, signal.fingerprint)"
    )
    holders = f"SELECT origin, shard, fingerprint AS what FROM {CATALOG}.signal_values WHERE fingerprint IN ({prints})"
    return _used(warehouse, f"({holders}) AS held USING (origin, shard)", name)


def _of_files(warehouse: Warehouse, uri: str) -> list[Use]:
    files = (
        f"SELECT source, uri AS what FROM {CATALOG}.files"
        " WHERE uri = {t:String} OR startsWith(uri, concat(trimRight({t:String}, '/'), '/'))"
    )
    return _used(warehouse, f"({files}) AS files USING (source)", uri)


def _used(warehouse: Warehouse, join: str, thing: str) -> list[Use]:
    rows = warehouse.rows(
        f"SELECT toString(uuid) AS id, what, uniqExact(shard) AS n FROM {CATALOG}.shards INNER JOIN {join}"
        " GROUP BY uuid, what ORDER BY id, what",
        {"t": thing},
    )
    known = {uuid: one.ancestor for uuid, one in recorded(warehouse, dict.fromkeys(r["id"] for r in rows)).items()}
    found = [Use(known[r["id"]].name, r["what"], r["n"], known[r["id"]].is_there) for r in rows]
    return sorted(found, key=lambda use: (use.what, _place(use.version)))


def _place(name: str) -> tuple[str, int]:
    dataset, _, number = name.rpartition(".v")
    return (dataset, int(number)) if number.isdigit() else (name, 0)
