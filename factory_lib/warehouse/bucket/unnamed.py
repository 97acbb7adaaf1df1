"""Objects of a bucket that nothing names: killed commits left them. They are found by `factory gc`.

What is being written has objects that no file names yet. So what is found is noted in the data folder, and goes when it
is still unnamed a day later.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from factory_lib.owners import write_whole
from factory_lib.progress import track
from factory_lib.storage.store import FileInfo, store
from factory_lib.warehouse.bucket.blobs import all_files, blob_keys
from factory_lib.warehouse.bucket.head import HEAD, Bound, BucketError, bucket_lock
from factory_lib.warehouse.bucket.keeping import pack_uri, version_uri
from factory_lib.warehouse.client import Warehouse

UNNAMED_HOURS = 24.0
"""An object that has been found unnamed for so long belongs to nothing that is being written."""

_NOTES = "bucket-unnamed.json"
_AT_ONCE = 16
_LOOKS, _LOOK_SECONDS = 40, 0.05


@dataclass(frozen=True)
class UnnamedObjects:
    """Objects below the prefix of a data folder that nothing names.

    Attributes:
        place: the prefix.
        reason: why they may go, or why not yet.
        objects: their URIs.
        bytes: of all of them.
        go: whether they may go now.
    """

    place: str
    reason: str
    objects: tuple[str, ...]
    bytes: int
    go: bool


def find_unnamed(warehouse: Warehouse) -> list[UnnamedObjects]:
    """What nothing names in the bucket of a data folder: what may go, and what may go later.

    Raises:
        BucketError: the bucket belongs to another folder, or it is not known what the folder needs of it.
        StoreError: it cannot be read.
    """
    home = warehouse.home
    bound = Bound.of(home) if home is not None else None
    if home is None or bound is None:
        return []
    with bucket_lock(home):
        # Listed first: what is made meanwhile is named by then, or not listed.
        listed = store().list(bound.uri)
        named = set(_named(home, bound))
        left = [file for file in listed if file.uri not in named]
        noted = _noted(home)
        now = time.time()
        seen = {file.uri: noted.get(file.uri, now) for file in left}
        if seen != noted:
            write_whole(home / _NOTES, json.dumps(seen).encode())
    old = [file for file in left if now - seen[file.uri] > UNNAMED_HOURS * 3600]
    young = [file for file in left if now - seen[file.uri] <= UNNAMED_HOURS * 3600]
    found = [_found(bound, old, "objects that nothing names", go=True)]
    found.append(_found(bound, young, f"objects that nothing names yet; they go after {UNNAMED_HOURS:.0f} h", go=False))
    return [one for one in found if one.objects]


def remove_unnamed(found: list[UnnamedObjects]) -> list[UnnamedObjects]:
    """Remove those that may go; which."""
    gone = [one for one in found if one.go]
    uris = [uri for one in gone for uri in one.objects]
    with track("objects removed", len(uris)) as progress, ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(store().remove, uris):
            progress.advance()
    return gone


def _named(home: Path, bound: Bound) -> Iterator[str]:
    head, _ = bound.head()
    yield f"{bound.uri}/{HEAD}"
    yield from (version_uri(bound.uri, uuid) for uuid in head.versions)
    yield from (pack_uri(bound.uri, pack) for pack in head.catalog.values())
    bucket = bound.uri[: bound.uri.index("/", len("s3://"))]
    for path in all_files(home / "data"):
        if text := _written(path):
            yield from (f"{bucket}/{key}" for key in blob_keys(text))


def _written(path: Path) -> str:
    """The content of a file that names objects; empty where it was removed meanwhile, with its objects."""
    for _ in range(_LOOKS):
        try:
            if text := path.read_text():
                return text
        except FileNotFoundError:
            return ""
        time.sleep(_LOOK_SECONDS)  # the engine makes a file, and writes it then
    raise BucketError(
        f"{path} is empty, so that nobody knows which objects are still needed. Nothing was deleted.",
        "A crash of the machine may have emptied it: `factory restore` makes a folder anew of the bucket.",
    )


def _noted(home: Path) -> Mapping[str, float]:
    try:
        found: dict[str, float] = json.loads((home / _NOTES).read_text())
    except FileNotFoundError:
        return {}
    return found


def _found(bound: Bound, files: list[FileInfo], reason: str, *, go: bool) -> UnnamedObjects:
    return UnnamedObjects(bound.uri, reason, tuple(file.uri for file in files), sum(file.size for file in files), go)
