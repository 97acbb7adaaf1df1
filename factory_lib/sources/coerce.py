"""Arrow columns of any writer as columns of one schema."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.warehouse.valid_text import valid_code_points


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """A table as one batch; columns of a single chunk are not copied."""
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], table.schema)


def is_binary(kind: pa.DataType) -> bool:
    """Whether values are bytes of any length."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def is_file(kind: pa.DataType) -> bool:
    """Whether this is how Hugging Face stores a file: a struct of `bytes` and `path`, perhaps with more beside them."""
    names = [field.name for field in kind] if pa.types.is_struct(kind) else []
    return names.count("bytes") == 1 and is_binary(kind.field("bytes").type) and ("path" in names or len(names) == 1)


def coerced(column: pa.Array, kind: pa.DataType) -> tuple[pa.Array, int]:
    """A column in another type (see `settling.stored_type`).

    Returns:
        The column, and how many values do not fit the type; they are null.
    """
    column = _decoded(column)
    if is_file(column.type) and column.type.get_field_index("path") >= 0:  # a column with bytes is read as media
        paths, lost = column.field("path"), len(column) - column.field("bytes").null_count
        found, misfits = coerced(pc.if_else(column.is_valid(), paths, pa.scalar(None, paths.type)), kind)
        return found, misfits + lost
    if column.type.equals(kind):
        return column, 0
    if pa.types.is_string(kind) and not _casts_to_text(column.type):
        return pa.array([None if value is None else _text(value) for value in column.to_pylist()], pa.string()), 0
    if pa.types.is_duration(column.type) and not pa.types.is_duration(kind):
        column = column.cast(pa.int64())
    if pa.types.is_floating(column.type) and pa.types.is_integer(kind):
        column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
    try:
        return column.cast(kind), 0
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return _one_by_one(column, kind)


def array_column(values: npt.NDArray[np.generic], present: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """A numpy array as a column: vectors as fixed-size lists (float16 as float32), one-dimensional arrays as scalars.

    Args:
        values: (n,) or (n, d); more axes are flattened into one.
        present: which rows are there, the others become null; None for all.
    """
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    if values.dtype.kind == "U":
        values = valid_code_points(values)[0]
    if values.dtype.kind in "SU":
        texts = [text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in values.tolist()]
        column = pa.array(texts, pa.string())
        return column if present is None else pc.if_else(pa.array(present), column, pa.scalar(None, pa.string()))
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    mask = None if present is None else pa.array(~present)
    if values.ndim == 1:
        return pa.array(values, mask=None if present is None else ~present)
    width = math.prod(values.shape[1:])
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), width, mask=mask)


def array_type(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> pa.DataType:
    """The type of `array_column` for an array of this dtype and shape."""
    return array_column(np.zeros((0, *shape[1:]), dtype)).type


def _decoded(column: pa.Array) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ExtensionArray) and not isinstance(column.type, pa.UuidType):
        return _decoded(column.storage)
    if isinstance(column, pa.RunEndEncodedArray):
        return pc.run_end_decode(column)
    return column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column


def _casts_to_text(kind: pa.DataType) -> bool:
    """Whether Arrow's own text of a value is the one that is meant."""
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or (pa.types.is_primitive(kind) and not pa.types.is_interval(kind))
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    )


def _text(value: Any) -> str:
    """A value as text: as JSON where it has parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.hex()
    return json.dumps(_parts(value), ensure_ascii=False) if isinstance(value, dict | list | tuple) else str(value)


def _parts(value: Any) -> Any:
    """A value of JSON: bytes in base64, numbers that JSON has not as null, all others as their text."""
    if isinstance(value, dict):
        return {str(name): _parts(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_parts(part) for part in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _one_by_one(column: pa.Array, kind: pa.DataType) -> tuple[pa.Array, int]:
    """The slow way, for columns in which some values do not fit."""
    values = []
    for value in column:
        try:
            values.append(value.cast(kind).as_py())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            values.append(None)
    found = pa.array(values, kind)
    return found, found.null_count - column.null_count
