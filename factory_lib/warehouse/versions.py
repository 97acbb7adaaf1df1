"""Versions: finding them, reading what is known of them, and the commit.

A commit is a rename: `RENAME TABLE laion._stage_… TO laion.v4` fails when `v4` exists, which makes it the
compare-and-set that lets any number of writers publish at once without losing a version.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from factory_lib.errors import DatasetNotFound, EngineError, FactoryError, StoreError, VersionNotFound, nearest
from factory_lib.names import CATALOG, Ref, is_dataset_database, parse_ref
from factory_lib.plan.nodes import Table
from factory_lib.plan.sqltext import quote
from factory_lib.warehouse import provenance as provenance_
from factory_lib.warehouse.bucket.keeping import keep, record
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.provenance import Provenance, ShardRecord
from factory_lib.warehouse.pulled import listed
from factory_lib.warehouse.schema import ensure_tables
from factory_lib.warehouse.seals import seal
from factory_lib.warehouse.staging import StagingTable, table_columns
from factory_lib.warehouse.tags import tags_of

logger = logging.getLogger(__name__)

_TABLE_EXISTS = 57


@dataclass(frozen=True)
class Version:
    """An immutable version of a dataset: a table.

    Attributes:
        dataset: name of the dataset.
        number: 3 for `laion.v3`.
        uuid: UUID of the table.
    """

    dataset: str
    number: int
    uuid: str
    warehouse: Warehouse = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.dataset}.v{self.number}"

    def _repr_html_(self) -> str:
        """The version in a notebook: rows, columns, tags, what made it, and the first rows with their pictures."""
        from factory_lib.warehouse.shown import version_page

        return version_page(
            self, lambda: [one for one in versions(self.warehouse, self.dataset) if one.number < self.number]
        )

    @property
    def table(self) -> str:
        """The table's name in SQL."""
        return f"{quote(self.dataset)}.v{self.number}"

    @cached_property
    def source(self) -> Table:
        """The table as the source of a query."""
        columns, unit = table_columns(self.warehouse, self.dataset, f"v{self.number}")
        return Table(str(self), columns=columns, unit=unit)

    @property
    def columns(self) -> Mapping[str, str]:
        """Column name -> ClickHouse type."""
        return self.source.columns

    @cached_property
    def shards(self) -> Mapping[str, ShardRecord]:
        """What is recorded of each shard."""
        known = provenance_.read_shards(self.warehouse, self.uuid)
        if known or "shard" not in self.columns:  # somebody else's table under such a name
            return known
        rows = self.warehouse.rows(f"SELECT shard, count() AS n FROM {self.table} GROUP BY shard ORDER BY shard")
        return {r["shard"]: ShardRecord(r["shard"], r["n"], self.uuid, "", "") for r in rows}

    def shard_rows(self) -> dict[str, int]:
        """Number of rows of each shard."""
        return {name: shard.rows for name, shard in self.shards.items()}

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(shard.rows for shard in self.shards.values())

    @cached_property
    def provenance(self) -> Provenance | None:
        """What it was made of and what made it; None when nothing was recorded."""
        return provenance_.read(self.warehouse, self.uuid)

    def fingerprints(self, shards: Iterable[str] | None = None) -> dict[str, str]:
        """Content fingerprint of shards: of their rows, and of the files that the rows point into.

        Two shards with the same columns, rows and files have the same fingerprint, whatever made them. It is computed
        once and remembered, as shards never change.

        Returns:
            shard name -> 16 hexadecimal digits.
        """
        wanted = [s for s in (self.shards if shards is None else shards) if s in self.shards]
        known = self.known_fingerprints(wanted)
        missing = [s for s in wanted if s not in known]
        if missing:
            known |= self._compute_fingerprints(missing)
        return {name: known[name] for name in wanted}

    def known_fingerprints(self, shards: Sequence[str]) -> dict[str, str]:
        """The content fingerprints of shards that were computed already; nothing is read to compute others."""
        origins = sorted({self.shards[s].origin for s in shards})
        rows = self.warehouse.rows(
            f"SELECT toString(origin) AS id, shard, any(fingerprint) AS f FROM {CATALOG}.fingerprints"
            " WHERE has({o:Array(UUID)}, origin) GROUP BY origin, shard",
            {"o": origins},
        )
        found = {(r["id"], r["shard"]): r["f"] for r in rows}
        return {s: found[key] for s in shards if (key := (self.shards[s].origin, s)) in found}

    def _compute_fingerprints(self, shards: list[str]) -> dict[str, str]:
        sources = {shard: self.shards[shard].source for shard in shards}
        computed = content_fingerprints(self.warehouse, self.table, self.columns, sources)
        self.remember_fingerprints(computed)
        return computed

    def remember_fingerprints(self, computed: Mapping[str, str]) -> None:
        """Keep content fingerprints of shards, so that they need not be computed again."""
        if computed:
            table = {
                "origin": [self.shards[s].origin for s in computed],
                "shard": list(computed),
                "fingerprint": list(computed.values()),
            }
            self.warehouse.insert(f"{CATALOG}.fingerprints", pa.table(table))


def content_fingerprints(
    warehouse: Warehouse, table: str, columns: Mapping[str, str], sources: Mapping[str, str]
) -> dict[str, str]:
    """Fingerprints of the content of shards of a table, computed from its rows.

    Args:
        table: its name in SQL.
        columns: its columns, name -> ClickHouse type.
        sources: shards -> fingerprint of the files that their rows point into.

    Returns:
        shard -> 16 hexadecimal digits.
    """
    names = sorted(columns)
    # A hash of arguments is NULL when one of them is: inside a tuple a NULL is hashed like any value.
    row_hash = f"cityHash64({', '.join(f'tuple({quote(n)})' for n in names)})"
    rows = warehouse.rows(
        f"SELECT shard, sum({row_hash}) AS h, count() AS n FROM {table}"
        " WHERE has({s:Array(String)}, shard) GROUP BY shard",
        {"s": list(sources)},
        {"prefer_column_name_to_alias": 1},
    )
    hashes = {r["shard"]: (r["h"], r["n"]) for r in rows}
    schema = ",".join(f"{n} {columns[n]}" for n in names)
    contents = {shard: (schema, *hashes.get(shard, (0, 0)), source) for shard, source in sources.items()}
    return {s: hashlib.blake2b(repr(c).encode(), digest_size=8).hexdigest() for s, c in contents.items()}


def datasets(warehouse: Warehouse) -> dict[str, list[Version]]:
    """All datasets with their versions, oldest first."""
    ensure_tables(warehouse)
    rows = listed(
        warehouse,
        "SELECT database, name, toString(uuid) AS uuid FROM system.tables WHERE match(name, '^v[1-9][0-9]*$')",
    )
    found: dict[str, list[Version]] = {}
    for row in rows:
        if is_dataset_database(row["database"]):
            version = Version(row["database"], int(row["name"][1:]), row["uuid"], warehouse)
            found.setdefault(row["database"], []).append(version)
    return {name: sorted(found[name], key=lambda v: v.number) for name in sorted(found)}


def versions(warehouse: Warehouse, dataset: str) -> list[Version]:
    """Versions of a dataset, oldest first; none when there is no such dataset."""
    return _listed(warehouse, dataset, "match(name, '^v[1-9][0-9]*$') ORDER BY number")


def latest(warehouse: Warehouse, dataset: str) -> Version | None:
    """The newest version of a dataset, if it has any."""
    found = _listed(warehouse, dataset, "match(name, '^v[1-9][0-9]*$') ORDER BY number DESC LIMIT 1")
    return found[0] if found else None


def _listed(warehouse: Warehouse, dataset: str, which: str) -> list[Version]:
    """Versions of a dataset that a condition (SQL text) picks."""
    ensure_tables(warehouse)
    rows = listed(
        warehouse,
        "SELECT toUInt64OrZero(substring(name, 2)) AS number, toString(uuid) AS id FROM system.tables"
        f" WHERE database = {{d:String}} AND {which}",
        dataset,
    )
    return [Version(dataset, row["number"], row["id"], warehouse) for row in rows]


def resolve(warehouse: Warehouse, ref: str | Ref) -> Version:
    """The version that a name means.

    Raises:
        DatasetNotFound: there is no such dataset.
        VersionNotFound: the dataset has no such version or tag.
    """
    ref = parse_ref(ref) if isinstance(ref, str) else ref
    if (found := _numbered(warehouse, ref)) is not None:
        return found
    known = versions(warehouse, ref.dataset)
    if not known:
        hint = nearest(ref.dataset, datasets(warehouse)) or "Nothing was saved yet: factory ingest URI --name NAME."
        raise DatasetNotFound(f"There is no dataset {ref.dataset!r}.", hint)
    if ref.tag is not None:
        return _tagged(warehouse, ref.dataset, ref.tag, known)
    numbers = f"v{known[0].number} to v{known[-1].number}" if len(known) > 1 else f"v{known[0].number}"
    raise VersionNotFound(f"There is no version {ref}.", f"{ref.dataset} has {numbers}.")


def _numbered(warehouse: Warehouse, ref: Ref) -> Version | None:
    """The version of a number, or without one the latest; None where there is none, or a tag says which."""
    if ref.number is None:
        return latest(warehouse, ref.dataset) if ref.tag is None else None
    # By name: of a dataset's hundreds of tables one is looked at.
    found = _listed(warehouse, ref.dataset, f"name = 'v{ref.number}'")
    return found[0] if found else None


def _tagged(warehouse: Warehouse, dataset: str, name: str, known: list[Version]) -> Version:
    tags = tags_of(warehouse, dataset)
    if name not in tags:
        hint = nearest(name, tags) or f"Its latest version is {known[-1]}."
        raise VersionNotFound(f"{dataset!r} has no tag {name!r}.", hint)
    for version in known:
        if version.uuid == tags[name].uuid:
            return version
    hint = f"Take the tag away: factory tag --delete {dataset}@{name}."
    raise VersionNotFound(f"{tags[name]} is {tags[name].version}, which is not there any more.", hint)


class LostRaceError(FactoryError):
    """Another writer took the version's number first; the caller takes what it brought and tries again."""


def publish(
    stage: StagingTable, number: int, *, signals: bool = True, check: Callable[[], None] = lambda: None
) -> Version:
    """Make a staging table version `number` of its dataset, atomically and durably.

    What the version needs is on the medium before the rename, and the rename before this returns: a power cut finds the
    version whole, or not there.

    Args:
        signals: whether columns of signals were recorded of it.
        check: called when it is sealed, to raise an error where it must not be published.

    Raises:
        LostRaceError: that version exists already.
        BucketError: versions lie in a bucket that belongs to another folder by now.
        StoreError: it cannot be written. Nothing is published.
    """
    name = f"{stage.database}.v{number}"
    comment = seal(stage.warehouse, stage.uuid, stage.database, stage.table, name, signals=signals)
    check()
    deployment = stage.warehouse.deployment
    stage.set_readonly(comment)
    for statement in deployment.before_publishing(stage.name):
        stage.warehouse.execute(statement)
    stage.warehouse.sync()
    record(stage.warehouse, stage.uuid)
    target = f"{quote(stage.database)}.v{number}"
    try:
        stage.warehouse.execute(f"RENAME TABLE {stage.name} TO {target}")
    except EngineError as error:
        if not _is_published(stage, number):
            if error.code == _TABLE_EXISTS:
                raise LostRaceError(f"{name} was published by another writer.") from None
            raise
    for statement in deployment.after_publishing(target):
        stage.warehouse.execute(statement)
    stage.warehouse.sync()
    _keep(stage, name)
    return Version(stage.database, number, stage.uuid, stage.warehouse)


def _keep(stage: StagingTable, name: str) -> None:
    """Note a version in its bucket's head. It is published by now: a bucket that fails now gets that with the next."""
    try:
        keep(stage.warehouse, stage.uuid)
    except StoreError as error:
        logger.warning("%s is published, and not in the head of its bucket: the next commit adds it. %s", name, error)


def _is_published(stage: StagingTable, number: int) -> bool:
    """Whether a staging table has become the version, whatever was answered: an answer may be lost on its way."""
    try:
        found = _listed(stage.warehouse, stage.database, f"name = 'v{number}'")
    except EngineError:
        return False
    return [one.uuid for one in found] == [stage.uuid]
