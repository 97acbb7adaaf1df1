"""Mutations: what ClickHouse does to parts of a table in the background, waited for, and ended when they cannot go on.

ClickHouse begins no mutation of a part that the disk has no room for a second time. It waits for that room, without a
word, for ever, and so would whoever waits for the mutation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from factory_lib.errors import EngineError, FactoryError
from factory_lib.plan.sqltext import literal, quote
from factory_lib.warehouse.client import Warehouse

LOOK_SECONDS = 2.0
"""How often it is looked whether a mutation can go on."""

_LONGEST_LOOKS = 30
_ROOM = 1.1  # times the size of a part is what ClickHouse wants to see free
_SYNCHRONOUS = {"mutations_sync": 2, "lightweight_deletes_sync": 2, "alter_sync": 2}
_WHERE = "database = {d:String} AND table = {t:String}"


def mutate(
    warehouse: Warehouse, database: str, table: str, command: str, settings: Mapping[str, Any] | None = None
) -> None:
    """Run an ALTER or a DELETE that rewrites parts of a table, and wait until it is done.

    Args:
        command: what follows the table's name: `UPDATE x = 1 WHERE 1`, `DROP COLUMN x`; of a DELETE, `WHERE …`.

    Raises:
        DiskFull: it waits for room that nobody makes. It is ended.
        EngineError: it failed, or does not begin. It is ended.
    """
    verb = "DELETE FROM" if command.startswith("WHERE ") else "ALTER TABLE"
    statement = f"{verb} {quote(database)}.{quote(table)} {command}"
    with ThreadPoolExecutor(1, thread_name_prefix="mutation") as pool:
        running = pool.submit(warehouse.execute, statement, None, {**_SYNCHRONOUS, **(settings or {})})
        try:
            looks = 0
            while not wait([running], timeout=LOOK_SECONDS).done:
                looks = looks + 1 if _waits(warehouse, database, table) else 0
                if looks > 1:
                    _check(warehouse, database, table, looks)
            running.result()
        except BaseException:
            _end(warehouse, database, table)
            raise


def _waits(warehouse: Warehouse, database: str, table: str) -> bool:
    """Whether a mutation of a table is not done, and nothing of it is being done."""
    pending = f"SELECT count() FROM system.mutations WHERE {_WHERE} AND NOT is_done"
    at_work = f"SELECT count() FROM system.merges WHERE {_WHERE}"
    return bool(warehouse.scalar(f"SELECT ({pending}) > 0 AND ({at_work}) = 0", {"d": database, "t": table}))


def _check(warehouse: Warehouse, database: str, table: str, looks: int) -> None:
    size = f"SELECT max(bytes_on_disk) FROM system.parts WHERE active AND disk_name = 'default' AND {_WHERE}"
    largest = warehouse.scalar(size, {"d": database, "t": table})
    warehouse.check_space(int(_ROOM * int(largest or 0)))
    if looks > _LONGEST_LOOKS and not warehouse.scalar("SELECT count() FROM system.merges"):
        raise EngineError(
            f"A change to {database}.{table} does not begin since {looks * LOOK_SECONDS:.0f} s.",
            "Is the engine's disk full? SELECT name, path, free_space FROM system.disks.",
        )


def _end(warehouse: Warehouse, database: str, table: str) -> None:
    """End what waits or fails: ClickHouse would try it again and again."""
    where = f"database = {literal(database)} AND table = {literal(table)}"
    with contextlib.suppress(FactoryError):  # what went wrong first is told
        warehouse.execute(f"KILL MUTATION WHERE {where} AND NOT is_done SYNC")
