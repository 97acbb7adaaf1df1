"""Values of one signal that are staged: computed by this run or another one, or taken over from a version.

They stand in a table of `factory_staging` that is named by the fingerprint, the run and the signal, each with the hash
of the inputs that it was made of. The table is its run's alone: nobody else writes into it or drops it while the run
lives. What other runs have staged, living ones or killed ones, is taken up by hard link. What nobody takes up is swept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from factory_lib.build.reuse.claims import Claims
from factory_lib.build.reuse.identity import HASH, Reads
from factory_lib.build.reuse.inputs import Inputs
from factory_lib.build.reuse.tables import UNKNOWN_TABLE, StagedTable, attach, staged_tables
from factory_lib.errors import CommitError, EngineError
from factory_lib.fingerprints.components import digest
from factory_lib.names import STAGE_PREFIX, STAGING, VALUES_PREFIX
from factory_lib.owners import owner
from factory_lib.plan.sqltext import literal, quote
from factory_lib.signals.outputs import ArrayOf, Bytes
from factory_lib.signals.signal import Signal
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.filling import ShardValues, fill_columns
from factory_lib.warehouse.lost import is_bare
from factory_lib.warehouse.staging import StagingTable

_LASTING = (
    "UnidentifiedImageError: cannot identify image file",
    "OSError: image file is truncated",
    "OSError: broken data stream when reading image file",
    "OSError: unrecognized data stream contents when reading image file",
)
"""Beginnings of errors that the bytes themselves are the cause of: they will not go away."""


@dataclass(frozen=True)
class StagedPlace:
    """Where the values of a signal are staged: what a machine has to know that puts some there.

    Attributes:
        name: the table, `database.table`, quoted.
        signal: name of the signal.
        identity: the column of the inputs that holds the hash of what it reads.
        run: the run that stages them.
        usable: SQL condition on staged values: those that the run may use.
    """

    name: str
    signal: str
    identity: str
    run: str
    usable: str

    def missing(self, within: str = "1") -> str:
        """SQL condition on the inputs: rows without a value.

        Args:
            within: SQL condition on the shards that are looked at.
        """
        known = f"SELECT toString(shard), identity FROM {self.name} WHERE {self.usable} AND {within}"
        return f"(shard, {self.identity}) NOT IN ({known})"

    def insert(self, warehouse: Warehouse, table: pa.Table, identity: pa.ChunkedArray) -> None:
        """Stage computed values, with the hash of what each was computed from."""
        columns = [table.column(n) for n in ("shard", "position", self.signal, f"{self.signal}_error")]
        run = pa.array([self.run] * table.num_rows, pa.string())
        names = ["shard", "position", "value", "error", "identity", "run"]
        warehouse.insert(self.name, pa.Table.from_arrays([*columns, identity, run], names))


@dataclass(frozen=True)
class Staged:
    """Staged values of one signal, for the rows whose inputs are in a table.

    Attributes:
        signal: the signal.
        components, fingerprint: its own when the run began.
        table: the table of staged values, without its database.
        inputs: the rows that get values.
        identity: the column of `inputs` that holds the hash of what the signal reads.
        reads: what it reads.
        claims: the run: of errors, only those that it staged count, or that will not go away.
        errors: whether errors of other runs count at all.
        fresh: the table is of this run alone: nothing is taken up, nothing is left.
    """

    signal: Signal
    components: Mapping[str, str]
    fingerprint: str
    table: str
    inputs: Inputs
    identity: str
    reads: Reads
    claims: Claims
    errors: bool
    fresh: bool = False

    @staticmethod
    def of(signal: Signal, inputs: Inputs, claims: Claims, *, errors: bool, fresh: bool = False) -> Staged:
        """The staged values of a signal, in a new table."""
        components = signal.components
        fingerprint = digest(components)
        table = f"{STAGE_PREFIX if fresh else ''}{VALUES_PREFIX}{fingerprint[:16]}_{claims.run}_{signal.name}"
        definition = inputs.warehouse.deployment.definition("ENGINE = MergeTree PARTITION BY shard ORDER BY position")
        inputs.warehouse.execute(
            f"CREATE TABLE {STAGING}.{quote(table)} (shard LowCardinality(String), position UInt32, identity {HASH},"
            f" value {signal.output.clickhouse}, error LowCardinality(Nullable(String)), run LowCardinality(String),"
            f" lasts Bool MATERIALIZED {_lasting(signal, 'error')})"
            f" {definition} COMMENT {literal(owner())}"
        )
        reads = Reads.of(signal)
        return Staged(
            signal, components, fingerprint, table, inputs, inputs.column(reads), reads, claims, errors, fresh
        )

    @property
    def name(self) -> str:
        """`database.table`, quoted."""
        return f"{STAGING}.{quote(self.table)}"

    @property
    def run(self) -> str:
        """The run that stages them."""
        return self.claims.run

    @property
    def what(self) -> str:
        """What the values are called, whichever run computes them."""
        return f"{self.fingerprint[:16]} {self.signal.name}"

    @property
    def warehouse(self) -> Warehouse:
        """The warehouse that holds the tables."""
        return self.inputs.warehouse

    @property
    def may_be_empty(self) -> bool:
        """Whether the signal gives lists: an empty one is a value like any other."""
        return isinstance(self.signal.output, ArrayOf | Bytes)

    def reusable(self, value: str, error: str, *, checked: bool) -> str:
        """SQL of whether what a version holds in these columns may be taken over.

        Args:
            checked: when the version was made, it was seen that each row has a value or an error.
        """
        lasting = _lasting(self.signal, error) if self.errors else f"{error} IS NULL"
        return lasting if checked and self.may_be_empty else f"{lasting} AND NOT {self.is_bare(value, error)}"

    def usable(self) -> str:
        """SQL condition on the staged values: those that this run may use."""
        others = f"{'lasts' if self.errors else 'error IS NULL'} AND NOT {self.is_bare('value', 'error')}"
        return f"(run = {literal(self.run)} OR ({others}))"

    def is_bare(self, value: str, error: str) -> str:
        """SQL of whether there is neither a value nor an error in these columns: nothing says that it was computed."""
        return is_bare(value, error, self.signal.output.clickhouse)

    @property
    def place(self) -> StagedPlace:
        """Where they are staged."""
        return StagedPlace(self.name, self.signal.name, self.identity, self.run, self.usable())

    def is_missing(self) -> str:
        """SQL condition on the inputs: rows without a value."""
        return self.place.missing()

    def take(self, select: str) -> None:
        """Stage values from a SELECT of `shard, position, identity, value, error`."""
        self.warehouse.execute(
            f"INSERT INTO {self.name} (shard, position, identity, value, error, run)"
            f" SELECT shard, position, identity, value, error, {literal(self.run)} FROM ({select})"
        )

    def take_up(self) -> None:
        """Have what other runs staged for rows that lack a value, of shards that none of them is at."""
        for other in self._others():
            wanted = (
                f"SELECT DISTINCT toString(shard) AS shard FROM {other.name} WHERE (toString(shard), identity) IN"
                f" (SELECT shard, {self.identity} FROM {self.inputs.name} WHERE {self.is_missing()})"
                f" AND {self.usable()}"
            )
            try:
                shards = [row["shard"] for row in self.warehouse.rows(wanted)]
                held = self.claims.held([self.what], shards) if shards else {}
                attach(self.warehouse, self.name, other.name, [shard for shard in shards if shard not in held])
            except EngineError as error:
                if error.code != UNKNOWN_TABLE:  # its run committed: a version holds the values
                    raise

    def write_into(self, stage: StagingTable) -> None:
        """Fill the signal's two columns of a table whose rows have these inputs.

        Raises:
            EngineError: a row has no staged value.
            CommitError: values did not arrive in the table.
        """

        def rows(shard: str) -> str:
            where = f"shard = {literal(shard)}"
            inputs = f"SELECT position, {self.identity} AS identity FROM {self.inputs.name} WHERE {where}"
            values = f"SELECT identity, value, error, 1 AS found FROM {self.name} WHERE {where} AND {self.usable()}"
            return (
                "SELECT _i.position AS position, _v.value AS value, _v.error AS error"
                f" FROM ({inputs}) AS _i LEFT ANY JOIN ({values}) AS _v ON _v.identity = _i.identity"
                f" WHERE throwIf(_v.found = 0, {literal(f'a row has no value of {self.signal.name}')}) = 0"
            )

        names = {self.signal.name: "value", f"{self.signal.name}_error": "error"}
        fill_columns(stage, rows, names, {s: ShardValues(n) for s, n in self._sizes().items()})
        self._check(stage)

    def _check(self, stage: StagingTable) -> None:
        """Make sure that rows have a value or an error, unless the signal gave neither."""
        given = self.warehouse.scalar(
            f"SELECT count() FROM {self.name} WHERE {self.is_bare('value', 'error')} AND {self.usable()}"
        )
        if given:
            return
        bare = self.is_bare(quote(self.signal.name), quote(f"{self.signal.name}_error"))
        lacking = self.warehouse.scalar(f"SELECT count() FROM {stage.name} WHERE {bare}")
        if lacking:
            raise CommitError(
                f"{int(lacking):,} values of {self.signal.name} did not arrive in the warehouse.",
                "Is the disk full? Run it again: what was computed is staged.",
            )

    def forget(self) -> None:
        """Drop the staged values, once a version holds them, and those that killed runs left for the same shards."""
        self.warehouse.drop(self.name)
        if self.fresh:
            return
        others = self._others()
        over = self.claims.over(one.run for one in others)
        for other in others:
            if other.run in over or other.is_dead:
                other.drop(self.inputs.shards)

    def abandon(self) -> None:
        """What becomes of the staged values of a run that failed: they stay for the next one, unless nobody may."""
        if self.fresh:
            self.forget()

    def _others(self) -> list[StagedTable]:
        """What other runs have staged of the same signal."""
        found = staged_tables(self.warehouse, self.fingerprint, self.signal.name)
        return [one for one in found if one.table != self.table]

    def record(self) -> dict[str, Any]:
        """The signal, for provenance."""
        return {"name": self.signal.name, "fingerprint": self.fingerprint, "components": dict(self.components)}

    def _sizes(self) -> dict[str, int]:
        rows = self.warehouse.rows(
            "SELECT partition, sum(data_uncompressed_bytes) AS n FROM system.parts"
            f" WHERE active AND database = '{STAGING}' AND table = {literal(self.table)} GROUP BY partition"
        )
        sizes = {row["partition"]: row["n"] for row in rows}
        return {shard: sizes.get(shard, 0) for shard in self.inputs.shards}


def _lasting(signal: Signal, error: str) -> str:
    """SQL of whether an error will not go away.

    A sample that lacks an input will lack it again, and what is no picture will be none. Any other error may have been
    storage that did not answer, memory that ran out or a service that was away: such samples are tried again.
    """
    missing = [f"no {given.column}" for given in signal.inputs]
    begins = " OR ".join(f"startsWith(ifNull({error}, ''), {literal(text)})" for text in _LASTING)
    return f"({error} IS NULL OR has({literal(missing)}, ifNull({error}, '')) OR {begins})"
