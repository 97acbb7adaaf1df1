"""The nearest rows by an index of vectors: one flat SELECT over a whole version, worded so that the engine uses it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from factory_lib.errors import QueryError
from factory_lib.plan.nodes import Table
from factory_lib.plan.operators import Call, Column, Literal, Ordering
from factory_lib.plan.select import Select
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.vector_index import indexed_columns


def nearest_by_index(query: Select, column: str, vector: NDArray[np.float32], k: int) -> Select:
    """The k rows that an index finds nearest, the nearest first, with the column `distance`.

    Raises:
        QueryError: the version has no such index, or the query is not all rows of a version.
    """
    source, name = query.source, query.passed(column)
    changed = query.where or query.order_by or query.limit_by or query.group_by is not None or query.distinct
    if not isinstance(source, Table) or source.shards is not None or changed or query.limit is not None or query.offset:
        raise QueryError(
            f"search(approximate=True): an index finds the nearest of all rows of a version, and this is a part of"
            f" {query.label}.",
            "Search the version, and filter what is found.",
        )
    there = indexed_columns(warehouse(), source.name)
    if name not in there:
        has = f"it has one of {', '.join(there)}" if there else "it has none"
        raise QueryError(
            f"search(approximate=True): {source.name} has no index of {column!r}; {has}.",
            f"save(name, index={column!r}) makes one.",
        )
    distance = Call("cosineDistance", (Column(column), Literal(vector)))
    near = query.with_columns({"distance": distance})
    # no tie-breakers: ordered by anything else besides, all rows are read
    order = (Ordering(near.columns["distance"]),)
    return replace(near, order_by=order, limit=k).nested()
