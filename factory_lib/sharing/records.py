"""What the catalog says of a version, as Parquet beside its table: provenance, recipe, shards, fingerprints, lineage.

Rows of versions that it comes from are among them, so that its lineage is as long elsewhere as it is here. Whoever
pulls takes in what its own catalog lacks.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from factory_lib.names import CATALOG
from factory_lib.storage.store import store
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.schema import ensure_tables

_AT_ONCE = 1_000
"""Names in one statement; a server takes no longer lists."""
_OF_FAMILY = "has({family:Array(UUID)}, t.uuid)"
_OF_SHARDS = f"(t.origin, t.shard) IN (SELECT origin, shard FROM {CATALOG}.shards WHERE uuid = {{u:UUID}})"
_TABLES: Mapping[str, tuple[str, str]] = {
    "versions": ("toString(uuid) AS uuid, dataset, created, rows, record", _OF_FAMILY),
    "recipes": ("toString(uuid) AS uuid, recipe", _OF_FAMILY),
    "shards": ("toString(uuid) AS uuid, shard, rows, toString(origin) AS origin, made_by, source", _OF_FAMILY),
    "inputs": ("toString(uuid) AS uuid, shard, root, made_by, given", "t.uuid = {u:UUID}"),
    "losses": ("toString(uuid) AS uuid, shard, samples, lost, files, problems", "t.uuid = {u:UUID}"),
    "signal_values": ("toString(origin) AS origin, shard, fingerprint, value, error, reads", _OF_SHARDS),
    "fingerprints": ("toString(origin) AS origin, shard, fingerprint", _OF_SHARDS),
    "files": (
        "source, uri, size, etag",
        f"t.source IN (SELECT source FROM {CATALOG}.shards WHERE uuid = {{u:UUID}})",
    ),
}
"""Table of the catalog -> the columns that are written, and which rows."""

_KEYS: Mapping[str, Sequence[str]] = {
    "versions": ("uuid",),
    "recipes": ("uuid",),
    "shards": ("uuid",),
    "inputs": ("uuid",),
    "losses": ("uuid",),
    "signal_values": ("origin", "shard"),
    "fingerprints": ("origin", "shard"),
    "files": ("source",),
}
"""Table of the catalog -> what is known or not as a whole."""


def family(warehouse: Warehouse, uuid: str) -> list[str]:
    """The version with this UUID and all that it comes from: what was read for it, and what made its shards."""
    found, new = {uuid}, {uuid}
    while new:
        rows = warehouse.rows(
            f"SELECT DISTINCT toString(arrayJoin(parents.uuid)) AS id FROM {CATALOG}.versions"
            " WHERE has({u:Array(UUID)}, uuid) UNION DISTINCT"
            f" SELECT DISTINCT toString(origin) AS id FROM {CATALOG}.shards WHERE has({{u:Array(UUID)}}, uuid)",
            {"u": sorted(new)},
        )
        new = {row["id"] for row in rows} - found
        found |= new
    return sorted(found)


def write_records(warehouse: Warehouse, uuid: str, folder: str) -> None:
    """Write what the catalog says of a version into a folder or bucket."""
    params = {"u": uuid, "family": family(warehouse, uuid)}
    for table, (columns, which) in _TABLES.items():
        found = warehouse.query(f"SELECT {columns} FROM {CATALOG}.{table} AS t WHERE {which} ORDER BY ALL", params)
        file = io.BytesIO()
        pq.write_table(found, file, compression="zstd")
        store().write(f"{folder}/{table}.parquet", file.getvalue())


def read_records(folder: str) -> dict[str, pa.Table]:
    """What `write_records` wrote, by the names of the tables of the catalog.

    Raises:
        FileMissing: it is not there.
    """

    def read(table: str) -> pa.Table:
        return pq.ParquetFile(pa.BufferReader(store().read(f"{folder}/{table}.parquet"))).read()

    with ThreadPoolExecutor(len(_TABLES)) as pool:
        return dict(zip(_TABLES, pool.map(read, _TABLES), strict=True))


def take_in(warehouse: Warehouse, records: Mapping[str, pa.Table]) -> None:
    """Write into a catalog what it lacks of records."""
    ensure_tables(warehouse)
    for table, rows in records.items():
        new = _unknown(warehouse, table, rows)
        if new.num_rows:
            warehouse.insert(f"{CATALOG}.{table}", new)


def _unknown(warehouse: Warehouse, table: str, rows: pa.Table) -> pa.Table:
    """The rows whose keys a table of the catalog does not have."""
    keys = _KEYS[table]
    kind = "UUID" if keys[0] in ("uuid", "origin") else "String"
    given = pc.unique(rows.column(keys[0])).to_pylist()
    named = ", '\n', ".join(f"toString(t.{key})" for key in keys)
    known = [
        warehouse.query(
            f"SELECT DISTINCT concat({named}, '') AS name FROM {CATALOG}.{table} AS t"
            f" WHERE has({{k:Array({kind})}}, t.{keys[0]})",
            {"k": given[at : at + _AT_ONCE]},
        ).column("name")
        for at in range(0, len(given), _AT_ONCE)
    ]
    names = pc.binary_join_element_wise(*(rows.column(key) for key in keys), "\n")
    there = pa.chunked_array([chunk for one in known for chunk in one.chunks], pa.string())
    return rows.filter(pc.invert(pc.is_in(names, value_set=there)))
