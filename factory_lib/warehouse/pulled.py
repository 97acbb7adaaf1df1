"""Versions that lie where somebody published them, and are opened there.

The embedded engine opens no such table when it starts: it could not start while a bucket is away (`engine.server`
leaves them out). They are opened when somebody first asks for their dataset.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

import pyarrow as pa

from factory_lib.errors import EngineError, PublicationError
from factory_lib.names import CATALOG
from factory_lib.plan.sqltext import quote
from factory_lib.warehouse.client import Warehouse

logger = logging.getLogger(__name__)

_TABLE_EXISTS = 57
_S3_ERROR = 499
_REFUSED = ("ExpiredToken", "AccessDenied", "Access Denied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "Forbidden")
_looked: WeakKeyDictionary[Warehouse, dict[str, int]] = WeakKeyDictionary()
"""Warehouse -> dataset -> the connection since which its tables are known to be open."""


def listed(warehouse: Warehouse, sql: str, dataset: str = "") -> list[dict[str, Any]]:
    """The result of a statement about tables (`system.tables`), those of versions that were pulled among them.

    Args:
        sql: with `{d:String}` for the dataset, where there is one.
        dataset: only its versions are asked for; empty for those of all.

    Raises:
        PublicationError: a version of the dataset cannot be opened. Where all are asked for, this is logged.
    """
    params = {"d": dataset} if dataset else {}
    rows = warehouse.rows(sql, params)
    return warehouse.rows(sql, params) if _opened(warehouse, dataset) else rows


def _opened(warehouse: Warehouse, dataset: str) -> bool:
    """Open what was pulled of a dataset, or of all, and is not open since the engine started; whether there was any."""
    known = _looked.setdefault(warehouse, {})
    if not warehouse.is_embedded or known.get(dataset) == warehouse.connections:
        return False
    where = "database = {d:String} AND" if dataset else ""
    closed = warehouse.rows(
        "SELECT database, table, any(address) AS address FROM system.detached_tables AS t INNER JOIN"
        f" (SELECT uuid, address FROM {CATALOG}.pulled WHERE address != '') AS p ON p.uuid = t.uuid"
        f" WHERE {where} is_permanently GROUP BY database, table ORDER BY database, length(table), table",
        {"d": dataset} if dataset else {},
    )
    failed = 0
    for row in closed:
        try:
            _open(warehouse, row["database"], row["table"], row["address"])
        except PublicationError as error:
            if dataset:
                raise
            failed += 1
            logger.warning("%s", error)
    if not failed:
        known[dataset] = warehouse.connections
    return len(closed) > failed


def _open(warehouse: Warehouse, database: str, table: str, address: str) -> None:
    """Open a version, unless another process was faster; one that has not its rows is closed again."""
    name = f"{quote(database)}.{quote(table)}"
    for _ in range(2):
        try:
            warehouse.execute(f"ATTACH TABLE {name}")
        except EngineError as error:
            if error.code == _TABLE_EXISTS:
                return
            raise cannot_open(f"{database}.{table}", address, error) from None
        found = warehouse.rows(
            "SELECT t.total_rows AS rows, v.rows AS recorded, storage_policy AS policy FROM system.tables AS t"
            f" INNER JOIN {CATALOG}.versions AS v ON v.uuid = t.uuid"
            " WHERE t.database = {d:String} AND t.name = {t:String}",
            {"d": database, "t": table},
        )[0]
        if found["rows"] == found["recorded"]:
            return
        # A folder that is not mounted looks empty, and the disk stays as it was when it was first looked at.
        warehouse.execute(f"DETACH TABLE {name} PERMANENTLY SYNC")
        disks = "SELECT arrayJoin(disks) AS disk FROM system.storage_policies WHERE policy_name = {p:String}"
        for one in warehouse.rows(disks, {"p": found["policy"]}):
            warehouse.execute(f"SYSTEM RESTART DISK {quote(one['disk'])}")
    raise PublicationError(
        f"{database}.{table}, published as {address}, cannot be opened: {found['rows']:,} of its"
        f" {found['recorded']:,} rows are there.",
        "Is its folder mounted?",
    )


def record_pulled(warehouse: Warehouse, uuid: str, address: str, family: Iterable[str]) -> None:
    """Remember where a version lies that is about to be opened.

    Args:
        family: the versions that it comes from, and itself; those that are not known here are known from elsewhere.
    """
    known = warehouse.rows(
        f"SELECT toString(uuid) AS id FROM {CATALOG}.versions WHERE has({{f:Array(UUID)}}, uuid)", {"f": [*family]}
    )
    elsewhere = dict.fromkeys(family, "") | {uuid: address}
    addresses = {one: at for one, at in elsewhere.items() if at or one not in {row["id"] for row in known}}
    table = {"uuid": list(addresses), "address": list(addresses.values())}
    warehouse.insert(f"{CATALOG}.pulled", pa.table(table))


def address_of(warehouse: Warehouse, uuid: str) -> str:
    """Where a version was pulled from; empty where it was not."""
    return str(warehouse.scalar(f"SELECT max(address) FROM {CATALOG}.pulled WHERE uuid = {{u:UUID}}", {"u": uuid}))


def lies_elsewhere(warehouse: Warehouse, table: str) -> bool:
    """Whether a table, `database.name`, is one that somebody else published: it is read where it lies."""
    database, _, name = table.partition(".")
    return bool(
        warehouse.scalar(
            "SELECT count() FROM system.tables WHERE database = {d:String} AND name = {t:String}"
            " AND position(engine_full, ', disk = disk(') > 0",  # what the disk is, is hidden there
            {"d": database, "t": name},
        )
    )


def cannot_open(version: str, address: str, error: EngineError) -> PublicationError:
    """The engine's word about a version that it cannot open, with what to do."""
    hint = "Is its place there, and reached from where the engine runs?"
    if is_refused(error):
        hint = "The engine has the credentials of when it was started: with newer ones, factory down first."
    return PublicationError(f"{version}, published as {address}, cannot be opened: {error.message}", hint)


def is_refused(error: EngineError) -> bool:
    """Whether the engine was refused by a bucket: other credentials may mend it."""
    return error.code == _S3_ERROR and any(word in error.message for word in _REFUSED)
