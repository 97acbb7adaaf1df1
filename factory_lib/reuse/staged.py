"""Values of one signal that are staged: computed by this run or a killed one, or taken over from a version.

They stand in a table of `factory_staging` that is named by the signal and its fingerprint, each with the hash of the
inputs that it was made of. A run that was killed takes up what it had staged; what nobody takes up is swept.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from factory_lib.reuse.identity import HASH, Reads
from factory_lib.reuse.inputs import Inputs
from factory_lib.signals.fingerprint import digest
from factory_lib.signals.signal import Signal
from factory_lib.sqltext import literal, quote
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.filling import ShardValues, fill_columns
from factory_lib.warehouse.names import STAGE_PREFIX, STAGING
from factory_lib.warehouse.stage import Stage, owner

_LASTING = (
    "UnidentifiedImageError: cannot identify image file",
    "OSError: image file is truncated",
    "OSError: broken data stream when reading image file",
    "OSError: unrecognized data stream contents when reading image file",
)
"""Beginnings of errors that the bytes themselves are the cause of: they will not go away."""


@dataclass(frozen=True)
class Staged:
    """Staged values of one signal, for the rows whose inputs are in a table.

    Attributes:
        signal: the signal.
        components, fingerprint: its own when the run began.
        name: the table of staged values, quoted.
        inputs: the rows that get values.
        identity: the column of `inputs` that holds the hash of what the signal reads.
        reads: what it reads.
        run: of errors, only those that this run staged count, or that will not go away.
        errors: whether errors of other runs count at all.
        fresh: the table is of this run alone: nothing is taken up, nothing is left.
    """

    signal: Signal
    components: Mapping[str, str]
    fingerprint: str
    name: str
    inputs: Inputs
    identity: str
    reads: Reads
    run: str
    errors: bool
    fresh: bool = False

    @staticmethod
    def of(signal: Signal, inputs: Inputs, run: str, *, errors: bool, fresh: bool = False) -> Staged:
        """The staged values of a signal, in a table that is made when it is first needed."""
        components = signal.components
        fingerprint = digest(components)
        known = f"values_{fingerprint[:16]}_{signal.name}"
        name = f"{STAGING}.{quote(f'{STAGE_PREFIX}values_{uuid.uuid4().hex[:16]}' if fresh else known)}"
        inputs.warehouse.execute(
            f"CREATE TABLE IF NOT EXISTS {name} (shard LowCardinality(String), position UInt32, identity {HASH},"
            f" value {signal.output.clickhouse}, error LowCardinality(Nullable(String)), run LowCardinality(String),"
            f" lasts Bool MATERIALIZED {_lasting(signal, 'error')})"
            " ENGINE = MergeTree PARTITION BY shard ORDER BY position"
            + (f" COMMENT {literal(owner())}" if fresh else "")
        )
        reads = Reads.of(signal)
        return Staged(signal, components, fingerprint, name, inputs, inputs.column(reads), reads, run, errors, fresh)

    @property
    def warehouse(self) -> Warehouse:
        """The warehouse that holds the tables."""
        return self.inputs.warehouse

    def lasting(self, error: str) -> str:
        """SQL of whether a value with an error in this column may be taken over from another run."""
        return _lasting(self.signal, error) if self.errors else f"{error} IS NULL"

    def usable(self) -> str:
        """SQL condition on the staged values: those that this run may use."""
        return f"(run = {literal(self.run)} OR {'lasts' if self.errors else 'error IS NULL'})"

    def is_missing(self) -> str:
        """SQL condition on the inputs: rows without a value."""
        return (
            f"(shard, {self.identity}) NOT IN (SELECT toString(shard), identity FROM {self.name} WHERE {self.usable()})"
        )

    def insert(self, table: pa.Table, identity: pa.ChunkedArray) -> None:
        """Stage computed values, with the hash of what each was computed from."""
        columns = [table.column(n) for n in ("shard", "position", self.signal.name, f"{self.signal.name}_error")]
        run = pa.array([self.run] * table.num_rows, pa.string())
        names = ["shard", "position", "value", "error", "identity", "run"]
        self.warehouse.insert(self.name, pa.Table.from_arrays([*columns, identity, run], names))

    def take(self, select: str) -> None:
        """Stage values from a SELECT of `shard, position, identity, value, error`."""
        self.warehouse.execute(
            f"INSERT INTO {self.name} (shard, position, identity, value, error, run)"
            f" SELECT shard, position, identity, value, error, {literal(self.run)} FROM ({select})"
        )

    def write_into(self, stage: Stage) -> None:
        """Fill the signal's two columns of a table whose rows have these inputs."""

        def rows(shard: str) -> str:
            where = f"shard = {literal(shard)}"
            inputs = f"SELECT position, {self.identity} AS identity FROM {self.inputs.name} WHERE {where}"
            values = f"SELECT identity, value, error FROM {self.name} WHERE {where} AND {self.usable()}"
            return (
                "SELECT i.position AS position, v.value AS value, v.error AS error"
                f" FROM ({inputs}) AS i LEFT ANY JOIN ({values}) AS v ON v.identity = i.identity"
            )

        names = {self.signal.name: "value", f"{self.signal.name}_error": "error"}
        fill_columns(stage, rows, names, {s: ShardValues(n) for s, n in self._sizes().items()})

    def forget(self) -> None:
        """Drop the staged values, once a version holds them."""
        if self.fresh:
            self.warehouse.execute(f"DROP TABLE IF EXISTS {self.name} SYNC")
            return
        shards: Sequence[str] = self.inputs.shards
        for i in range(0, len(shards), 500):
            commands = ", ".join(f"DROP PARTITION {literal(s)}" for s in shards[i : i + 500])
            self.warehouse.execute(f"ALTER TABLE {self.name} {commands}")

    def abandon(self) -> None:
        """What becomes of the staged values of a run that failed: they stay for the next one, unless nobody may."""
        if self.fresh:
            self.forget()

    def record(self) -> dict[str, Any]:
        """The signal, for provenance."""
        return {"name": self.signal.name, "fingerprint": self.fingerprint, "components": dict(self.components)}

    def _sizes(self) -> dict[str, int]:
        rows = self.warehouse.rows(
            "SELECT partition, sum(data_uncompressed_bytes) AS n FROM system.parts"
            f" WHERE active AND concat(database, '.', table) = {literal(self.name.replace('`', ''))} GROUP BY partition"
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
