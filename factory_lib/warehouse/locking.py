"""One at a time: who commits to a dataset, tags a version or drops one does it alone.

The embedded engine's folder has a file for each lock, which the system lets go of when its holder dies. On a server a
lock is a table that exists while it is held, with its holder in its comment; one whose holder is gone, or that is old,
is removed. Publishing stays a compare-and-set whatever the lock does: it saves lost races, and it makes decisions stand
until they are carried out.
"""

from __future__ import annotations

import contextlib
import fcntl
import random
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from factory_lib.errors import CommitError, EngineError
from factory_lib.home import private_folder
from factory_lib.owners import Owner, owner
from factory_lib.progress import track
from factory_lib.sqltext import literal, quote
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.names import CATALOG
from factory_lib.warehouse.provenance import ensure_tables

OLD_SECONDS = 300
"""A lock on a server that is so old was left by somebody who died."""

_TABLE_EXISTS = 57
_PAUSE_SECONDS = 0.05
_LONGEST_SECONDS = 3600.0


@contextlib.contextmanager
def locked(warehouse: Warehouse, *datasets: str) -> Iterator[None]:
    """Hold the locks of datasets; who comes while one is held waits, and gets it in about the order of coming.

    Raises:
        CommitError: it was held for an hour.
    """
    with contextlib.ExitStack() as held:
        # Everybody takes them in the same order: nobody waits for somebody who waits.
        for dataset in sorted(set(datasets)):
            home = warehouse.home
            held.enter_context(_table(warehouse, dataset) if home is None else _file(home, dataset))
        yield


@contextlib.contextmanager
def _file(home: Path, dataset: str) -> Iterator[None]:
    folder = private_folder(home / "locks", home)
    with open(folder / dataset, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # A blocked request is served in its turn; asked for again and again, some would wait for ever.
            with track(f"waiting for other writers of {dataset}"):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _table(warehouse: Warehouse, dataset: str) -> Iterator[None]:
    ensure_tables(warehouse)
    name = f"{CATALOG}.{quote(f'lock_{dataset}')}"
    mine = str(uuid.uuid4())
    until = time.monotonic() + _LONGEST_SECONDS
    with track(f"waiting for other writers of {dataset}") as progress:
        while not _taken(warehouse, name, mine):
            if time.monotonic() > until:
                raise CommitError(
                    f"{dataset} is locked since an hour.", f"Is somebody at it? DROP TABLE {name} if not."
                )
            _remove_left(warehouse, name)
            progress.advance(0)
            time.sleep(random.uniform(0, 2 * _PAUSE_SECONDS))
    try:
        yield
    finally:
        if _uuid(warehouse, name) == mine:
            warehouse.execute(f"DROP TABLE IF EXISTS {name} SYNC")


def _taken(warehouse: Warehouse, name: str, mine: str) -> bool:
    columns = f"(held UInt8) ENGINE = Memory COMMENT {literal(owner())}"
    try:
        warehouse.execute(f"CREATE TABLE {name} UUID {literal(mine)} {columns}")
    except EngineError as error:
        if error.code != _TABLE_EXISTS:
            raise
        return False
    return True


def _remove_left(warehouse: Warehouse, name: str) -> None:
    rows = warehouse.rows(
        "SELECT comment, dateDiff('second', metadata_modification_time, now()) AS age FROM system.tables"
        " WHERE concat(database, '.', name) = {n:String}",
        {"n": name.replace("`", "")},
    )
    for row in rows:
        holder = Owner.of(row["comment"])
        if row["age"] > OLD_SECONDS or holder is None or not holder.is_alive:
            warehouse.execute(f"DROP TABLE IF EXISTS {name} SYNC")


def _uuid(warehouse: Warehouse, name: str) -> str:
    where = "concat(database, '.', name) = {n:String}"
    return str(
        warehouse.scalar(f"SELECT toString(uuid) FROM system.tables WHERE {where}", {"n": name.replace("`", "")})
    )
