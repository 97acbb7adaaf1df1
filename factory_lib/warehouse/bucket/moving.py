"""Versions move from the disk of a data folder into a bucket, or back, while no engine runs on the folder.

File by file, each once: what tables share they share in the new place, and checksums and seals hold. Only when all is
there do the definitions of the tables name the new place, and only then are the files in the old one removed. A move
that was killed goes on where it was when it is begun again; until then an engine finds each version where it is.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import string
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from factory_lib.names import CATALOG, STAGE_PREFIX, is_version_name
from factory_lib.owners import is_unfinished, replacing, write_whole
from factory_lib.progress import track
from factory_lib.storage.store import store
from factory_lib.warehouse.bucket.blobs import METADATA, PARTS, POLICY, blob_keys, counted, described, table_folder
from factory_lib.warehouse.bucket.head import HEAD, STATE, Bound, BucketError, claim, read_head
from factory_lib.warehouse.bucket.keeping import keep
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.durable import sync_disk
from factory_lib.warehouse.embedded import held_still
from factory_lib.warehouse.remote_disk import REMOTE
from factory_lib.warehouse.space import check_space

AT_ONCE = 16
"""Objects on their way at a time."""

_WHOLE_BYTES = 8 << 20
_SETTING = f"storage_policy = '{POLICY}'"
_SETTINGS = re.compile(r"^SETTINGS ", re.MULTILINE)


@dataclass(frozen=True)
class Moved:
    """What was moved.

    Attributes:
        versions: how many.
        files: that were read and written; what versions share is one.
        bytes: of these.
    """

    versions: int
    files: int
    bytes: int


def move_to_bucket(home: Path, uri: str) -> Moved:
    """Move the versions of a data folder into a bucket, which is its own from then on.

    Args:
        uri: `s3://bucket/prefix`, a prefix that holds nothing.

    Raises:
        BucketError: they lie in another bucket, or the prefix holds the versions of another folder.
        StoreError: the bucket cannot be written. The versions are where they were, and a second try goes on.
    """
    with held_still(home):
        bound = Bound.of(home)
        if bound is not None and bound.uri != uri:
            raise BucketError(f"The versions of {home} lie in {bound.uri}.", "First: factory move disk.")
        data = home / "data"
        known = [table for table in _tables(data) if is_version_name(table.name)]
        if bound is None or (read_head(uri) is None and not any(table.is_away for table in known)):
            bound = claim(home, uri)
        bound.head()
        tables = [table for table in known if not table.is_away]
        moved = _moved(_Into(data, uri), tables)
        _define(data, tables, away=True)
        for table in known:
            shutil.rmtree(table.here, ignore_errors=True)
    keep(Warehouse(home=home))
    return moved


def move_to_disk(home: Path) -> Moved:
    """Move the versions of a data folder back to its disk, and remove them from the bucket.

    Raises:
        BucketError: they lie there already, or the bucket belongs to another folder.
        DiskFull: there is no room for them.
        StoreError: the bucket cannot be read. The versions are where they were, and a second try goes on.
    """
    with held_still(home):
        bound = Bound.of(home)
        if bound is None:
            raise BucketError(f"The versions of {home} lie on its disk.")
        bound.head()
        data = home / "data"
        known = [table for table in _tables(data) if table.is_away]
        tables = [table for table in known if not table.is_unfinished]
        moved = _moved(_OutOf(data, bound.uri), tables)
        _define(data, tables, away=False)
        for table in known:
            if table.is_unfinished:  # whoever builds it builds it with the engine that was stopped
                table.definition.unlink()
        (home / STATE).unlink()
        shutil.rmtree(data / METADATA, ignore_errors=True)
        shutil.rmtree(data / "cache" / POLICY, ignore_errors=True)
    # Its objects belong to nobody now: the head, by which others would think so, goes first.
    store().remove(f"{bound.uri}/{HEAD}")
    left = [file.uri for file in store().list(bound.uri)]
    with track("objects removed", len(left)) as progress, ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(store().remove, left):
            progress.advance()
    return moved


@dataclass(frozen=True)
class _MovedTable:
    """A table by its definition.

    Attributes:
        data: the engine's folder.
        definition: the file.
        name: `database.table`.
        uuid: of the table.
    """

    data: Path
    definition: Path
    name: str
    uuid: str

    @property
    def here(self) -> Path:
        """The folder of its files on the disk of the data folder."""
        return self.data / "store" / self.uuid[:3] / self.uuid

    @property
    def away(self) -> Path:
        """The folder of the files that name its objects."""
        return table_folder(self.data, self.uuid)

    @property
    def is_away(self) -> bool:
        """Whether its definition says that it lies in the bucket."""
        return _SETTING in self.definition.read_text()

    @property
    def is_unfinished(self) -> bool:
        """Whether it was being built."""
        return self.name.partition(".")[2].startswith(STAGE_PREFIX)

    def define(self, *, away: bool) -> None:
        """Have the definition say where its files are."""
        text = self.definition.read_text()
        if away:
            text = _SETTINGS.sub(f"SETTINGS {_SETTING}, ", text, count=1)
        else:
            text = text.replace(f"{_SETTING}, ", "", 1).replace(f", {_SETTING}", "", 1)
        write_whole(self.definition, text.encode())
        link = self.data / "data" / self.name.replace(".", "/")
        link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(link) as beside:
            beside.symlink_to(os.path.relpath(self.away if away else self.here, link.parent))


def _tables(data: Path) -> Iterator[_MovedTable]:
    """All tables but those of the catalog, and those that lie where somebody else published them."""
    for definition in sorted((data / "metadata").glob("*/*.sql")):
        database = definition.parent.name
        text = definition.read_text()
        identity = re.search(r"UUID '([0-9a-f-]{36})'", text)
        if database != CATALOG and identity is not None and REMOTE.decode() not in text:
            yield _MovedTable(data, definition.resolve(), f"{database}.{definition.stem}", identity[1])


def _define(data: Path, tables: list[_MovedTable], *, away: bool) -> None:
    """Have definitions say where files are that are all there by now."""
    sync_disk(data)
    for table in tables:
        table.define(away=away)
    sync_disk(data)


class _Into:
    """Files become objects, and files that name these."""

    def __init__(self, data: Path, uri: str) -> None:
        self.data, self.uri = data, uri
        self.random = random.SystemRandom()

    def source(self, table: _MovedTable) -> Path:
        return table.here

    def target(self, table: _MovedTable) -> Path:
        return table.away

    def size(self, source: Path) -> int:
        return source.stat().st_size

    def move(self, source: Path, target: Path) -> None:
        size = source.stat().st_size
        key = self._key()
        where = f"{self._root()}/{key}"
        if size > _WHOLE_BYTES:
            with store().writing(where) as file, source.open("rb") as read:
                shutil.copyfileobj(read, file)
        elif size:
            store().write(where, source.read_bytes())
        write_whole(target, described({key: size} if size else {}).encode())

    def finish(self, target: Path) -> None:
        """Write how many files name the same objects."""
        target.write_text(counted(target.read_text(), target.stat().st_nlink - 1))

    def _root(self) -> str:
        return self.uri[: self.uri.index("/", len("s3://"))]

    def _key(self) -> str:
        """A name as the engine gives them: nobody has had it before."""
        name = "".join(self.random.choices(string.ascii_lowercase, k=32))
        prefix = self.uri.removeprefix(f"{self._root()}/")
        return f"{prefix}/{PARTS}/{name[:3]}/{name[3:]}"


class _OutOf:
    """Objects become files."""

    def __init__(self, data: Path, uri: str) -> None:
        self.data, self.bucket = data, uri[: uri.index("/", len("s3://"))]

    def source(self, table: _MovedTable) -> Path:
        return table.away

    def target(self, table: _MovedTable) -> Path:
        return table.here

    def size(self, source: Path) -> int:
        return int(source.read_text().splitlines()[1].partition("\t")[2])

    def move(self, source: Path, target: Path) -> None:
        check_space(self.data, self.size(source))
        with replacing(target) as beside, beside.open("wb") as file:
            for key in blob_keys(source.read_text()):
                for chunk in store().chunks(f"{self.bucket}/{key}"):
                    file.write(chunk)

    def finish(self, target: Path) -> None:
        """Nothing is left to do."""


def _moved(way: _Into | _OutOf, tables: list[_MovedTable]) -> Moved:
    """Move the files of tables; those that are there already were moved by an earlier try."""
    same: dict[tuple[int, int], list[tuple[Path, Path]]] = {}
    for table in tables:
        source, target = way.source(table), way.target(table)
        for path in _files(source):
            about = path.stat()
            same.setdefault((about.st_dev, about.st_ino), []).append((path, target / path.relative_to(source)))
    if isinstance(way, _OutOf):
        check_space(way.data, sum(way.size(pairs[0][0]) for pairs in same.values()))
    with track("files of versions", len(same)) as progress, ThreadPoolExecutor(AT_ONCE) as pool:
        sizes = []
        for size in pool.map(lambda pairs: _moved_once(way, pairs), same.values()):
            sizes.append(size)
            progress.advance()
    return Moved(len(tables), len(sizes), sum(sizes))


def _moved_once(way: _Into | _OutOf, pairs: list[tuple[Path, Path]]) -> int:
    """Move a file that goes by several names; all of them are names of one file again."""
    first = next((target for _, target in pairs if target.exists()), None)
    if first is None:
        source, first = pairs[0]
        first.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        way.move(source, first)
    for _, target in pairs:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not target.exists():
            os.link(first, target)
    way.finish(first)
    return way.size(pairs[0][0])


def _files(folder: Path) -> Iterator[Path]:
    for above, folders, names in os.walk(folder):
        # The engine finishes none of them when it starts again.
        folders[:] = [name for name in folders if not name.startswith(("tmp_", "delete_tmp_"))]
        yield from (Path(above, name) for name in names if not is_unfinished(name))
