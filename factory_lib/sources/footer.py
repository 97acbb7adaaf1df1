"""What the footer of a parquet file says of its columns.

Arrow ends the process where it is asked for a column whose footer is damaged or encrypted: its errors pass through code
that catches none. So the footer is read here, out of Thrift's compact protocol, with bounds that hold.
Formats: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift,
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

BYTE_ARRAY = 6
"""The physical type of text and bytes."""
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_DEEPEST = 32
_ROW_GROUPS, _COLUMNS, _ROWS, _META = 4, 1, 3, 3
"""Fields of a file, of a row group (its columns, its rows) and of a column chunk that are looked at."""
_TYPE, _PATH, _VALUES, _UNCOMPRESSED, _COMPRESSED, _DATA, _DICTIONARY, _STATISTICS = 1, 3, 5, 6, 7, 9, 11, 12
_NULLS = 3


@dataclass(frozen=True, slots=True)
class ColumnChunk:
    """One column of one row group.

    Attributes:
        name: of the column of the table.
        is_whole: whether that column is this chunk alone: it has no parts.
        type: physical, as the format numbers them.
        values: how many.
        uncompressed, compressed: bytes.
        nulls: how many, where the footer says it.
        dictionary: bytes of the page of distinct values; None without one.
    """

    name: str
    is_whole: bool
    type: int
    values: int
    uncompressed: int
    compressed: int
    nulls: int | None
    dictionary: int | None


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows that were written together."""

    rows: int
    columns: tuple[ColumnChunk, ...]


def row_groups(metadata: Any) -> tuple[RowGroup, ...]:
    """The row groups of a file.

    Args:
        metadata: `pyarrow.parquet.FileMetaData`.

    Raises:
        pyarrow.ArrowInvalid: the footer is damaged, or says of columns what cannot be.
    """
    sink = pa.BufferOutputStream()
    metadata.write_metadata_file(sink)
    data = sink.getvalue().to_pybytes()
    try:
        found = _ThriftReader(data, 4).struct()
        groups = tuple(_row_group(one) for one in found.get(_ROW_GROUPS, ()))
    except (IndexError, KeyError, TypeError, ValueError, UnicodeDecodeError, AttributeError) as error:
        raise pa.ArrowInvalid(f"its footer is damaged: {type(error).__name__}: {error}") from error
    if any(len(group.columns) != metadata.num_columns for group in groups):
        raise pa.ArrowInvalid("its footer is damaged: row groups and schema have different columns")
    return groups


def _row_group(fields: dict[int, Any]) -> RowGroup:
    return RowGroup(fields[_ROWS], tuple(_chunk(one) for one in fields[_COLUMNS]))


def _chunk(fields: dict[int, Any]) -> ColumnChunk:
    if _META not in fields:
        raise ValueError("a column has no description: it is damaged, or encrypted")
    about = fields[_META]
    path = [part.decode() for part in about[_PATH]]
    dictionary = about.get(_DICTIONARY)
    return ColumnChunk(
        path[0],
        len(path) == 1,
        about[_TYPE],
        about[_VALUES],
        about[_UNCOMPRESSED],
        about[_COMPRESSED],
        about.get(_STATISTICS, {}).get(_NULLS),
        None if dictionary is None else about[_DATA] - dictionary,
    )


class _ThriftReader:
    """Values of Thrift's compact protocol, as Python's own: a struct is field -> value."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """A struct and all that is in it."""
        if depth > _DEEPEST:
            raise ValueError("structs within structs")
        fields: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._signed()
            kind = head & 15
            fields[field] = kind == _TRUE if kind <= _FALSE else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_I16, _I32, _I64):
            return self._signed()
        if kind == _BINARY:
            return self._bytes(self._unsigned())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _SET):
            return self._list(depth)
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind in (_TRUE, _FALSE, _BYTE):  # of a list each boolean has a byte
            return self._byte()
        if kind == _MAP:
            return self._map(depth)
        raise ValueError(f"a value of kind {kind}")

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        size = head >> 4 if head >> 4 < 15 else self._unsigned()
        self._check(size)
        return [self._value(head & 15, depth) for _ in range(size)]

    def _map(self, depth: int) -> list[Any]:
        size = self._unsigned()
        self._check(size)
        kinds = self._byte() if size else 0
        return [(self._value(kinds >> 4, depth), self._value(kinds & 15, depth)) for _ in range(size)]

    def _check(self, size: int) -> None:
        if size > len(self._data) - self._at:  # an element has a byte at least
            raise ValueError(f"{size} values in {len(self._data) - self._at} bytes")

    def _byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def _bytes(self, size: int) -> bytes:
        self._check(size)
        value = self._data[self._at : self._at + size]
        self._at += size
        return value

    def _unsigned(self) -> int:
        data, at = self._data, self._at
        if (first := data[at]) < 128:
            self._at = at + 1
            return first
        value = shift = 0
        while (byte := data[at]) >= 128:
            value |= (byte & 127) << shift
            shift += 7
            at += 1
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
        self._at = at + 1
        return value | byte << shift

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
