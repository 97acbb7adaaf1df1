"""Text is text: what is no UTF-8 in a string column, or no code point in an array, becomes U+FFFD and is counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_LAST, _SURROGATES, _REPLACEMENT = 0x10FFFF, (0xD800, 0xDFFF), 0xFFFD


def valid_batch(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
    """The batch with all its text made valid, and how many strings of which columns were not."""
    columns = list(batch.columns)
    wrong: dict[str, int] = {}
    for at, (field, column) in enumerate(zip(batch.schema, columns, strict=True)):
        if holds_text(field.type) and not is_valid(column):
            columns[at], wrong[field.name] = valid_text(column)
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema) if wrong else batch, wrong


def holds_text(kind: pa.DataType) -> bool:
    """Whether values of this type hold strings, at any depth."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return True
    if pa.types.is_dictionary(kind):
        return holds_text(kind.value_type)
    return any(holds_text(kind.field(number).type) for number in range(kind.num_fields))


def is_valid(column: pa.Array) -> bool:
    """Whether all strings are UTF-8."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def valid_text(column: pa.Array) -> tuple[pa.Array, int]:
    """A column with all its text made valid, and how many strings were not."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        values, bad = valid_text(column.dictionary)
        return pa.DictionaryArray.from_arrays(column.indices, values, ordered=kind.ordered), bad
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        raw = column.cast(pa.large_binary() if pa.types.is_large_string(kind) else pa.binary()).to_pylist()
        texts = [None if value is None else value.decode("utf-8", "replace") for value in raw]
        bad = sum(text is not None and text.encode() != value for value, text in zip(raw, texts, strict=True))
        return pa.array(texts, kind), bad
    if pa.types.is_struct(kind):
        parts = [valid_text(column.field(at)) if holds_text(kind.field(at).type) else (column.field(at), 0)
                 for at in range(kind.num_fields)]  # fmt: skip
        mask = column.is_null() if column.null_count else None
        made = pa.StructArray.from_arrays([part for part, _ in parts], fields=list(kind), mask=mask)
        return made, sum(bad for _, bad in parts)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        values, bad = valid_text(column.values)
        mask = column.is_null() if column.null_count else None
        if column.offset:  # offsets of a slice with nulls cannot be taken as they are
            lists = [None if part is None else valid_text(part.values)[0].to_pylist() for part in column]
            return pa.array(lists, kind), bad
        return type(column).from_arrays(column.offsets, values, type=kind, mask=mask), bad
    if pa.types.is_fixed_size_list(kind):
        values, bad = valid_text(column.flatten() if not column.null_count else column.values)
        mask = column.is_null() if column.null_count else None
        return pa.FixedSizeListArray.from_arrays(values, type=kind, mask=mask), bad
    return column, 0


def valid_code_points(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], int]:
    """A numpy array of unicode strings with what is no code point replaced, and how many strings had one."""
    width = values.dtype.itemsize // 4
    if not width or not values.size:
        return values, 0
    native = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("="), copy=False)
    points = native.view(np.uint32).reshape(values.size, width)
    wrong = (points > _LAST) | ((points >= _SURROGATES[0]) & (points <= _SURROGATES[1]))
    if not wrong.any():
        return values, 0
    mended = np.where(wrong, np.uint32(_REPLACEMENT), points).astype(np.uint32)
    return mended.view(native.dtype).reshape(values.shape), int(wrong.any(1).sum())
