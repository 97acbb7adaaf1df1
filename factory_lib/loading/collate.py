"""Columns and samples into tensors: one way, for batches of one version and of several. In a worker, large tensors are
made in shared memory, so that they are not copied again.

What becomes of a column depends on its type and on all of its rows, never on those of one batch:

* numbers, booleans: a tensor (n,); a float's null is NaN, other nulls are an error
* strings: a list of str or None
* lists of numbers that are all equally long: a tensor (n, length); others are *ragged*: ``{"data": values end to end,
  "offsets": int64 (n + 1,)}``, a null being empty
* binary: ragged bytes
* lists of strings or of lists, maps: a list with a list (or None) a row
* structs: a dict of such columns
* dates, times: int64 or int32 in the column's unit
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from factory_lib.errors import LoaderError
from factory_lib.loading import shared_blocks
from factory_lib.loading.convert import is_list, to_numpy

SMALL_BYTES = 1 << 16  # below this a tensor travels in the message itself: a shared one costs a file descriptor

Ragged = dict[str, Any]


def empty(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """An uninitialised tensor, in shared memory when a DataLoader's worker makes it."""
    count = int(np.prod(shape))
    nbytes = count * dtype.itemsize
    blocks = shared_blocks.blocks_of_process()
    if blocks is not None and nbytes >= shared_blocks.SMALL_BYTES:
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


def column(array: pa.Array, name: str, length: int | None = None) -> Any:
    """A column of a batch as what a model takes, as above.

    Args:
        length: of all lists of the column; None where they differ, or may.

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
    if is_list(kind):
        return _lists(array, name, length) if _is_number(kind.value_type) else array.to_pylist()
    if pa.types.is_map(kind):
        return array.to_pylist()
    return _tensor(_numbers(array, name))


def joined(parts: Sequence[Any], name: str = "") -> Any:
    """Batches, or parts of them with the same names, end to end.

    Raises:
        LoaderError: names, types or shapes differ between the versions.
    """
    first = parts[0]
    if any(isinstance(part, dict) for part in parts):
        if not all(isinstance(part, dict) and set(part) == set(first) for part in parts):
            names = sorted({str(sorted(part) if isinstance(part, dict) else "no columns") for part in parts})
            raise LoaderError(f"The versions that are mixed deliver different columns: {' and '.join(names)}.")
        if set(first) == {"data", "offsets"}:
            lengths = torch.cat([part["offsets"].diff() for part in parts])
            offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
            return {"data": joined([part["data"] for part in parts], name), "offsets": offsets}
        return {key: joined([part[key] for part in parts], f"{name}.{key}".lstrip(".")) for key in first}
    if all(isinstance(part, torch.Tensor) for part in parts):
        if len({(part.dtype, part.shape[1:]) for part in parts}) == 1:
            return torch.cat(list(parts))
        shapes = ", ".join(f"{tuple(part.shape)} {part.dtype}" for part in parts)
        raise LoaderError(
            f"The versions that are mixed deliver tensors that differ for {name!r}: {shapes}.",
            "Use image_size for pictures, a transform of one shape and type, or a cast in a mutate().",
        )
    return [item for part in parts for item in part]


def samples(batch: Any) -> list[Any]:
    """The samples of a batch, dicts without the batch dimension."""
    count = next(len(_items(value)) for value in batch.values())
    parts = {name: _items(value) for name, value in batch.items()}
    return [{name: items[i] for name, items in parts.items()} for i in range(count)]


def stacked(items: Sequence[Any]) -> Any:
    """A batch of samples: dicts by name, tensors, arrays and numbers of one shape stacked, everything else a list."""
    first = items[0]
    if isinstance(first, dict) and all(isinstance(item, dict) and set(item) == set(first) for item in items):
        return {name: stacked([item[name] for item in items]) for name in first}
    if all(isinstance(item, torch.Tensor | np.ndarray | np.number | bool | int | float) for item in items):
        stack = Stack(len(items))
        for index, item in enumerate(items):
            stack.put(index, item)
        return stack.value()
    return list(items)


def _items(value: Any) -> Sequence[Any]:
    """The values of single samples; of ragged ones, their parts."""
    if isinstance(value, dict) and set(value) == {"data", "offsets"}:
        return [value["data"][a:b] for a, b in pairwise(value["offsets"].tolist())]
    return samples(value) if isinstance(value, dict) else value


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


def _lists(array: pa.Array, name: str, length: int | None) -> Any:
    fixed = pa.types.is_fixed_size_list(array.type)
    if fixed and array.null_count:
        raise LoaderError(f"Column {name!r} has a null among its fixed-size lists.", "Filter the rows, or fill it.")
    values = _numbers(array.flatten(), name)
    if length is not None:
        return _tensor(values.reshape(len(array), length))
    if fixed:
        return _ragged(values, np.arange(len(array) + 1) * array.type.list_size)
    lengths = to_numpy(array.value_lengths().fill_null(0))
    return _ragged(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def _ragged(values: NDArray[Any], starts: NDArray[np.int64]) -> Ragged:
    return ragged(_tensor(values[starts[0] : starts[-1]]), starts - starts[0])


def _numbers(array: pa.Array, name: str) -> NDArray[Any]:
    kind = array.type
    if pa.types.is_decimal(kind):
        array, kind = array.cast(pa.float64()), pa.float64()
    if not _is_number(kind):
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
