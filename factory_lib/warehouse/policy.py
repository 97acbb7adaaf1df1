"""Which versions are kept, and which may go.

Parts that versions share are hard links, so that dropping one never takes data from another: what is kept beyond the
newest is kept for people, and for the lineage of what they keep.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from factory_lib.names import CATALOG, STAGE_PREFIX, is_dataset_database
from factory_lib.plan.sqltext import quote
from factory_lib.progress import QUIET_SECONDS
from factory_lib.warehouse.bucket.keeping import keep
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.locking import locked
from factory_lib.warehouse.schema import ensure_tables
from factory_lib.warehouse.space import FREEING
from factory_lib.warehouse.tags import all_tags

logger = logging.getLogger(__name__)

GRACE_DAYS = 1 / 24
"""Versions younger than this are kept unless a policy says otherwise: a run may be reading them."""


@dataclass(frozen=True)
class KeepPolicy:
    """Which versions are kept; a version that one of these keeps is kept.

    The latest version of a dataset, tagged ones, and all ancestors of what is kept are kept always.

    Attributes:
        last: so many of each dataset, the newest ones.
        days: versions younger than so many days; None for an hour.
    """

    last: int = 1
    days: float | None = None


@dataclass(frozen=True)
class Expired:
    """A version that a policy does not keep.

    Attributes:
        version: its name.
        uuid: UUID of its table.
        reason: why it may go.
        bytes: on disk, what it shares with others included.
    """

    version: str
    uuid: str
    reason: str
    bytes: int


def expired(warehouse: Warehouse, policy: KeepPolicy, now: dt.datetime | None = None) -> list[Expired]:
    """Versions that a policy does not keep, by dataset, the oldest first."""
    now = now or dt.datetime.now(dt.UTC)
    rows = _versions(warehouse)
    tagged = {tag.uuid for tags in all_tags(warehouse).values() for tag in tags.values()}
    kept = {row["id"] for row in rows if _is_kept(row, policy, now)} | tagged
    kept |= _ancestors(kept, {row["id"]: row["parents"] for row in rows})
    reason = f"not among the last {policy.last}" if policy.last > 1 else "not the latest"
    return [
        Expired(
            f"{row['dataset']}.v{row['number']}", row["id"], f"{reason}, {_days(row, now):.1f} days old", row["size"]
        )
        for row in rows
        if row["id"] not in kept
    ]


def drop_versions(
    warehouse: Warehouse,
    versions: Iterable[Expired],
    policy: KeepPolicy | None = None,
    tell: Callable[[str], None] = logger.warning,
) -> list[Expired]:
    """Drop versions. What is known of them stays, for the lineage of others.

    It is decided again for each, while nobody can tag it or commit what is made of it.

    Args:
        policy: by which they are not kept.
        tell: told what is waited for: a version goes when nobody reads it any more.

    Returns:
        Those that were dropped: one that was tagged, or that something was made of, meanwhile is kept.
    """
    wanted = list(versions)
    policy = policy or KeepPolicy(days=0)
    now = dt.datetime.now(dt.UTC)
    decided, may_go = "", {one.uuid for one in wanted}
    gone = []
    if wanted:
        keep(warehouse)  # a bucket that cannot be written, or belongs to others by now, keeps its versions
    for one in wanted:
        dataset, _, name = one.version.partition(".")
        with locked(warehouse, dataset):
            state = _state(warehouse)
            if decided != state:
                decided, may_go = state, {other.uuid for other in expired(warehouse, policy, now)}
            # By its UUID, should somebody have dropped it meanwhile and another table have its name.
            found = warehouse.scalar(
                "SELECT toString(uuid) FROM system.tables WHERE database = {d:String} AND name = {t:String}",
                {"d": dataset, "t": name},
            )
            if found != one.uuid or one.uuid not in may_go:
                continue
            note_dropped(warehouse, one.uuid, one.version)
            # Readers go on; it may take them long, and nobody shall wait for them but who drops.
            left = f"{quote(dataset)}.{quote(f'{STAGE_PREFIX}dropped_{one.uuid[:8]}')}"
            warehouse.execute(f"RENAME TABLE {quote(dataset)}.{name} TO {left}", settings=FREEING)
        keep(warehouse)  # before its objects go: the bucket must not name a version that is not whole
        _drop(warehouse, left, one.version, tell)
        gone.append(one)
    return gone


def note_dropped(warehouse: Warehouse, uuid: str, version: str) -> None:
    """Write down that a version goes, or is gone, and that this is meant."""
    warehouse.execute(
        f"INSERT INTO {CATALOG}.dropped SELECT {{u:UUID}}, {{v:String}}, now64(3, 'UTC')",
        {"u": uuid, "v": version},
        FREEING,
    )
    warehouse.sync()  # the lineage of others asks for it: it must not be lost where the table's end is not


def _drop(warehouse: Warehouse, table: str, version: str, tell: Callable[[str], None]) -> None:
    with ThreadPoolExecutor(1) as pool:
        dropping = pool.submit(warehouse.execute, f"DROP TABLE IF EXISTS {table} SYNC")
        if not wait([dropping], timeout=QUIET_SECONDS).done:
            tell(f"{version} is still read: its space is free when whoever reads it is done. Waiting.")
        dropping.result()


def _state(warehouse: Warehouse) -> str:
    """What changes when something is tagged or committed."""
    tables = ", ".join(f"(SELECT count() FROM {CATALOG}.{name})" for name in ("tags", "versions"))
    return str(warehouse.rows(f"SELECT tuple({tables}) AS state")[0]["state"])


def _versions(warehouse: Warehouse) -> list[dict[str, Any]]:
    """All versions with what the policy asks about, by dataset, the oldest first; `rank` 1 is the newest."""
    ensure_tables(warehouse)
    rows = warehouse.rows(
        "WITH known AS (SELECT database, toUInt32(substring(name, 2)) AS number, uuid, toInt64(total_bytes) AS size,"
        "   toDateTime64(metadata_modification_time, 3, 'UTC') AS changed"
        "   FROM system.tables WHERE match(name, '^v[1-9][0-9]*$'))"
        " SELECT database AS dataset, number, toString(known.uuid) AS id, ifNull(size, 0) AS size,"
        "   toUnixTimestamp64Milli(if(notEmpty(p.dataset), p.created, changed)) AS created, p.parents AS parents,"
        "   row_number() OVER (PARTITION BY database ORDER BY number DESC) AS rank"
        f" FROM known LEFT JOIN (SELECT uuid, dataset, created,"
        f"   arrayMap(id -> toString(id), parents.uuid) AS parents FROM {CATALOG}.versions"
        "   WHERE uuid IN (SELECT uuid FROM known) LIMIT 1 BY uuid) AS p"
        " ON p.uuid = known.uuid"
        " ORDER BY dataset, number"
    )
    return [row for row in rows if is_dataset_database(row["dataset"])]


def _is_kept(row: dict[str, Any], policy: KeepPolicy, now: dt.datetime) -> bool:
    days = GRACE_DAYS if policy.days is None else policy.days
    return bool(row["rank"] <= max(policy.last, 1)) or _days(row, now) < days


def _days(row: dict[str, Any], now: dt.datetime) -> float:
    return (now.timestamp() - float(row["created"]) / 1000) / 86400


def _ancestors(kept: Iterable[str], parents: dict[str, Sequence[str]]) -> set[str]:
    """Everything that versions were made of, by UUID."""
    found: set[str] = set()
    todo = list(kept)
    while todo:
        for parent in parents.get(todo.pop(), ()):
            if parent not in found:
                found.add(parent)
                todo.append(parent)
    return found
