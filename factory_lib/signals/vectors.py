"""Columns of vectors as what a model takes: those that can be compared, and why the others cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from factory_lib.signals.task import MissingInputError


def comparable(vectors: pa.Array, dimension: int) -> tuple[NDArray[np.float32], list[Exception | None]]:
    """The vectors that a model can take, and for each of all None or why it cannot.

    Args:
        vectors: lists of numbers, empty where there is none.
        dimension: how many numbers the model takes.

    Returns:
        float32 (n, dimension) of those of the right length whose numbers are finite and not all zero.
    """
    lengths = vectors.value_lengths().to_numpy()
    fits = lengths == dimension
    matrix = vectors.filter(pa.array(fits)).flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    matrix = matrix.reshape(-1, dimension)
    finite, nonzero = np.isfinite(matrix).all(axis=1), matrix.any(axis=1)
    why: NDArray[Any] = np.full(len(lengths), None, object)
    why[~fits] = [_unfit(length, dimension) for length in lengths[~fits]]
    why[np.flatnonzero(fits)[~nonzero]] = ValueError("the vector is all zeros")
    why[np.flatnonzero(fits)[~finite]] = ValueError("the vector has numbers that are not finite")
    return matrix[finite & nonzero], why.tolist()


def _unfit(length: int, dimension: int) -> Exception:
    if not length:
        return MissingInputError("no vector")
    return ValueError(f"the vector has {length} numbers, not {dimension}")
