"""A consistent copy of an embedded engine's tables while they are in use, as files that another engine opens.

Parts of tables never change once they are there; they come and go. So versions and the catalog are listed together,
while nobody can commit, tag or drop, and what is listed is then linked or copied in peace. A version that gc dropped
meanwhile begins another pass, which has little left to do.
"""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from factory_lib.errors import EngineError
from factory_lib.names import CATALOG, is_version_name
from factory_lib.owners import unfinished
from factory_lib.progress import Tracked, track
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.locking import locked
from factory_lib.warehouse.schema import ensure_tables
from factory_lib.warehouse.seals import unpublished
from factory_lib.warehouse.versions import datasets

_PASSES = 20


class Placing:
    """Puts files into a folder: as hard links where the file system is the same, else as copies.

    Files that are linked to one another are so in the folder, too; what an earlier folder of the same kind has is
    linked from there.
    """

    def __init__(self, earlier: Path | None = None, under: Path | None = None) -> None:
        self._earlier = earlier
        self._under = under
        self._placed: dict[tuple[int, int], Path] = {}
        self.copied_bytes = 0

    def folder(self, source: Path, target: Path) -> None:
        """Place a folder with all that it holds.

        Raises:
            FileNotFoundError: it, or something in it, is not there any more.
        """
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.scandir(source) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    self.folder(Path(entry.path), target / entry.name)
                else:
                    self.file(Path(entry.path), target / entry.name)

    def file(self, source: Path, target: Path) -> None:
        """Place a file that never changes."""
        about = os.stat(source)
        identity = about.st_dev, about.st_ino
        candidates = [source, self._placed.get(identity)]
        if self._earlier is not None and self._under is not None:
            candidates.append(self._earlier / target.relative_to(self._under))
        for candidate in candidates:
            if candidate is not None and _linked(candidate, target, about):
                self._placed[identity] = target
                return
        shutil.copy2(source, target)
        self.copied_bytes += about.st_size
        self._placed[identity] = target


def _linked(source: Path, target: Path, wanted: os.stat_result) -> bool:
    try:
        found = os.stat(source)
        # Restored folders give the numbers of the catalog's parts anew: the time tells them from the original's.
        if (found.st_size, found.st_mtime_ns) != (wanted.st_size, wanted.st_mtime_ns):
            return False
        os.link(source, target)
    except FileExistsError:
        return True
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP):
            return False
        raise
    return True


@dataclass
class Listing:
    """What there was at one moment.

    Attributes:
        versions: name -> UUID of the table.
        tables: UUID -> folders of its parts.
        definitions: path below the engine's folder -> text of files that say what there is.
        links: path below the engine's folder -> what the link there names.
        unpublished: UUIDs of sealed tables that are not published.
    """

    versions: dict[str, str] = field(default_factory=dict)
    tables: dict[str, list[Path]] = field(default_factory=dict)
    definitions: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    unpublished: list[str] = field(default_factory=list)


def snapshot(warehouse: Warehouse, target: Path, placing: Placing) -> Listing:
    """Put versions and catalog into a folder that an engine can open as its own.

    Returns:
        What is in it.

    Raises:
        EngineError: versions were dropped again and again meanwhile.
        OSError: the folder cannot be written.
    """
    assert warehouse.home is not None
    pinned = unfinished(warehouse.home / "backup")
    try:
        for _ in range(_PASSES):
            shutil.rmtree(pinned, ignore_errors=True)
            listing = _at_one_moment(warehouse, pinned)
            if _place(listing, target, placing):
                break
        else:
            raise EngineError("Versions were dropped faster than they could be put into the backup.", "Try again.")
        for table in (pinned / "store").glob("*/*"):
            shutil.rmtree(target / "store" / table.parent.name / table.name, ignore_errors=True)
        placing.folder(pinned / "store", target / "store")
    finally:
        shutil.rmtree(pinned, ignore_errors=True)
    for path, text in listing.definitions.items():
        (target / path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (target / path).write_text(text)
    for path, named in listing.links.items():
        (target / path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (target / path).symlink_to(named)
    return listing


def _at_one_moment(warehouse: Warehouse, pinned: Path) -> Listing:
    """List all while nobody commits, tags or drops; parts of the catalog, which merges remove, are linked at once."""
    ensure_tables(warehouse)
    while True:
        names = set(datasets(warehouse))
        with locked(warehouse, *names):
            if set(datasets(warehouse)) <= names:
                return _listed(warehouse, pinned)


def _listed(warehouse: Warehouse, pinned: Path) -> Listing:
    home = warehouse.home
    assert home is not None
    data = home / "data"
    found = Listing(unpublished=unpublished(warehouse))
    rows = warehouse.rows(
        "SELECT database, name, toString(uuid) AS uuid, metadata_path AS path FROM system.tables"
        " WHERE database NOT IN ('system', 'INFORMATION_SCHEMA', 'information_schema', '_local')"
    )
    wanted = [r for r in rows if r["database"] == CATALOG or is_version_name(f"{r['database']}.{r['name']}")]
    parts: dict[tuple[str, str], list[Path]] = {}
    # What was pulled lies where it was published: its definition is all that there is of it here.
    for row in warehouse.rows("SELECT database, table, path FROM system.parts WHERE active AND disk_name = 'default'"):
        parts.setdefault((row["database"], row["table"]), []).append(data / row["path"])
    for row in wanted:
        definition = data / row["path"]
        found.definitions[str(definition.relative_to(data))] = definition.read_text()
        store = f"store/{row['uuid'][:3]}/{row['uuid']}"
        found.definitions[f"{store}/format_version.txt"] = "1"
        found.links[f"data/{row['database']}/{row['name']}"] = f"../../{store}"
        folders = parts.get((row["database"], row["name"]), [])
        if row["database"] == CATALOG:
            for folder in folders:
                Placing().folder(folder, pinned / store / folder.name)
        else:
            found.tables[row["uuid"]] = folders
            found.versions[f"{row['database']}.{row['name']}"] = row["uuid"]
    (pinned / "store").mkdir(mode=0o700, parents=True, exist_ok=True)
    for database in {row["database"] for row in wanted}:
        found.definitions[f"metadata/{database}.sql"] = (data / "metadata" / f"{database}.sql").read_text()
        found.links[f"metadata/{database}"] = os.readlink(data / "metadata" / database)
    return found


def _place(listing: Listing, target: Path, placing: Placing) -> bool:
    """Place the parts of versions, and remove what an earlier pass placed and is gone; whether all were there."""
    for table in (target / "store").glob("*/*"):
        if table.name not in listing.tables:
            shutil.rmtree(table)
    with track("versions into the backup", len(listing.tables)) as progress:
        return all(_placed(uuid, folders, target, placing, progress) for uuid, folders in listing.tables.items())


def _placed(uuid: str, folders: list[Path], target: Path, placing: Placing, progress: Tracked) -> bool:
    store = target / "store" / uuid[:3] / uuid
    try:
        for folder in folders:
            placing.folder(folder, store / folder.name)
    except FileNotFoundError:
        return False
    progress.advance()
    return True
