"""Seals: what a version was when it was published, so that whatever was changed behind the factory's back shows.

A seal holds the version's columns, a checksum of the files of each shard that the version made (carried shards are
those of an earlier seal) and one of what the catalog says of it. The engine keeps checksums of all files of a table:
a seal costs one statement and reads no values. It is written before the rename that publishes the version, and taken
back where nothing is published: a seal without a table is a table that somebody dropped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from factory_lib.names import CATALOG, STAGE_PREFIX, is_dataset_database
from factory_lib.owners import owner
from factory_lib.plan.sqltext import literal
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.mutations import mutate
from factory_lib.warehouse.schema import ensure_tables
from factory_lib.warehouse.space import FREEING

_RECORDED = {
    "versions": ("uuid", "dataset, created, rows, record"),
    "recipes": ("uuid", "recipe"),
    "shards": ("uuid", "shard, rows, origin, made_by, source"),
    "inputs": ("uuid", "shard, root, made_by, given"),
    "signal_values": ("origin", "shard, fingerprint, value, error, toString(reads)"),
}
"""Tables of the catalog that say something of a version: the column with its UUID, and what is sealed."""

_OF_PARTS = "hex(sipHash128(arraySort(groupArray(hash_of_all_files))))"
_OF_COLUMNS = "groupArray((name, type, comment))"
_SEALED = f"(SELECT * FROM {CATALOG}.seals ORDER BY at DESC LIMIT 1 BY uuid)"
"""The seals; a version that lost races for its number has one for each, of which the last counts."""


@dataclass(frozen=True)
class Placed:
    """A table and the version that it was published as.

    Attributes:
        uuid: of the table.
        version: the name that it was published under.
        at: when that was, UTC.
        name: what it is called now, `database.table`; empty where there is no such table any more.
    """

    uuid: str
    version: str
    at: str
    name: str


@dataclass(frozen=True)
class UnverifiedShard:
    """A shard of a version whose files are not known to be those that were published.

    Attributes:
        uuid: of the version's table.
        rows: rows that are recorded of it.
        state: "changed": its files are others; "missing": it has none; "unknown": nobody recorded it; "unsealed": it
            was made before there were seals.
    """

    uuid: str
    shard: str
    rows: int
    state: Literal["changed", "missing", "unknown", "unsealed"]


def seal(warehouse: Warehouse, uuid: str, database: str, table: str, version: str, *, signals: bool = True) -> str:
    """Write down what a table is that is about to be published.

    Args:
        version: the name that it gets.
        signals: whether columns of signals were recorded of it; without, they are not looked for.

    Returns:
        The comment that the table is to have: whose it is, and the version that it was published as.
    """
    made = f"SELECT shard FROM {CATALOG}.shards WHERE uuid = {{u:UUID}} AND origin = {{u:UUID}}"
    there = "database = {d:String} AND table = {t:String}"
    parts = (
        f"SELECT CAST(groupArray((partition, hash)), 'Map(String, String)') FROM (SELECT partition, {_OF_PARTS} AS hash"
        f" FROM system.parts WHERE active AND {there} AND partition IN ({made}) GROUP BY partition)"
    )
    described = f"SELECT name, type, comment FROM system.columns WHERE {there} ORDER BY position"
    # Not in the order of versions, so they are found by shard.
    found_by = {"signal_values": f"AND shard IN ({made})" if signals else "AND 0"}
    records = " UNION ALL ".join(
        f"SELECT '{name}' AS name, (count(), sum(cityHash64({what}))) AS entries FROM {CATALOG}.{name}"
        f" WHERE {key} = {{u:UUID}} {found_by.get(name, '')}"
        for name, (key, what) in _RECORDED.items()
    )
    warehouse.execute(
        f"INSERT INTO {CATALOG}.seals SELECT {{u:UUID}}, {{v:String}}, now64(6, 'UTC'),"
        f" (SELECT {_OF_COLUMNS} FROM ({described})), ({parts}),"
        f" (SELECT CAST(groupArray((name, entries)), 'Map(String, Tuple(UInt64, UInt64))') FROM ({records}))",
        {"u": uuid, "d": database, "t": table, "v": version},
        {"max_threads": 1},
    )
    return json.dumps({**json.loads(owner()), "version": version})


def counted(warehouse: Warehouse, uuid: str, table: str) -> dict[str, int]:
    """What there is of a version that was sealed: rows of its table and of its shards, and its entries in the catalog.

    Args:
        table: its name in SQL.
    """
    rows = warehouse.rows(
        f"SELECT (SELECT count() FROM {table}) AS rows, records['versions'].1 AS versions,"
        f" (SELECT sum(rows) FROM {CATALOG}.shards WHERE uuid = {{u:UUID}}) AS `rows of shards`,"
        " records['recipes'].1 AS recipes, records['signal_values'].1 AS `columns of signals`"
        f" FROM {CATALOG}.seals WHERE uuid = {{u:UUID}} ORDER BY at DESC LIMIT 1",
        {"u": uuid},
    )
    return {name: int(n or 0) for row in rows for name, n in row.items()}


def sealed(warehouse: Warehouse, tables: Sequence[str]) -> dict[str, str]:
    """The sealed ones of these tables, `database.table` -> UUID."""
    ensure_tables(warehouse)
    rows = warehouse.rows(
        "SELECT concat(database, '.', name) AS table, toString(uuid) AS id FROM system.tables"
        f" WHERE has({{t:Array(String)}}, table) AND uuid IN (SELECT uuid FROM {CATALOG}.seals)",
        {"t": list(tables)},
    )
    return {row["table"]: row["id"] for row in rows}


def unseal(warehouse: Warehouse, uuids: Sequence[str]) -> None:
    """Take back the seals of tables that were not published and are about to be dropped."""
    if not uuids:
        return
    ensure_tables(warehouse)
    listed = ", ".join(f"toUUID({literal(uuid)})" for uuid in uuids)
    published = "SELECT uuid FROM system.tables WHERE match(name, '^v[1-9][0-9]*$')"
    gone = f"uuid IN ({listed}) AND uuid NOT IN ({published})"
    if warehouse.scalar(f"SELECT count() FROM {CATALOG}.seals WHERE {gone}"):
        mutate(warehouse, CATALOG, "seals", f"WHERE {gone}", FREEING)
        warehouse.sync()


def unpublished(warehouse: Warehouse) -> list[str]:
    """UUIDs of sealed tables that are still, or for ever, under the names that they were built under."""
    rows = warehouse.rows(
        f"SELECT DISTINCT toString(uuid) AS id FROM {CATALOG}.seals WHERE uuid IN"
        " (SELECT uuid FROM system.tables WHERE startsWith(name, {stage:String}))",
        {"stage": STAGE_PREFIX},
    )
    return [row["id"] for row in rows]


def published_as(comment: str) -> str:
    """The version that a table's comment says it was published as; empty where it says none."""
    try:
        return str(json.loads(comment).get("version", ""))
    except (ValueError, AttributeError):
        return ""


def displaced(warehouse: Warehouse) -> list[Placed]:
    """Published tables that are gone or renamed; none that a policy dropped, or that lie elsewhere."""
    ensure_tables(warehouse)
    rows = warehouse.rows(
        "SELECT toString(s.uuid) AS uuid, s.version AS version, toString(s.at, 'UTC') AS at,"
        " if(empty(t.name), '', concat(t.database, '.', t.name)) AS name"
        f" FROM {_SEALED} AS s LEFT JOIN (SELECT uuid, database, name FROM system.tables) AS t ON t.uuid = s.uuid"
        " WHERE s.version != name AND NOT startsWith(t.name, {stage:String})"
        f" AND s.uuid NOT IN (SELECT uuid FROM {CATALOG}.dropped UNION ALL"
        f" SELECT uuid FROM {CATALOG}.pulled WHERE address != '') ORDER BY version, at",
        {"stage": STAGE_PREFIX},
    )
    return [Placed(**row) for row in rows if is_dataset_database(row["version"].partition(".")[0])]


def sealed_columns(warehouse: Warehouse, uuids: Sequence[str]) -> dict[str, tuple[list[Any], list[Any]]]:
    """UUID -> columns, (name, type, comment) each, as they were sealed and as they are, where these differ."""
    tables = "SELECT uuid, database, name FROM system.tables WHERE has({u:Array(UUID)}, uuid)"
    now = (
        "SELECT t.uuid AS uuid, c.name AS name, c.type AS type, c.comment AS comment FROM system.columns AS c"
        f" INNER JOIN ({tables}) AS t ON c.database = t.database AND c.table = t.name"
        f" WHERE c.database IN (SELECT database FROM ({tables})) ORDER BY uuid, c.position"
    )
    rows = warehouse.rows(
        f"SELECT toString(s.uuid) AS uuid, s.columns AS was, c.columns AS now FROM {_SEALED} AS s"
        f" INNER JOIN (SELECT uuid, {_OF_COLUMNS} AS columns FROM ({now}) GROUP BY uuid) AS c ON c.uuid = s.uuid"
        " WHERE was != now",
        {"u": list(uuids)},
    )
    return {row["uuid"]: ([*map(_values, row["was"])], [*map(_values, row["now"])]) for row in rows}


def sealed_records(warehouse: Warehouse, uuids: Sequence[str]) -> dict[str, dict[str, tuple[int, int]]]:
    """UUID -> table of the catalog -> entries that were sealed and that are there, where these are not the same.

    A version that was not sealed is left out.
    """
    now = " UNION ALL ".join(
        f"SELECT {key} AS uuid, '{name}' AS name, count() AS n, sum(cityHash64({what})) AS hash FROM {CATALOG}.{name}"
        f" WHERE has({{u:Array(UUID)}}, {key}) GROUP BY {key}"
        for name, (key, what) in _RECORDED.items()
    )
    rows = warehouse.rows(
        "SELECT toString(was.uuid) AS uuid, was.name AS name, was.n AS before, now.n AS after FROM"
        " (SELECT uuid, record.1 AS name, record.2.1 AS n, record.2.2 AS hash FROM (SELECT uuid,"
        f"  arrayJoin(CAST(records, 'Array(Tuple(String, Tuple(UInt64, UInt64)))')) AS record FROM {_SEALED}"
        "  WHERE has({u:Array(UUID)}, uuid))) AS was"
        f" LEFT JOIN ({now}) AS now ON now.uuid = was.uuid AND now.name = was.name"
        " WHERE was.n != now.n OR was.hash != now.hash ORDER BY uuid, name",
        {"u": list(uuids)},
    )
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for row in rows:
        found.setdefault(row["uuid"], {})[row["name"]] = (row["before"], row["after"])
    return found


def parts_to_doubt(warehouse: Warehouse, uuids: Sequence[str]) -> list[UnverifiedShard]:
    """Shards of versions whose files are not known to be those that were published."""
    tables = "SELECT uuid, database, name FROM system.tables WHERE has({u:Array(UUID)}, uuid)"
    now = (
        f"SELECT t.uuid AS uuid, partition AS shard, {_OF_PARTS} AS hash FROM system.parts AS p"
        f" INNER JOIN ({tables}) AS t ON p.database = t.database AND p.table = t.name WHERE active"
        f" AND p.database IN (SELECT database FROM ({tables})) GROUP BY uuid, shard"
    )
    was = (
        "SELECT s.uuid AS uuid, s.shard AS shard, s.rows AS rows, p.hash AS hash FROM"
        f" (SELECT * FROM {CATALOG}.shards WHERE has({{u:Array(UUID)}}, uuid)) AS s LEFT JOIN"
        " (SELECT uuid, part.1 AS shard, part.2 AS hash FROM (SELECT uuid,"
        f" arrayJoin(CAST(parts, 'Array(Tuple(String, String))')) AS part FROM {_SEALED})) AS p"
        " ON p.uuid = s.origin AND p.shard = s.shard"
    )
    rows = warehouse.rows(
        "SELECT toString(if(known, was.uuid, now.uuid)) AS uuid, if(known, was.shard, now.shard) AS shard,"
        " was.rows AS rows, multiIf(NOT known, 'unknown', empty(now.hash), 'missing', empty(was.hash), 'unsealed',"
        " 'changed') AS state"
        f" FROM (SELECT *, 1 AS known FROM ({was})) AS was FULL JOIN ({now}) AS now"
        " ON now.uuid = was.uuid AND now.shard = was.shard"
        " WHERE was.hash != now.hash AND (now.hash != '' OR was.rows > 0) ORDER BY uuid, shard",
        {"u": list(uuids)},
    )
    return [UnverifiedShard(**row) for row in rows]


def _values(column: Any) -> tuple[Any, ...]:
    return tuple(column.values()) if isinstance(column, dict) else tuple(column)
