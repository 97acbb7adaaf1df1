"""Provenance: what each version was made of and what made it.

Rows are keyed by the UUID of the version's table, which it keeps through the rename that publishes it: they are written
before the rename and become visible with it. No secret enters: credentials are cut out of every URL.
"""

from __future__ import annotations

import datetime as dt
import functools
import importlib.metadata
import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from factory_lib.names import CATALOG
from factory_lib.plan.identity import identity
from factory_lib.plan.upgrade import upgraded
from factory_lib.redaction import stripped, without_credentials
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.schema import ensure_tables

_SQL_HASH_DIGITS = 16
"""Digits of a hash of SQL, which stood where the identity of a query stands."""


@dataclass(frozen=True)
class Provenance:
    """What a version was made of and what made it.

    Attributes:
        parents: versions that were read, `{"name": "laion.v3", "uuid": …}` each.
        python: the query as it was written, as Python.
        sql: the query as one SELECT, values written out.
        predicates: conditions that rows of the first parent had to meet, `{"python", "sql", "columns"}` each.
        signals: signals that were computed, `{"name", "fingerprint", "components"}` each.
        sources: what was ingested, `{"uri", "format", "shards", "counts"}` each.
        code: version of this package; git commit of the working folder and whether it was changed.
        context: what the caller adds, as JSON has it, such as Dagster's run id and asset key; of a filter "removed", a
            mapping of reasons to samples, and "remark", what it could not judge.
        storage: how it was stored: clone, mask, columns, mask+columns, attach or copy; merged or new.
        rows_in: rows of the parents that were read; rows: rows of the version.
        bytes_added: bytes on disk that the version added.
        seconds: from the start of the save to its publication.
        reused, computed: number of signal values taken over and computed anew.
        checked: it was seen that each row has a value or an error of each signal.
    """

    dataset: str
    created: str
    parents: list[dict[str, str]] = field(default_factory=list)
    python: str = ""
    sql: str = ""
    predicates: list[dict[str, Any]] = field(default_factory=list)
    signals: list[dict[str, Any]] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    code: dict[str, str] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    storage: str = ""
    rows_in: int = 0
    rows: int = 0
    bytes_added: int = 0
    seconds: float = 0.0
    reused: int = 0
    computed: int = 0
    checked: bool = False


@dataclass(frozen=True)
class ShardRecord:
    """One shard of a version.

    Attributes:
        rows: its rows.
        origin: UUID of the version that made it; other versions carried it over unchanged.
        made_by: identity of the query that made it, with its signals (see `plan.identity`).
        source: fingerprint of the files that its samples point into; `files` says which they are.
    """

    shard: str
    rows: int
    origin: str
    made_by: str
    source: str


@dataclass(frozen=True)
class ShardInput:
    """What a shard of a dataset that is kept up to date was made of, and by what; also where no row of it was left.

    Attributes:
        root: uri of the source, or name of the dataset, that gives the rows.
        made_by: identity of the query that made it, with its signals (see `plan.identity`).
        given: what the root held for the shard, as a string that changes with it.
    """

    root: str
    made_by: str
    given: str


def record(
    warehouse: Warehouse,
    uuid: str,
    provenance: Provenance,
    shards: Iterable[ShardRecord],
    carried_from: str | None = None,
    carried_except: Iterable[str] = (),
    recipe: Mapping[str, Any] | None = None,
) -> None:
    """Write the provenance of a version that is about to be published.

    Args:
        shards: the shards that this version made.
        carried_from: UUID of the version whose other shards it carries over.
        carried_except: shards of that version that are not carried over.
        recipe: what it takes to run its query again.
    """
    ensure_tables(warehouse)
    if recipe is not None:
        _record_recipe(warehouse, uuid, recipe)
    warehouse.execute(
        f"INSERT INTO {CATALOG}.versions SELECT {{uuid:UUID}}, {{dataset:String}},"
        " parseDateTime64BestEffort({created:String}, 3, 'UTC'), {rows:UInt64}, {record:String}",
        {
            "uuid": uuid,
            "dataset": provenance.dataset,
            "created": provenance.created,
            "rows": provenance.rows,
            "record": json.dumps(stripped(asdict(provenance)), default=str),
        },
    )
    made = list(shards)
    table = pa.table(
        {
            "uuid": pa.array([uuid] * len(made), pa.string()),
            "shard": pa.array([s.shard for s in made], pa.string()),
            "rows": pa.array([s.rows for s in made], pa.uint64()),
            "origin": pa.array([s.origin for s in made], pa.string()),
            "made_by": pa.array([s.made_by for s in made], pa.string()),
            "source": pa.array([s.source for s in made], pa.string()),
        }
    )
    if made:
        warehouse.insert(f"{CATALOG}.shards", table)
    if carried_from is not None:
        warehouse.execute(
            f"INSERT INTO {CATALOG}.shards SELECT {{new:UUID}}, shard, rows, origin, made_by, source"
            f" FROM {CATALOG}.shards"
            " WHERE uuid = {old:UUID} AND NOT has({gone:Array(String)}, shard)",
            {"new": uuid, "old": carried_from, "gone": list(carried_except)},
        )


def _record_recipe(warehouse: Warehouse, uuid: str, recipe: Mapping[str, Any]) -> None:
    kept = stripped(json.loads(json.dumps(recipe)))
    text = json.dumps(kept if kept == json.loads(json.dumps(recipe)) else {**kept, "redacted": True})
    warehouse.insert(f"{CATALOG}.recipes", pa.table({"uuid": [uuid], "recipe": [text]}))


def read_recipes(warehouse: Warehouse, uuids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Recipes by the UUIDs of the tables of their versions; those without one are left out.

    One from which credentials were cut out has `redacted`.
    """
    ensure_tables(warehouse)
    rows = warehouse.rows(
        f"SELECT toString(uuid) AS id, recipe FROM {CATALOG}.recipes WHERE has({{u:Array(UUID)}}, uuid)",
        {"u": sorted(set(uuids))},
    )
    return {row["id"]: upgraded(json.loads(row["recipe"])) for row in rows}


def record_inputs(
    warehouse: Warehouse, uuid: str, inputs: Mapping[str, ShardInput], before: str | None, replaced: Iterable[str]
) -> None:
    """Write what shards were made of, for a version that is about to be published.

    Args:
        before: UUID of the version whose other shards it carries over.
        replaced: shards of that version that are not carried over.
    """
    if inputs:
        columns = {
            "uuid": [uuid] * len(inputs),
            "shard": list(inputs),
            "root": [without_credentials(i.root) for i in inputs.values()],
            "made_by": [i.made_by for i in inputs.values()],
            "given": [i.given for i in inputs.values()],
        }
        warehouse.insert(f"{CATALOG}.inputs", pa.table(columns))
    if before is not None:
        warehouse.execute(
            f"INSERT INTO {CATALOG}.inputs SELECT {{new:UUID}}, shard, root, made_by, given FROM {CATALOG}.inputs"
            " WHERE uuid = {old:UUID} AND NOT has({gone:Array(String)}, shard)",
            {"new": uuid, "old": before, "gone": sorted(replaced)},
        )


def read_inputs(warehouse: Warehouse, uuid: str) -> dict[str, ShardInput]:
    """What the shards of the version with this table UUID were made of, where it was recorded."""
    ensure_tables(warehouse)
    rows = warehouse.rows(
        f"SELECT shard, root, made_by, given FROM {CATALOG}.inputs WHERE uuid = {{u:UUID}}", {"u": uuid}
    )
    made_by: dict[str, str] = {}
    if any(len(row["made_by"]) == _SQL_HASH_DIGITS for row in rows):
        recorded = _recorded_shards(warehouse, uuid)
        now = _by_identity(warehouse, recorded)
        made_by = {old.made_by: new.made_by for old, new in zip(recorded, now, strict=True)}
    return {
        row["shard"]: ShardInput(row["root"], made_by.get(row["made_by"], row["made_by"]), row["given"]) for row in rows
    }


def read(warehouse: Warehouse, uuid: str) -> Provenance | None:
    """Provenance of the version with this table UUID, or None where nothing was recorded."""
    ensure_tables(warehouse)
    rows = warehouse.rows(f"SELECT record FROM {CATALOG}.versions WHERE uuid = {{u:UUID}} LIMIT 1", {"u": uuid})
    return Provenance(**json.loads(rows[0]["record"])) if rows else None


def read_shards(warehouse: Warehouse, uuid: str) -> dict[str, ShardRecord]:
    """Shards of the version with this table UUID."""
    return {shard.shard: shard for shard in _by_identity(warehouse, _recorded_shards(warehouse, uuid))}


def _recorded_shards(warehouse: Warehouse, uuid: str) -> list[ShardRecord]:
    ensure_tables(warehouse)
    rows = warehouse.rows(
        "SELECT shard, rows, toString(origin) AS origin, made_by, source"
        f" FROM {CATALOG}.shards WHERE uuid = {{u:UUID}} ORDER BY shard",
        {"u": uuid},
    )
    return [ShardRecord(**row) for row in rows]


def _by_identity(warehouse: Warehouse, shards: list[ShardRecord]) -> list[ShardRecord]:
    """Shards with the identity of the query that made them also where an earlier release, which hashed its SQL, did."""
    old = {shard.origin for shard in shards if len(shard.made_by) == _SQL_HASH_DIGITS}
    if not old:
        return shards
    recipes = read_recipes(warehouse, old)
    found = {uuid: identity(recipe) for uuid, recipe in recipes.items()}

    def made_by(shard: ShardRecord) -> str:
        recipe = recipes.get(shard.origin, {})
        if shard.shard not in recipe.get("recast", ()):
            return found.get(shard.origin, shard.made_by)
        # The version only gave it other columns: whatever made it before did.
        return read_shards(warehouse, recipe["carried"]["uuid"])[shard.shard].made_by

    return [replace(shard, made_by=made_by(shard)) if shard.origin in old else shard for shard in shards]


def record_code(warehouse: Warehouse, fingerprint: str, components: Mapping[str, str]) -> None:
    """Keep what a fingerprint of code is made of, unless that is known."""
    if fingerprint not in read_code(warehouse, [fingerprint]):
        table = pa.table({"fingerprint": [fingerprint], "components": [json.dumps(dict(components))]})
        warehouse.insert(f"{CATALOG}.code", table)


def read_code(warehouse: Warehouse, fingerprints: Iterable[str]) -> dict[str, dict[str, str]]:
    """Fingerprint of code -> what it is made of; those that are not known are left out."""
    ensure_tables(warehouse)
    rows = warehouse.rows(
        f"SELECT fingerprint, any(components) AS text FROM {CATALOG}.code"
        " WHERE has({f:Array(String)}, fingerprint) GROUP BY fingerprint",
        {"f": sorted(set(fingerprints))},
    )
    return {row["fingerprint"]: json.loads(row["text"]) for row in rows}


def record_files(warehouse: Warehouse, files: Mapping[str, Iterable[tuple[str, int, str]]]) -> None:
    """Remember the files, (uri, size in bytes, etag) each, behind the fingerprints of the sources of shards."""
    ensure_tables(warehouse)
    listed = [
        (source, without_credentials(uri), size, etag)
        for source, of_shard in files.items()
        for uri, size, etag in of_shard
    ]
    if listed:
        names = ("source", "uri", "size", "etag")
        columns = dict(zip(names, map(list, zip(*listed, strict=True)), strict=True))
        schema = pa.schema(
            [("source", pa.string()), ("uri", pa.string()), ("size", pa.uint64()), ("etag", pa.string())]
        )
        warehouse.insert(f"{CATALOG}.files", pa.table(columns, schema=schema))


def etags(warehouse: Warehouse, sources: Iterable[str]) -> dict[str, str]:
    """uri -> etag of the files behind these source fingerprints."""
    ensure_tables(warehouse)
    rows = warehouse.rows(
        f"SELECT uri, any(etag) AS etag FROM {CATALOG}.files WHERE has({{s:Array(String)}}, source) GROUP BY uri",
        {"s": sorted(set(sources))},
    )
    return {row["uri"]: row["etag"] for row in rows}


def now() -> str:
    """The time, UTC, in ISO format."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


@functools.lru_cache(maxsize=8)
def code_of(folder: str) -> dict[str, str]:
    """Version of this package; git commit of a folder, and whether code there is not of that commit ("yes"/"no")."""
    code = {"package": package_version()}
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        dirty = _git(folder, "status", "--porcelain", "--untracked-files=no")
        dirty += _git(folder, "ls-files", "--others", "--exclude-standard", "--", ":/*.py")
    except (OSError, subprocess.SubprocessError):
        return code
    return {**code, "commit": commit, "changed": "yes" if dirty else "no"}


def installed_at() -> float | None:
    """When this package was installed, in seconds of Unix time; None where it is not."""
    try:
        found = importlib.metadata.distribution("dataset-factory").locate_file("")
        folders = list(Path(str(found)).glob("dataset_factory-*.dist-info"))
    except importlib.metadata.PackageNotFoundError:
        return None
    return max((folder.stat().st_mtime for folder in folders), default=None)


def package_version() -> str:
    """Version of this package, as it is installed."""
    try:
        return importlib.metadata.version("dataset-factory")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _git(folder: str, *args: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(Path(folder)), *args], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()
