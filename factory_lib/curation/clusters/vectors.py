"""A column of vectors as a matrix, without what cannot be compared: and why it cannot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from factory_lib.errors import QueryError, nearest
from factory_lib.plan.expressions import C, fn
from factory_lib.query import DatasetQuery

MISSING, ODD, INFINITE, ZERO = 1, 2, 3, 4
"""Why a vector cannot be compared."""

REASONS = {
    MISSING: "missing",
    ODD: "of another length",
    INFINITE: "not finite",
    ZERO: "all zeros, without a direction",
}


@dataclass(frozen=True)
class Vectors:
    """The vectors of some rows.

    Attributes:
        matrix: float32 (usable, width), those that can be compared, in the order of the rows.
        faults: uint8 (rows,): 0, or why the vector of the row is not in the matrix, a key of `REASONS`.
    """

    matrix: NDArray[np.float32]
    faults: NDArray[np.uint8]

    @property
    def rows(self) -> NDArray[np.int64]:
        """The rows that the matrix has, int64 (usable,)."""
        return np.flatnonzero(self.faults == 0)


def read_vectors(column: pa.Array, width: int, *, unit: bool) -> Vectors:
    """The vectors of a column.

    Args:
        column: lists of numbers; one that is null or empty is missing.
        width: how many numbers a vector has.
        unit: they are scaled to length 1, in float32; one of length 0 has no direction then.
    """
    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    faults = np.where(lengths == 0, MISSING, np.where(lengths == width, 0, ODD)).astype(np.uint8)
    whole = column.filter(pa.array(faults == 0)) if faults.any() else column
    matrix = np.array(whole.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(-1, width)
    lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
    wrong = np.where(np.isfinite(lengths), np.where(lengths == 0, ZERO if unit else 0, 0), INFINITE)
    faults[faults == 0] = wrong
    if wrong.any():
        matrix, lengths = matrix[wrong == 0], lengths[wrong == 0]
    if unit:
        matrix /= lengths[:, None].astype(np.float32)
    return Vectors(matrix, faults)


def check_vectors(samples: DatasetQuery, name: str, verb: str) -> None:
    """Raise where samples have no such column, or it is none of vectors.

    Args:
        verb: what asks, for the message.

    Raises:
        QueryError: names the column.
    """
    kinds = samples.columns
    if name not in kinds:
        there = [column for column, kind in kinds.items() if is_vectors(kind)]
        raise QueryError(
            f"{verb} reads the vectors of the column {name!r}, which the samples do not have.",
            nearest(name, there) or "add_signals(clip.encode_image) computes vectors of pictures.",
        )
    if not is_vectors(kinds[name]):
        raise QueryError(f"{verb} reads vectors, and the column {name!r} is {kinds[name]}.")


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


def is_vectors(ch_type: str) -> bool:
    """Whether a ClickHouse type is that of vectors."""
    return ch_type in ("Array(BFloat16)", "Array(Float32)", "Array(Float64)")


def left_out(faults: NDArray[np.uint8]) -> str:
    """How many vectors cannot be compared, and why, in words; empty where all can."""
    counts = np.bincount(faults, minlength=max(REASONS) + 1)
    return ", ".join(f"{counts[fault]:,} {reason}" for fault, reason in REASONS.items() if counts[fault])
