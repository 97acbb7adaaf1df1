"""Small versions whose differences and descent the tests of history tell."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from factory_lib import DatasetQuery
from factory_lib.warehouse.versions import Version

Sample = dict[str, Any]


def save(rows: list[Sample], dataset: str = "d", **options: Any) -> Version:
    types = {"part": pa.string(), "key": pa.string(), "x": pa.int64(), "text": pa.string(), "v": pa.list_(pa.float32())}
    schema = pa.schema([(name, kind) for name, kind in types.items() if any(name in row for row in rows)])
    table = pa.Table.from_pylist(rows, schema=schema)
    return DatasetQuery.from_arrow(table, shard="part").save(dataset, **options)


def samples(part: str, keys: range, **values: Any) -> list[Sample]:
    return [{"part": part, "key": f"k{i}", "x": i, "text": f"t{i}", **values} for i in keys]
