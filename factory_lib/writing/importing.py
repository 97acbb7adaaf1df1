"""An export becomes a dataset again: its samples, and what it says of where they come from."""

from __future__ import annotations

import json
from typing import Any

from factory_lib.errors import ExportError, FileMissing
from factory_lib.names import parse_ref
from factory_lib.query import DatasetQuery
from factory_lib.redaction import redact
from factory_lib.sources import open_source
from factory_lib.storage.files import path_of
from factory_lib.storage.store import store
from factory_lib.warehouse.versions import Version
from factory_lib.writing.place import PROVENANCE

_WHOLE = ("parquet", "huggingface", "webdataset", "resharded")
"""Formats that hold samples with their pictures, or pointers to these."""


def import_samples(uri: str, name: str | None = None, *, unpack_to: str | None = None) -> Version:
    """Make a version of an export, with what its `provenance.json` says in the version's own provenance.

    A file of the export becomes a shard; samples, keys and pointers are those of the version that was exported.

    Args:
        uri: folder or prefix of the export.
        name: of the dataset; by default that of the version that was exported.
        unpack_to: where bytes of pictures go that lie in tables (see `open_source`).

    Raises:
        ExportError: no export is there, it is not whole, its files are others, or samples of it cannot be read.
        StoreError: the place cannot be read.
    """
    place = store().resolve(uri)
    said = _said(place)
    if (kind := said["how"].get("format")) not in _WHOLE:
        raise ExportError(
            f"{redact(place)} is an export as {kind}, which keeps no pointers to pictures.",
            f"Export it as {', '.join(_WHOLE[:-1])}; or take it as a table: factory ingest.",
        )
    _check_files(place, said)
    query = DatasetQuery.from_source(open_source(place, unpack_to=unpack_to))
    expected, found = said["samples"], query.count()
    if found != expected:
        raise ExportError(
            f"The export {redact(place)} has {expected:,} samples, and {found:,} are read of it.",
            f"See what is odd: factory ingest {redact(place)} --name {name or 'another'}",
        )
    return query.save(name or _dataset(place, said), context={"imported": _origin(said)})


def _said(place: str) -> dict[str, Any]:
    try:
        said = json.loads(store().read(f"{place}/{PROVENANCE}"))
    except FileMissing:
        raise ExportError(
            f"{redact(place)} holds no whole export: it has no {PROVENANCE}.",
            "Other samples become a dataset by factory ingest; published versions by factory pull.",
        ) from None
    except ValueError:
        said = None
    wanted = {"samples": int, "files": dict, "versions": list, "query": str, "how": dict}
    if not isinstance(said, dict) or not all(isinstance(said.get(key), kind) for key, kind in wanted.items()):
        raise ExportError(f"{redact(place)}/{PROVENANCE} is not what an export writes.", "Was it edited?")
    return said


def _check_files(place: str, said: dict[str, Any]) -> None:
    there = {path_of(file.uri).removeprefix(f"{path_of(place)}/"): file.size for file in store().list(place)}
    for name, size in said["files"].items():
        if there.get(name) != size:
            what = f"has {there[name]:,} bytes in place of {size:,}" if name in there else "is not there"
            raise ExportError(f"{redact(place)}/{name} {what}.", "Copy the export again, whole.")


def _dataset(place: str, said: dict[str, Any]) -> str:
    names = [str(one.get("name", "")) for one in said["versions"] if isinstance(one, dict)]
    if len(names) != 1:
        raise ExportError(f"{redact(place)} was made of {len(names)} versions.", "Name the dataset: --name NAME")
    return parse_ref(names[0]).dataset


def _origin(said: dict[str, Any]) -> str:
    """Where the samples come from, in a line."""
    versions = ", ".join(f"{one['name']} ({one['uuid']}, made {one['created']})" for one in said["versions"])
    return f"{said['query']}, of {versions}" if versions else said["query"]
