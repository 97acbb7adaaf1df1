"""A data folder is made anew of what its bucket holds: definitions, catalog, and the files that name objects."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import tarfile
from pathlib import Path
from typing import Any

from factory_lib.names import is_version_name
from factory_lib.progress import track
from factory_lib.storage.store import store
from factory_lib.warehouse.bucket.blobs import METADATA, place, table_folder
from factory_lib.warehouse.bucket.head import Bound, BucketError, BucketHead, put_head, read_head
from factory_lib.warehouse.bucket.keeping import pack_uri, version_uri

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def rebuild(uri: str, folder: Path, home: Path) -> tuple[BucketHead, int]:
    """Fill a folder with what a bucket holds of a data folder; the bucket belongs to it from then on.

    Args:
        folder: that is filled.
        home: what it will be called, for the owner of the bucket.

    Returns:
        The head, and the bytes that were read.

    Raises:
        BucketError: there is no head below the prefix, or a later release wrote it.
        StoreError: the bucket cannot be read or written.
    """
    found = read_head(uri)
    if found is None:
        raise BucketError(f"{uri} holds no versions of a data folder.", "Is it what FACTORY_VERSIONS named there?")
    head, etag = found
    data, files, size = folder / "data", dict[Path, str](), 0
    for pack in sorted(set(head.catalog.values())):
        packed = store().read(pack_uri(uri, pack))
        _unpack(packed, {part.rpartition("/")[0] for part, one in head.catalog.items() if one == pack}, data)
        size += len(packed)
    with track("versions out of the bucket", len(head.versions)) as progress:
        for uuid, name in head.versions.items():
            packed = store().read(version_uri(uri, uuid))
            said: dict[str, Any] = json.loads(gzip.decompress(packed))
            _check(uri, uuid, name, said)
            _define(data, uuid, name, said)
            files |= {table_folder(data, uuid) / path: text for path, text in said["files"].items()}
            size += len(packed)
            progress.advance()
    place(files)
    put_head(folder, Bound(uri, [head.token]), head, etag, home)
    return head, size


def _check(uri: str, uuid: str, name: str, said: dict[str, Any]) -> None:
    """Make sure that what is written stays in the folder that is made: others may write to the bucket, too."""
    odd = [path for path in said["files"] if not re.fullmatch(r"(?!.*\.\.(/|$))[^/].*", path)]
    if odd or not is_version_name(name) or not re.fullmatch(_UUID, uuid):
        raise BucketError(
            f"What {uri} says of {name!r} is nothing that was written there as a version: {(odd or [uuid])[0]!r}.",
            "Who else writes to that bucket? Bring back what it held before.",
        )


def _unpack(packed: bytes, parts: set[str], data: Path) -> None:
    """Place a pack of the catalog but for parts that are not needed any more.

    Args:
        parts: those that are, `table's UUID/part`.
    """

    def wanted(member: tarfile.TarInfo) -> bool:
        steps = member.name.split("/")
        is_part = steps[0] == "store" and len(steps) > 3 and (len(steps) > 4 or member.isdir())
        return not is_part or "/".join(steps[2:4]) in parts

    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        archive.extractall(data, filter(wanted, archive.getmembers()), filter="data")


def _define(data: Path, uuid: str, name: str, said: dict[str, Any]) -> None:
    """Write the definition of a version's table, and of its database."""
    database, _, table = name.partition(".")
    identity = re.search(f"UUID '({_UUID})'", said["database"])
    assert identity is not None
    folder = Path("store", identity[1][:3], identity[1])
    _written(data / "metadata" / f"{database}.sql", said["database"])
    _linked(data / "metadata" / database, f"../{folder}")
    _written(data / folder / f"{table}.sql", said["definition"])
    _linked(data / "data" / database / table, f"../../{METADATA}/store/{uuid[:3]}/{uuid}")


def _written(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(text)


def _linked(path: Path, named: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.is_symlink():
        os.symlink(named, path)
