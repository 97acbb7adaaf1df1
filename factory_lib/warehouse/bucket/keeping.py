"""What is kept in the bucket of a data folder besides the parts of versions: enough to make the folder anew.

That is the head; an object for each version, which says where each of its files lies (it is written once, as versions
never change); and packs of the catalog, of which each holds the parts that came since the one before. The engine merges
parts of the catalog into larger ones, which come into a new pack: packs whose parts are all gone are removed.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from factory_lib.names import CATALOG, is_dataset_database
from factory_lib.storage.store import store
from factory_lib.warehouse.bucket.blobs import POLICY, part_files, table_folder
from factory_lib.warehouse.bucket.head import Bound, BucketHead, bucket_lock, put_head
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.schema import ensure_tables
from factory_lib.warehouse.seals import unpublished

VERSIONS, PACKS = "versions", "catalog"
"""Folders below the prefix."""

_PASSES = 20


def record(warehouse: Warehouse, table_uuid: str) -> None:
    """Write into the bucket where the files of a table lie that is about to be published.

    Nothing is done where versions lie on the disk of the data folder.

    Raises:
        BucketError: the bucket belongs to another folder by now.
        StoreError: the bucket cannot be read or written.
    """
    home = warehouse.home
    if home is None or _bound(warehouse) is None:
        return
    with bucket_lock(home):  # another commit of this folder may be replacing the head
        bound = _bound(warehouse)
        assert bound is not None
        bound.head()
    _record(warehouse, bound, [table_uuid])


def keep(warehouse: Warehouse, recorded: str = "") -> None:
    """Bring the bucket's record of a data folder up to date. Errors as of `record`.

    Args:
        recorded: UUID of a version that was recorded just now.
    """
    home = warehouse.home
    if home is None or _bound(warehouse) is None:
        return
    with bucket_lock(home):
        bound = _bound(warehouse)
        assert bound is not None
        head, etag = bound.head()
        versions = _versions(warehouse)
        _record(warehouse, bound, [one for one in versions if one not in head.versions and one != recorded])
        # After the versions: what is recorded of a version was written before it was published.
        catalog = _catalog(warehouse, bound, head.catalog)
        now = replace(head, versions=versions, catalog=catalog, unpublished=unpublished(warehouse))
        if now == head:
            return
        put_head(home, bound, now, etag)
        _remove_unneeded(bound.uri, head, now)


def version_uri(uri: str, table_uuid: str) -> str:
    """Where it is written where the files of a version lie."""
    return f"{uri}/{VERSIONS}/{table_uuid}.json.gz"


def pack_uri(uri: str, pack: str) -> str:
    """Where a pack of the catalog lies."""
    return f"{uri}/{PACKS}/{pack}.tar.gz"


def _bound(warehouse: Warehouse) -> Bound | None:
    return Bound.of(warehouse.home) if warehouse.home is not None else None


def _versions(warehouse: Warehouse) -> dict[str, str]:
    rows = warehouse.rows(
        "SELECT toString(uuid) AS id, database, name FROM system.tables WHERE match(name, '^v[1-9][0-9]*$')"
        " AND storage_policy = {p:String} ORDER BY id",
        {"p": POLICY},
    )
    return {row["id"]: f"{row['database']}.{row['name']}" for row in rows if is_dataset_database(row["database"])}


def _record(warehouse: Warehouse, bound: Bound, uuids: Sequence[str]) -> None:
    if not uuids:
        return
    assert warehouse.home is not None
    data = warehouse.home / "data"
    tables = warehouse.rows(
        "SELECT toString(uuid) AS id, database, name, metadata_path AS path FROM system.tables"
        " WHERE has({u:Array(UUID)}, uuid)",
        {"u": list(uuids)},
    )
    parts: dict[str, list[str]] = {}
    for row in warehouse.rows(
        "SELECT toString(t.uuid) AS id, p.name AS part FROM system.parts AS p INNER JOIN"
        " (SELECT uuid, database, name FROM system.tables WHERE has({u:Array(UUID)}, uuid)) AS t"
        " ON p.database = t.database AND p.table = t.name WHERE p.active ORDER BY part",
        {"u": list(uuids)},
    ):
        parts.setdefault(row["id"], []).append(row["part"])
    for table in tables:
        said = {
            "definition": (data / table["path"]).read_text(),
            "database": (data / "metadata" / f"{table['database']}.sql").read_text(),
            "files": part_files(table_folder(data, table["id"]), parts.get(table["id"], [])),
        }
        packed = gzip.compress(json.dumps(said, separators=(",", ":")).encode(), mtime=0)
        store().write(version_uri(bound.uri, table["id"]), packed)


def _catalog(warehouse: Warehouse, bound: Bound, known: Mapping[str, str]) -> dict[str, str]:
    """The parts of the catalog, each with its pack; those that are in none are packed."""
    ensure_tables(warehouse)
    for attempt in range(_PASSES):
        rows = warehouse.rows(
            "SELECT toString(t.uuid) AS id, p.name AS part, p.hash_of_all_files AS hash, p.path AS path"
            " FROM system.parts AS p INNER JOIN system.tables AS t ON p.database = t.database AND p.table = t.name"
            " WHERE p.active AND p.database = {d:String} ORDER BY id, part",
            {"d": CATALOG},
        )
        # A part that is made when all others are gone is numbered from the start again: its content tells them apart.
        parts = {f"{row['id']}/{row['part']}/{row['hash'][:12]}": row["path"] for row in rows}
        new = {part: path for part, path in parts.items() if part not in known}
        if not new:
            return {part: known[part] for part in parts}
        # Numbered: where two packs hold the definition of a table, the later one counts.
        number = max((int(pack.partition("-")[0]) for pack in known.values()), default=0) + 1
        pack = f"{number:06}-{uuid.uuid4().hex[:8]}"
        try:
            packed = _packed(warehouse, list(new.values()))
        except FileNotFoundError:  # merged meanwhile
            if attempt + 1 == _PASSES:
                raise
            continue
        store().write(pack_uri(bound.uri, pack), packed)
        return {part: known.get(part, pack) for part in parts}
    raise AssertionError


def _packed(warehouse: Warehouse, parts: Sequence[str]) -> bytes:
    """Parts of the catalog, and the definitions of its tables, as paths below the engine's folder."""
    assert warehouse.home is not None
    data = warehouse.home / "data"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:

        def add(path: Path) -> None:
            archive.add(path, str(path.relative_to(data)))

        for part in parts:
            add(data / part)
        add(data / "metadata" / f"{CATALOG}.sql")
        add(data / "metadata" / CATALOG)
        for row in warehouse.rows(
            "SELECT toString(uuid) AS id, name, metadata_path AS path FROM system.tables WHERE database = {d:String}"
            " AND endsWith(engine, 'MergeTree')",
            {"d": CATALOG},
        ):
            add(data / row["path"])
            add(data / "data" / CATALOG / row["name"])
            add(data / "store" / row["id"][:3] / row["id"] / "format_version.txt")
    return packed.getvalue()


def _remove_unneeded(uri: str, before: BucketHead, now: BucketHead) -> None:
    """Remove objects that the head before named and this one does not."""
    for one in before.versions.keys() - now.versions.keys():
        store().remove(version_uri(uri, one))
    for pack in set(before.catalog.values()) - set(now.catalog.values()):
        store().remove(pack_uri(uri, pack))
