"""Arrow columns of any writer as columns of one schema."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.sources.columns import TYPES
from factory_lib.warehouse.valid_text import valid_code_points


def settled_type(name: str, kinds: Iterable[pa.DataType]) -> pa.DataType:
    """The type of a column that files give in several types.

    Known columns have the type of the table in `columns.TYPES`; others the type that holds all of them; where none
    does, text. Structs and maps become JSON text.
    """
    if name in TYPES:
        return TYPES[name]
    kinds = [_plain(kind) for kind in kinds]
    try:
        schemas = [pa.schema([(name, kind)]) for kind in kinds]
        kind = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.string()
    return pa.string() if pa.types.is_null(kind) else kind


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """A table as one batch; columns of a single chunk are not copied."""
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], table.schema)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds raw bytes, which stay in their file."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def coerced(column: pa.Array, kind: pa.DataType) -> tuple[pa.Array, int]:
    """A column in another type.

    Returns:
        The column, and how many values do not fit the type; they are null.
    """
    column = _decoded(column)
    if column.type.equals(kind):
        return column, 0
    if pa.types.is_string(kind) and (pa.types.is_nested(column.type)):
        texts = [None if value is None else json.dumps(value, default=str) for value in column.to_pylist()]
        return pa.array(texts, pa.string()), 0
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


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_decimal(kind):
        return pa.float64()
    if pa.types.is_struct(kind) or pa.types.is_map(kind) or pa.types.is_union(kind):
        return pa.string()
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain(kind.value_type), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = _plain(kind.value_type)
        return pa.string() if pa.types.is_string(inner) and pa.types.is_nested(kind.value_type) else pa.list_(inner)
    return kind


def _decoded(column: pa.Array) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column


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
