"""Output of img2dataset: tars with a parquet, a `_stats.json` and perhaps an npz beside each, joined by key.

The parquet holds every row that was tried, in the order in which downloads ended; the tar holds the successes, in
another order. So position means nothing. Rows whose download failed are no samples; they are counted by their error.
Format: https://github.com/rom1504/img2dataset.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.errors import StoreError
from factory_lib.sources.coerce import one_batch
from factory_lib.sources.keyhash import key_texts
from factory_lib.sources.layout import Layout
from factory_lib.sources.shards import ShardReport, SourceShard, count_failures, failed_rows, name_shards
from factory_lib.sources.surviving import surviving
from factory_lib.sources.tables import TablePair, check_keys
from factory_lib.sources.webdataset import read_tar
from factory_lib.storage.store import FileInfo, store

_STATS_BYTES = 2**20


@dataclass(frozen=True)
class TarWithTables:
    """One tar and what lies beside it."""

    tar: FileInfo
    table: TablePair
    stats: FileInfo | None

    @property
    def files(self) -> tuple[FileInfo, ...]:
        """All that the rows depend on, the tar first."""
        return (self.tar, *self.table.files, *([self.stats] if self.stats else []))


@dataclass(frozen=True)
class Img2Dataset:
    """A folder that img2dataset wrote.

    Attributes:
        uri: the folder.
        tars: sorted by uri.
        layout: what members become; json members are not parsed, the table says the same.
        table_schema: columns of the tables, `key` among them.
        tars_per_shard: how many consecutive tars make a shard.
        unpack_to: where compressed tars are unpacked to.
    """

    uri: str
    tars: tuple[TarWithTables, ...]
    layout: Layout
    table_schema: pa.Schema
    tars_per_shard: int = 1
    unpack_to: str | None = None
    format: str = "img2dataset"

    @property
    def schema(self) -> pa.Schema:
        """Columns of every batch."""
        return joined_schema(self.layout.schema, self.table_schema)

    def shards(self) -> list[SourceShard]:
        """Groups of consecutive tars with the tables beside them."""
        groups = []
        for at in range(0, len(self.tars), self.tars_per_shard):
            group = self.tars[at : at + self.tars_per_shard]
            groups.append((group[0].tar.path, tuple(file for tar in group for file in tar.files)))
        return name_shards(self.uri, groups, f".x{self.tars_per_shard}" if self.tars_per_shard > 1 else "")

    def read(self, shard: SourceShard, report: ShardReport) -> Iterator[pa.RecordBatch]:
        """Rows of a shard in byte order."""
        for file in shard.files:
            if file.uri in self._by_uri:
                yield from self._read_tar(self._by_uri[file.uri], report)

    @cached_property
    def _by_uri(self) -> dict[str, TarWithTables]:
        return {one.tar.uri: one for one in self.tars}

    def _read_tar(self, one: TarWithTables, report: ShardReport) -> Iterator[pa.RecordBatch]:
        rows = _Successes(one.table.fresh(), self.table_schema, report)
        before = report.samples
        matched = 0
        for batch in read_tar(store(), one.tar, self.layout, report, self.unpack_to):
            found = pc.index_in(rows.named(batch.column("key")), value_set=rows.keys)
            report.count("no_metadata", found.null_count)
            matched += len(found) - found.null_count
            yield join_rows(batch, rows.take(found), self.schema)
        missing = len(rows.keys) - rows.keys.null_count - matched
        if missing > 0:
            report.count("missing_members", missing)
            report.problem(f"{one.table.name}: {missing} rows say success but are not in the tar", loses=True)
        _compare_stats(one, report.samples - before, report)


class _Successes:
    """Rows of a table whose download succeeded, found by key. A table that cannot be read has none, and is reported.

    Attributes:
        keys: string array, null where the download failed.
    """

    def __init__(self, table: TablePair, schema: pa.Schema, report: ShardReport) -> None:
        self._table = table
        self._attributes, self._arrays = one_batch(schema.empty_table()), list[pa.Field]()
        where = table.files[0].uri if table.files else table.name
        if not table.files:
            report.problem("there is no table beside the tar")
        read = surviving(_attributes(table, schema, report), where, "unreadable_tables", report)
        for found in read if table.files else ():
            self._attributes, self._arrays = found
        keys = self._attributes.column("key")
        self._numbers = pa.types.is_integer(keys.type) or pa.types.is_floating(keys.type)
        keys = key_texts(keys)
        check_keys(keys, table.name, report)
        failed = failed_rows(self._attributes)
        if failed is not None:
            count_failures(self._attributes.filter(failed), report)
            keys = pc.if_else(failed, pa.scalar(None, pa.string()), keys)
        self.keys = keys

    def named(self, keys: pa.StringArray) -> pa.StringArray:
        """Keys of samples as the table writes them: a table of numbers has no zeros before them."""
        return pc.replace_substring_regex(keys, r"^0+([0-9])", r"\1") if self._numbers else keys

    def take(self, rows: pa.Array) -> pa.RecordBatch:
        """Rows by number; a null number gives nulls."""
        taken = self._attributes.take(rows)
        numbers = pc.fill_null(rows, -1).to_numpy().astype(np.int64)
        for field in self._arrays:
            taken = taken.append_column(field, self._table.take_array(field, numbers))
        return taken


def _attributes(
    table: TablePair, schema: pa.Schema, report: ShardReport
) -> Iterator[tuple[pa.RecordBatch, list[pa.Field]]]:
    """What a table says of its rows, and which columns are in its arrays."""
    arrays = table.array_columns(schema)
    found = table.read(pa.schema([field for field in schema if field.name not in arrays]), report)
    yield found, [schema.field(name) for name in arrays]


def joined_schema(samples: pa.Schema, table: pa.Schema) -> pa.Schema:
    """Columns of samples, then those that only the table has."""
    return pa.schema([*samples, *(field for field in table if field.name not in samples.names)])


def join_rows(batch: pa.RecordBatch, rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Put columns of a table beside those of samples, row by row. A value that the sample has itself counts; the table
    fills its nulls."""
    columns: list[pa.Array] = []
    for field in schema:
        theirs = rows.column(field.name) if field.name in rows.schema.names else pa.nulls(len(batch), field.type)
        if field.name not in batch.schema.names:
            columns.append(theirs)
            continue
        ours = batch.column(field.name)
        fills = ours.null_count and theirs.type.equals(ours.type)
        columns.append(pc.coalesce(ours, theirs) if fills else ours)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _compare_stats(one: TarWithTables, samples: int, report: ShardReport) -> None:
    """Hold the number of samples against what the writer counted."""
    if one.stats is None:
        return
    try:
        said = json.loads(store().read(one.stats.uri, 0, _STATS_BYTES)).get("successes")
    except (ValueError, AttributeError, StoreError):
        report.problem(f"{one.stats.uri.rsplit('/', 1)[-1]} is not a JSON object")
        return
    if isinstance(said, int) and said != samples:
        report.count("different_stats")
        report.problem(f"{one.stats.uri.rsplit('/', 1)[-1]} says {said} successes, the tar has {samples} samples")
