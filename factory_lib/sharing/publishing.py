"""A version is published: its rows are written once, below an address, so that any engine opens them there.

An engine of its own writes them, in a folder below `FACTORY_HOME/publishing`, and goes when it is done: the engine that
the version is in never has a bucket in which it could remove something. Shard by shard the rows come as they are (what
masks hide does not come along), become one part, and are put in place by a copy that is there whole or not at all. The
manifest is written last. A publication that was killed or refused goes on with the shards that are missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from factory_lib.errors import EngineError, PublicationError
from factory_lib.filelocks import exclusive
from factory_lib.home import private_folder
from factory_lib.owners import owner
from factory_lib.plan.sqltext import literal, quote
from factory_lib.progress import track
from factory_lib.redaction import redact
from factory_lib.settings import settings
from factory_lib.sharing.manifest import Manifest, digest
from factory_lib.sharing.place import SharedPlace
from factory_lib.sharing.records import write_records
from factory_lib.sharing.tags import tag_published
from factory_lib.storage.store import is_local, store
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.embedded import stop_engine
from factory_lib.warehouse.provenance import now, package_version
from factory_lib.warehouse.pulled import is_refused
from factory_lib.warehouse.remote_disk import Declaration, definition, hashes, remote_disk
from factory_lib.warehouse.versions import Version, content_fingerprints

RECORDS = "records"
"""Folder, in that of a version, of what the catalog says of it."""

TABLE = "table"
"""Folder, in that of a version, of its table."""

_SHARD = "shard"


@dataclass(frozen=True)
class Publication:
    """A version that is published.

    Attributes:
        address: what others pull, `s3://team/datasets/laion.v3`.
        made: whether it was written now; False where it was published already.
        manifest: what is said of it there.
    """

    address: str
    made: bool
    manifest: Manifest


def publish_version(version: Version, uri: str, *, tag: str | None = None) -> Publication:
    """Publish a version in a place: a prefix of a bucket, or a folder.

    It keeps its number where nobody has it there, and else gets the next one. What is published already is not written
    again.

    Args:
        tag: to be given to it there.

    Raises:
        PublicationError: another process publishes it, the bucket refuses, or the version is not as it was recorded.
        StoreError: the place cannot be read or written.
        TagExists: another version has that tag there; the version is published without it.
    """
    place = SharedPlace.at(uri)
    with _workshop(version, place) as folder:
        found = place.find(version.dataset, version.uuid)
        made = found is None
        if found is None:
            found = _published(version, place, folder)
    if tag is not None:
        tag_published(place, found, tag)
    return Publication(place.address(found.dataset, found.number), made, found)


def _published(version: Version, place: SharedPlace, folder: Path) -> Manifest:
    data = _own_name(folder, version.uuid)
    target = f"{place.folder(version.dataset)}/data/{data}"
    with _engine(folder / "home") as engine, _explained(version, place):
        declared = Declaration.of(version.warehouse, version.dataset, f"v{version.number}")
        _TableWriter(version, engine, declared, f"{target}/{TABLE}").write()
        written = hashes(engine, version.dataset, f"v{version.number}")
    write_records(version.warehouse, version.uuid, f"{target}/{RECORDS}")
    provenance = version.provenance
    manifest = Manifest(
        dataset=version.dataset,
        number=version.number,
        uuid=version.uuid,
        name=str(version),
        created=provenance.created if provenance else "",
        published=now(),
        rows=version.rows,
        size=sum(size for _, size, _ in written.values()),
        shards=len(version.shards),
        fingerprint=digest(version.fingerprints()),
        files=digest({shard: f"{rows} {hash}" for shard, (rows, _, hash) in written.items()}),
        parents=provenance.parents if provenance else [],
        sources={source["uri"]: source["format"] for source in provenance.sources} if provenance else {},
        data=data,
        declared=declared,
        software=package_version(),
    )
    return place.add(manifest)


@dataclass(frozen=True)
class _TableWriter:
    """Writes the table of a version.

    Attributes:
        engine: an empty engine.
        target: where the table goes.
    """

    version: Version
    engine: Warehouse
    declared: Declaration
    target: str

    def write(self) -> None:
        """Write the shards that are not there yet."""
        dataset, table = self.version.dataset, f"v{self.version.number}"
        self.engine.execute(f"CREATE DATABASE {quote(dataset)}")
        begun = bool(store().names(self.target))
        disk = remote_disk(self.target, readonly=False)
        self.engine.execute(
            f"{'ATTACH' if begun else 'CREATE'} TABLE {self.version.table}"
            f" {definition(self.declared, self.version.uuid, disk=disk)}"
        )
        rows = self.version.shard_rows()
        there = {shard: known[0] for shard, known in hashes(self.engine, dataset, table).items()}
        missing = [shard for shard, n in rows.items() if n and there.get(shard) != n]
        for shard in (there.keys() - rows.keys()) | (there.keys() & set(missing)):
            self.engine.execute(f"ALTER TABLE {self.version.table} DROP PARTITION {literal(shard)}")
        with track(f"publishing {self.version} to {redact(self.target)}", sum(rows.values())) as progress:
            progress.advance(sum(rows.values()) - sum(rows[shard] for shard in missing))
            for shard in missing:
                self._write(shard)
                progress.advance(rows[shard])

    def _write(self, shard: str) -> None:
        """Write one shard: as one part on the engine's own disk, which is then copied."""
        stage = f"{quote(self.version.dataset)}.{_SHARD}"
        self.engine.execute(f"CREATE TABLE {stage} {definition(self.declared, str(uuid.uuid4()))}")
        try:
            columns = ", ".join(quote(name) for name, *_ in self.declared.columns)
            self.version.warehouse.copy(
                f"SELECT {columns} FROM {self.version.table} WHERE shard = {{s:String}}",
                self.engine,
                f"{stage} ({columns})",
                {"s": shard},
            )
            self._check(stage, shard)
            self.engine.execute(f"OPTIMIZE TABLE {stage} FINAL")
            self.engine.execute(f"ALTER TABLE {self.version.table} ATTACH PARTITION {literal(shard)} FROM {stage}")
        finally:
            self.engine.drop(stage)

    def _check(self, stage: str, shard: str) -> None:
        """Make sure that what was copied is what was recorded, and remember its fingerprint."""
        source = {shard: self.version.shards[shard].source}
        found = content_fingerprints(self.engine, stage, self.version.columns, source)
        count = self.engine.scalar(f"SELECT count() FROM {stage}")
        known = self.version.known_fingerprints([shard])
        if count != self.version.shards[shard].rows or known not in ({}, found):
            raise PublicationError(
                f"Shard {shard!r} of {self.version} is not what it was when it was saved.",
                f"See what differs: factory verify {self.version}",
            )
        if not known:
            self.version.remember_fingerprints(found)


@contextlib.contextmanager
def _workshop(version: Version, place: SharedPlace) -> Iterator[Path]:
    """The folder in which a version is published in a place, by this process alone; it goes when that is done."""
    name = hashlib.blake2b(f"{version.uuid}\n{place.uri}".encode(), digest_size=8).hexdigest()
    home = settings().home
    folder = private_folder(home / "publishing" / name, home)
    with open(folder / "lock", "a+") as lock:
        try:
            with exclusive(lock, wait=False):
                lock.seek(0)
                lock.truncate()
                lock.write(owner())
                lock.flush()
                yield folder
                shutil.rmtree(folder)
        except BlockingIOError:
            raise PublicationError(
                f"Another process publishes {version} to {redact(place.uri)}.", "Wait for its end, or end it."
            ) from None


def _own_name(folder: Path, of: str) -> str:
    """The name of what is written, kept for another try: two engines never write below one name."""
    file = folder / "name"
    if not file.exists():
        file.write_text(f"{of}-{uuid.uuid4().hex[:8]}")
    return file.read_text()


@contextlib.contextmanager
def _engine(home: Path) -> Iterator[Warehouse]:
    """An empty engine with the credentials of now; one that a killed process left is ended first."""
    stop_engine(home)
    shutil.rmtree(home, ignore_errors=True)
    engine = Warehouse(home=home)
    try:
        yield engine
    finally:
        engine.close()
        stop_engine(home)


@contextlib.contextmanager
def _explained(version: Version, place: SharedPlace) -> Iterator[None]:
    """Within, the engine's errors about a place say what to do."""
    try:
        yield
    except EngineError as error:
        if is_local(place.uri) or "S3" not in error.message:
            raise
        what = "was refused" if is_refused(error) else "cannot be written"
        raise PublicationError(
            f"{redact(place.uri)} {what} while {version} was published: {error.message}",
            "Nothing is published yet. Mend credentials or bucket and publish it again: it goes on where it was.",
        ) from None
