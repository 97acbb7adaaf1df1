"""What is remembered of computed values: which columns of which versions hold them, and what bytes they were made of.

Two tables of the catalog. `signal_values` says for each shard that a version made which of its columns hold the values
of a signal as they were computed, and which hold what the signal read. `contents` holds a hash of every member whose
bytes were read from a file in a known state (uri and etag): a fact that never changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from factory_lib.names import CATALOG, is_version_name
from factory_lib.plan.sqltext import quote
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.mutations import mutate
from factory_lib.warehouse.schema import ensure_tables
from factory_lib.warehouse.space import FREEING

HASH_BYTES = 16
"""Length of the hash of a member's bytes."""


@dataclass(frozen=True)
class Held:
    """Columns of a table that hold what a signal computed.

    Attributes:
        fingerprint: of the signal.
        value, error: the columns with its values and errors.
        reads: what the signal calls a column that it reads -> the column that holds exactly what it read.
    """

    fingerprint: str
    value: str
    error: str
    reads: Mapping[str, str]


@dataclass(frozen=True)
class Earlier:
    """Shards of a version that hold values of a signal.

    Attributes:
        table: the version's table, quoted.
        held: its columns.
        sources: shard -> fingerprint of the files that the shard's rows point into.
        checked: when the shards were made it was seen that each row has a value or an error.
    """

    table: str
    held: Held
    sources: dict[str, str]
    checked: bool = False


def record_held(warehouse: Warehouse, origin: str, shards: Sequence[str], held: Sequence[Held]) -> None:
    """Remember where the values of signals are, in a version that is about to be published.

    Args:
        origin: UUID of the version's table.
        shards: the shards that it made.
    """
    if not shards or not held:
        return
    ensure_tables(warehouse)
    rows = [(shard, one) for shard in shards for one in held]
    reads = pa.map_(pa.string(), pa.string())
    table = pa.table(
        {
            "origin": pa.array([origin] * len(rows), pa.string()),
            "shard": pa.array([shard for shard, _ in rows], pa.string()),
            "fingerprint": pa.array([one.fingerprint for _, one in rows], pa.string()),
            "value": pa.array([one.value for _, one in rows], pa.string()),
            "error": pa.array([one.error for _, one in rows], pa.string()),
            "reads": pa.array([list(one.reads.items()) for _, one in rows], reads),
        }
    )
    warehouse.insert(f"{CATALOG}.signal_values", table)


def carry_held(warehouse: Warehouse, origin: str, before: str, shards: Sequence[str]) -> None:
    """Remember that a version holds what another one held of some shards, which it carries over with more columns.

    Args:
        origin: UUID of the new version's table.
        before: UUID of the version whose shards are carried over.
    """
    ensure_tables(warehouse)
    warehouse.execute(
        f"INSERT INTO {CATALOG}.signal_values SELECT {{new:UUID}}, shard, fingerprint, value, error, reads"
        f" FROM {CATALOG}.signal_values WHERE (origin, shard) IN (SELECT origin, shard FROM {CATALOG}.shards"
        " WHERE uuid = {old:UUID} AND has({s:Array(String)}, shard))",
        {"new": origin, "old": before, "s": list(shards)},
    )


def earlier_values(
    warehouse: Warehouse, fingerprints: Sequence[str], shards: Sequence[str] | None, most: int = 3
) -> list[list[Earlier]]:
    """Versions that hold values of signals for these shards, or for any.

    Args:
        most: how many versions to give for a signal and a shard.

    Returns:
        For each signal and shard the version made last is in the first list, the one before in the second, and so on.
    """
    ensure_tables(warehouse)
    of_shards = "1" if shards is None else "has({s:Array(String)}, shard)"
    having = f"FROM {CATALOG}.signal_values WHERE has({{f:Array(String)}}, fingerprint) AND {of_shards}"
    rows = warehouse.rows(
        "SELECT h.shard AS shard, concat(t.database, '.', t.name) AS version, s.source AS source, h.value AS value,"
        " h.error AS error, h.reads AS reads,"
        " h.fingerprint AS fingerprint, v.checked AS checked,"
        " row_number() OVER (PARTITION BY h.fingerprint, h.shard ORDER BY v.at DESC) AS rank"
        f" FROM (SELECT * {having}) AS h"
        f" INNER JOIN (SELECT origin, shard, any(uuid) AS holder, any(source) AS source FROM {CATALOG}.shards"
        f" WHERE {of_shards} AND uuid IN (SELECT uuid FROM system.tables WHERE match(name, '^v[1-9][0-9]*$'))"
        " GROUP BY origin, shard) AS s ON s.origin = h.origin AND s.shard = h.shard"
        f" INNER JOIN (SELECT uuid, any(created) AS at, any(JSONExtractBool(record, 'checked')) AS checked"
        f" FROM {CATALOG}.versions WHERE uuid IN (SELECT origin {having}) GROUP BY uuid) AS v"
        " ON v.uuid = h.origin"
        " INNER JOIN (SELECT uuid, database, name FROM system.tables) AS t ON t.uuid = s.holder"
        " QUALIFY rank <= {n:UInt32} ORDER BY rank, shard",
        {"f": list(fingerprints), "s": list(shards or ()), "n": most},
    )
    found: dict[tuple[int, str, str], Earlier] = {}
    for row in rows:
        if is_version_name(row["version"]):
            held = Held(row["fingerprint"], row["value"], row["error"], dict(row["reads"]))
            table = ".".join(map(quote, row["version"].split(".")))
            place = (row["rank"], row["version"], repr((held, row["checked"])))
            found.setdefault(place, Earlier(table, held, {}, bool(row["checked"]))).sources[row["shard"]] = row[
                "source"
            ]
    ranks = sorted({rank for rank, _, _ in found})
    return [[one for (rank, _, _), one in found.items() if rank == wanted] for wanted in ranks]


def record_contents(warehouse: Warehouse, members: pa.Table) -> None:
    """Remember the hashes of members.

    Args:
        members: `uri`, `etag`, `offset`, `size` and `hash` (16 bytes).
    """
    if members.num_rows:
        ensure_tables(warehouse)
        warehouse.insert(f"{CATALOG}.contents", members)


def forget_unused(warehouse: Warehouse) -> None:
    """Remove what is remembered of versions that were never published, and of files that no version points into."""
    ensure_tables(warehouse)
    there = f"SELECT uuid FROM {CATALOG}.versions"
    mutate(warehouse, CATALOG, "signal_values", f"WHERE origin NOT IN ({there})", FREEING)
    sources = f"SELECT source FROM {CATALOG}.shards WHERE uuid IN (SELECT uuid FROM system.tables)"
    files = f"SELECT uri, etag FROM {CATALOG}.files WHERE source IN ({sources})"
    mutate(warehouse, CATALOG, "contents", f"WHERE (uri, etag) NOT IN ({files})", FREEING)
