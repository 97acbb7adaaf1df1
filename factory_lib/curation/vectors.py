"""Columns of vectors of samples: which there are, how long they are, and their cosines."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from factory_lib.errors import QueryError, nearest
from factory_lib.plan.expressions import C, fn
from factory_lib.query import DatasetQuery

DIGITS = 6
"""Decimals of a cosine: further ones differ with the vectors that are multiplied together."""


def check_vectors(samples: DatasetQuery, name: str, verb: str) -> None:
    """Raise where samples have no such column, or it is none of vectors.

    Args:
        verb: what asks, for the message.

    Raises:
        QueryError: names the column.
    """
    kinds = samples.columns
    if name not in kinds:
        there = [column for column, kind in kinds.items() if _VECTORS.fullmatch(kind)]
        raise QueryError(
            f"{verb} compares by the column {name!r}, which {samples.plan.label} does not have.",
            nearest(name, there) or "add_signals(clip.encode_image) computes vectors of pictures.",
        )
    if not _VECTORS.fullmatch(kinds[name]):
        raise QueryError(
            f"{verb} compares vectors, and {name!r} of {samples.plan.label} is {kinds[name]}.",
            "Vectors are Array(Float32) or Array(BFloat16).",
        )


_VECTORS = re.compile(r"Array\((BFloat16|Float32|Float64|U?Int\d+)\)")
"""Types of columns of vectors, all of which can be read as Array(Float32)."""


def width_of(rows: DatasetQuery, name: str, verb: str) -> tuple[int, int]:
    """How many numbers the vectors of a column have, and how many there are; 0 and 0 where there are none.

    Args:
        rows: with a vector each.

    Raises:
        QueryError: they differ in length.
    """
    counted = rows.group_by(width=fn.length(C[name])).agg(rows=fn.count()).order_by("width").to_arrow().to_pylist()
    if len(counted) > 1:
        told = ", ".join(f"{one['rows']:,} have {one['width']}" for one in counted)
        raise QueryError(f"{verb}: the vectors differ in length: {told}.", "Filter for those of one model.")
    return (counted[0]["width"], counted[0]["rows"]) if counted else (0, 0)


def cosines(vectors: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """The cosine of each two vectors, float32 (n, m), -1 to 1, to `DIGITS` decimals.

    Args:
        vectors, others: float32 (n, width) and (m, width), of length 1.
    """
    found = vectors @ others.T
    np.round(found, DIGITS, out=found)
    return np.clip(found, -1, 1, out=found)
