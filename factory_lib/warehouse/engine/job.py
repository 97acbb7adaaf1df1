"""One statement, run in a thread: from the body as it arrives to the result in a pipe."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from factory_lib.warehouse.engine.compression import decompress
from factory_lib.warehouse.engine.connection import Connection, Engine
from factory_lib.warehouse.engine.failure import READONLY, SYNTAX_ERROR, failure
from factory_lib.warehouse.engine.form import form_fields
from factory_lib.warehouse.engine.request import Request
from factory_lib.warehouse.engine.statement import Insert, Query, parse

HEAD_LIMIT = 1 << 18  # a statement with inline data must show its FORMAT in its first 256 KiB, as in ClickHouse (max_query_size)
TEXT_LIMIT = 1 << 26  # longest statement without inline data, 64 MiB


@dataclass
class Outcome:
    """What a statement left, besides what it wrote into the pipe.

    Attributes:
        format: the format of the result.
        result: the result of a statement whose result is not piped.
        read_only: it changes nothing, so it may be cancelled when its client leaves.
    """

    format: str
    result: bytes = b""
    read_only: bool = False
    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0
    seconds: float = 0.0


@dataclass
class Job:
    """A request on its way through the engine.

    Args:
        engine: the engine.
        request: what is asked.
        body: the body as it arrives, called from the job's thread.
        pipe: write end of the pipe for the result; the job closes it.
    """

    engine: Engine
    request: Request
    body: Iterator[bytes]
    pipe: int
    outcome: Outcome = field(init=False)
    label: str = field(init=False)

    def __post_init__(self) -> None:
        self.outcome = Outcome(self.request.format)
        given = self.request.settings.get("log_comment", "")
        self.label = f"{given} {self.request.query_id}".strip()

    def run(self) -> Outcome:
        """Run to the end. Raises `Failure`."""
        try:
            with self._connection() as connection:
                self._run(connection)
            return self.outcome
        finally:
            os.close(self.pipe)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Connection]:
        request = self.request
        if not request.session_id:
            connection = self.engine.connection()
            try:
                connection.set({**request.settings, "log_comment": self.label})
                if request.database:
                    connection.use(request.database)
                yield connection
            finally:
                connection.close()
            return
        with (
            self.engine.session(request.session_id, request.session_timeout, request.session_check) as connection,
            connection.temporarily({**request.settings, "log_comment": self.label}),
        ):
            if request.database:
                connection.use(request.database)
            yield connection

    def _run(self, connection: Connection) -> None:
        request = self.request
        chunks = decompress(self.body, request.content_encoding)
        params, query = dict(request.params), request.query
        if request.content_type.startswith("multipart/form-data"):
            fields = form_fields(_whole(chunks, TEXT_LIMIT), request.content_type)
            query = fields.pop("query", query)
            params.update({name[6:]: value for name, value in fields.items() if name.startswith("param_")})
            connection.set({name: value for name, value in fields.items() if not name.startswith("param_")})
            chunks = iter(())
        # surrogateescape carries the bytes of a query string that are no UTF-8
        text = query.encode("utf-8", "surrogateescape")
        if text:
            text += b"\n"
        head = _head(chunks, HEAD_LIMIT)
        found = parse((text + head).decode("latin-1"))
        if isinstance(found, Insert):
            self._insert(connection, found, itertools.chain([(text + head)[found.data :]], chunks), params)
        else:
            rest = _whole(chunks, TEXT_LIMIT)
            if rest:
                found = parse((text + head + rest).decode("latin-1"))
            if not isinstance(found, Query):
                raise failure(SYNTAX_ERROR, "SYNTAX_ERROR", f"The data of an INSERT must begin in the first {HEAD_LIMIT} bytes")
            self._query(connection, found, text + head + rest, params)

    def _insert(self, connection: Connection, insert: Insert, data: Iterator[bytes], params: dict[str, str]) -> None:
        if self.request.method == "GET":
            raise _get_is_readonly()
        connection.set({f"param_{name}": value for name, value in params.items()})
        head = insert.head.encode("latin-1")
        rows, size = connection.insert(head.decode("utf-8", "surrogateescape"), insert.format, data)
        self.outcome.written_rows, self.outcome.written_bytes = rows, size

    def _query(self, connection: Connection, query: Query, text: bytes, params: dict[str, str]) -> None:
        kind, statements = connection.classify(text)
        if statements > 1:
            raise failure(SYNTAX_ERROR, "SYNTAX_ERROR", "Multi-statements are not allowed")
        if query.into_outfile:
            raise failure(358, "INTO_OUTFILE_NOT_ALLOWED", "INTO OUTFILE is not allowed")
        self.outcome.format = query.format or self.request.format
        self.outcome.read_only = kind == "READ_ONLY"
        if self.request.method == "GET" and kind == "MUTATING":
            raise _get_is_readonly()
        if self.outcome.read_only:
            piped = query.piped(f"/dev/fd/{self.pipe}", self.request.format).encode("latin-1")
            if connection.classify(piped)[0] != "UNKNOWN":
                text = piped
        result = connection.query(text, self.request.format, params)
        self.outcome.result = result.bytes()
        self.outcome.read_rows, self.outcome.read_bytes = result.storage_rows_read(), result.storage_bytes_read()
        self.outcome.written_rows, self.outcome.written_bytes = result.rows_written(), result.bytes_written()
        self.outcome.result_rows, self.outcome.seconds = result.rows_read(), result.elapsed()


def _get_is_readonly() -> Exception:
    message = "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. You should use method POST for modifying queries"
    return failure(READONLY, "READONLY", message)


def _head(chunks: Iterator[bytes], limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while size < limit and (chunk := next(chunks, None)) is not None:
        parts.append(chunk)
        size += len(chunk)
    return b"".join(parts)


def _whole(chunks: Iterator[bytes], limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > limit:
            raise failure(229, "QUERY_IS_TOO_LARGE", f"The statement is longer than {limit} bytes")
    return b"".join(parts)
