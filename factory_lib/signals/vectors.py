"""Columns of vectors as matrices, without those that cannot be compared: and why they cannot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from factory_lib.signals.task import MissingInputError

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
        lengths: how many numbers the vector of each row has, int64 (rows,).
    """

    matrix: NDArray[np.float32]
    faults: NDArray[np.uint8]
    lengths: NDArray[np.int64]

    @property
    def rows(self) -> NDArray[np.int64]:
        """The rows that the matrix has, int64 (usable,)."""
        return np.flatnonzero(self.faults == 0)

    def errors(self) -> list[Exception | None]:
        """Of each row None, or why its vector cannot be compared."""
        said = {INFINITE: "the vector has numbers that are not finite", ZERO: "the vector is all zeros"}
        found: list[Exception | None] = [None] * len(self.faults)
        for row in np.flatnonzero(self.faults):
            fault = int(self.faults[row])
            if fault == MISSING:
                found[row] = MissingInputError("no vector")
            else:
                odd = f"the vector has {self.lengths[row]} numbers, not {self.matrix.shape[1]}"
                found[row] = ValueError(said.get(fault, odd))
        return found


def read_vectors(column: pa.Array, width: int, *, unit: bool, zeros: bool = False) -> Vectors:
    """The vectors of a column.

    Args:
        column: lists of numbers; one that is null or empty is missing.
        width: how many numbers a vector has.
        unit: they are scaled to length 1.
        zeros: whether one of zeros is a vector, as a centroid may be; otherwise it has no direction, and none is known.
    """
    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    faults = np.where(lengths == 0, MISSING, np.where(lengths == width, 0, ODD)).astype(np.uint8)
    whole = column.filter(pa.array(faults == 0)) if faults.any() else column
    numbers = whole.flatten().to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore", invalid="ignore"):
        matrix = np.array(numbers, np.float32).reshape(-1, width)
        # squares of float32 overflow, and vanish, in float32; divided by a float32, what is of length 1 stays as it is
        norms = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
        norms = norms.astype(np.float32) if unit else norms
    wrong = np.where(np.isfinite(norms), np.where((norms == 0) & (not zeros), ZERO, 0), INFINITE)
    faults[faults == 0] = wrong
    if wrong.any():
        matrix, norms = matrix[wrong == 0], norms[wrong == 0]
    if unit:
        matrix /= norms[:, None]
    return Vectors(matrix, faults, lengths)


def left_out(faults: NDArray[np.uint8]) -> str:
    """How many vectors cannot be compared, and why, in words; empty where all can."""
    counts = np.bincount(faults, minlength=max(REASONS) + 1)
    return ", ".join(f"{counts[fault]:,} {reason}" for fault, reason in REASONS.items() if counts[fault])
