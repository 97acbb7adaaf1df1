"""A table that is being built: what can be done to it before it is published as a version.

Parts are shared between tables by hard link (`ATTACH PARTITION … FROM`), so all of this costs what it changes: a mask,
a column, a shard. Nobody but the builder sees the table; a killed builder leaves a table that `sweep` finds.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from factory_lib.errors import EngineError
from factory_lib.names import STAGE_PREFIX
from factory_lib.owners import owner
from factory_lib.plan.nodes import Table
from factory_lib.plan.sqltext import literal, quote
from factory_lib.warehouse.arrow_types import PLAIN_TYPES
from factory_lib.warehouse.bucket.blobs import POLICY
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.deployment import ACCESS_DENIED
from factory_lib.warehouse.mutations import mutate

UNIT = "unit vectors"
"""Comment of a column whose vectors have length 1."""

INDEX_PREFIX = "nearest_"
"""How the index of a column of vectors begins; see `vector_index`."""

SETTINGS = "min_bytes_for_wide_part = 0, index_granularity = 8192"
# Masks and single-column mutations need wide parts. A table created read-only never runs a mutation, so the setting
# is given explicitly: it would be inherited from the table that this one is made like.
_ENGINE = f"ENGINE = MergeTree PARTITION BY shard ORDER BY (shard, position) SETTINGS {SETTINGS}"
_READONLY = 774
_CODECS = {"position": "CODEC(Delta, LZ4)"}
_OTHER_INDEXES = "different secondary indices"
_NO_TABLE = (60, 81)  # UNKNOWN_TABLE, UNKNOWN_DATABASE
_MUTATION = {"allow_nondeterministic_mutations": 1}


@dataclass(frozen=True)
class StagingTable:
    """A staging table in the database of a dataset.

    Attributes:
        database: the dataset it is built for.
        table: its name there.
        uuid: the UUID that it keeps when it becomes a version.
    """

    warehouse: Warehouse
    database: str
    table: str
    uuid: str

    @property
    def name(self) -> str:
        """`database.table`, quoted."""
        return f"{quote(self.database)}.{quote(self.table)}"

    def columns(self) -> dict[str, str]:
        """Column name -> ClickHouse type, in order."""
        return table_columns(self.warehouse, self.database, self.table)[0]

    def source(self) -> Table:
        """The table as the source of a query."""
        columns, unit = table_columns(self.warehouse, self.database, self.table)
        return Table(f"{self.database}.{self.table}", columns=columns, unit=unit)

    def attach(self, table: str, shards: Iterable[str] | None = None) -> None:
        """Take over the shards of another table with the same columns, by hard link."""
        wanted = None if shards is None else list(shards)
        try:
            self._attach(table, wanted)
        except EngineError as error:
            if _OTHER_INDEXES not in error.message:
                raise
            plain = clone(self.warehouse, self.database, table, wanted)
            try:
                self._attach(plain.name, wanted)
            finally:
                plain.drop()

    def _attach(self, table: str, shards: Iterable[str] | None) -> None:
        if shards is None:
            self._alter("ATTACH PARTITION ALL FROM " + table)
        else:
            self._alter(*(f"ATTACH PARTITION {literal(s)} FROM {table}" for s in shards))

    def drop_shards(self, shards: Iterable[str]) -> None:
        """Remove shards."""
        self._alter(*(f"DROP PARTITION {literal(s)}" for s in shards))

    def mask(self, predicate: str) -> None:
        """Keep only the rows for which a predicate (SQL text) holds, by a row mask."""
        self.mutate(f"WHERE NOT ifNull({predicate}, 0)")

    def add_columns(self, columns: Mapping[str, str], unit: Iterable[str] = ()) -> None:
        """Declare columns, name -> type, that have no values yet."""
        comments = {name: f" COMMENT {literal(UNIT)}" for name in unit}
        self._alter(*(f"ADD COLUMN {quote(n)} {t}{comments.get(n, '')}" for n, t in columns.items()))

    def update(self, values: Mapping[str, str]) -> None:
        """Set columns from expressions (SQL text) over the other columns."""
        if values:
            assignments = ", ".join(f"{quote(name)} = {text}" for name, text in values.items())
            self.mutate(f"UPDATE {assignments} WHERE 1")

    def mutate(self, command: str, settings: Mapping[str, object] | None = None) -> None:
        """Change the table and wait until that is done: see `mutations.mutate`."""
        mutate(self.warehouse, self.database, self.table, command, {**_MUTATION, **(settings or {})})

    def drop_columns(self, names: Iterable[str]) -> None:
        """Remove columns."""
        self._alter(*(f"DROP COLUMN {quote(n)}" for n in names))

    def drop_indexes(self) -> None:
        """Remove the indexes of vectors."""
        names = indexes(self.warehouse, self.database, self.table)
        self._alter(*(f"DROP INDEX {quote(name)}" for name in names))

    def remove_defaults(self, names: Iterable[str]) -> None:
        """Have inserts bring these columns again: tables share parts only when their columns are declared alike."""
        self._alter(*(f"MODIFY COLUMN {quote(n)} REMOVE DEFAULT" for n in names))

    def modify_columns(self, types: Mapping[str, str]) -> None:
        """Change the types of columns; their values are converted."""
        self._alter(*(f"MODIFY COLUMN {quote(n)} {t}" for n, t in types.items()))

    def rename_columns(self, names: Mapping[str, str]) -> None:
        """Rename columns, {old: new}; swaps are possible."""
        direct = {old: new for old, new in names.items() if old != new}
        if direct.keys() & set(direct.values()):
            passing = {old: f"_passing_{i}" for i, old in enumerate(direct)}
            self._alter(*(f"RENAME COLUMN {quote(o)} TO {quote(p)}" for o, p in passing.items()))
            direct = {passing[old]: new for old, new in direct.items()}
        self._alter(*(f"RENAME COLUMN {quote(o)} TO {quote(n)}" for o, n in direct.items()))

    def order_columns(self, names: Sequence[str]) -> None:
        """Bring the columns into this order (metadata only)."""
        if list(self.columns()) == list(names):
            return
        types = self.columns()
        places = ["FIRST", *(f"AFTER {quote(n)}" for n in names)]
        self._alter(*(f"MODIFY COLUMN {quote(n)} {types[n]} {p}" for n, p in zip(names, places, strict=False)))

    def optimize(self) -> None:
        """Merge the parts of each shard into one, so that masks, columns and attaches cost one part a shard."""
        for row in self.warehouse.rows(
            "SELECT partition FROM system.parts WHERE active AND database = {d:String} AND table = {t:String} "
            "GROUP BY partition HAVING count() > 1",
            {"d": self.database, "t": self.table},
        ):
            self.warehouse.execute(f"OPTIMIZE TABLE {self.name} PARTITION {literal(row['partition'])} FINAL")

    def set_readonly(self, comment: str) -> None:
        """Have the engine itself refuse any further change to the table, which gets a comment at last."""
        try:
            self._alter(*self.warehouse.deployment.sealing(comment))
        except EngineError as error:
            if error.code != _READONLY:
                raise
            # It was to be published under another number, which somebody else took first.
            self._alter(*self.warehouse.deployment.unsealing)
            self.set_readonly(comment)

    def shard_rows(self) -> dict[str, int]:
        """Number of rows of each shard, masked rows not counted."""
        rows = self.warehouse.rows(f"SELECT shard, count() AS n FROM {self.name} GROUP BY shard ORDER BY shard")
        return {row["shard"]: row["n"] for row in rows}

    def bytes(self, columns: Iterable[str] | None = None) -> int:
        """Bytes on disk of the table, or of some of its columns; `_row_exists` is the mask."""
        params: dict[str, object] = {"d": self.database, "t": self.table}
        where = "active AND database = {d:String} AND table = {t:String}"
        if columns is None:
            whole = "SELECT total_bytes FROM system.tables WHERE database = {d:String} AND name = {t:String}"
            return int(self.warehouse.scalar(whole, params) or 0)
        names = list(columns)
        if not names:
            return 0
        where += " AND column IN {c:Array(String)}"
        query = f"SELECT sum(column_bytes_on_disk) FROM system.parts_columns WHERE {where}"
        return int(self.warehouse.scalar(query, {**params, "c": names}) or 0)

    @contextlib.contextmanager
    def dropped_on_error(self) -> Iterator[None]:
        """Within, whatever fails removes the table: only who finished has made one."""
        try:
            yield
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """Remove the table."""
        self.warehouse.drop(self.name)

    def _alter(self, *commands: str) -> None:
        # Long lists of partitions go in pieces: the parser bounds the size of a statement.
        for i in range(0, len(commands), 500):
            self.mutate(", ".join(commands[i : i + 500]))


def create_stage(
    warehouse: Warehouse,
    dataset: str,
    columns: Mapping[str, str],
    unit: Iterable[str] = (),
    like: str | None = None,
    defaults: Mapping[str, str] | None = None,
) -> StagingTable:
    """An empty staging table for a dataset.

    Args:
        columns: column name -> ClickHouse type.
        unit: columns that hold vectors of unit length.
        like: take the columns from this table instead.
        defaults: columns that inserts need not bring -> SQL text of what they are then; until `remove_defaults`.
    """
    deployment = warehouse.deployment
    warehouse.execute(deployment.create_database(dataset))
    table = f"{STAGE_PREFIX}{uuid.uuid4().hex[:16]}"
    comments = {name: f"COMMENT {literal(UNIT)}" for name in unit}
    computed = {name: f"DEFAULT {text}" for name, text in (defaults or {}).items()}
    declared = (
        f"{quote(n)} {t} {computed.get(n, '')} {comments.get(n, '')} {_CODECS.get(n, '')}" for n, t in columns.items()
    )
    body = f"AS {like}" if like else f"({', '.join(declared)})"
    merged = deployment.unmerged if like else ""
    engine = deployment.definition(_ENGINE) + deployment.writable + merged + _policy(warehouse)
    try:
        warehouse.execute(f"CREATE TABLE {quote(dataset)}.{quote(table)} {body} {engine} COMMENT {literal(owner())}")
        return StagingTable(warehouse, dataset, table, uuid_of(warehouse, dataset, table))
    except BaseException:  # interrupted, when the table may be there and nobody has it yet
        with contextlib.suppress(EngineError):
            warehouse.execute(f"DROP TABLE IF EXISTS {quote(dataset)}.{quote(table)} SYNC")
        raise


def uuid_of(warehouse: Warehouse, database: str, table: str) -> str:
    """UUID of a table, which the engine gave it; empty where there is no such table."""
    # Not the client's own: replicas of a cluster agree on one.
    found = warehouse.scalar(
        "SELECT toString(uuid) FROM system.tables WHERE database = {d:String} AND name = {t:String}",
        {"d": database, "t": table},
    )
    return str(found or "")


def _policy(warehouse: Warehouse) -> str:
    """The setting that puts parts where the engine keeps those of versions, where that is not its default."""
    there = "SELECT count() FROM system.storage_policies WHERE policy_name = {p:String}"
    try:
        found = warehouse.scalar(there, {"p": POLICY})
    except EngineError as error:
        if error.code != ACCESS_DENIED:  # a server's user who may not see policies has none to name
            raise
        return ""
    return f", storage_policy = {literal(POLICY)}" if found else ""


def clone(warehouse: Warehouse, dataset: str, table: str, shards: Iterable[str] | None = None) -> StagingTable:
    """A staging table that shares the parts of another one, without its indexes: these would find masked rows, too."""
    stage = create_stage(warehouse, dataset, {}, like=table)
    with stage.dropped_on_error():
        stage.attach(table, shards)
        stage.drop_indexes()
    return stage


def indexes(warehouse: Warehouse, database: str, table: str) -> list[str]:
    """The names of a table's indexes of vectors."""
    declared = str(warehouse.scalar(f"SHOW CREATE TABLE {quote(database)}.{quote(table)}"))
    quoted = re.findall(rf"^ *INDEX (?:`({INDEX_PREFIX}(?:[^`\\]|\\.)+)`|({INDEX_PREFIX}\w+)) ", declared, re.MULTILINE)
    return [plain or re.sub(r"\\(.)", r"\1", escaped) for escaped, plain in quoted]


def table_columns(warehouse: Warehouse, database: str, table: str) -> tuple[dict[str, str], frozenset[str]]:
    """Columns (name -> type) of a table and the names of those that hold unit vectors; none of a table that is gone."""
    try:
        # For system.columns the engine would go through all tables of the database.
        rows = warehouse.rows(f"DESCRIBE TABLE {quote(database)}.{quote(table)}", settings=PLAIN_TYPES)
    except EngineError as error:
        if error.code not in _NO_TABLE:
            raise
        rows = []
    return {r["name"]: r["type"] for r in rows}, frozenset(r["name"] for r in rows if r["comment"] == UNIT)
