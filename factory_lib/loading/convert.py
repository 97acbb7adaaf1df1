"""Arrow arrays of numbers from and to numpy, without pandas.

pyarrow's own conversions import pandas where it is installed, which costs each worker half a second and 50 MB.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def to_arrow(values: NDArray[Any]) -> pa.Array:
    """Numbers of a one-dimensional array as Arrow, without a copy where they are contiguous."""
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def to_numpy(array: pa.Array) -> NDArray[Any]:
    """Numbers or booleans of an Arrow array that has no nulls; read-only, without a copy but for booleans."""
    if pa.types.is_boolean(array.type):
        bits = np.frombuffer(array.buffers()[1] or b"", np.uint8)
        flags = np.unpackbits(bits, bitorder="little")[array.offset : array.offset + len(array)]
        return flags.astype(np.bool_)
    kind = np.dtype(array.type.to_pandas_dtype())
    return np.frombuffer(array.buffers()[1] or b"", kind)[array.offset : array.offset + len(array)]


def is_list(kind: pa.DataType) -> bool:
    """Whether values of the type are lists, of one length or not."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
