"""Shards that a source lists no more though versions hold their samples: what the catalog knows of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping

import pyarrow as pa

from factory_lib.names import CATALOG
from factory_lib.redaction import without_credentials
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.schema import ensure_tables


def record_vanished(warehouse: Warehouse, source: str, missing: Mapping[str, float], there: Iterable[str]) -> None:
    """Remember which shards of a source are missing.

    Args:
        source: its uri.
        missing: shard -> since when, in seconds of Unix time.
        there: shards that are missing no more: they are back, or their samples are gone, too.
    """
    ensure_tables(warehouse)
    seconds = {**missing, **dict.fromkeys(there, 0.0)}
    if seconds:
        now = dt.datetime.now(dt.UTC)
        columns = {
            "source": pa.array([without_credentials(source)] * len(seconds), pa.string()),
            "shard": pa.array(list(seconds), pa.string()),
            "since": pa.array([round(1000 * since) for since in seconds.values()], pa.timestamp("ms", "UTC")),
            "missing": pa.array([shard in missing for shard in seconds], pa.bool_()),
            "at": pa.array([now] * len(seconds), pa.timestamp("us", "UTC")),
        }
        warehouse.insert(f"{CATALOG}.vanished", pa.table(columns))


def read_vanished(warehouse: Warehouse, sources: Iterable[str]) -> dict[str, str]:
    """Shards of these sources that are missing -> since when, as text in UTC."""
    ensure_tables(warehouse)
    rows = warehouse.rows(
        f"SELECT shard, formatDateTime(since, '%F %H:%i UTC', 'UTC') AS told FROM {CATALOG}.vanished FINAL"
        " WHERE missing AND has({s:Array(String)}, source) ORDER BY shard",
        {"s": sorted({without_credentials(one) for one in sources})},
    )
    return {row["shard"]: row["told"] for row in rows}
