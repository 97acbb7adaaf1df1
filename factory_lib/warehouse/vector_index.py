"""An index of vectors (HNSW): the nearest ones are found without reading all, and not always all of them.

It is built before a version is published, as a sealed table takes none. ClickHouse uses it for the nearest of a whole
table alone, ordered by the plain distance, and refuses rows without a vector, with one of another length, or with one
that is not finite; one of zeros, whose cosine is no number, would be found at the distance 1. It finds masked rows as
well, and gives fewer than were asked for: what is made of an indexed version has no index.
"""

from __future__ import annotations

from factory_lib.errors import QueryError
from factory_lib.plan.expressions import has_direction
from factory_lib.plan.operators import Column
from factory_lib.plan.sql import Rendering
from factory_lib.plan.sqltext import quote
from factory_lib.warehouse.arrow_types import FLOAT_VECTORS
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.staging import INDEX_PREFIX, StagingTable, create_stage, indexes

_ONE_A_PART = 100_000_000
"""Granules that an index spans: all of a part."""


def indexed(stage: StagingTable, column: str) -> StagingTable:
    """The rows of a staging table in another one, with an index of a column of vectors; the first is dropped.

    Raises:
        QueryError: it is no such column, or a row has no vector, one of another length, or one without a direction.
    """
    kind = stage.columns().get(column, "missing")
    if kind not in FLOAT_VECTORS:
        raise QueryError(f"index={column!r}: an index is of a column of vectors, that one is {kind}.")
    wh = stage.warehouse
    has = Rendering(inline=True).expression(has_direction(Column(column)), stage.source())
    lengths = wh.rows(
        f"SELECT length({quote(column)}) AS width, count() AS n, countIf(NOT {has}) AS odd FROM {stage.name}"
        " GROUP BY width"
    )
    if len(lengths) != 1 or not lengths[0]["width"]:
        said = ", ".join(f"{row['n']:,} have {row['width']}" for row in sorted(lengths, key=lambda r: int(r["width"])))
        raise QueryError(
            f"index={column!r}: all vectors have to be there and of one length; numbers in them: {said or 'no rows'}.",
            f"Filter first: filter(C.{column}.length() > 0).",
        )
    if odd := lengths[0]["odd"]:
        raise QueryError(
            f"index={column!r}: {odd:,} of {lengths[0]['n']:,} vectors have no direction: they are all zeros, or not"
            " finite, or too long or short for 32 bits.",
            f"Filter first: filter(fn.L2Norm(C.{column}) > 0, fn.isFinite(fn.L2Norm(C.{column}))).",
        )
    made = create_stage(wh, stage.database, {}, like=stage.name)  # a copy: masked rows would be indexed, too
    with made.dropped_on_error():
        wh.execute(f"INSERT INTO {made.name} SELECT * FROM {stage.name}")
        made.optimize()
        name = quote(INDEX_PREFIX + column)
        form = f"vector_similarity('hnsw', 'cosineDistance', {lengths[0]['width']}) GRANULARITY {_ONE_A_PART}"
        made.mutate(f"ADD INDEX {name} {quote(column)} TYPE {form}")
        made.mutate(f"MATERIALIZE INDEX {name}")
    stage.drop()
    return made


def indexed_columns(warehouse: Warehouse, table: str) -> list[str]:
    """The columns of a version that have an index of vectors."""
    database, _, name = table.partition(".")
    return [found.removeprefix(INDEX_PREFIX) for found in indexes(warehouse, database, name)]
