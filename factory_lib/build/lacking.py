"""Rows that lack values of signals: how they are read, and how what was computed of them is staged.

All of it goes to other machines as it is: the warehouse is that of whoever uses it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from factory_lib.build.reuse.contents import among, remember
from factory_lib.build.reuse.staged import Staged, StagedPlace
from factory_lib.compute.cluster.pieces import Piece, ShardSpan
from factory_lib.compute.pool import WorkerPool
from factory_lib.compute.processes import PackedSignals
from factory_lib.compute.reading import PREFIX
from factory_lib.compute.rows import failed_task
from factory_lib.plan.sqltext import quote
from factory_lib.warehouse.client import Warehouse, warehouse

STAGED_ROWS = 1 << 14
STAGED_BYTES = 128 << 20
STAGED_SECONDS = 0.5
"""Values are staged after so many rows, bytes or seconds, whichever comes first: what a killed run loses at most."""

SPAN_ROWS = 256
"""Rows of a shard that are given out together."""

_ROW = ("shard", "position", "sample_id", "key")


@dataclass(frozen=True)
class LackingRows:
    """Rows that lack values of exactly some of the signals that are staged together.

    Attributes:
        columns: what is read of them, SQL text.
        table: the rows, quoted.
        inputs: the table of the hashes of what is read, quoted.
        places: where values of all the signals are staged.
        lacking: bit i is set where the rows lack a value of signal i.
    """

    columns: str
    table: str
    inputs: str
    places: tuple[StagedPlace, ...]
    lacking: int

    @staticmethod
    def of(staged: Sequence[Staged], lacking: int) -> LackingRows:
        """Rows that lack values of exactly these signals."""
        wanted = [one for i, one in enumerate(staged) if lacking & 1 << i]
        inputs = staged[0].inputs
        reads = dict.fromkeys(c for one in wanted for c in one.signal.reads if c not in _ROW)
        identities = sorted({one.identity for one in wanted})
        columns = [*(f"_t.{quote(c)} AS {quote(c)}" for c in (*_ROW, *reads)), *(f"_i.{c} AS _{c}" for c in identities)]
        places = tuple(one.place for one in staged)
        return LackingRows(", ".join(columns), inputs.rows.table, inputs.name, places, lacking)

    def sql(self, where: str, shards: Iterable[str]) -> str:
        """SELECT of them in byte order: what is read, and hashes.

        Args:
            where: SQL condition on shard and position.
            shards: the shards that this is about.
        """
        within = among(shards)
        return (
            f"SELECT {self.columns} FROM (SELECT * FROM {self.table} WHERE {where}) AS _t"
            f" INNER JOIN (SELECT * FROM {self.inputs} WHERE {where} AND {self.is_lacking(within)}) AS _i"
            " ON _i.shard = toString(_t.shard) AND _i.position = _t.position ORDER BY _t.shard, _t.position"
        )

    def spans(self, shards: Sequence[str], within: Warehouse) -> Iterator[ShardSpan]:
        """Where they are, in byte order, `SPAN_ROWS` of a shard at a time."""
        places = (
            f"SELECT shard, position, row_number() OVER (PARTITION BY shard ORDER BY position) - 1 AS number"
            f" FROM {self.inputs} WHERE {among(shards)} AND {self.is_lacking(among(shards))}"
        )
        found = within.query(
            f"SELECT shard, min(position) AS first, max(position) AS last, count() AS n FROM ({places})"
            f" GROUP BY shard, intDiv(number, {SPAN_ROWS}) AS part ORDER BY shard, part"
        )
        columns = (found.column(name).to_pylist() for name in ("shard", "first", "last", "n"))
        return (ShardSpan(*one) for one in zip(*columns, strict=True))

    def is_lacking(self, within: str) -> str:
        """SQL condition on the inputs, for rows of shards that fulfil a condition."""
        return f"{lacking_bits(self.places, within)} = {self.lacking}"


@dataclass(frozen=True)
class StagingJob:
    """What becomes of rows that lack values: the rest of what they depend on, and where the values go.

    Attributes:
        rows: the rows.
        wanted: where the values of each signal are staged.
        members: the pointer columns whose bytes are read.
        etags: uri -> etag that reads are pinned to.
        hashes: whether hashes of the bytes are to be known, too.
        on_error: see `compute`.
        seconds: values are staged so often.
    """

    rows: LackingRows
    wanted: tuple[StagedPlace, ...]
    members: tuple[str, ...]
    etags: Mapping[str, str]
    hashes: bool
    on_error: Literal["null", "raise"]
    seconds: float = STAGED_SECONDS

    def compute(self, piece: Piece, signals: PackedSignals, pool: WorkerPool) -> int:
        """Compute and stage what a piece still lacks; how many rows that was."""
        from factory_lib.compute.run import compute_packed

        passing = self.passing()
        results = compute_packed(
            signals,
            passing.split(self._read(piece)),
            pool,
            etags=self.etags,
            hashes=self.hashes,
            on_error=self.on_error,
        )
        return sum(staged.num_rows for staged in self.stage(results, passing, warehouse()))

    def blame(self, piece: Piece, signals: PackedSignals, reason: str) -> None:
        """Stage an error for the rows of a piece."""
        passing = self.passing()
        hashed = self.members if self.hashes else ()
        failed = (failed_task(signals.blank, rows, reason, hashed) for rows in passing.split(self._read(piece)))
        for _ in self.stage(failed, passing, warehouse()):
            pass

    def passing(self) -> Passing:
        """What of the rows goes past the signals, to be staged with the values."""
        return Passing((*(f"_{one.identity}" for one in self.wanted), *self.members), keep=self.members)

    def stage(self, results: Iterator[pa.RecordBatch], passing: Passing, into: Warehouse) -> Iterator[pa.Table]:
        """Stage values as they come.

        Args:
            results: what `compute` gives, in the order of the rows.
            passing: has the rest of the rows.

        Yields:
            What was staged.
        """
        for gathered in _gathered(results, self.seconds):
            beside = passing.take(gathered.num_rows)
            for one in self.wanted:
                one.insert(into, gathered, beside.column(f"_{one.identity}"))
            if self.hashes:
                columns = {m: beside.column(m) for m in self.members}
                columns |= {PREFIX + m: gathered.column(PREFIX + m) for m in self.members}
                remember(into, pa.table(columns), self.members, self.etags)
            yield gathered

    def _read(self, piece: Piece) -> Iterator[pa.RecordBatch]:
        shards = sorted({span.shard for span in piece.spans})
        return iter(warehouse().stream(self.rows.sql(piece.where, shards)))


class Passing:
    """Columns of rows on their way past the signals: taken off before, put back behind, in the same order.

    Args:
        names: the columns.
        keep: those of them that the signals see, too.
    """

    def __init__(self, names: Sequence[str], keep: Sequence[str] = ()) -> None:
        self.names = list(dict.fromkeys(names))
        self.hidden = [name for name in self.names if name not in keep]
        self.waiting: deque[pa.RecordBatch] = deque()

    def split(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches without these columns, which are kept."""
        for batch in batches:
            self.waiting.append(batch.select(self.names))
            yield batch.drop_columns(self.hidden)

    def take(self, rows: int) -> pa.Table:
        """The columns of the next rows."""
        taken: list[pa.RecordBatch] = []
        while rows:
            batch = self.waiting.popleft()
            if batch.num_rows > rows:
                self.waiting.appendleft(batch.slice(rows))
                batch = batch.slice(0, rows)
            taken.append(batch)
            rows -= batch.num_rows
        return pa.Table.from_batches(taken)


def lacking_bits(places: Sequence[StagedPlace], within: str = "1") -> str:
    """SQL of which signals a row of the inputs lacks: bit i for signal i."""
    return " + ".join(f"toUInt64({one.missing(within)}) * {1 << i}" for i, one in enumerate(places))


def _gathered(batches: Iterator[pa.RecordBatch], seconds: float) -> Iterator[pa.Table]:
    """Batches together, as often as they are to be staged."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    last = time.monotonic()
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= STAGED_ROWS or size >= STAGED_BYTES or time.monotonic() - last >= seconds:
            yield pa.Table.from_batches(held)
            held, rows, size, last = [], 0, 0, time.monotonic()
    if rows:
        yield pa.Table.from_batches(held)
