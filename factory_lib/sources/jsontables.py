"""Rows in JSON: a line each (JSON Lines), one array of objects, or one object with an entry for each picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa

from factory_lib.bounded import BATCH_BYTES
from factory_lib.errors import SourceError
from factory_lib.memory import memory_limit
from factory_lib.pictures import EXTENSIONS
from factory_lib.redaction import redact
from factory_lib.sources.columns import json_column, json_type
from factory_lib.sources.streams import open_stream
from factory_lib.sources.texttables import ROWS_AT_ONCE, TextTable
from factory_lib.storage.store import FileInfo

MAX_ARRAY_BYTES = 2**30
"""The largest JSON file that is parsed as a whole, where memory allows; JSON Lines have no limit."""
MAX_LINE_BYTES = 2**26
"""A longer line is left out, and counted."""
_ENTRIES_TRIED = 1_000
_PARSED = 8
"""Times its text is what a parsed document takes in memory, about."""


class JsonRows(TextTable):
    """A file of JSON objects. Objects and arrays within them are kept as JSON text."""

    def _read(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        for rows in self._pieces():
            cells = [json_column([row.get(field.name) for row in rows], field.type)[0] for field in schema]
            yield pa.RecordBatch.from_arrays(cells, schema=schema)

    def _settle(self) -> tuple[pa.Schema, int]:
        kinds: dict[str, pa.DataType | None] = {}
        count = 0
        for rows in self._pieces():
            count += len(rows)
            for name in dict.fromkeys(name for row in rows for name in row):
                values = [value for row in rows if (value := row.get(name)) is not None]
                kinds[name] = _wider(kinds.get(name), json_type(values)) if values else kinds.get(name)
        return pa.schema([(name, kind or pa.string()) for name, kind in kinds.items()]), count

    def _pieces(self) -> Iterator[list[dict[str, Any]]]:
        """Objects, at most `ROWS_AT_ONCE` of them and `BATCH_BYTES` of text at once."""
        piece: list[dict[str, Any]] = []
        held = 0
        for found, length in self._objects():
            if piece and (len(piece) >= ROWS_AT_ONCE or held + length > BATCH_BYTES):
                yield piece
                piece, held = [], 0
            piece.append(found)
            held += length
        if piece:
            yield piece

    def _objects(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Objects with the bytes of their text, where each has its own."""
        self.skipped = 0
        with open_stream(self._file) as stream:
            first = stream.peek(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]  # type: ignore[attr-defined]
            for found, length in self._array(stream) if first == b"[" else self._lines(stream):
                if isinstance(found, dict):
                    yield found, length
                else:
                    self.skipped += 1

    def _lines(self, stream: Any) -> Iterator[tuple[Any, int]]:
        while line := stream.readline(MAX_LINE_BYTES):
            cut = len(line) == MAX_LINE_BYTES and not line.endswith(b"\n")
            while cut and len(rest := stream.readline(MAX_LINE_BYTES)) == MAX_LINE_BYTES and not rest.endswith(b"\n"):
                pass
            text = line.strip(b"\xef\xbb\xbf \t\r\n")
            if text:
                try:
                    yield None if cut else json.loads(text), len(line)
                except (ValueError, RecursionError):
                    yield None, len(line)

    def _array(self, stream: Any) -> Iterator[tuple[Any, int]]:
        data = stream.read(MAX_ARRAY_BYTES + 1)
        found = parse_json(self._file, data)
        length = len(data) // max(len(found), 1)
        yield from ((one, length) for one in found)


class PictureObjects(JsonRows):
    """A JSON object with an entry for each picture: its caption, several of them, or an object with what is known."""

    def _objects(self) -> Iterator[tuple[dict[str, Any], int]]:
        self.skipped = 0
        with open_stream(self._file) as stream:
            data = stream.read(MAX_ARRAY_BYTES + 1)
        document = parse_json(self._file, data)
        length = len(data) // max(len(document), 1)
        for name, said in document.items():
            for one in said if isinstance(said, list) else [said]:
                yield ({**one} if isinstance(one, dict) else {"caption": one}) | {"file_name": name}, length


def is_by_picture(document: Any) -> bool:
    """Whether a JSON document is an object whose names are those of pictures."""
    if not isinstance(document, dict) or not document:
        return False
    some = list(islice(document.items(), _ENTRIES_TRIED))
    pictures = sum(name.lower().rpartition(".")[2] in EXTENSIONS and "." in name for name, _ in some)
    captions = sum(isinstance(said, dict) and bool({"caption", "tags"} & said.keys()) for _, said in some)
    return max(pictures, captions) > len(some) // 2


def parse_json(file: FileInfo, data: bytes) -> Any:
    """A whole JSON file.

    Raises:
        SourceError: it is none, or larger than `MAX_ARRAY_BYTES`.
    """
    most = min(MAX_ARRAY_BYTES, memory_limit() // _PARSED)
    if len(data) > most:
        raise SourceError(
            f"{redact(file.uri)} is larger than {most} bytes: too large to be parsed as one JSON document here.",
            "Write it as JSON Lines, one object a line.",
        )
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"{redact(file.uri)} is not JSON: {str(error)[:200]}.", "Was its upload interrupted?"
        ) from error


def _wider(one: pa.DataType | None, other: pa.DataType) -> pa.DataType:
    if one is None or one.equals(other):
        return other
    numbers = {pa.int64(), pa.float64()}
    return pa.float64() if {one, other} <= numbers else pa.string()
