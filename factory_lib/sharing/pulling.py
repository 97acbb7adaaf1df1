"""A published version is opened in the warehouse of this process: nothing of it is copied, it is read where it lies."""

from __future__ import annotations

import json

import pyarrow as pa

from factory_lib.errors import EngineError, FileMissing, PublicationError
from factory_lib.names import check_dataset_name
from factory_lib.owners import owner
from factory_lib.settings import settings
from factory_lib.sharing.manifest import Manifest, digest
from factory_lib.sharing.place import SharedPlace, is_address
from factory_lib.sharing.publishing import RECORDS, TABLE
from factory_lib.sharing.records import read_records, take_in
from factory_lib.warehouse.client import Warehouse, warehouse
from factory_lib.warehouse.locking import locked
from factory_lib.warehouse.pulled import address_of, cannot_open, record_pulled
from factory_lib.warehouse.remote_disk import definition, hashes, remote_disk
from factory_lib.warehouse.schema import ensure_tables
from factory_lib.warehouse.seals import seal
from factory_lib.warehouse.versions import Version, resolve, versions

_CACHE_SHARE = 10
"""The engine keeps at most this part of `FACTORY_CACHE_BYTES` of versions that lie in buckets."""


def opened(name: str) -> Version:
    """The version that a name or an address means; one that is published elsewhere is pulled.

    Raises:
        DatasetNotFound, VersionNotFound: there is no such version.
        PublicationError: see `pull_version`.
    """
    return pull_version(name) if is_address(name) else resolve(warehouse(), name)


def pull_version(address: str, dataset: str | None = None) -> Version:
    """Open a published version here; it reads like any other, and cannot be changed.

    Args:
        address: `PLACE/laion.v3`, `PLACE/laion@icml`, or `PLACE/laion` for the latest.
        dataset: what it is to be a version of here; by default the dataset that it was published as.

    Returns:
        The version, with the number that it has there. One that is here already is returned as it is.

    Raises:
        DatasetNotFound, VersionNotFound: there is no such version.
        PublicationError: a later release published it, it was changed, the engine cannot open it, or the dataset here
            has other versions, of which it does not come.
        StoreError: the place cannot be read.
    """
    place, ref = SharedPlace.of(address)
    found = place.resolve(ref)
    wh = warehouse()
    if wh.deployment.replicated or not wh.deployment.readonly_tables:
        raise PublicationError(
            f"{address} cannot be opened by a {wh.deployment.kind}: it opens no tables that lie elsewhere.",
            "Pull it into one server or a data folder, and export it from there: factory export laion URI",
        )
    ensure_tables(wh)
    if here := _here(wh, found.uuid):
        return here
    name = check_dataset_name(dataset or found.dataset)
    folder = f"{place.folder(found.dataset)}/data/{found.data}"
    address = place.address(found.dataset, found.number)
    try:
        records = read_records(f"{folder}/{RECORDS}")
    except (FileMissing, pa.ArrowInvalid) as error:
        raise PublicationError(f"{address} is not whole: {error}", "Who published it publishes it again.") from None
    with locked(wh, name):
        _check_name(wh, name, place, found, records["versions"])
        record_pulled(wh, found.uuid, address, records["versions"].column("uuid").to_pylist())
        take_in(wh, records)
        return _attach(wh, name, found, f"{folder}/{TABLE}", address)


def _here(wh: Warehouse, uuid: str) -> Version | None:
    """The version with a UUID, if it is here under whatever name."""
    names = wh.rows(
        "SELECT database, table FROM (SELECT database, name AS table, uuid FROM system.tables UNION ALL"
        " SELECT database, table, uuid FROM system.detached_tables)"
        " WHERE uuid = {u:UUID} AND match(table, '^v[1-9][0-9]*$')",
        {"u": uuid},
    )
    return resolve(wh, f"{names[0]['database']}.{names[0]['table']}") if names else None


def _check_name(wh: Warehouse, dataset: str, place: SharedPlace, found: Manifest, family: pa.Table) -> None:
    """Make sure that a dataset goes on with a version, and does not become another one by it."""
    here = versions(wh, dataset)
    hint = (
        f"Pull it under another name: factory pull {place.address(found.dataset, found.number)} --as {dataset}_shared"
    )
    if any(one.number == found.number for one in here):
        raise PublicationError(f"{dataset}.v{found.number} is here already, and is another version.", hint)
    if not here or here[-1].uuid in family.column("uuid").to_pylist():
        return
    if not address_of(wh, here[-1].uuid).startswith(f"{place.address(found.dataset, 0).rpartition('.')[0]}."):
        raise PublicationError(f"{here[-1]} was made here, and {found.version} there does not come of it.", hint)


def _attach(wh: Warehouse, dataset: str, found: Manifest, uri: str, address: str) -> Version:
    made = Version(dataset, found.number, found.uuid, wh)
    comment = json.dumps({**json.loads(owner()), "version": str(made)})
    disk = remote_disk(uri, readonly=True, cache_bytes=settings().cache_bytes // _CACHE_SHARE)
    wh.execute(wh.deployment.create_database(dataset))
    try:
        wh.execute(
            f"ATTACH TABLE {made.table}"
            f" {definition(found.declared, found.uuid, disk=disk, readonly=True, comment=comment)}"
        )
    except EngineError as error:
        raise cannot_open(str(made), address, error) from None
    files = hashes(wh, dataset, f"v{found.number}")
    if digest({shard: f"{rows} {hash}" for shard, (rows, _, hash) in files.items()}) != found.files:
        wh.drop(made.table)  # what lies there is not touched by it
        raise PublicationError(
            f"{address} is not what was published: its files are others.", "Ask who can write there."
        )
    seal(wh, found.uuid, dataset, f"v{found.number}", str(made))
    wh.sync()
    return made
