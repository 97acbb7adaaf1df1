"""What a signal may return: the types, and how values become Arrow columns.

An `Output` knows three things: its Arrow type (what the engine yields), its ClickHouse type (what a version
stores) and how a list of Python values becomes an Arrow array. A missing value is null; an array that is missing is
empty, as ClickHouse has no nullable arrays.
"""

from __future__ import annotations

import dataclasses
import datetime
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from factory_lib.errors import SignalError
from factory_lib.warehouse.byte_lists import BYTES, as_byte_lists

ERROR_TYPE = "LowCardinality(Nullable(String))"
"""ClickHouse type of the `<name>_error` column that goes with every signal."""

_SCALARS: dict[Any, tuple[pa.DataType, str]] = {
    int: (pa.int64(), "Int64"),
    float: (pa.float32(), "Float32"),
    str: (pa.string(), "String"),
    bool: (pa.bool_(), "Bool"),
    datetime.datetime: (pa.timestamp("us", "UTC"), "DateTime64(6, 'UTC')"),
    datetime.date: (pa.date32(), "Date32"),
    np.str_: (pa.string(), "String"),
    np.bool_: (pa.bool_(), "Bool"),
    np.int8: (pa.int8(), "Int8"),
    np.int16: (pa.int16(), "Int16"),
    np.int32: (pa.int32(), "Int32"),
    np.int64: (pa.int64(), "Int64"),
    np.uint8: (pa.uint8(), "UInt8"),
    np.uint16: (pa.uint16(), "UInt16"),
    np.uint32: (pa.uint32(), "UInt32"),
    np.uint64: (pa.uint64(), "UInt64"),
    np.float32: (pa.float32(), "Float32"),
    np.float64: (pa.float64(), "Float64"),
}


@dataclass(frozen=True)
class ScalarOutput:
    """One nullable value.

    Attributes:
        arrow: Arrow type of the value.
        name: ClickHouse type without `Nullable`.
    """

    arrow: pa.DataType
    name: str

    @property
    def clickhouse(self) -> str:
        """ClickHouse type of the column."""
        return f"Nullable({self.name})"

    def array(self, values: Sequence[Any]) -> pa.Array:
        """Values (None where missing) as an Arrow array; raises what Arrow raises when one does not fit."""
        return pa.array(values, self.arrow, from_pandas=False)


@dataclass(frozen=True)
class Bytes:
    """Bytes, as a list of their numbers: `bytes(value)` of what is read is what the signal gave."""

    arrow: pa.DataType = BYTES
    name: str = "Array(UInt8)"

    @property
    def clickhouse(self) -> str:
        """ClickHouse type of the column."""
        return self.name

    def array(self, values: Sequence[Any]) -> pa.Array:
        """Bytes (None where missing, stored empty) as an Arrow array; raises what Arrow raises for anything else."""
        return as_byte_lists(pa.array([b"" if value is None else value for value in values], pa.binary()))


@dataclass(frozen=True)
class ArrayOf:
    """A list of values of one type, of any length; the items may be lists themselves.

    Attributes:
        item: type of the items; they are not nullable.
    """

    item: ScalarOutput | Bytes | ArrayOf

    @property
    def arrow(self) -> pa.DataType:
        """Arrow type: a list."""
        return pa.list_(self.item.arrow)

    @property
    def name(self) -> str:
        """ClickHouse type."""
        return f"Array({self.item.name})"

    @property
    def clickhouse(self) -> str:
        """ClickHouse type of the column."""
        return self.name

    def array(self, values: Sequence[Any]) -> pa.Array:
        """Lists (None where missing, stored empty) as an Arrow array.

        Raises:
            ValueError: a list holds None.
        """
        lists = pa.array([[] if value is None else value for value in values], self._given())
        inner = lists
        while pa.types.is_list(inner.type):
            inner = inner.values
            if inner.null_count:
                raise ValueError("a list holds None; items of a list have to be values")
        return as_byte_lists(lists)

    def _given(self) -> pa.DataType:
        """Arrow type of what signals return: bytes are not lists of numbers yet."""
        item = self.item
        return pa.list_(
            pa.binary() if isinstance(item, Bytes) else item._given() if isinstance(item, ArrayOf) else item.arrow
        )


@dataclass(frozen=True)
class Vector:
    """A vector of fixed length, such as an embedding; also usable as the return annotation.

    Attributes:
        size: how many numbers.
        dtype: how they are stored; `bfloat16` halves the bytes and costs about 0.2 % of recall at 500 neighbours.
        unit: scale every vector to length 1, so that a dot product is the cosine.
    """

    size: int
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    unit: bool = True

    def __post_init__(self) -> None:
        if self.size < 1:
            raise SignalError(
                f"Vector({self.size}) has no numbers.", "Give the length of the vector, for instance Vector(512)."
            )
        if self.dtype not in {"bfloat16", "float32"}:
            raise SignalError(f"Vector dtype {self.dtype!r} is not stored.", "Use 'bfloat16' or 'float32'.")

    @property
    def arrow(self) -> pa.DataType:
        """Arrow type: a list of float32, empty where the value is missing."""
        return pa.list_(pa.float32())

    @property
    def clickhouse(self) -> str:
        """ClickHouse type of the column."""
        return "Array(BFloat16)" if self.dtype == "bfloat16" else "Array(Float32)"

    def array(self, values: Sequence[Any] | np.ndarray[Any, Any]) -> pa.Array:
        """Vectors (None where missing, stored empty) as an Arrow array, scaled to length 1 where `unit`.

        Raises:
            ValueError: wrong length, not finite, or of length zero where `unit`.
        """
        present = np.array([value is not None for value in values], dtype=bool)
        offsets = np.concatenate([[0], np.cumsum(present * self.size)]).astype(np.int32)
        rows = [self._row(value) for value in values if value is not None]
        matrix = np.stack(rows) if rows else np.empty((0, self.size), dtype=np.float32)
        if not np.isfinite(matrix).all():
            raise ValueError("the vector has numbers that are not finite")
        if self.unit:
            norms = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
            if not norms.all():
                raise ValueError("the vector is all zeros and has no direction")
            matrix = (matrix / norms).astype(np.float32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(matrix.ravel()))

    def _row(self, value: Any) -> np.ndarray[Any, Any]:
        row = np.asarray(value, dtype=np.float32)
        if row.shape != (self.size,):
            raise ValueError(f"expected {self.size} numbers, got shape {row.shape}")
        return row


@dataclass(frozen=True)
class Struct:
    """Named fields: one `Tuple` column.

    Attributes:
        fields: name and type of each field, in order.
        by_key: the values are dicts (a TypedDict) and not objects with attributes.
    """

    fields: tuple[tuple[str, Output], ...]
    by_key: bool = False

    @property
    def arrow(self) -> pa.DataType:
        """Arrow type: a struct that is never null itself."""
        return pa.struct([pa.field(name, output.arrow) for name, output in self.fields])

    @property
    def clickhouse(self) -> str:
        """ClickHouse type of the column."""
        return f"Tuple({', '.join(f'{name} {output.clickhouse}' for name, output in self.fields)})"

    def array(self, values: Sequence[Any]) -> pa.Array:
        """Structs (all fields null where missing) as an Arrow array."""
        pick: Callable[[Any, str], Any] = _by_key if self.by_key else getattr
        columns = [
            output.array([None if value is None else pick(value, name) for value in values])
            for name, output in self.fields
        ]
        return pa.StructArray.from_arrays(columns, fields=list(self.arrow))


Output = ScalarOutput | Bytes | ArrayOf | Vector | Struct
"""The type of a signal: each has `arrow`, `clickhouse` and `array(values)`."""


def output_of(annotation: Any, where: str) -> Output:
    """The output that a return annotation (or `output=`) stands for.

    Args:
        annotation: `int`, `float`, `str`, `bool`, `bytes`, a date, a numpy scalar type, `list[…]`, a NamedTuple,
            dataclass or TypedDict, `Vector(n)`, or one of these `| None`.
        where: what is being declared, for the message.

    Raises:
        SignalError: no column type for it.
    """
    if isinstance(annotation, ScalarOutput | Bytes | ArrayOf | Vector | Struct):
        return annotation
    annotation = without_none(annotation)[0]
    if typing.get_origin(annotation) in {list, tuple, Sequence}:
        return _array_of(annotation, where)
    if annotation is bytes:
        return Bytes()
    if annotation in _SCALARS:
        return ScalarOutput(*_SCALARS[annotation])
    if isinstance(annotation, type) and (fields := _field_types(annotation)) is not None:
        outputs = tuple((name, output_of(kind, f"{where}, field {name!r}")) for name, kind in fields.items())
        return Struct(outputs, by_key=issubclass(annotation, dict))
    shown = getattr(annotation, "__name__", None) or repr(annotation)
    raise SignalError(
        f"{where}: no column type for the output {shown}.",
        "Use int, float, str, bool, bytes, a numpy scalar such as np.uint64, Vector(n), list[…] of these, "
        "or a NamedTuple, dataclass or TypedDict of these.",
    )


def without_none(annotation: Any) -> tuple[Any, bool]:
    """An annotation without `| None`, and whether it had it."""
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        members = typing.get_args(annotation)
        rest = tuple(member for member in members if member is not type(None))
        if len(rest) == 1 and len(rest) < len(members):
            return rest[0], True
    return annotation, False


def _array_of(annotation: Any, where: str) -> ArrayOf:
    members = [member for member in typing.get_args(annotation) if member is not Ellipsis]
    item = output_of(members[0], where) if len(members) == 1 else None
    if not isinstance(item, ScalarOutput | Bytes | ArrayOf):
        raise SignalError(
            f"{where}: {annotation} has items of no single scalar type.",
            "Use list[int], list[float], list[str], a list of such lists, or Vector(n) for a vector of fixed length.",
        )
    return ArrayOf(item)


def _field_types(kind: type) -> dict[str, Any] | None:
    named = hasattr(kind, "_fields") or dataclasses.is_dataclass(kind) or typing.is_typeddict(kind)
    if not named:
        return None
    hints = typing.get_type_hints(kind)
    if dataclasses.is_dataclass(kind):
        return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    return {name: hints[name] for name in getattr(kind, "_fields", hints) if name in hints}


def _by_key(value: Any, name: str) -> Any:
    return value[name]
