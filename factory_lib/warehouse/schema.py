"""The catalog: its tables, and the steps that bring one of an earlier release along.

A catalog says its number in the comment of `versions`. Each step makes of a catalog of one number one of the next; it
can be taken twice, as it may have been interrupted, or two processes may take it at once.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from factory_lib.errors import EngineError
from factory_lib.names import CATALOG
from factory_lib.warehouse.client import Warehouse

SCHEMA = 3
"""The number of a catalog as it is made today."""

_SCHEMA = "schema "

_OF_RECORD = {
    "storage": ("String", "JSONExtractString(record, 'storage')"),
    "parents": (
        kind := "Array(Tuple(name String, uuid UUID))",
        f"JSONExtract(record, 'parents', '{kind}')",
    ),
    "signals": (
        kind := "Array(Tuple(name String, fingerprint String))",
        f"JSONExtract(record, 'signals', '{kind}')",
    ),
    "sources": (
        kind := "Array(Tuple(uri String, format String))",
        f"JSONExtract(record, 'sources', '{kind}')",
    ),
}
"""Columns of `versions` that the engine takes from the record when it is written: what queries of history walk over."""

_TABLES = {
    "versions": "(uuid UUID, dataset String, created DateTime64(3, 'UTC'), rows UInt64, record String,"
    f" {', '.join(f'{name} {kind} MATERIALIZED {value}' for name, (kind, value) in _OF_RECORD.items())})"
    f" ENGINE = MergeTree ORDER BY uuid SETTINGS index_granularity = 64 COMMENT '{_SCHEMA}{SCHEMA}'",
    "recipes": "(uuid UUID, recipe String) ENGINE = MergeTree ORDER BY uuid SETTINGS index_granularity = 64",
    "shards": "(uuid UUID, shard String, rows UInt64, origin UUID, made_by String, source String)"
    " ENGINE = MergeTree ORDER BY (uuid, shard) SETTINGS index_granularity = 512",
    "files": "(source String, uri String, size UInt64, etag String) ENGINE = ReplacingMergeTree ORDER BY (source, uri)",
    "code": "(fingerprint String, components String) ENGINE = ReplacingMergeTree ORDER BY fingerprint",
    "inputs": "(uuid UUID, shard String, root String, made_by String, given String)"
    " ENGINE = MergeTree ORDER BY (uuid, shard) SETTINGS index_granularity = 512",
    "losses": "(uuid UUID, shard String, samples UInt64, lost Map(String, UInt64), files Map(String, UInt64),"
    " problems Array(String)) ENGINE = MergeTree ORDER BY (uuid, shard) SETTINGS index_granularity = 512",
    "vanished": "(source String, shard String, since DateTime64(3, 'UTC'), missing Bool, at DateTime64(6, 'UTC'))"
    " ENGINE = ReplacingMergeTree(at) ORDER BY (source, shard)",
    "fingerprints": "(origin UUID, shard String, fingerprint String)"
    " ENGINE = ReplacingMergeTree ORDER BY (origin, shard)",
    "signal_values": "(origin UUID, shard String, fingerprint String, value String, error String,"
    " reads Map(String, String)) ENGINE = MergeTree ORDER BY (shard, fingerprint)",
    "contents": "(uri String, etag String, offset UInt64, size UInt64, hash FixedString(16))"
    " ENGINE = ReplacingMergeTree ORDER BY (uri, etag, offset, size)",
    "tags": "(dataset String, tag String, version String, uuid UUID, deleted UInt8, forced UInt8,"
    " at DateTime64(6, 'UTC'), id UUID) ENGINE = MergeTree ORDER BY (dataset, tag, at)",
    "dropped": "(uuid UUID, version String, at DateTime64(3, 'UTC')) ENGINE = MergeTree ORDER BY uuid",
    "seals": "(uuid UUID, version String, at DateTime64(6, 'UTC'), columns Array(Tuple(String, String, String)),"
    " parts Map(String, String), records Map(String, Tuple(UInt64, UInt64))) ENGINE = MergeTree ORDER BY uuid"
    " SETTINGS index_granularity = 64",
    "pulled": "(uuid UUID, address String) ENGINE = ReplacingMergeTree ORDER BY uuid",
    "verified": "(uuid UUID, at DateTime64(3, 'UTC'), findings String) ENGINE = ReplacingMergeTree ORDER BY uuid",
    "claims": "(name String, shard String, run String, owner String, at DateTime64(6, 'UTC'), ended Bool)"
    " ENGINE = MergeTree ORDER BY (name, shard) TTL toDateTime(at) + INTERVAL 1 DAY",
}
"""Tables of the catalog. `code`: what the code versions of stages are made of; `recipes`: queries of versions, such as
can be run again; `tags`: what was done to tags; `dropped`: versions that retention removed; `seals`: what versions
were when they were published (see `seals`); `pulled`: versions that came from elsewhere, and
where they are read; those that these were made of, without; `verified`: what was found when they were last read;
`losses`: what of shards was seen at the source and not read; `vanished`: shards that a source lists no more; `claims`:
what runs are at."""

_STEPS: dict[int, Sequence[str]] = {
    2: [
        f"ALTER TABLE {CATALOG}.versions "
        + ", ".join(
            f"ADD COLUMN IF NOT EXISTS {name} {kind} MATERIALIZED {value}" for name, (kind, value) in _OF_RECORD.items()
        ),
        f"ALTER TABLE {CATALOG}.versions " + ", ".join(f"MATERIALIZE COLUMN {name}" for name in _OF_RECORD),
    ],
    3: [],  # losses of shards are carried from version to version: an earlier release would leave them behind
}
"""Number -> statements that make a catalog of that number of one of the number before."""

_CHECKED_SECONDS = 10.0

checked: WeakKeyDictionary[Warehouse, float] = WeakKeyDictionary()
"""Warehouse -> when its catalog was last seen to be as it is made today."""


def ensure_tables(warehouse: Warehouse) -> None:
    """Make the tables of the catalog, or bring them along; for some seconds they are not looked at again.

    Raises:
        EngineError: a later release made the catalog.
    """
    if time.monotonic() - checked.get(warehouse, -math.inf) < _CHECKED_SECONDS:
        return
    rows = warehouse.rows("SELECT name, comment FROM system.tables WHERE database = {d:String}", {"d": CATALOG})
    found = {row["name"]: row["comment"] for row in rows}
    missing = [name for name in _TABLES if name not in found]
    if missing:
        warehouse.execute(warehouse.deployment.create_database(CATALOG))
        for name in missing:
            definition = warehouse.deployment.definition(_TABLES[name])
            warehouse.execute(f"CREATE TABLE IF NOT EXISTS {CATALOG}.{name} {definition}")
    if "versions" in found:
        _bring_along(warehouse, schema_of(found["versions"]))
    checked[warehouse] = time.monotonic()


def schema_of(comment: str) -> int:
    """The number of a catalog by the comment of `versions`; those of before there were numbers are 1."""
    said = re.fullmatch(rf"{_SCHEMA}(\d+)", comment)
    return int(said[1]) if said else 1


def _bring_along(warehouse: Warehouse, number: int) -> None:
    if number > SCHEMA:
        raise EngineError(
            f"A later release of Dataset Factory made the catalog (schema {number}; this one knows {SCHEMA}).",
            "Use that release, or a later one.",
        )
    for step in range(number + 1, SCHEMA + 1):
        for statement in _STEPS[step]:
            warehouse.execute(statement, settings={"mutations_sync": 2})
        warehouse.execute(f"ALTER TABLE {CATALOG}.versions MODIFY COMMENT '{_SCHEMA}{step}'")
