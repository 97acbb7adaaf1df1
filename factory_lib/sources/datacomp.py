"""Metadata in tables of its own, joined to samples by a column of both: DataComp's layout, and any like it.

A DataComp pool has `shards/` (tars as img2dataset writes them) and `metadata/` (a parquet of attributes and an npz of
vectors with the same stem; row i of one is row i of the other). The two don't share shards: only `uid` joins them.
Format: https://github.com/mlfoundations/datacomp.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from factory_lib.sources.img2dataset import join_rows, joined_schema
from factory_lib.sources.keyindex import KeyedTables, open_index
from factory_lib.sources.shards import ShardReport, Source, SourceShard
from factory_lib.sources.surviving import survived


@dataclass(frozen=True)
class JoinedSource:
    """Samples of a source with the columns of keyed tables.

    Attributes:
        uri: of the whole.
        samples: source of the samples.
        metadata: tables; a column that samples have, too, only fills its nulls.
    """

    uri: str
    samples: Source
    metadata: KeyedTables
    format: str = "datacomp"

    @property
    def schema(self) -> pa.Schema:
        """Columns of every batch."""
        return joined_schema(self.samples.schema, self.metadata.columns)

    def shards(self) -> list[SourceShard]:
        """Those of the samples; each depends on all tables, because its rows may lie in any of them."""
        tables = tuple(file for pair in self.metadata.pairs for file in pair.files)
        return [replace(shard, files=shard.files + tables) for shard in self.samples.shards()]

    def read(self, shard: SourceShard, report: ShardReport) -> Iterator[pa.RecordBatch]:
        """Rows of a shard in byte order; columns of the tables are null for a sample that is in none of them."""
        tables = {file.uri for pair in self.metadata.pairs for file in pair.files}
        own = replace(shard, files=tuple(file for file in shard.files if file.uri not in tables))
        if shard.name == min(one.name for one in self.samples.shards()):  # once for all shards
            open_index(self.metadata).tell(report)
        example = None
        for batch in self.samples.read(own, report):
            keys = batch.column(self.metadata.on_samples)
            example = example or next((key.as_py() for key in keys if key.is_valid), None)
            yield join_rows(batch, self._rows_of(keys, report), self.schema)
        if report.samples and report.counts.get("no_metadata") == report.samples:
            theirs = open_index(self.metadata).first_key()
            report.problem(
                f"none of {report.samples} samples is in the metadata: joined by {self.metadata.on!r}, which is "
                f"{example!r} here and {theirs!r} there"
            )

    def _rows_of(self, keys: pa.Array, report: ShardReport) -> pa.RecordBatch:
        """The metadata of some samples; where it cannot be read, none, which is reported."""
        rows = survived(partial(self.metadata.find, keys, report), self.uri, "unreadable_tables", report)
        if rows is None:
            report.count("no_metadata", len(keys))
            return self.metadata.nulls(len(keys))
        return rows
