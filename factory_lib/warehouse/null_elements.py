"""Nulls inside lists of floating-point numbers.

Lists of such numbers are vectors for the most part, and vectors are compared by functions that take no NULL: their
elements are stored as plain numbers. A list that has nulls inside is no vector; its type is marked, and its elements
may be NULL. Where a null comes into a vector after types were settled it becomes NaN: never 0, which would be a value.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

_MARK = {b"null elements": b"kept"}


def is_list(kind: pa.DataType) -> bool:
    """Whether values of this type are lists, of fixed size or not."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def keeps_nulls(element: pa.Field) -> bool:
    """Whether the elements of a list may be NULL: all but those of vectors."""
    return not pa.types.is_floating(element.type) or element.metadata == _MARK


def keeps_null_elements(kind: pa.DataType) -> bool:
    """Whether a type is one of lists, at any depth, of floating-point numbers that may be NULL."""
    if not is_list(kind):
        return False
    element = kind.value_field
    return keeps_nulls(element) if pa.types.is_floating(element.type) else keeps_null_elements(element.type)


def with_null_elements(kind: pa.DataType) -> pa.DataType:
    """The type of lists, at any depth, whose elements may be NULL."""
    if not is_list(kind):
        return kind
    element = kind.value_field
    if pa.types.is_floating(element.type):
        return pa.list_(element.with_metadata(_MARK))
    return pa.list_(element.with_type(with_null_elements(element.type)))


def number_of_null_elements(column: pa.Array | pa.ChunkedArray) -> int:
    """How many elements of a column of vectors, or of lists of them, are null; 0 for any other column."""
    if isinstance(column, pa.ChunkedArray):
        return sum(map(number_of_null_elements, column.chunks))
    if not is_list(column.type):
        return 0
    element = column.type.value_field
    inner = column.flatten()
    if not pa.types.is_floating(element.type):
        return number_of_null_elements(inner)
    return 0 if keeps_nulls(element) else inner.null_count


def marked(table: pa.Table) -> pa.Table:
    """A table with the types of its columns marked that are lists with nulls inside."""
    kinds = [
        field.with_type(with_null_elements(field.type)) if number_of_null_elements(column) else field
        for field, column in zip(table.schema, table.columns, strict=True)
    ]
    return table.cast(pa.schema(kinds))


def nan_for_null(column: pa.Array) -> pa.Array:
    """A column whose vectors have NaN in place of nulls."""
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array([nan_for_null(chunk) for chunk in column.chunks], column.type)
    kind = column.type
    if not is_list(kind):
        return pc.fill_null(column, float("nan")) if pa.types.is_floating(kind) else column
    if not number_of_null_elements(column):
        return column
    mask = column.is_null() if column.null_count else None
    if pa.types.is_fixed_size_list(kind):
        values = column.values[column.offset * kind.list_size : (column.offset + len(column)) * kind.list_size]
        return pa.FixedSizeListArray.from_arrays(nan_for_null(values), type=kind, mask=mask)
    sizes = pc.fill_null(pc.list_value_length(column), 0)
    ends = pc.cumulative_sum(sizes)
    offsets = pa.concat_arrays([pa.array([0], ends.type), ends])
    return type(column).from_arrays(offsets, nan_for_null(column.flatten()), type=kind, mask=mask)
