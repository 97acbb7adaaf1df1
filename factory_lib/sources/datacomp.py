"""Metadata in tables of its own, joined to samples by a column of both: DataComp's layout, and any like it.

A DataComp pool has `shards/` (tars as img2dataset writes them) and `metadata/` (a parquet of attributes and an npz of
vectors with the same stem; row i of one is row i of the other). The two don't share shards: only `uid` joins them.
Format: https://github.com/mlfoundations/datacomp.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa

from factory_lib.sources.img2dataset import join_rows, joined_schema
from factory_lib.sources.keyindex import KeyedTables
from factory_lib.sources.shards import ShardReport, Source, SourceShard


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
        return joined_schema(self.samples.schema, self.metadata.schema)

    def shards(self) -> list[SourceShard]:
        """Those of the samples; each depends on all tables, because its rows may lie in any of them."""
        tables = tuple(file for pair in self.metadata.pairs for file in pair.files)
        return [replace(shard, files=shard.files + tables) for shard in self.samples.shards()]

    def read(self, shard: SourceShard, report: ShardReport) -> Iterator[pa.RecordBatch]:
        """Rows of a shard in byte order; columns of the tables are null for a sample that is in none of them."""
        tables = {file.uri for pair in self.metadata.pairs for file in pair.files}
        own = replace(shard, files=tuple(file for file in shard.files if file.uri not in tables))
        for batch in self.samples.read(own, report):
            keys = batch.column(self.metadata.on).cast(pa.string())
            yield join_rows(batch, self.metadata.find(keys, report), self.schema)
