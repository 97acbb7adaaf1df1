"""What killed runs left behind, and its removal. Versions that a policy does not keep: see `policy`.

Dropping is always safe for other versions: parts that they share are hard links.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from factory_lib.errors import DiskFull
from factory_lib.names import CATALOG, STAGE_PREFIX, STAGING, VALUES_PREFIX, is_dataset_database
from factory_lib.owners import ABANDONED_HOURS, Owner
from factory_lib.plan.sqltext import quote
from factory_lib.warehouse.bucket.keeping import keep
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.computed import forget_unused
from factory_lib.warehouse.mutations import mutate
from factory_lib.warehouse.schema import ensure_tables
from factory_lib.warehouse.seals import sealed, unseal
from factory_lib.warehouse.space import FREEING

STAGED_VALUES_DAYS = 7.0
"""Values that a run staged and no later run took up are kept this long."""


@dataclass(frozen=True)
class Sweepable:
    """A table that may go.

    Attributes:
        table: `database.table`.
        reason: why.
        bytes: on disk, shared parts included.
    """

    table: str
    reason: str
    bytes: int


def find_sweepable(warehouse: Warehouse) -> list[Sweepable]:
    """Tables that killed runs left: staging tables without a living builder, staged values that nobody took up."""
    rows = warehouse.rows(
        "SELECT database, name, comment, total_bytes AS bytes,"
        " dateDiff('second', metadata_modification_time, now()) / 3600 AS hours FROM system.tables"
        " WHERE startsWith(name, {stage:String}) OR (database = {staging:String} AND startsWith(name, {values:String}))"
        " ORDER BY database, name",
        {"stage": STAGE_PREFIX, "staging": STAGING, "values": VALUES_PREFIX},
    )
    found = []
    for row in rows:
        if not is_dataset_database(row["database"]) and row["database"] != STAGING:
            continue
        reason = _reason(warehouse, row["database"], row["name"], row["comment"], row["hours"])
        if reason:
            found.append(Sweepable(f"{row['database']}.{row['name']}", reason, row["bytes"] or 0))
    return found


def sweep(warehouse: Warehouse, tables: Iterable[Sweepable]) -> None:
    """Drop these tables, and what is recorded of versions that were never published."""
    drop_tables(warehouse, tables)
    forget_unpublished(warehouse)
    forget_unused(warehouse)


def drop_tables(warehouse: Warehouse, tables: Iterable[Sweepable]) -> None:
    """Drop these tables: hardly anything is written, so it makes room where there is none."""
    names = [table.table for table in tables]
    if names:
        keep(warehouse)  # one of them may be a version whose end was begun
    held = sealed(warehouse, names)
    try:
        unseal(warehouse, list(held.values()))
    except DiskFull:
        names = [name for name in names if name not in held]  # they go when there is room for taking their seals back
    for table in names:
        database, _, name = table.partition(".")
        warehouse.drop(f"{quote(database)}.{quote(name)}")


def forget_unpublished(warehouse: Warehouse) -> None:
    """Remove provenance whose table does not exist: of commits that lost a race or were killed.

    Rows younger than an hour stay: they may belong to a commit that is about to publish. So do those of versions that a
    policy dropped (see `policy`), or that came from elsewhere: others may have been made of them.
    """
    ensure_tables(warehouse)
    alive = " UNION ALL ".join(
        f"SELECT uuid FROM {table}" for table in ("system.tables", f"{CATALOG}.dropped", f"{CATALOG}.pulled")
    )
    gone = f"SELECT uuid FROM {CATALOG}.versions WHERE uuid NOT IN ({alive}) AND created < now() - INTERVAL 1 HOUR"
    for table in ("shards", "inputs", "losses", "recipes", "versions"):
        mutate(warehouse, CATALOG, table, f"WHERE uuid IN ({gone})", FREEING)


def _reason(warehouse: Warehouse, database: str, table: str, comment: str, hours: float) -> str:
    if table.startswith(VALUES_PREFIX):
        idle = _idle_hours(warehouse, database, table, hours)
        return f"staged values, not taken up for {idle / 24:.1f} days" if idle > STAGED_VALUES_DAYS * 24 else ""
    builder = Owner.of(comment)
    if builder is not None and builder.is_here and warehouse.is_embedded:
        return "" if builder.is_alive else f"its builder, {builder}, is gone"
    return f"left {hours:.0f} hours ago" if hours > ABANDONED_HOURS else ""


def _idle_hours(warehouse: Warehouse, database: str, table: str, otherwise: float) -> float:
    age = warehouse.scalar(
        "SELECT dateDiff('second', max(modification_time), now()) / 3600 FROM system.parts"
        " WHERE active AND database = {d:String} AND table = {t:String} HAVING count() > 0",
        {"d": database, "t": table},
    )
    return otherwise if age is None else float(age)
