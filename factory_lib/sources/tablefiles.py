"""Files of rows and columns, told apart by their content: parquet, Arrow IPC (files, streams, feather), CSV, JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol

import pyarrow as pa

from factory_lib.bounded import rows_within, split
from factory_lib.errors import SourceError
from factory_lib.redaction import redact
from factory_lib.sources.footer import BYTE_ARRAY, ColumnChunk, RowGroup, row_groups
from factory_lib.sources.streams import first_bytes, open_stream
from factory_lib.storage.store import FileInfo, is_local, store
from factory_lib.warehouse.null_elements import is_list, number_of_null_elements

_ROWS_AT_ONCE = 10_000


_NUMBER_BYTES, _PAGE_BYTES = 4, 2**14

TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
"""Text tables; each also compressed, with `.gz`, `.zst`, `.bz2` or `.xz` behind it."""
_PACKED = ("", ".gz", ".zst", ".bz2", ".xz")
DOCUMENT_SUFFIXES = tuple(f".json{packed}" for packed in _PACKED)
"""JSON documents that may be tables."""
TABLE_SUFFIXES = (
    ".parquet", ".arrow", ".feather", ".ipc",
    *(text + packed for text in TEXT_SUFFIXES for packed in _PACKED),
)  # fmt: skip


class TableFile(Protocol):
    """One file of rows.

    Attributes:
        skipped: lines that are no rows, known once all rows were read.
    """

    skipped: int

    @property
    def schema(self) -> pa.Schema:
        """Columns as the file has them."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    def batches(self, size: int, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        """The rows in pieces of at most `size`; all columns for None."""


def open_table(file: FileInfo) -> TableFile:
    """Open a file of rows.

    Raises:
        SourceError: it is none, or is damaged.
    """
    head = first_bytes(file)
    try:
        if head.startswith(b"PAR1"):
            return Parquet(file)
        if head.startswith((b"ARROW1", b"FEA1", b"\xff\xff\xff\xff")):
            return ArrowFile(file, head)
        if not head:
            raise SourceError(f"{redact(file.uri)} is empty (0 bytes).", "Was its upload interrupted?")
        if file.path.lower().endswith(TABLE_SUFFIXES[:4]):
            return Parquet(file)  # whose error says what is wrong
        return _open_text(file)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file, error) from error


def has_null_elements(table: TableFile, field: pa.Field) -> bool:
    """Whether a column holds lists of floating-point numbers with nulls inside.

    Where that would take a column of a remote file, it is taken to have none: later ones are counted.
    """
    if field.name in getattr(table, "without_null_elements", ()):
        return False
    batches = table.batches(_ROWS_AT_ONCE, [field.name]) if _holds_floats(field.type) else iter(())
    return any(number_of_null_elements(batch.column(0)) for batch in batches)


def _holds_floats(kind: pa.DataType) -> bool:
    return is_list(kind) and (pa.types.is_floating(kind.value_type) or _holds_floats(kind.value_type))


def different_names(schema: pa.Schema) -> pa.Schema:
    """The columns of a file by names that are all different: a second one of a name gets a number behind it."""
    taken: set[str] = set()
    fields = []
    for field in schema:
        name, number = field.name, 2
        while name in taken:
            name, number = f"{field.name}_{number}", number + 1
        taken.add(name)
        fields.append(field.with_name(name))
    return pa.schema(fields)


def table_stem(uri: str) -> str:
    """The path of a table without what says its format."""
    lower = uri.lower()
    suffix = max((suffix for suffix in TABLE_SUFFIXES if lower.endswith(suffix)), key=len, default="")
    return uri[: len(uri) - len(suffix)] if suffix else uri.rsplit(".", 1)[0]


def unreadable(file: FileInfo, error: Exception) -> SourceError:
    """The error of a damaged table."""
    reason = " ".join(str(error).split())[:200]
    kind = "parquet" if file.path.lower().endswith(".parquet") else "a table"
    return SourceError(f"{redact(file.uri)} cannot be read as {kind}: {reason}", "Was its upload interrupted?")


class Parquet:
    """A parquet file; opening it reads only its footer."""

    def __init__(self, file: FileInfo) -> None:
        self._file, self.skipped = file, 0
        self._parquet = self._opened()
        self.schema = different_names(self._parquet.schema_arrow)
        self._renamed = self.schema.names != self._parquet.schema_arrow.names

    @cached_property
    def without_null_elements(self) -> frozenset[str]:
        """Columns that hold no null at all, as the footer says."""
        nulls = dict.fromkeys(self._parquet.schema_arrow.names, 0)
        for column in (column for group in self._row_groups for column in group.columns):
            nulls[column.name] = nulls.get(column.name, 0) + (1 if column.nulls is None else column.nulls)
        return frozenset(name for name, number in nulls.items() if number == 0)

    @cached_property
    def _row_groups(self) -> tuple[RowGroup, ...]:
        try:
            return row_groups(self._parquet.metadata)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self._file, error) from error

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self._parquet.metadata.num_rows)

    def batches(self, size: int, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        """The rows in pieces of at most `size`."""
        # Arrow takes a dot in a name for a path into a struct; such a name is asked for with all others.
        whole = columns is None or self._renamed or any("." in name for name in columns)
        try:
            for group in range(self._parquet.num_row_groups):
                rows, repeated = self._bounds(group, None if whole else set(columns or ()))
                file = self._parquet if not repeated else self._opened(repeated)
                names = None if whole else list(columns or ())
                some = file.iter_batches(min(size, rows), row_groups=[group], columns=names, use_threads=False)
                for batch in some:
                    named = _chosen(batch, self.schema.names, columns) if whole else batch
                    for piece in split(named):
                        yield decoded(piece) if repeated else piece
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self._file, error) from error

    def _opened(self, dictionaries: Sequence[str] = ()) -> Any:
        import pyarrow.parquet as pq

        # On a local disk Arrow opens the path itself, which is faster; elsewhere it asks the store for ranges.
        local = is_local(self._file.uri)
        where: Any = self._file.uri if local else pa.PythonFile(store().open(self._file), mode="r")
        return pq.ParquetFile(where, pre_buffer=not local, read_dictionary=list(dictionaries) or None)

    def _bounds(self, group: int, names: set[str] | None) -> tuple[int, tuple[str, ...]]:
        """How many rows of a row group make a batch, and its columns that are small only because values repeat.

        The footer tells how long columns are before compression, but with a value that repeats written once: a batch
        of these could be of any size. They are read with each value once, and are cut before values are as often as
        they occur.
        """
        about = self._row_groups[group]
        asked = [column for column in about.columns if names is None or column.name in names]
        repeated = [column.name for column in asked if _repeats(column) and column.is_whole]
        most = rows_within(sum(column.uncompressed for column in asked) / max(about.rows, 1))
        kinds = self._parquet.schema_arrow
        once = [name for name in repeated if kinds.get_field_index(name) >= 0]  # -1 for a name of several columns, too
        return most, tuple(name for name in once if _is_text(kinds.field(name).type)) if about.rows > 1 else ()


class ArrowFile:
    """Arrow IPC: files (also feather of version 2), streams, as Hugging Face's `save_to_disk` writes them, and the
    first version of feather."""

    def __init__(self, file: FileInfo, head: bytes) -> None:
        self._file, self._head, self.skipped = file, head, 0
        self._counted: int | None = None
        self.schema = different_names(self._open().schema if not head.startswith(b"FEA1") else self._feather().schema)
        self.without_null_elements = frozenset(() if is_local(file.uri) else self.schema.names)

    @property
    def rows(self) -> int:
        """Number of rows; of a stream, all of it is read for that."""
        if self._counted is None:
            self._counted = sum(len(batch) for batch in self._whole())
        return self._counted

    def batches(self, size: int, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        """The rows in pieces of at most `size`."""
        try:
            for batch in self._whole():
                part = _chosen(batch, self.schema.names, columns)
                for start in range(0, len(part), size):
                    yield from split(part.slice(start, size))
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self._file, error) from error

    def _where(self) -> Any:
        local = is_local(self._file.uri)
        return pa.memory_map(self._file.uri) if local else pa.PythonFile(store().open(self._file), mode="r")

    def _open(self) -> Any:
        return (
            pa.ipc.open_file(self._where()) if self._head.startswith(b"ARROW1") else pa.ipc.open_stream(self._where())
        )

    def _feather(self) -> pa.Table:
        from pyarrow import feather

        return feather.read_table(self._where(), memory_map=False)

    def _whole(self) -> Iterator[pa.RecordBatch]:
        if self._head.startswith(b"FEA1"):
            yield from map(sound, self._feather().to_batches())
            return
        opened = self._open()
        if self._head.startswith(b"ARROW1"):
            yield from (sound(opened.get_batch(number)) for number in range(opened.num_record_batches))
        else:
            yield from map(sound, opened)


def sound(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch whose offsets and indices are within bounds: Arrow trusts those of a file, and ends the process where
    they are not. That text is UTF-8 is not asked for.

    Raises:
        pyarrow.ArrowInvalid: the batch is damaged.
    """
    for column in batch.columns:
        column.validate()
        kind = _without_text(column.type)
        (column if kind.equals(column.type) else column.view(kind)).validate(full=True)
    return batch


def _without_text(kind: pa.DataType) -> pa.DataType:
    """The type with bytes in place of text, where it is made of lists and structs alone."""
    if pa.types.is_string(kind):
        return pa.binary()
    if pa.types.is_large_string(kind):
        return pa.large_binary()
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_without_text(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_without_text(kind.value_type)))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_without_text(kind.value_type)), kind.list_size)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_text(field.type)) for field in kind])
    return kind


def decoded(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with each value as often as it occurs."""
    columns = [
        column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _repeats(column: ColumnChunk) -> bool:
    """Whether a column is, but for its dictionary, little more than numbers of entries in it."""
    if column.type != BYTE_ARRAY or column.dictionary is None:
        return False
    return column.compressed - column.dictionary < _NUMBER_BYTES * column.values + _PAGE_BYTES


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def _chosen(batch: pa.RecordBatch, names: list[str], columns: Sequence[str] | None) -> pa.RecordBatch:
    """Some columns of a batch, whose own names may be equal."""
    renamed = batch if batch.schema.names == names else batch.rename_columns(names)
    return renamed if columns is None else renamed.select(list(columns))


def _open_text(file: FileInfo) -> TableFile:
    from factory_lib.sources.delimited import Delimited
    from factory_lib.sources.jsontables import JsonRows

    with open_stream(file) as stream:
        start = stream.read(4096)
    if b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff")):  # which begin UTF-16
        raise SourceError(f"{redact(file.uri)} is no table: it holds neither parquet, Arrow, JSON nor text.")
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"["):
        return Delimited(file)
    return _open_document(file) if file.path.lower().endswith(DOCUMENT_SUFFIXES) else JsonRows(file)


def _open_document(file: FileInfo) -> TableFile:
    """A `.json`: COCO, an array of objects, or lines under a name that says less."""
    from factory_lib.sources.coco import CocoTable, is_coco
    from factory_lib.sources.jsontables import MAX_ARRAY_BYTES, JsonRows, PictureObjects, is_by_picture, parse_json

    with open_stream(file) as stream:
        data = stream.read(MAX_ARRAY_BYTES + 1)
    lines = data.lstrip()[:1] == b"{" and b"\n{" in data
    document: Any = None if lines else parse_json(file, data)
    if is_coco(document):
        return CocoTable(file, document)
    if is_by_picture(document):
        return PictureObjects(file)
    if isinstance(document, dict):
        raise SourceError(
            f"{redact(file.uri)} is no table: a JSON object that lists no images.",
            "An array of objects, JSON Lines, an object by names of pictures and COCO's format are read.",
        )
    return JsonRows(file)
