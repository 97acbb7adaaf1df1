"""Backups of a data folder: taken while it is in use, restored into a folder that holds nothing, and verified.

A backup is a folder in the folder that the user names: `data` as another engine opens it, `home` with what else belongs
to a data folder, and `backup.json`. Each is whole by itself, and shares what did not change with the one before.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from factory_lib.errors import FactoryError
from factory_lib.history.tampering import Finding
from factory_lib.history.verifying import verify
from factory_lib.owners import building, remove_leftovers
from factory_lib.progress import track
from factory_lib.warehouse.bucket.head import Bound
from factory_lib.warehouse.bucket.rebuilding import rebuild
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.durable import sync_disk
from factory_lib.warehouse.embedded import stop_engine
from factory_lib.warehouse.seals import unseal
from factory_lib.warehouse.snapshot import Placing, snapshot
from factory_lib.warehouse.space import RESERVE
from factory_lib.warehouse.versions import datasets

MANIFEST = "backup.json"
LEFT_OUT = ("data", "cache", "sources", "digests", "plans", "locks", "training", RESERVE)
"""What a backup does not hold: the engine's folder, which is placed apart; what is computed or fetched again; locks;
checkpoints of trainings that run; what is kept free. So do names of processes: `engine.*`, `up.*`, unfinished files."""

_SQLITE = b"SQLite format 3\x00"


class BackupError(FactoryError):
    """A backup cannot be taken or restored."""


@dataclass(frozen=True)
class Backup:
    """What a backup holds.

    Attributes:
        folder: where it is, a folder or a bucket.
        at: when it was taken, UTC.
        versions: versions in it.
        copied_bytes: bytes that were copied; all else is linked.
        findings: what differs from what was published, when it was opened and read.
    """

    folder: Path | str
    at: str
    versions: int
    copied_bytes: int
    findings: list[Finding]


def backup(warehouse: Warehouse, target: Path, *, check: bool = True) -> Backup:
    """Take a backup of the data folder of an embedded engine, whoever uses it meanwhile.

    Args:
        target: folder of backups, made if missing; what the last one in it has is not copied again.
        check: open what was taken with an engine of its own, and verify it by content fingerprints.

    Raises:
        BackupError: the warehouse is a server, versions lie in a bucket, or the folder lies in the data folder.
        OSError: the folder cannot be written.
    """
    home = warehouse.home
    if home is None:
        raise BackupError(
            "The datasets are on a ClickHouse server, whose files are not here.",
            "docker/clickhouse/backup.sh backs up a server; docker/README.md says how.",
        )
    if (bound := Bound.of(home)) is not None:
        raise BackupError(
            f"The versions of {home} lie in {bound.uri}, with all that it takes to make the folder anew.",
            f"FACTORY_HOME=EMPTY_FOLDER factory restore {bound.uri}. A copy of the bucket is its own backup.",
        )
    target = target.absolute()
    if target.resolve().is_relative_to(home.resolve()) or home.resolve().is_relative_to(target.resolve()):
        raise BackupError(f"{target} and the data folder {home} lie in one another.", "Choose a folder beside it.")
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_leftovers(target)
    if check:
        for made in datasets(warehouse).values():
            made[-1].fingerprints()
    at = dt.datetime.now(dt.UTC)
    folder = target / at.strftime("%Y-%m-%dT%H-%M-%S-%f")
    earlier = _newest(target)
    with building(folder) as beside:
        # What Dagster says was made must be there: its events are taken first.
        _copy_home(home, beside / "home")
        placing = Placing(earlier / "data" if earlier else None, beside / "data")
        listing = snapshot(warehouse, beside / "data", placing)
        manifest = {"at": at.isoformat(), "versions": listing.versions, "unpublished": listing.unpublished}
        (beside / MANIFEST).write_text(json.dumps(manifest))
        sync_disk(beside)
    sync_disk(target)
    findings = _opened_and_verified(folder) if check else []
    return Backup(folder, at.isoformat(), len(listing.versions), placing.copied_bytes, findings)


def restore(source: Path, home: Path) -> Backup:
    """Make a data folder of a backup, and verify it.

    Args:
        source: a backup, or a folder of backups: the newest one is taken.
        home: the data folder, which must be missing or empty. It is its own: engines of the original do not serve it.

    Raises:
        BackupError: there is no backup, or the data folder holds something.
        OSError: the folder cannot be written.
    """
    found = source.absolute() if (source / MANIFEST).is_file() else _newest(source.absolute())
    if found is None:
        raise BackupError(f"{source} holds no backup.", "factory backup DIR makes one.")
    home = _free(home)
    placing = Placing()
    with building(home) as beside:
        shutil.copytree(found / "home", beside, symlinks=True, dirs_exist_ok=True)
        beside.chmod(0o700)
        _place_data(found / "data", beside / "data", placing)
        sync_disk(beside)
    sync_disk(home.parent)
    manifest = _manifest(found)
    findings = _verified(home, manifest)
    return Backup(found, manifest["at"], len(manifest["versions"]), placing.copied_bytes, findings)


def restore_from_bucket(uri: str, home: Path) -> Backup:
    """Make a data folder anew of the bucket that holds its versions, and verify it. The bucket is its own from then on.

    Args:
        uri: what `FACTORY_VERSIONS` named for the folder that is lost.
        home: the data folder, which must be missing or empty.

    Raises:
        BackupError: the data folder holds something.
        BucketError: the bucket holds no versions.
        StoreError: the bucket cannot be read or written.
        OSError: the folder cannot be written.
    """
    home = _free(home)
    with building(home) as beside:
        head, size = rebuild(uri, beside, home)
        sync_disk(beside)
    sync_disk(home.parent)
    manifest = {"versions": {name: uuid for uuid, name in head.versions.items()}, "unpublished": head.unpublished}
    return Backup(uri, head.at, len(head.versions), size, _verified(home, manifest))


def _free(home: Path) -> Path:
    """The absolute path of a folder that is missing or empty, and may be made."""
    home = home.absolute()
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise BackupError(
            f"{home} holds something: a backup is restored into a folder of its own.",
            "Set FACTORY_HOME to another folder, or move this one away.",
        )
    home.parent.mkdir(parents=True, exist_ok=True)
    return home


def as_json(found: Backup) -> dict[str, Any]:
    """What commands print of a backup."""
    return {**asdict(found), "folder": str(found.folder)}


def _newest(folder: Path) -> Path | None:
    found = sorted(path.parent for path in folder.glob(f"[0-9]*/{MANIFEST}"))
    return found[-1] if found else None


def _manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return found


def _copy_home(home: Path, target: Path) -> None:
    """Copy what is beside the engine's folder: databases of Dagster by their own way of copying, all else as it is."""
    target.mkdir(mode=0o700)
    with track("files beside the tables into the backup") as progress:
        for path in _files(home):
            place = target / path.relative_to(home)
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                _copy(path, place)
            except FileNotFoundError:  # removed meanwhile
                continue
            progress.advance()


def _files(home: Path) -> Iterator[Path]:
    for entry in sorted(home.iterdir()):
        if entry.name in LEFT_OUT or entry.name.startswith((".part-", "engine.", "up.")):
            continue
        if entry.is_file():
            yield entry
        for folder, _, names in os.walk(entry):
            yield from (Path(folder, name) for name in names if not name.endswith(("-journal", "-wal", "-shm")))


def _copy(source: Path, target: Path) -> None:
    if source.is_symlink():
        target.symlink_to(os.readlink(source))
        return
    if not source.is_file():  # a socket or pipe of somebody who runs
        return
    with open(source, "rb") as file:
        is_database = file.read(len(_SQLITE)) == _SQLITE
    if not is_database:
        shutil.copy2(source, target)
        return
    reading, writing = sqlite3.connect(f"file:{source}?mode=ro", uri=True), sqlite3.connect(target)
    try:
        reading.backup(writing)
    finally:
        writing.close()
        reading.close()


def _place_data(source: Path, target: Path, placing: Placing) -> None:
    """Place the engine's folder: parts, which never change, are linked where they can be; all else is copied."""
    for folder, names, files in os.walk(source):
        place = target / Path(folder).relative_to(source)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_part = "checksums.txt" in files
        for name in files:
            if is_part:
                placing.file(Path(folder, name), place / name)
            else:
                shutil.copy2(Path(folder, name), place / name)
        for name in [one for one in names if Path(folder, one).is_symlink()]:
            (place / name).symlink_to(os.readlink(Path(folder, name)))


def _opened_and_verified(folder: Path) -> list[Finding]:
    """What is wrong with a backup: it is restored within itself, by links, and read by an engine of its own."""
    with tempfile.TemporaryDirectory(prefix=".check-", dir=folder) as beside:
        home = Path(beside, "home")
        _place_data(folder / "data", home / "data", Placing())
        try:
            return _verified(home, _manifest(folder))
        finally:
            stop_engine(home)


def _verified(home: Path, manifest: dict[str, Any]) -> list[Finding]:
    warehouse = Warehouse(home=home)
    try:
        there = {str(v): v.uuid for made in datasets(warehouse).values() for v in made}
        unseal(warehouse, [uuid for uuid in manifest["unpublished"] if uuid not in there.values()])
        missing = [name for name, uuid in manifest["versions"].items() if there.get(name) != uuid]
        found = verify(warehouse, sources=False).findings
        return [Finding(name, "it is not in what was restored") for name in missing] + found
    finally:
        warehouse.close()
