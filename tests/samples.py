"""Writes small sources for tests, with nothing of ours."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from factory_lib.sources import ShardReport, Source


def write_tar(path: Path, members: Sequence[tuple[str, bytes | str | Mapping[str, Any]]]) -> Path:
    """A ustar archive; mappings are written as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members:
            data = json.dumps(content).encode() if isinstance(content, Mapping) else content
            data = data.encode() if isinstance(data, str) else data
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return path


def read_all(source: Source) -> tuple[pa.Table, dict[str, ShardReport]]:
    """All rows of a source with a column `shard`, and the report of each shard. Batches are validated."""
    tables = []
    reports = {}
    for shard in source.shards():
        report = reports[shard.name] = ShardReport(shard.name)
        for batch in source.read(shard, report):
            batch.validate(full=True)
            assert batch.schema.equals(source.schema)
            tables.append(pa.Table.from_batches([batch]).append_column("shard", pa.array([shard.name] * len(batch))))
        assert report.samples == sum(len(table) for table in tables if table["shard"][0].as_py() == shard.name)
    schema = source.schema.append(pa.field("shard", pa.string()))
    return pa.concat_tables(tables) if tables else schema.empty_table(), reports


def rows(source: Source, *columns: str) -> list[dict[str, Any]]:
    """Rows of a source as dicts, of some columns."""
    table, _ = read_all(source)
    return table.select(list(columns) or table.column_names).to_pylist()
