"""What a save would cost, before it is done: an estimate from the size of the parts that are there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from factory_lib.plan.nodes import Table, tables
from factory_lib.plan.select import Select
from factory_lib.plan.sql import Rendering
from factory_lib.plan.storing import Derivation
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.derive import describe_columns

MASK_BYTES = 0.65
"""Bytes of a row mask for each physical row, as measured by `bench/versions.py`; it is the same for any share kept."""

_WIDTHS = {"Float64": 8, "Int64": 8, "UInt64": 8, "DateTime64": 8, "Float32": 4, "Int32": 4, "UInt32": 4, "String": 16}


@dataclass(frozen=True)
class Estimate:
    """Rows that would be written (0 where parts are shared) and bytes on disk that would be added."""

    rows_copied: int
    bytes_added: int

    def __str__(self) -> str:
        copied = f"copies {self.rows_copied:,} rows, " if self.rows_copied else ""
        return f"{copied}adds about {self.bytes_added / 1e6:,.2f} MB"


def estimate(warehouse: Warehouse, query: Select, how: Derivation) -> Estimate:
    """What storing the rows of a query would cost.

    Args:
        query: the query, all of whose rows are in tables.
        how: how it will be stored, see `plan.storing`.
    """
    rows, size = rows_and_bytes(warehouse, tables(query.source))
    if how.kind == "copy":
        rendering = Rendering()
        text = rendering.select(query)
        count = warehouse.scalar(f"SELECT count() FROM ({text})", rendering.params, rendering.settings)
        return Estimate(int(count), int(count) * size // max(rows, 1))
    added = MASK_BYTES * rows if query.where else 0.0
    if how.computed:
        types = describe_columns(warehouse, Select(query.source, how.computed))
        added += rows * sum(map(_width, types.values()))
    return Estimate(0, int(added))


def rows_and_bytes(warehouse: Warehouse, sources: Iterable[Table]) -> tuple[int, int]:
    """Physical rows and bytes on disk of tables, in the shards that are read."""
    rows = size = 0
    for source in sources:
        database, _, table = source.name.partition(".")
        where, params = "", {"d": database, "t": table}
        if source.shards is not None:
            where = " AND has({s:Array(String)}, partition)"
        found = warehouse.rows(
            "SELECT sum(rows) AS n, sum(bytes_on_disk) AS size FROM system.parts"
            f" WHERE active AND database = {{d:String}} AND table = {{t:String}}{where}",
            params if source.shards is None else {**params, "s": list(source.shards)},
        )
        rows += int(found[0]["n"] or 0)
        size += int(found[0]["size"] or 0)
    return rows, size


def _width(ch_type: str) -> int:
    """Bytes of a value of a type, roughly; of arrays ten elements."""
    inner = ch_type
    while inner.startswith(("Nullable(", "LowCardinality(")):
        inner = inner.partition("(")[2]
    if inner.startswith("Array("):
        return 10 * _width(inner[6:-1])
    return next((width for name, width in _WIDTHS.items() if inner.startswith(name)), 2)
