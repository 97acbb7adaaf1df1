"""Tables written as text: their types are known only once all of their values were seen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property

import pyarrow as pa

from factory_lib.storage.store import FileInfo

ROWS_AT_ONCE = 10_000


class TextTable(ABC):
    """A file of rows, read twice: to settle the types, and for the values.

    Attributes:
        skipped: what is no row, once all rows were read.
    """

    def __init__(self, file: FileInfo) -> None:
        self._file, self.skipped = file, 0

    @property
    def schema(self) -> pa.Schema:
        """Columns with the types that all of their values fit."""
        return self._settled[0]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self._settled[1]

    def batches(self, size: int, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        """The rows in pieces of at most `size`; all columns for None."""
        schema = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
        for batch in self._read(schema):
            for start in range(0, len(batch), size):
                yield batch.slice(start, size)

    @cached_property
    def _settled(self) -> tuple[pa.Schema, int]:
        return self._settle()

    @abstractmethod
    def _settle(self) -> tuple[pa.Schema, int]:
        """One pass over all rows: columns with their types, and the number of rows."""

    @abstractmethod
    def _read(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows in pieces, of some columns in the types that were settled."""
