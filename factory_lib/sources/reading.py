"""Reads shards of a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from factory_lib.sources.shards import ShardReport, Source, SourceShard


def read_shards(
    source: Source,
    shards: Sequence[SourceShard],
    workers: int | None = None,
    reports: dict[str, ShardReport] | None = None,
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Rows of several shards, each shard's in byte order.

    Args:
        reports: filled with one report a shard.
    """
    for shard in shards:
        report = ShardReport(shard.name)
        for batch in source.read(shard, report):
            yield shard.name, batch
        if reports is not None:
            reports[shard.name] = report
