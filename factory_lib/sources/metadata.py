"""Metadata without images: parquet files (LAION's, for one), npz files, or both, as samples that point nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from factory_lib.sources.shards import ShardReport, SourceShard, name_shards
from factory_lib.sources.surviving import surviving
from factory_lib.sources.tables import KEYS, TablePair, check_keys

_ROWS_AT_ONCE = 50_000


@dataclass(frozen=True)
class MetadataTables:
    """Tables whose rows are the samples.

    Attributes:
        uri: a file or folder.
        pairs: the tables; each is a shard.
        table_schema: their settled columns.
        key: the column that names a row; empty for the number of the row in its table.
    """

    uri: str
    pairs: tuple[TablePair, ...]
    table_schema: pa.Schema
    key: str
    format: str = "tables"

    @property
    def schema(self) -> pa.Schema:
        """Columns of every batch."""
        return pa.schema([("key", pa.string()), *(field for field in self.table_schema if field.name != "key")])

    def shards(self) -> list[SourceShard]:
        """One a table."""
        return name_shards(self.uri, [(pair.files[0].uri, pair.files) for pair in self.pairs])

    def read(self, shard: SourceShard, report: ShardReport) -> Iterator[pa.RecordBatch]:
        """Rows in the order of the table; a damaged table is reported and ends the shard."""
        pair = next(pair for pair in self.pairs if pair.files == shard.files).fresh()
        start = 0
        rows = pair.batches(self.table_schema, _ROWS_AT_ONCE, report)
        for batch in surviving(rows, pair.files[0].uri, "unreadable_tables", report):
            if self.key:
                keys = batch.column(self.key).cast(pa.string())
                check_keys(keys, pair.name, report)
                keys = keys.fill_null("")
            else:
                keys = pa.array(range(start, start + len(batch))).cast(pa.string())
            rest = [batch.column(field.name) for field in self.schema if field.name != "key"]
            start += len(batch)
            report.samples += len(batch)
            yield pa.RecordBatch.from_arrays([keys, *rest], schema=self.schema)


def key_column(schema: pa.Schema) -> str:
    """The column that names rows, by preference; empty when there is none."""
    return next((name for name in KEYS if name in schema.names and name != "url"), "")
