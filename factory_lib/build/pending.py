"""Rows that exist only once a query runs: an Arrow table, a source of shards, the values of signals.

Each kind knows how to write its rows into a staging table. The table is kept as long as the object: a query that is
counted, shown and saved reads its source and computes its signals once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from factory_lib.bounded import split
from factory_lib.errors import QueryError, nearest
from factory_lib.plan.expressions import SqlText
from factory_lib.plan.sql import Block, PendingSource, Rendering, TableSource, map_sources
from factory_lib.plan.sqltext import literal, quote
from factory_lib.progress import track
from factory_lib.redaction import redact
from factory_lib.warehouse import provenance
from factory_lib.warehouse.arrow_types import POINTER_TYPE, clickhouse_type
from factory_lib.warehouse.byte_lists import without_bytes
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.derive import SINGLE_SHARD, SYSTEM
from factory_lib.warehouse.filling import ShardValues, fill_columns
from factory_lib.warehouse.given_values import check_written
from factory_lib.warehouse.lifetimes import drop_with
from factory_lib.warehouse.names import STAGING
from factory_lib.warehouse.null_elements import marked
from factory_lib.warehouse.stage import Stage, create_stage

INSERT_ROWS = 1 << 12
"""Rows of an insert, at least; it ends where a shard ends."""

MAX_INSERT_ROWS = 1 << 18
MAX_INSERT_BYTES = 128 << 20


@dataclass
class Ledger:
    """What happened while pending rows were written: for provenance.

    Attributes:
        signals: signals that were computed, `{"name", "fingerprint", "components"}`.
        sources: what was ingested.
        shard_sources: shard -> fingerprint of the files that its rows point into.
        reused, computed: signal values taken over and computed.
        bytes: bytes on disk that were written.
        storage: how they were stored.
        finish: called after the commit.
        fresh: values are computed anew, whatever is known of them already.
    """

    signals: list[dict[str, Any]] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    shard_sources: dict[str, str] = field(default_factory=dict)
    reused: int = 0
    computed: int = 0
    bytes: int = 0
    storage: list[str] = field(default_factory=list)
    finish: list[Callable[[], None]] = field(default_factory=list)
    fresh: bool = False

    def add(self, other: Ledger) -> None:
        """Take over what another ledger says."""
        self.signals += other.signals
        self.sources += other.sources
        self.shard_sources |= other.shard_sources
        self.reused += other.reused
        self.computed += other.computed
        self.bytes += other.bytes
        self.storage += other.storage
        self.finish += other.finish


class Origin:
    """Where pending rows come from. Subclasses write them into a staging table of `factory_staging`."""

    _stage: Stage | None = None
    _ledger: Ledger

    def stage(self, ledger: Ledger) -> Stage:
        """The rows as a table, written at the first call; the table goes when this object goes."""
        if self._stage is None:
            self._ledger = Ledger(fresh=ledger.fresh)
            self._stage = self.write(self._ledger)
            drop_with(self, self._stage)
        ledger.add(self._ledger)
        return self._stage

    def discard(self) -> None:
        """Drop the table of the rows now; nothing happens when they were not written."""
        if self._stage is not None:
            self._stage.drop()
            self._stage = None

    @property
    def written(self) -> Ledger | None:
        """What happened while the rows were written; None when they were not yet."""
        return self._ledger if self._stage is not None else None

    def write(self, ledger: Ledger) -> Stage:
        """Write the rows into a new staging table."""
        raise NotImplementedError

    def sql(self, rendering: Rendering) -> str:
        """What stands for the rows where a query is shown, not run."""
        return f"/* {self} */"


def settle(block: Block, ledger: Ledger) -> Block:
    """The query with all its pending rows written, so that only tables are left as sources."""

    def change(source: Any) -> Any:
        return source.origin.stage(ledger).source() if isinstance(source, PendingSource) else source

    return map_sources(block, change)


def typed(block: Block) -> Block:
    """The query with typed empty rows in place of pending ones, so that the engine can tell its column types."""

    def change(source: Any) -> Any:
        if not isinstance(source, PendingSource):
            return source
        columns = {n: SqlText(f"defaultValueOfTypeName({literal(t)})") for n, t in source.columns.items()}
        return Block(TableSource("system.one", {}), columns)

    return map_sources(block, change)


class ArrowRows(Origin):
    """An Arrow table, or a reader of batches.

    Args:
        data: what has a schema and gives record batches.
        shard: the column that says which shard a row belongs to; without it all rows are one shard.
    """

    def __init__(self, data: Any, shard: str | None) -> None:
        self.reader = as_reader(marked(data) if isinstance(data, pa.Table) else data)
        if shard is not None and shard not in self.reader.schema.names:
            raise QueryError(f"The table has no column {shard!r}.", nearest(shard, self.reader.schema.names))
        self.shard = shard
        fields = {f.name: f for f in self.reader.schema}
        reserved = {"shard": SYSTEM["shard"], "position": SYSTEM["position"], "sample_id": SYSTEM["sample_id"]}
        values = {n: clickhouse_type(f) for n, f in fields.items() if n not in reserved and n != shard}
        self.columns: dict[str, str] = {**reserved, "key": SYSTEM["key"], **values}
        self.columns["key"] = SYSTEM["key"]

    def __str__(self) -> str:
        return f"an Arrow table with columns {', '.join(self.reader.schema.names[:8])}"

    def write(self, ledger: Ledger) -> Stage:
        stage = stage_of_rows(self.columns, (self._with_shard(batch) for batch in self.reader), str(self))
        ledger.bytes += stage.bytes()
        ledger.storage.append("insert")
        return stage

    def _with_shard(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if self.shard is None:
            shard = pa.array([SINGLE_SHARD] * batch.num_rows, pa.string())
            return batch if "shard" in batch.schema.names else batch.append_column("shard", shard)
        values = batch.column(self.shard).cast(pa.string())
        index = batch.schema.get_field_index(self.shard)
        return batch.set_column(index, "shard", values)


class ShardRows(Origin):
    """Shards of a source of samples (see `factory_lib.sources`)."""

    def __init__(self, source: Any, shards: Sequence[str] | None) -> None:
        self.source = source
        known = {shard.name: shard for shard in source.shards()}
        for name in shards or ():
            if name not in known:
                raise QueryError(f"{source.uri} has no shard {name!r}.", nearest(name, known))
        self.shards = [known[name] for name in (known if shards is None else shards)]
        schema: pa.Schema = source.schema
        self.columns = {**SYSTEM, **{f.name: clickhouse_type(f) for f in schema if f.name not in SYSTEM}}

    def __str__(self) -> str:
        return f"{redact(self.source.uri)} ({self.source.format})"

    def write(self, ledger: Ledger) -> Stage:
        from factory_lib.sources import ShardReport, read_shards

        reports: dict[str, ShardReport] = {}
        batches = (
            batch.append_column("shard", pa.array([shard] * batch.num_rows, pa.string()))
            for shard, batch in read_shards(self.source, self.shards, reports=reports)
        )
        stage = stage_of_rows(self.columns, batches, f"ingesting {redact(self.source.uri)}")
        ledger.shard_sources |= {shard.name: shard.fingerprint for shard in self.shards}
        files = {s.fingerprint: [(f.uri, f.size, f.etag) for f in s.files] for s in self.shards}
        provenance.record_files(stage.warehouse, files)
        ledger.sources.append(self._summary(reports))
        ledger.bytes += stage.bytes()
        ledger.storage.append("ingest")
        return stage

    def _summary(self, reports: Mapping[str, Any]) -> dict[str, Any]:
        counts: dict[str, int] = {}
        account = getattr(self.source, "account", None)
        for report in reports.values():
            for name, n in report.counts.items():
                counts[name] = counts.get(name, 0) + n
        return {
            "uri": self.source.uri,
            "format": self.source.format,
            "samples": sum(r.samples for r in reports.values()),
            "counts": counts,
            "shards": {s.name: s.fingerprint for s in self.shards},
            "problems": [f"{name}: {p}" for name, r in sorted(reports.items()) for p in r.problems][:100],
            "account": account.with_those(r.account for r in reports.values()).data() if account else [],
        }


def stage_of_rows(columns: Mapping[str, str], batches: Iterable[pa.RecordBatch], what: str) -> Stage:
    """A staging table of rows; where they cannot all be written, none is left.

    Args:
        columns: column name -> ClickHouse type, with those that every version has.
        batches: with a column `shard`; position, sample_id and key are filled in. Position is the number of a row
            in its shard, the id of a sample a hash of where it is stored and its key.
        what: goes on, for the progress.
    """
    stage = create_stage(warehouse(), STAGING, columns, defaults={"sample_id": _sample_id_expression(columns)})
    with stage.dropped_on_error():
        _write(stage, batches, what)
    return stage


def _write(stage: Stage, batches: Iterable[pa.RecordBatch], what: str) -> None:
    counters: dict[str, int] = {}
    rows = inserts = 0
    # One insert runs while the rows of the next one are read.
    with track(what) as progress, ThreadPoolExecutor(1) as inserting:
        before: Future[int] | None = None
        for batch in _gathered(batches):
            table = _with_positions(batch, counters)
            if "key" not in table.schema.names:
                table = table.append_column("key", table.column("position").cast(pa.string()))
            if before is not None:
                progress.advance(before.result())
            before = inserting.submit(stage.warehouse.insert, stage.name, table)
            rows += table.num_rows
            inserts += 1
        if before is not None:
            progress.advance(before.result())
    check_written(stage.warehouse, stage.name, rows)
    stage.remove_defaults(["sample_id"])
    tell_apart(stage)
    if inserts > 1:
        stage.optimize()


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Small batches together: each insert makes a part a shard, and whole shards need no merge.

    Where shards come mixed, none ends, and inserts are as large as they may be.
    """
    held: list[pa.RecordBatch] = []
    shards: set[str] = set()
    rows = size = 0
    for batch in (piece for whole in batches for piece in split(whole)):
        if not batch.num_rows:
            continue
        here = set(batch.column("shard").unique().to_pylist())
        full = rows >= MAX_INSERT_ROWS or size >= MAX_INSERT_BYTES
        if full or (rows >= INSERT_ROWS and not here & shards):
            yield pa.Table.from_batches(held)
            held, shards, rows, size = [], set(), 0, 0
        held.append(batch)
        shards |= here
        rows += batch.num_rows
        size += batch.nbytes
    if rows:
        yield pa.Table.from_batches(held)


def _with_positions(table: pa.Table, counters: dict[str, int]) -> pa.Table:
    if "position" in table.schema.names:
        return table
    encoded = table.column("shard").combine_chunks().dictionary_encode()
    codes = np.asarray(encoded.indices)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(encoded.dictionary)))
    rank = np.empty(len(codes), np.int64)
    rank[order] = np.arange(len(codes)) - starts[codes[order]]
    names = encoded.dictionary.to_pylist()
    rank += np.array([counters.get(name, 0) for name in names], np.int64)[codes]
    for name, count in zip(names, np.bincount(codes, minlength=len(names)), strict=True):
        counters[name] = counters.get(name, 0) + int(count)
    return table.append_column("position", pa.array(rank.astype(np.uint32)))


def _sample_id_expression(columns: Mapping[str, str]) -> str:
    pointer = next((name for name, t in columns.items() if t == POINTER_TYPE), None)
    place = "toString(shard)"
    if pointer:
        uri = f"tupleElement({quote(pointer)}, 'uri')"
        place = f"if({uri} = '', {place}, toString({uri}))"
    return f"xxHash64(concat({place}, '\\n', key))"


def tell_apart(stage: Stage) -> None:
    """Give rows of one shard that have the same id ids of their own: the first keeps it, the n-th is hashed with n."""
    shards = stage.warehouse.rows(
        f"SELECT DISTINCT toString(shard) AS shard FROM (SELECT shard, sample_id FROM {stage.name}"
        " GROUP BY shard, sample_id HAVING count() > 1)"
    )

    def renumbered(shard: str) -> str:
        nth = "row_number() OVER (PARTITION BY sample_id ORDER BY position)"
        rows = f"SELECT position, sample_id, {nth} AS nth FROM {stage.name} WHERE shard = {literal(shard)}"
        other = "xxHash64(concat(toString(sample_id), '\\n', toString(nth)))"
        return f"SELECT position, if(nth = 1, sample_id, {other}) AS own_id FROM ({rows})"

    if shards:
        values = {row["shard"]: ShardValues(0) for row in shards}
        fill_columns(stage, renumbered, {"sample_id": "own_id"}, values)


def as_reader(data: Any) -> pa.RecordBatchReader:
    """An Arrow table, batch, reader, or whatever speaks Arrow's stream protocol, as a reader of batches; bytes in it
    are lists of numbers.

    Raises:
        QueryError: it is none of these.
    """
    if isinstance(data, pa.RecordBatchReader):
        return without_bytes(data)
    if isinstance(data, pa.Table):
        return without_bytes(data.to_reader())
    if isinstance(data, pa.RecordBatch):
        return without_bytes(pa.Table.from_batches([data]).to_reader())
    if hasattr(data, "__arrow_c_stream__"):
        return without_bytes(pa.RecordBatchReader.from_stream(data))
    raise QueryError(
        f"from_arrow() takes an Arrow table or reader, not {type(data).__name__}.",
        "pandas: pyarrow.Table.from_pandas(df); rows: pyarrow.Table.from_pylist(rows).",
    )


class DerivedRows(Origin):
    """Rows that are computed from the rows of a query as a whole, by code where SQL has no words for it.

    A subclass says what its rows are in `columns` and makes them in `rows`. It stands in a recipe by its place in the
    package and its options, which have to be plain values.

    Args:
        block: the query.
        options: what `rows` depends on besides.
    """

    def __init__(self, block: Block, options: Mapping[str, Any]) -> None:
        self.block = block
        self.options = dict(options)
        self.types = self.columns_of()

    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.options.items())})"

    def sql(self, rendering: Rendering) -> str:
        return f"({rendering.select(self.block)}) /* with {self} */"

    def columns_of(self) -> dict[str, str]:
        """Column -> ClickHouse type of the rows, those that every version has included."""
        raise NotImplementedError

    def rows(self, block: Block) -> pa.Table:
        """The rows; `shard` among their columns.

        Args:
            block: the query, with tables alone as its sources.
        """
        raise NotImplementedError

    def write(self, ledger: Ledger) -> Stage:
        table = self.rows(settle(self.block, ledger))
        stage = stage_of_rows(self.types, table.to_batches(), str(self))
        ledger.bytes += stage.bytes()
        ledger.storage.append("insert")
        return stage
