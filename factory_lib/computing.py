"""Signals over the rows of a query: what is missing is computed, staged as it comes, and becomes a column.

Values are staged in a table of `factory_staging` named by the signal and its fingerprint, each with the identity of
what it was computed from. A run that was killed takes up what it had staged.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from factory_lib.errors import CommitError
from factory_lib.pending import Ledger, Origin, settle
from factory_lib.progress import track
from factory_lib.sql import Block, Rendering, tables
from factory_lib.sqltext import literal, quote
from factory_lib.warehouse import provenance
from factory_lib.warehouse.client import Warehouse, warehouse
from factory_lib.warehouse.derive import derive
from factory_lib.warehouse.filling import ShardValues, fill_columns
from factory_lib.warehouse.names import STAGE_PREFIX, STAGING, is_version_name
from factory_lib.warehouse.stage import Stage, owner
from factory_lib.warehouse.versions import resolve

if TYPE_CHECKING:
    from factory_lib.signals.signal import Signal

STAGED_ROWS = 1 << 14
"""Values are staged in steps of this many rows: what a killed run loses at most."""


class SignalRows(Origin):
    """The rows of a query with the values of signals as new columns."""

    def __init__(self, block: Block, signals: Sequence[Signal], on_error: Literal["null", "raise"]) -> None:
        self.block = block
        self.signals = tuple(signals)
        self.on_error: Literal["null", "raise"] = on_error

    def __str__(self) -> str:
        return f"signals {', '.join(s.name for s in self.signals)}"

    def sql(self, rendering: Rendering) -> str:
        return f"({rendering.select(self.block)}) /* with {self} */"

    def write(self, ledger: Ledger) -> Stage:
        block = settle(self.block, ledger)
        shard_sources = {**table_sources(block, warehouse()), **ledger.shard_sources}
        stage, how, added = derive(warehouse(), STAGING, block)
        files = provenance.etags(stage.warehouse, shard_sources.values())
        staged = [Staged.of(stage, signal, shard_sources, fresh=ledger.fresh) for signal in self.signals]
        try:
            self._fill(stage, staged, files, ledger)
        except BaseException:
            for one in staged:
                one.abandon()
            stage.drop()
            raise
        ledger.bytes += added
        ledger.storage += [*([how.kind] if how.kind != "clone" else []), "signals"]
        return stage

    def _fill(self, stage: Stage, staged: Sequence[Staged], files: dict[str, str], ledger: Ledger) -> None:
        """Compute the values that are missing and write all of them into the table."""
        rows = sum(stage.shard_rows().values())
        reused = [rows - one.missing() for one in staged]
        self._compute_missing(stage, staged, files, rows)
        types = {name: t for s in self.signals for name, t in s.columns.items()}
        own = stage.columns()
        stage.drop_columns([name for name in types if name in own])
        stage.add_columns(types, [s.name for s in self.signals if getattr(s.output, "unit", False)])
        for one in staged:
            one.write_into(stage)
        ledger.bytes += stage.bytes(types)
        for one, taken in zip(staged, reused, strict=True):
            ledger.signals.append(one.signal_record())
            ledger.reused += taken
            ledger.computed += rows - taken
            ledger.finish.append(one.forget)

    def _compute_missing(self, stage: Stage, staged: Sequence[Staged], etags: dict[str, str], rows: int) -> None:
        from factory_lib.signals.engine import compute

        missing = sum(1 for one in staged if one.missing())
        if not missing:
            return
        names = ", ".join(s.name for s in self.signals)
        with track(f"computing {names}", rows) as progress:
            identities = Identities(len(staged))
            batches = identities.split(rows_to_compute(stage, staged))
            results = compute(
                self.signals, batches, on_error=self.on_error, progress=progress.advance, ordered=True, etags=etags
            )
            for gathered in _gathered(results):
                columns = identities.take(gathered.num_rows)
                for one, identity in zip(staged, columns, strict=True):
                    one.insert(gathered, identity)
        if any(one.missing() for one in staged):
            raise CommitError(
                f"Another run removed staged values of {names} while this one computed them.", "Run it again."
            )


@dataclass(frozen=True)
class Staged:
    """Staged values of one signal for the rows of one table.

    Attributes:
        stage: the table whose rows get values.
        name: the table of staged values, quoted.
        identity: SQL of the hash of everything that a value of a row depends on besides the signal.
        fresh: the table is of this run alone: nothing is taken up, nothing is left.
    """

    stage: Stage
    signal: Signal
    name: str
    identity: str
    shards: tuple[str, ...]
    fresh: bool = False

    @staticmethod
    def of(stage: Stage, signal: Signal, shard_sources: dict[str, str], *, fresh: bool = False) -> Staged:
        """The staged values of a signal, in a table made when it is first needed."""
        wh = stage.warehouse
        known = f"values_{signal.name}_{signal.fingerprint[:16]}"
        name = f"{STAGING}.{quote(f'{STAGE_PREFIX}values_{uuid.uuid4().hex[:16]}' if fresh else known)}"
        wh.execute(f"CREATE DATABASE IF NOT EXISTS {STAGING}")
        wh.execute(
            f"CREATE TABLE IF NOT EXISTS {name} (shard LowCardinality(String), position UInt32, identity UInt64,"
            f" value {signal.output.clickhouse}, error LowCardinality(Nullable(String)))"
            " ENGINE = MergeTree PARTITION BY shard ORDER BY position"
            + (f" COMMENT {literal(owner())}" if fresh else "")
        )
        identity = _identity(stage, signal, shard_sources)
        return Staged(stage, signal, name, identity, tuple(stage.shard_rows()), fresh)

    @property
    def warehouse(self) -> Warehouse:
        """The warehouse that holds both tables."""
        return self.stage.warehouse

    def missing(self) -> int:
        """Number of rows without a staged value."""
        return int(self.warehouse.scalar(f"SELECT count() FROM {self.stage.name} WHERE {self.is_missing()}"))

    def insert(self, table: pa.Table, identity: pa.ChunkedArray) -> None:
        """Stage computed values, with the identity of what each was computed from."""
        values = [table.column(n) for n in ("shard", "position", self.signal.name, f"{self.signal.name}_error")]
        names = ["shard", "position", "value", "error", "identity"]
        self.warehouse.insert(self.name, pa.Table.from_arrays([*values, identity], names))

    def write_into(self, stage: Stage) -> None:
        """Fill the signal's two columns of the table."""

        def rows(shard: str) -> str:
            where = f"shard = {literal(shard)}"
            known = f"SELECT {self.identity} FROM {stage.name} WHERE {where}"
            values = f"SELECT position, value, error FROM {self.name} WHERE {where} AND identity IN ({known})"
            return f"{values} LIMIT 1 BY position"

        names = {self.signal.name: "value", f"{self.signal.name}_error": "error"}
        fill_columns(stage, rows, names, {s: ShardValues(n) for s, n in self._sizes().items()})

    def forget(self) -> None:
        """Drop the staged values, once a version holds them."""
        if self.fresh:
            self.warehouse.execute(f"DROP TABLE IF EXISTS {self.name} SYNC")
            return
        commands = ", ".join(f"DROP PARTITION {literal(s)}" for s in self.shards)
        if commands:
            self.warehouse.execute(f"ALTER TABLE {self.name} {commands}")

    def abandon(self) -> None:
        """What becomes of the staged values of a run that failed: they stay for the next one, unless nobody may."""
        if self.fresh:
            self.forget()

    def signal_record(self) -> dict[str, Any]:
        """The signal, for provenance."""
        signal = self.signal
        return {"name": signal.name, "fingerprint": signal.fingerprint, "components": signal.components}

    def is_missing(self) -> str:
        return f"(shard, {self.identity}) NOT IN (SELECT shard, identity FROM {self.name})"

    def _sizes(self) -> dict[str, int]:
        rows = self.warehouse.rows(
            "SELECT partition, sum(data_uncompressed_bytes) AS n FROM system.parts"
            f" WHERE active AND concat(database, '.', table) = {literal(self.name.replace('`', ''))} GROUP BY partition"
        )
        sizes = {row["partition"]: row["n"] for row in rows}
        return {shard: sizes.get(shard, 0) for shard in self.shards}


class Identities:
    """Identities of rows on their way past the signals: taken off before, put back behind, in the same order."""

    def __init__(self, n: int) -> None:
        self.names = [f"_identity_{i}" for i in range(n)]
        self.waiting: deque[pa.RecordBatch] = deque()

    def split(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches without their identities, which are kept."""
        for batch in batches:
            self.waiting.append(batch.select(self.names))
            yield batch.drop_columns(self.names)

    def take(self, rows: int) -> list[pa.ChunkedArray]:
        """The identities of the next rows, an array for each signal."""
        taken: list[pa.RecordBatch] = []
        while rows:
            batch = self.waiting.popleft()
            if batch.num_rows > rows:
                self.waiting.appendleft(batch.slice(rows))
                batch = batch.slice(0, rows)
            taken.append(batch)
            rows -= batch.num_rows
        table = pa.Table.from_batches(taken)
        return [table.column(name) for name in self.names]


def rows_to_compute(stage: Stage, staged: Sequence[Staged]) -> Iterator[pa.RecordBatch]:
    """Rows that lack a value of any of the signals, in byte order: what the signals read, and identities."""
    reads = dict.fromkeys(c for one in staged for c in one.signal.reads if c not in _ROW)
    identities = [f"{one.identity} AS _identity_{i}" for i, one in enumerate(staged)]
    columns = ", ".join([*_ROW, *map(quote, reads), *identities])
    where = " OR ".join(one.is_missing() for one in staged)
    query = f"SELECT {columns} FROM {stage.name} WHERE {where} ORDER BY shard, position"
    return iter(stage.warehouse.stream(query))


_ROW = ("shard", "position", "sample_id")


def table_sources(block: Block, wh: Warehouse) -> dict[str, str]:
    """Shard -> fingerprint of the files that its rows point into, of all versions that a query reads."""
    found: dict[str, str] = {}
    for table in tables(block):
        if is_version_name(table.name):
            for name, shard in resolve(wh, table.name).shards.items():
                if shard.source:
                    found.setdefault(name, shard.source)
    return found


def _identity(stage: Stage, signal: Signal, shard_sources: dict[str, str]) -> str:
    """SQL of a hash over the sample, the inputs of the signal and the state of the files that it reads."""
    # Inside a tuple a NULL is hashed like any value; a bare NULL would make the whole hash NULL.
    parts = ["sample_id", *(f"tuple({quote(c)})" for c in signal.reads)]
    if signal.members and shard_sources:
        used = {s: shard_sources[s] for s in stage.shard_rows() if s in shard_sources}
        parts.append(f"transform(toString(shard), {literal(list(used))}, {literal(list(used.values()))}, '')")
    return f"cityHash64({', '.join(parts)})"


def _gathered(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        if rows >= STAGED_ROWS:
            yield pa.Table.from_batches(held)
            held, rows = [], 0
    if rows:
        yield pa.Table.from_batches(held)
