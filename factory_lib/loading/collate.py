"""Columns and samples into tensors. In a worker, large tensors are made in shared memory, so that they are not copied
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from factory_lib.errors import LoaderError
from factory_lib.loading import slabs
from factory_lib.loading.convert import to_numpy

SMALL_BYTES = 1 << 16  # below this a tensor travels in the message itself: a shared one costs a file descriptor

Ragged = dict[str, Any]


def empty(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """An uninitialised tensor, in shared memory when a DataLoader's worker makes it."""
    count = int(np.prod(shape))
    nbytes = count * dtype.itemsize
    blocks = slabs.pool()
    if blocks is not None and nbytes >= slabs.SMALL_BYTES:
        made = blocks.empty(shape, dtype)
        return torch.empty(tuple(shape), dtype=dtype) if made is None else made
    if blocks is not None or torch.utils.data.get_worker_info() is None or nbytes < SMALL_BYTES:
        return torch.empty(tuple(shape), dtype=dtype)
    storage = torch.UntypedStorage._new_shared(nbytes)  # type: ignore[no-untyped-call]
    return torch.tensor([], dtype=dtype).set_(storage, 0, tuple(shape))  # type: ignore[call-overload,no-any-return]


def ragged(data: torch.Tensor, offsets: NDArray[np.int64]) -> Ragged:
    """Values of unequal length end to end: item i is ``data[offsets[i] : offsets[i + 1]]``."""
    return {"data": data, "offsets": torch.from_numpy(offsets)}


class Stack:
    """Equal arrays stacked as they come, into one tensor; a list of tensors when their shapes differ."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._whole: torch.Tensor | None = None
        self._items: list[torch.Tensor] | None = None

    def put(self, index: int, item: Any) -> None:
        """Set item `index`, a tensor or what numpy makes an array of."""
        tensor = item if isinstance(item, torch.Tensor) else _tensor(np.asarray(item))
        if self._whole is None and self._items is None:
            self._whole = empty((self._count, *tensor.shape), tensor.dtype)
        if self._whole is not None:
            if tensor.shape == self._whole.shape[1:] and tensor.dtype == self._whole.dtype:
                self._whole[index] = tensor
                return
            self._items, self._whole = [t.clone() for t in self._whole], None
        if self._items is not None:
            self._items[index] = tensor

    def place(self, index: int, shape: Sequence[int]) -> torch.Tensor:
        """Where item `index` is to be written, uint8 of the shape that all items have."""
        if self._whole is None:
            self._whole = empty((self._count, *shape), torch.uint8)
        return self._whole[index]

    def value(self) -> torch.Tensor | list[torch.Tensor]:
        """The tensor (count, …), or the list."""
        if self._whole is not None:
            return self._whole
        return self._items or []


def column(array: pa.Array, name: str) -> Any:
    """A column of a batch as what a model takes.

    Numbers, booleans: tensor (n,); a float's null is NaN. Strings: list of str or None. Binary, lists of unequal
    length: `ragged`. Lists of equal length: tensor (n, length). Dates and times: int64 in the column's unit. Structs:
    dict.

    Raises:
        LoaderError: nulls where the type has no value for them, or a type that has no tensor; names the column.
    """
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return array.to_pylist()
    if pa.types.is_struct(kind):
        return {f.name: column(pa.compute.struct_field(array, f.name), f"{name}.{f.name}") for f in kind}
    if pa.types.is_temporal(kind):
        return column(array.view(pa.int64() if kind.bit_width == 64 else pa.int32()), name)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        large = array.cast(pa.large_binary()).fill_null(b"")
        starts = np.frombuffer(large.buffers()[1], np.int64)[large.offset : large.offset + len(large) + 1]
        return _ragged(np.frombuffer(large.buffers()[2] or b"", np.uint8), starts)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _lists(array, name)
    return _tensor(_numbers(array, name))


def _lists(array: pa.Array, name: str) -> Any:
    lengths = to_numpy(array.value_lengths().fill_null(0)) if not pa.types.is_fixed_size_list(array.type) else None
    values = _numbers(array.flatten(), name)
    if lengths is None:
        if array.null_count:
            raise LoaderError(f"Column {name!r} has a null among its fixed-size lists.", "Filter the rows, or fill it.")
        return _tensor(values.reshape(len(array), array.type.list_size))
    if len(lengths) and (lengths == lengths[0]).all():
        return _tensor(values.reshape(len(array), int(lengths[0])))
    return _ragged(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def _ragged(values: NDArray[Any], starts: NDArray[np.int64]) -> Ragged:
    return ragged(_tensor(values[starts[0] : starts[-1]]), starts - starts[0])


def _numbers(array: pa.Array, name: str) -> NDArray[Any]:
    kind = array.type
    if pa.types.is_decimal(kind):
        array, kind = array.cast(pa.float64()), pa.float64()
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise LoaderError(f"Column {name!r} of type {kind} has no tensor.", "Cast it in a mutate(), or leave it out.")
    if array.null_count:
        if not pa.types.is_floating(kind):
            raise LoaderError(
                f"Column {name!r} of type {kind} has {array.null_count} nulls in this batch.",
                f"Filter them (C.{name}.is_not_null()) or fill them (fn.ifNull(C.{name}, 0)).",
            )
        array = array.fill_null(float("nan"))
    return to_numpy(array)


def _tensor(values: NDArray[Any]) -> torch.Tensor:
    tensor = empty(values.shape, _dtype(values.dtype))
    tensor.numpy()[...] = values
    return tensor


def _dtype(dtype: np.dtype[Any]) -> torch.dtype:
    try:
        return torch.from_numpy(np.empty(0, dtype.newbyteorder("="))).dtype
    except TypeError:
        raise LoaderError(f"There is no tensor of {dtype}.", "Cast it to a number, or return a tensor.") from None
