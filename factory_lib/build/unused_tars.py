"""Tars of new samples that no version points into, and their removal.

A run that is under way has tars that no version points into yet. So what is unused is marked first, and goes when it is
still unused a week later; a run that takes it up takes the mark away. Nothing is touched that is not ours: a store in
which this warehouse never made new samples, a folder that holds anything else.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from factory_lib.build.made_store import owners_of, warehouse_id
from factory_lib.build.made_tars import DONE, UNUSED
from factory_lib.errors import FileMissing, StoreError
from factory_lib.names import CATALOG
from factory_lib.owners import is_unfinished
from factory_lib.plan.sqltext import quote
from factory_lib.progress import track
from factory_lib.redaction import redact
from factory_lib.settings import settings
from factory_lib.storage.store import FileInfo, store
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.retention import STAGED_VALUES_DAYS
from factory_lib.warehouse.schema import ensure_tables

logger = logging.getLogger(__name__)
_FOLDER = re.compile(r"[^/]+-[0-9a-f]{16}/[^/]+-[0-9a-f]{16}")
_FILE = re.compile(rf"\d{{5,}}\.(tar|arrow)|{re.escape(DONE)}|{re.escape(UNUSED)}")
"""How the folders of shards and their files are named, see `made_tars`."""


@dataclass(frozen=True)
class UnusedTars:
    """A folder with the new samples of a shard, which no version has.

    Attributes:
        folder: its URI.
        reason: why it may go, or why not yet.
        bytes: of all its files.
        files: these files, in the order in which they are removed: `made.json`, records, tars, the mark.
        goes: whether it may go now.
        is_marked: whether it was found unused before.
    """

    folder: str
    reason: str
    bytes: int
    files: tuple[str, ...]
    goes: bool
    is_marked: bool


def find_unused_tars(warehouse: Warehouse, tell: Callable[[str], None] = logger.warning) -> list[UnusedTars]:
    """Folders of tars that no version points into, in the store that is set and in those that versions were made in.

    Args:
        tell: told of stores that cannot be read, which are passed by.
    """
    found: list[UnusedTars] = []
    with track("looking for tars that no version points into") as progress:
        for into in _stores(warehouse):
            try:
                for one in _unused_in(warehouse, into):
                    progress.advance()
                    found.append(one)
            except StoreError as error:
                tell(f"{error.message} Tars of new samples there are passed by.")
    return found


def remove_unused_tars(
    warehouse: Warehouse, found: Iterable[UnusedTars], tell: Callable[[str], None] = logger.warning
) -> list[UnusedTars]:
    """Remove what may go, mark the rest; returns what was removed.

    What was taken up since it was found stays.

    Args:
        tell: told of stores that cannot be written to, which are passed by.
    """
    gone: list[UnusedTars] = []
    for into, some in groupby(found, key=lambda one: one.folder.rsplit("/", 2)[0]):
        used = _used(warehouse, into)
        try:
            gone.extend(one for one in some if one.folder not in used and _went(one))
        except StoreError as error:
            tell(f"{error.message} Tars of new samples in {redact(into)} are passed by.")
    return gone


def _went(one: UnusedTars) -> bool:
    """Mark a folder, or remove it; whether it was removed."""
    if one.is_marked:
        return one.goes and _removed(one)
    store().write(f"{one.folder}/{UNUSED}", json.dumps({"since": _now().isoformat()}).encode())
    return False


def _removed(one: UnusedTars) -> bool:
    """Remove a folder; whether it went to the end, as long as nobody took its mark away.

    Records go before the tars that they tell of: who takes it up meanwhile sees none of a tar that is about to go.
    """
    for uri in one.files:
        if not store().exists(f"{one.folder}/{UNUSED}"):
            return False
        store().remove(uri)
    return True


def _unused_in(warehouse: Warehouse, into: str) -> Iterator[UnusedTars]:
    """The unused folders of a store; none of one in which this warehouse has no new samples."""
    owners, me = set(owners_of(into)), warehouse_id(warehouse)
    folders = _folders(into) if me in owners else {}
    used = _used(warehouse, into) if folders else set()
    for folder, files in sorted(folders.items()):
        if folder not in used:
            yield _unused(folder, files, is_shared=owners != {me})


def _unused(folder: str, files: list[FileInfo], *, is_shared: bool) -> UnusedTars:
    """What becomes of an unused folder."""
    names = {file.uri.rpartition("/")[2]: file for file in files}
    order = sorted(names, key=lambda name: (name != DONE, not name.endswith(".arrow"), name == UNUSED, name))
    marked = names.get(UNUSED)
    days = 0.0
    if marked is not None:
        since = dt.datetime.fromisoformat(json.loads(store().read(marked.uri))["since"])
        days = (_now() - since).total_seconds() / 86400
    goes = days > STAGED_VALUES_DAYS and not is_shared
    if is_shared:
        reason = "no version points into it; other warehouses have new samples in this store, too"
    elif goes:
        reason = f"no version points into it, for {days:.1f} days"
    else:
        reason = f"no version points into it; it goes when that is so for {STAGED_VALUES_DAYS:g} days"
    size = sum(file.size for file in files)
    return UnusedTars(folder, reason, size, tuple(names[name].uri for name in order), goes, marked is not None)


def _folders(into: str) -> dict[str, list[FileInfo]]:
    """Folder of a shard -> its files; of folders that hold nothing else."""
    found: dict[str, list[FileInfo]] = {}
    try:
        files = store().list(into)
    except FileMissing:
        return {}
    for file in files:
        folder = file.uri.rpartition("/")[0]
        if _FOLDER.fullmatch(folder.removeprefix(f"{into}/")):
            found.setdefault(folder, []).append(file)
    return {folder: files for folder, files in found.items() if all(_is_ours(file) for file in files)}


def _is_ours(file: FileInfo) -> bool:
    name = file.uri.rpartition("/")[2]
    return _FILE.fullmatch(name) is not None or is_unfinished(name)


def _stores(warehouse: Warehouse) -> list[str]:
    ensure_tables(warehouse)
    given = settings().derived
    found = {store().resolve(given)} if given else set()
    rows = warehouse.rows(f"SELECT recipe FROM {CATALOG}.recipes WHERE position(recipe, '\"NewSamples\"') > 0")
    found |= {str(node["into"]) for row in rows for node in _nodes(row["recipe"]) if node["is"] == "NewSamples"}
    return sorted(found)


def _nodes(recipe: str) -> Iterator[dict[str, str]]:
    yield from json.loads(recipe).get("nodes", ())


def _used(warehouse: Warehouse, into: str) -> set[str]:
    """Folders that rows of any table point into."""
    columns = warehouse.rows(
        "SELECT database, table, name FROM system.columns WHERE startsWith(type, 'Tuple(')"
        " AND position(type, 'uri') > 0 AND position(type, 'offset') > 0 AND database != 'system'"
    )
    found: set[str] = set()
    for one in columns:
        uri = f"toString(tupleElement({quote(one['name'])}, 'uri'))"
        rows = warehouse.rows(
            f"SELECT DISTINCT {uri} AS uri FROM {quote(one['database'])}.{quote(one['table'])}"
            f" WHERE startsWith({uri}, {{i:String}})",
            {"i": f"{into}/"},
        )
        found |= {row["uri"].rpartition("/")[0] for row in rows}
    return found


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
