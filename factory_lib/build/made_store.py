"""Whether a folder or bucket may hold tars of new samples: not a source's, not what somebody else keeps there."""

from __future__ import annotations

import json

from factory_lib.errors import FileMissing, QueryError
from factory_lib.names import CATALOG
from factory_lib.plan.sqltext import quote
from factory_lib.redaction import redact
from factory_lib.sources.declared import folders_of
from factory_lib.storage.store import store
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.schema import ensure_tables
from factory_lib.warehouse.staging import StagingTable

OWNERS = "made_by_dataset_factory"
"""Folder of a store with a file for each warehouse that has new samples there."""
_HINT = "Name another folder or bucket: into=…, or FACTORY_DERIVED."


def claim_store(wh: Warehouse, into: str, parents: StagingTable) -> None:
    """Have a store belong to new samples, and write down that those of this warehouse are there.

    Args:
        into: folder or bucket, resolved.
        parents: the samples that new ones are made of.

    Raises:
        QueryError: it lies inside of a source, in a folder of the parents' files, or holds something else.
    """
    for folder in (*_sources(wh), *_folders(parents)):
        if f"{into}/".startswith(f"{folder.rstrip('/')}/"):
            raise QueryError(
                f"New samples cannot be kept in {redact(into)}: it lies inside of {redact(folder)}, where samples are"
                " read from, and would be read with them.",
                _HINT,
            )
    owner = f"{into}/{OWNERS}/{warehouse_id(wh)}.json"
    if store().exists(owner):
        return
    if not owners_of(into) and (foreign := _any_file(into)):
        raise QueryError(
            f"New samples cannot be kept in {redact(into)}: something else is there, such as {redact(foreign)}.", _HINT
        )
    store().write(owner, json.dumps({"what": "new samples of a dataset factory"}).encode())


def owners_of(into: str) -> list[str]:
    """Ids of the warehouses that have new samples in a store."""
    try:
        files = store().list(f"{into}/{OWNERS}")
    except FileMissing:
        return []
    return [file.uri.rpartition("/")[2].removesuffix(".json") for file in files]


def warehouse_id(wh: Warehouse) -> str:
    """What tells warehouses apart: the UUID of the catalog."""
    ensure_tables(wh)
    return str(
        wh.scalar(f"SELECT toString(uuid) FROM system.tables WHERE database = '{CATALOG}' AND name = 'versions'")
    )


def _any_file(into: str) -> str | None:
    try:
        return next((file.uri for file in store().list(into)), None)
    except FileMissing:
        return None


def _sources(wh: Warehouse) -> list[str]:
    """Everything that was ever ingested: folders, and files, in which nothing lies."""
    ensure_tables(wh)
    rows = wh.rows(
        "SELECT DISTINCT JSONExtractString(arrayJoin(JSONExtractArrayRaw(record, 'sources')), 'uri') AS uri"
        f" FROM {CATALOG}.versions"
    )
    return sorted({folder for row in rows for folder in folders_of(row["uri"]) if folder})


def _folders(parents: StagingTable) -> list[str]:
    """The folders of the files that samples point into."""
    uri = f"tupleElement({quote('image')}, 'uri')"
    rows = parents.warehouse.rows(
        f"SELECT DISTINCT substring(u, 1, length(u) - position(reverse(u), '/')) AS folder"
        f" FROM (SELECT DISTINCT toString({uri}) AS u FROM {parents.name}) WHERE u != ''"
    )
    return sorted(row["folder"] for row in rows)
