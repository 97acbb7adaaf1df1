"""CSV and TSV, with or without a header, in any delimiter and encoding that their first megabyte shows.

Every cell is read as text, and a column becomes numbers only when all of its cells in the file are: what a value
becomes never depends on where in the file it stands. A number with zeros before it (`007`) is a name and stays text.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.errors import SourceError
from factory_lib.redaction import redact
from factory_lib.sources.layout import IMAGES
from factory_lib.sources.streams import open_stream
from factory_lib.sources.texttables import TextTable
from factory_lib.storage.store import FileInfo

_HEAD_BYTES = 2**20
_BLOCK_BYTES = 8 * 2**20
_DELIMITERS = ("\t", ",", ";", "|")
_INTEGER = r"^-?(0|[1-9][0-9]{0,18})$"
_NUMBER = r"^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?([iI]nf(inity)?)$"
_LEADING_ZERO = r"^-?0[0-9]"
_MISSING = pa.array(["", "null", "NULL", "None", "nan", "NaN", "NA", "N/A"])
"""Cells of a column of numbers that hold none; in a column of text they are text, but for the empty one."""
_BOOLEANS = pa.array(["true", "false", "True", "False", "TRUE", "FALSE"])


class Delimited(TextTable):
    """A file of delimited text; lines with too many or too few cells are no rows."""

    def __init__(self, file: FileInfo) -> None:
        super().__init__(file)
        with open_stream(file) as stream:
            head = stream.read(_HEAD_BYTES)
        self._dialect = _dialect(head, redact(file.uri))

    def _read(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        for batch in self._texts():
            cells = [_typed(batch.column(field.name), field.type) for field in schema]
            yield pa.RecordBatch.from_arrays(cells, schema=schema)

    def _settle(self) -> tuple[pa.Schema, int]:
        kinds = {name: _Kind() for name in self._dialect.names}
        rows = 0
        for batch in self._texts():
            rows += len(batch)
            for name, kind in kinds.items():
                kind.see(batch.column(name))
        return pa.schema([(name, kind.settle()) for name, kind in kinds.items()]), rows

    def _texts(self) -> Iterator[pa.RecordBatch]:
        from pyarrow import csv as arrow_csv

        self.skipped = 0
        dialect = self._dialect
        read = arrow_csv.ReadOptions(
            use_threads=False,
            block_size=_BLOCK_BYTES,
            column_names=list(dialect.names),
            skip_rows=int(dialect.has_header),
            encoding=dialect.encoding,
        )
        parse = arrow_csv.ParseOptions(
            delimiter=dialect.delimiter,
            quote_char='"' if dialect.quoted else False,
            newlines_in_values=dialect.quoted,
            invalid_row_handler=self._skip,
        )
        convert = arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(dialect.names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            check_utf8=True,
        )
        with open_stream(self._file) as stream:
            try:
                for batch in arrow_csv.open_csv(
                    stream, read_options=read, parse_options=parse, convert_options=convert
                ):
                    yield _without_spaces(batch) if dialect.spaced else batch
            except (pa.ArrowException, UnicodeDecodeError) as error:
                reason = " ".join(str(error).split())[:200]
                raise SourceError(f"{redact(self._file.uri)} cannot be read as delimited text: {reason}") from error

    def _skip(self, row: Any) -> str:
        self.skipped += 1
        return "skip"


@dataclass(frozen=True)
class _Dialect:
    """How the text is to be read."""

    encoding: str
    delimiter: str
    quoted: bool
    has_header: bool
    names: tuple[str, ...]
    spaced: bool = False
    """Whether a space follows each delimiter, which belongs to no cell."""


def _dialect(head: bytes, where: str) -> _Dialect:
    encoding, text = _decoded(head)
    lines = text.splitlines()[: 1000 if len(head) < _HEAD_BYTES else -1] or [""]
    widths = {delimiter: _widths(text, delimiter, True) for delimiter in _DELIMITERS}
    # A text with a comma in each of few lines looks like a table of commas; with a tab in each it is one of tabs.
    delimiter = max(_DELIMITERS, key=lambda d: (widths[d][0] > 1, _agreement(widths[d]), d == "\t", widths[d][0]))
    plain = _widths(text, delimiter, False)
    quoted = '"' in text and _agreement(widths[delimiter]) >= _agreement(plain)
    first = next(csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE), [])
    if not first:
        raise SourceError(f"{where} is no table: its first line is empty.")
    has_header = not any(_is_value(cell) for cell in first)
    spaced = len(first) > 1 and all(cell.startswith(" ") for cell in first[1:])
    names = tuple(_names(first) if has_header else _guessed(first))
    return _Dialect(encoding, delimiter, quoted, has_header, names, spaced)


def _decoded(head: bytes) -> tuple[str, str]:
    """The encoding of a text, and the text as far as it goes."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16", head[: len(head) // 2 * 2].decode("utf-16", "ignore")
    whole = head if len(head) < _HEAD_BYTES else head[: head.rfind(b"\n") + 1]
    try:
        return "utf-8-sig" if head.startswith(b"\xef\xbb\xbf") else "utf-8", whole.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "cp1252", whole.decode("cp1252", "replace")


def _widths(text: str, delimiter: str, quoted: bool) -> list[int]:
    """Cells of each of the first rows."""
    lines = iter(text.splitlines(keepends=True))
    rows = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
    try:
        return [len(row) for _, row in zip(range(1000), rows, strict=False) if row] or [0]
    except csv.Error:  # a cell larger than a field may be
        return [0]


def _agreement(widths: list[int]) -> float:
    """The share of rows that have as many cells as the first."""
    return sum(width == widths[0] for width in widths) / len(widths)


def _is_value(cell: str) -> bool:
    """Whether a cell of the first line is no name of a column: a URL, or the path of a picture."""
    if " " in cell.strip():  # a sentence may end in what looks like a name
        return False
    return "://" in cell or ("." in cell and cell.lower().rsplit(".", 1)[-1].split("#")[0] in IMAGES)


def _without_spaces(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pc.utf8_ltrim_whitespace(cells) for cells in batch.columns], schema=batch.schema)


def _names(header: Sequence[str]) -> list[str]:
    """Names of columns, all different."""
    names: list[str] = []
    for cell in header:
        name, number = cell.strip() or "column", 2
        while name in names:
            name, number = f"{cell.strip() or 'column'}_{number}", number + 1
        names.append(name)
    return names


def _guessed(first: Sequence[str]) -> list[str]:
    """Names of columns without a header: URLs and paths are told by their looks, one text beside is the caption."""
    kinds = ["url" if "://" in cell else "file_name" if _is_value(cell) else "" for cell in first]
    if kinds.count("") == 1:
        kinds[kinds.index("")] = "caption"
    return _names([kind or f"column_{number}" for number, kind in enumerate(kinds)])


class _Kind:
    """What all cells of a column seen so far can be."""

    def __init__(self) -> None:
        self.integer = self.number = self.boolean = True
        self.seen = False

    def see(self, cells: pa.StringArray) -> None:
        """Take some cells into account."""
        if not (self.integer or self.number or self.boolean):
            return
        values = cells.filter(pc.invert(pc.is_in(pc.fill_null(cells, ""), value_set=_MISSING)))
        if not len(values):
            return
        self.seen = True
        self.integer = self.integer and _all(pc.match_substring_regex(values, _INTEGER)) and _fits(values)
        self.number = self.number and (
            _all(pc.match_substring_regex(values, _NUMBER))
            and not pc.any(pc.match_substring_regex(values, _LEADING_ZERO)).as_py()
            and not pc.any(pc.match_substring_regex(values, r"^-?[0-9]{17,}$")).as_py()  # digits would be lost
        )
        self.boolean = self.boolean and _all(pc.is_in(values, value_set=_BOOLEANS))

    def settle(self) -> pa.DataType:
        """The type of the column."""
        if not self.seen:
            return pa.string()
        if self.integer:
            return pa.int64()
        return pa.bool_() if self.boolean else pa.float64() if self.number else pa.string()


def _typed(cells: pa.StringArray, kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        return cells
    values = pc.if_else(pc.is_in(cells, value_set=_MISSING), pa.scalar(None, pa.string()), cells)
    return pc.utf8_lower(values).cast(kind) if pa.types.is_boolean(kind) else values.cast(kind)


def _fits(values: pa.StringArray) -> bool:
    try:
        values.cast(pa.int64())
    except pa.ArrowInvalid:
        return False
    return True


def _all(found: pa.BooleanArray) -> bool:
    return bool(pc.all(found).as_py())
