"""Whether versions are what was published: their seals, what is recorded of them and their tables are compared."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import pyarrow as pa

from factory_lib.errors import DatasetNotFound, EngineError, FileMissing, StoreError, VersionNotFound
from factory_lib.history.tampering import UNRECORDED, Finding, compared, fingerprints_now, rows_there
from factory_lib.names import CATALOG, Ref, parse_ref
from factory_lib.progress import track
from factory_lib.storage.files import is_state
from factory_lib.storage.store import store
from factory_lib.warehouse import provenance
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.lost import lost_values
from factory_lib.warehouse.policy import note_dropped
from factory_lib.warehouse.seals import Placed, displaced, parts_to_doubt
from factory_lib.warehouse.versions import Version, datasets, resolve, versions

_REQUESTS = 16


@dataclass(frozen=True)
class Verification:
    """What was compared, and what came of it.

    Attributes:
        read: versions of which every row was read.
        compared: versions whose files, by their checksums, columns and entries in the catalog were compared.
        findings: what is not as it was published.
        sources: files that the versions point into and that are others now, or gone: no fault of the versions.
    """

    read: list[str]
    compared: list[str]
    findings: list[Finding]
    sources: list[SourceFile]


@dataclass(frozen=True)
class SourceFile:
    """A file that shards point into and that is not what it was when they were made.

    Attributes:
        version: the first of the versions that point into it.
        what: what became of it, in words.
    """

    version: str
    uri: str
    what: str


def verify(warehouse: Warehouse, name: str | None = None, *, every: bool = False, sources: bool = True) -> Verification:
    """Look for what was changed behind the factory's back, or got lost.

    Of all versions that are meant the files (by their checksums), columns and entries in the catalog are compared with
    their seals; of the latest, or of the one that is named, all rows are read, too, and compared by their content
    fingerprints. A shard whose fingerprint was never computed is remembered as it is now.

    Args:
        name: a version, or a dataset with all its versions; None for all datasets.
        every: read the rows of all these versions.
        sources: ask the storage for the files, too, that the versions which are read point into.

    Raises:
        DatasetNotFound: there is no such dataset, and never was.
        VersionNotFound: the dataset has no such version or tag, and never had.
    """
    ref = parse_ref(name) if name else None
    gone = [one for one in _displaced(warehouse) if ref is None or _is_meant(one.version, ref)]
    try:
        meant = _meant(warehouse, ref)
    except (DatasetNotFound, VersionNotFound):
        if not gone:
            raise
        meant = []
    latest = {version.dataset: version for version in meant}
    read = [version for version in meant if every or latest[version.dataset] is version]
    findings = [_about(one) for one in gone] + _parents_gone(warehouse, meant)
    found = compared(warehouse, meant)
    with track("reading versions", len(read)) as progress:
        seen: set[tuple[str, str]] = set()
        for version in read:
            found[version.uuid] += _read(version, found[version.uuid], seen)
            progress.advance()
    _remember(warehouse, [v.uuid for v in read], found)
    findings += [one for version in meant for one in found[version.uuid]]
    files = source_files(warehouse, read) if sources else []
    return Verification([str(v) for v in read], [str(v) for v in meant], findings, files)


def marks(version: Version) -> list[Finding]:
    """What is known to be wrong with a version, without reading it: by its seal, and from when it was last read."""
    now = compared(version.warehouse, [version])[version.uuid]
    text = version.warehouse.scalar(
        f"SELECT argMax(findings, at) FROM {CATALOG}.verified WHERE uuid = {{u:UUID}}", {"u": version.uuid}
    )
    known = {(one.shard, one.what) for one in now}
    earlier = [Finding(str(version), one["what"], one["shard"]) for one in json.loads(text or "[]")]
    return now + [one for one in earlier if (one.shard, one.what) not in known]


def _read(version: Version, known: Sequence[Finding], seen: set[tuple[str, str]]) -> list[Finding]:
    """What reading all rows of a version brings to light beyond what is known of it.

    Args:
        seen: shards, by the version that made them, that were read already; gets those of this one.
    """
    if any(one.what == UNRECORDED for one in known):
        return []
    doubted = {part.shard: part.state for part in parts_to_doubt(version.warehouse, [version.uuid])}
    told = {one.shard for one in known if one.shard}
    shards = [
        name for name, s in version.shards.items() if s.rows and (name in doubted or (s.origin, name) not in seen)
    ]
    try:
        found = [*_contents(version, [s for s in shards if s not in told], doubted)]
        found += [
            Finding(str(version), f"{one.rows:,} rows have neither a value of {one.column} nor an error", one.shard)
            for one in lost_values(version)
        ]
    except EngineError as error:
        if not version.warehouse.scalar("SELECT count() FROM system.tables WHERE uuid = {u:UUID}", {"u": version.uuid}):
            return []  # dropped meanwhile
        found = [Finding(str(version), f"it cannot be read: {error.message}")]
    seen |= {(version.shards[name].origin, name) for name in shards if name not in doubted}
    return found


def _contents(version: Version, shards: list[str], doubted: Collection[str]) -> Iterator[Finding]:
    """Shards whose rows or values are others; fingerprints that nobody computed before are remembered."""
    name = str(version)
    known = version.known_fingerprints(shards)
    try:
        now, there = fingerprints_now(version, shards), rows_there(version, shards)
    except EngineError:
        now, there = {}, {}
        for shard in shards:
            try:
                now |= fingerprints_now(version, [shard])
                there |= rows_there(version, [shard])
            except EngineError as error:
                yield Finding(name, f"it cannot be read: {error.message}", shard)
    for shard in now:
        rows = version.shards[shard].rows
        if there.get(shard, 0) != rows:
            yield Finding(name, f"it has {there.get(shard, 0):,} rows, {rows:,} were published", shard)
        elif known.get(shard, now[shard]) != now[shard]:
            yield Finding(
                name,
                "its values are not those that were published"
                if shard in doubted
                else f"its fingerprint in {CATALOG}.fingerprints is not that of its values: it was edited",
                shard,
            )
    version.remember_fingerprints({shard: value for shard, value in now.items() if shard not in known})


def _remember(warehouse: Warehouse, uuids: Sequence[str], found: dict[str, list[Finding]]) -> None:
    texts = [json.dumps([asdict(one) for one in found[uuid]]) for uuid in uuids]
    if uuids:
        at = pa.array([dt.datetime.now(dt.UTC)] * len(uuids), pa.timestamp("ms", "UTC"))
        warehouse.insert(f"{CATALOG}.verified", pa.table({"uuid": list(uuids), "at": at, "findings": texts}))


def source_files(warehouse: Warehouse, read: Sequence[Version]) -> list[SourceFile]:
    """Files that versions point into and that are not what they were, by their etags; no bytes are read."""
    files: dict[str, tuple[str, str]] = {}
    for version in read:
        etags = provenance.etags(warehouse, {s.source for s in version.shards.values() if s.source})
        files = {uri: (str(version), etag) for uri, etag in etags.items()} | files

    def asked(uri: str) -> str:
        try:
            now = store().info(uri).etag
        except FileMissing:
            return "it is gone"
        except StoreError as error:
            return f"it cannot be asked for: {error.message}"
        return "" if is_state(now, files[uri][1]) else "it was changed since"

    with track("asking for source files", len(files)) as progress, ThreadPoolExecutor(_REQUESTS) as pool:
        found = []
        for uri, what in zip(sorted(files), pool.map(asked, sorted(files)), strict=True):
            progress.advance()
            if what:
                found.append(SourceFile(files[uri][0], uri, what))
    return found


def _meant(warehouse: Warehouse, ref: Ref | None) -> list[Version]:
    if ref is None:
        return [version for made in datasets(warehouse).values() for version in made]
    one = resolve(warehouse, ref)
    return versions(warehouse, ref.dataset) if ref.number is None and ref.tag is None else [one]


def _is_meant(version: str, ref: Ref) -> bool:
    return version == str(ref) or (ref.number is None and ref.tag is None and version.startswith(f"{ref.dataset}.v"))


def _displaced(warehouse: Warehouse) -> list[Placed]:
    """Versions whose tables are gone or renamed: looked for twice, as one that is just being dropped is both."""
    found = displaced(warehouse)
    still = displaced(warehouse) if found else []
    return [one for one in found if one in still]


def accept_gone(warehouse: Warehouse, name: str | None = None) -> list[str]:
    """Take it that versions whose tables were dropped by hand were meant to go; which ones."""
    ref = parse_ref(name) if name else None
    gone = [one for one in _displaced(warehouse) if not one.name and (ref is None or _is_meant(one.version, ref))]
    for one in gone:
        note_dropped(warehouse, one.uuid, one.version)
    return [one.version for one in gone]


def _about(one: Placed) -> Finding:
    when = one.at[:19]
    if one.name:
        return Finding(one.version, f"its table, published at {when}, is called {one.name} now")
    return Finding(one.version, f"its table, published at {when}, was dropped, and not by factory gc")


def _parents_gone(warehouse: Warehouse, meant: Sequence[Version]) -> list[Finding]:
    """Versions without a seal that others were made of, and whose tables somebody dropped."""
    rows = warehouse.rows(
        "SELECT parent.name AS name, min(toString(uuid)) AS child FROM"
        f" (SELECT uuid, arrayJoin(parents) AS parent FROM {CATALOG}.versions WHERE has({{u:Array(UUID)}}, uuid))"
        " WHERE parent.uuid NOT IN (SELECT uuid FROM system.tables UNION ALL"
        f" SELECT uuid FROM {CATALOG}.dropped UNION ALL SELECT uuid FROM {CATALOG}.seals UNION ALL"
        f" SELECT uuid FROM {CATALOG}.pulled) GROUP BY name ORDER BY name",
        {"u": [version.uuid for version in meant]},
    )
    names = {version.uuid: str(version) for version in meant}
    return [Finding(row["name"], f"its table is gone; {names[row['child']]} was made of it") for row in rows]
