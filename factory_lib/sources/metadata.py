"""Tables as samples: LAION's parquet files and the like, which point nowhere, and tables with pictures inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.bounded import aligned
from factory_lib.sources.keyhash import key_texts
from factory_lib.sources.media import MediaRows
from factory_lib.sources.shards import POINTER, ShardReport, SourceShard, count_failures, failed_rows, name_shards
from factory_lib.sources.surviving import surviving
from factory_lib.sources.tables import KEYS, TablePair, check_keys

_ROWS_AT_ONCE = 50_000
_FILES_AT_ONCE = 256


@dataclass(frozen=True)
class MetadataTables:
    """Tables whose rows are the samples.

    Attributes:
        uri: a file or folder.
        pairs: the tables; each is a shard.
        table_schema: their settled columns.
        key: the column that names a row; empty for the number of the row in its table.
        media: columns of pointers to files that are inside the tables.
        unpack_to: where these are unpacked to.
    """

    uri: str
    pairs: tuple[TablePair, ...]
    table_schema: pa.Schema
    key: str
    media: tuple[str, ...] = ()
    unpack_to: str | None = None
    format: str = "tables"

    @property
    def schema(self) -> pa.Schema:
        """Columns of every batch."""
        pointers = [(name, POINTER) for name in self.media]
        return pa.schema(
            [("key", pa.string()), *pointers, *(field for field in self.table_schema if field.name != "key")]
        )

    def shards(self) -> list[SourceShard]:
        """One a table."""
        return name_shards(self.uri, [(pair.files[0].path, pair.files) for pair in self.pairs])

    def read(self, shard: SourceShard, report: ShardReport) -> Iterator[pa.RecordBatch]:
        """Rows in the order of the table; a damaged table is reported and ends the shard."""
        pair = next(pair for pair in self.pairs if pair.files == shard.files).fresh()
        start = 0
        for batch, pointers in surviving(self._pieces(pair, report), pair.files[0].uri, "unreadable_tables", report):
            if self.key:
                keys = key_texts(batch.column(self.key))
                check_keys(keys, pair.name, report)
                keys = keys.fill_null("")
            else:
                keys = pa.array(range(start, start + len(batch))).cast(pa.string())
            start += len(batch)
            columns = {"key": keys} | {name: batch.column(name) for name in batch.schema.names if name != "key"}
            for name in self.media:
                columns[name] = pointers[name] if name in pointers else _nowhere(len(batch))
            arrays = [columns[name] for name in self.schema.names]
            rows = self._without_failures(pa.RecordBatch.from_arrays(arrays, schema=self.schema), report)
            report.samples += len(rows)
            yield rows

    def _pieces(self, pair: TablePair, report: ShardReport) -> Iterator[tuple[pa.RecordBatch, Mapping[str, pa.Array]]]:
        """Attributes, and beside them the pointers of the same rows."""
        wanted = {column: pair.media[column] for column in self.media if column in pair.media}
        if not wanted or pair.table is None or self.unpack_to is None:
            for batch in pair.batches(self.table_schema, _ROWS_AT_ONCE, report):
                yield batch, {}
            return
        pointers = MediaRows(pair.table, wanted, self.unpack_to).read(pair.media_batches(_FILES_AT_ONCE), report)
        for batch, places in aligned(pair.batches(self.table_schema, _FILES_AT_ONCE, report), pointers):
            yield batch, {column: places.column(column) for column in wanted}

    def _without_failures(self, rows: pa.RecordBatch, report: ShardReport) -> pa.RecordBatch:
        """Rows whose download succeeded, of tables with pictures: img2dataset writes the others, too."""
        failed = failed_rows(rows) if self.media else None
        if failed is None:
            return rows
        count_failures(rows.filter(failed), report)
        return rows.filter(pc.invert(failed))


def _nowhere(rows: int) -> pa.Array:
    return pa.repeat(pa.scalar({"uri": "", "offset": 0, "size": 0}, POINTER), rows)


def key_column(schema: pa.Schema) -> str:
    """The column that names rows, by preference; empty when there is none."""
    return next((name for name in KEYS if name in schema.names and name != "url"), "")
