"""One at a time: who commits to a dataset, tags a version or drops one does it alone.

The embedded engine's folder has a file for each lock, which the system lets go of when its holder dies. On a server a
lock is a table that exists while it is held, with its holder in its comment, and so is each place in the queue for it;
one whose holder is gone, or that is old, is removed. Publishing stays a compare-and-set whatever the lock does: it
saves lost races, and it makes decisions stand until they are carried out.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from pathlib import Path

from factory_lib.errors import CommitError, EngineError
from factory_lib.filelocks import exclusive
from factory_lib.home import private_folder
from factory_lib.names import CATALOG
from factory_lib.owners import Owner, owner
from factory_lib.plan.sqltext import literal, quote
from factory_lib.progress import track
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.schema import ensure_tables
from factory_lib.warehouse.staging import uuid_of

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
    with open(folder / dataset, "w") as file, contextlib.ExitStack() as held:
        try:
            held.enter_context(exclusive(file, wait=False))
        except BlockingIOError:
            # A blocked request is served in its turn; asked for again and again, some would wait for ever.
            with track(f"waiting for other writers of {dataset}"):
                held.enter_context(exclusive(file))
        yield


@contextlib.contextmanager
def _table(warehouse: Warehouse, dataset: str) -> Iterator[None]:
    ensure_tables(warehouse)
    name = f"lock_{dataset}"
    if _left(warehouse, name) or not _made(warehouse, name):
        with _place(warehouse, name) as place:
            _wait(warehouse, dataset, name, place)
    mine = uuid_of(warehouse, CATALOG, name)
    try:
        yield
    finally:
        if uuid_of(warehouse, CATALOG, name) == mine:
            _drop(warehouse, name)


def _wait(warehouse: Warehouse, dataset: str, name: str, place: int) -> None:
    """Wait until nobody is before a place in the queue, and take the lock."""
    until = time.monotonic() + _LONGEST_SECONDS
    with track(f"waiting for other writers of {dataset}") as progress:
        while any(number < place for number in _left(warehouse, name)) or not _made(warehouse, name):
            if time.monotonic() > until:
                raise CommitError(
                    f"{dataset} is locked since an hour.", f"Is somebody at it? DROP TABLE {_full(name)} if not."
                )
            progress.advance(0)
            time.sleep(random.uniform(0, 2 * _PAUSE_SECONDS))


@contextlib.contextmanager
def _place(warehouse: Warehouse, name: str) -> Iterator[int]:
    """A place at the end of the queue for a lock: who tries again and again at random could wait for ever."""
    number = max(_left(warehouse, name), default=0) + 1
    while not _made(warehouse, _ticket(name, number)):
        number += 1
    try:
        yield number
    finally:
        _drop(warehouse, _ticket(name, number))


def _ticket(name: str, number: int) -> str:
    return f"{name}.{number}"


def _made(warehouse: Warehouse, name: str) -> bool:
    """Whether a table of this name could be made: there was none."""
    columns = f"(held UInt8) ENGINE = Memory COMMENT {literal(owner())}"
    try:
        warehouse.execute(f"CREATE TABLE {_full(name)} {columns}")
    except EngineError as error:
        if error.code != _TABLE_EXISTS:
            raise
        return False
    return True


def _left(warehouse: Warehouse, name: str) -> list[int]:
    """The places in the queue for a lock that somebody waits at; the lock and places of who is gone are removed."""
    rows = warehouse.rows(
        "SELECT name, comment, dateDiff('second', metadata_modification_time, now()) AS age FROM system.tables"
        " WHERE database = {d:String} AND (name = {n:String} OR startsWith(name, concat({n:String}, '.')))",
        {"d": CATALOG, "n": name},
    )
    places = []
    for row in rows:
        holder = Owner.of(row["comment"])
        if row["age"] > OLD_SECONDS or holder is None or not holder.is_alive:
            _drop(warehouse, row["name"])
        elif row["name"] != name:
            places.append(int(row["name"].rpartition(".")[2]))
    return places


def _drop(warehouse: Warehouse, name: str) -> None:
    warehouse.drop(_full(name))


def _full(name: str) -> str:
    return f"{CATALOG}.{quote(name)}"
