"""One statement, run in a thread: from the body as it arrives to the result in a pipe."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from factory_lib.engine.compression import decompress
from factory_lib.engine.connection import Connection, Engine, quote
from factory_lib.engine.failure import EngineFailure, failure
from factory_lib.engine.request import StatementRequest, form_fields
from factory_lib.engine.statement import Insert, Query, parse
from factory_lib.errors import DiskFull
from factory_lib.plan.sqltokens import tokens
from factory_lib.warehouse.space import FREEING, check_space, give_up_reserve

_HEAD = 1 << 18  # an INSERT must come to its data within 256 KiB, as in ClickHouse (max_query_size)
_TEXT = 1 << 26  # longest statement without inline data, 64 MiB
_FREEING = frozenset({"DROP", "TRUNCATE", "DETACH", "KILL", "SET", "USE", "SYSTEM", "EXPLAIN"})
_INPUT = re.compile(rb"\bFROM\s+input\s*\(", re.IGNORECASE)
_NOT_KEPT = frozenset({"system", "information_schema"})
_QUERY_ID = re.compile(r"\bquery_id\s*=\s*'([^'\\]*)'", re.IGNORECASE)


@dataclass
class StatementOutcome:
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
        body: the body as it arrives.
        pipe: write end of the pipe for the result; the job closes it.
        running: labels of the running statements by query id, for KILL QUERY.

    Attributes:
        label: what the statement carries as its `log_comment`, by which it is found among the running ones.
        outcome: filled while it runs.
    """

    engine: Engine
    request: StatementRequest
    body: Iterator[bytes]
    pipe: int
    running: Mapping[str, str]
    outcome: StatementOutcome = field(init=False)
    label: str = field(init=False)

    def __post_init__(self) -> None:
        self.outcome = StatementOutcome(self.request.format)
        self.label = f"{self.request.settings.get('log_comment', '')} {self.request.query_id}".strip()

    def run(self) -> StatementOutcome:
        """Run to the end. Raises `EngineFailure`."""
        try:
            with self._connection() as connection:
                if self.request.database and (self.request.database != "default" or self.request.session_id):
                    connection.use(self.request.database)
                self._run(connection)
            return self.outcome
        finally:
            os.close(self.pipe)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Connection]:
        request, settings = self.request, {**self.request.settings, "log_comment": self.label}
        if not request.session_id:
            with contextlib.closing(self.engine.connection(settings)) as connection:
                yield connection
            return
        with (
            self.engine.session(request.session_id, request.session_timeout, request.session_check) as connection,
            connection.temporarily(settings),
        ):
            yield connection

    def _run(self, connection: Connection) -> None:
        chunks = decompress(self.body, self.request.content_encoding)
        query, params = self.request.query, dict(self.request.params)
        if self.request.content_type.startswith("multipart/form-data"):
            fields = form_fields(_whole(chunks, _TEXT), self.request.content_type)
            query = fields.pop("query", query)
            params.update({name[6:]: value for name, value in fields.items() if name.startswith("param_")})
            connection.set({name: value for name, value in fields.items() if not name.startswith("param_")})
            chunks = iter(())
        # surrogateescape carries bytes of the query string that are no UTF-8
        text = (query + "\n" if query else "").encode("utf-8", "surrogateescape") + _head(chunks, _HEAD)
        found = parse(text.decode("latin-1"))
        if isinstance(found, Insert):
            self._insert(connection, found, itertools.chain([text[found.data :]], chunks), params)
            return
        text += _whole(chunks, _TEXT)
        found = parse(text.decode("latin-1"))
        if isinstance(found, Insert):
            raise failure(62, "SYNTAX_ERROR", f"The data of an INSERT must begin in the first {_HEAD} bytes")
        self._query(connection, found, text, params)

    def _insert(self, connection: Connection, insert: Insert, data: Iterator[bytes], params: dict[str, str]) -> None:
        if self.request.method == "GET":
            raise _get_is_readonly()
        self._check_space()
        connection.set({f"param_{name}": value for name, value in params.items()})
        written = connection.insert(insert, data, lambda: self.engine.kill(self.label))
        self.outcome.written_rows, self.outcome.written_bytes = written

    def _query(self, connection: Connection, query: Query, text: bytes, params: dict[str, str]) -> None:
        if not query.keyword:
            raise failure(62, "SYNTAX_ERROR", "Empty query")
        kind, statements = connection.classify(text)
        if statements > 1:
            raise failure(62, "SYNTAX_ERROR", "Multi-statements are not allowed")
        if query.keyword == "INSERT" and _INPUT.search(text):
            # chDB would insert nothing, and say nothing
            message = "INSERT … SELECT … FROM input() is not supported, insert into a Memory table and select from it"
            raise failure(48, "NOT_IMPLEMENTED", message)
        if query.into_outfile:
            raise failure(358, "INTO_OUTFILE_NOT_ALLOWED", "INTO OUTFILE is not allowed")
        if self.request.method == "GET" and kind not in ("READ_ONLY", "UNKNOWN"):
            raise _get_is_readonly()
        if kind != "READ_ONLY" and query.keyword not in _FREEING:
            self._check_space()
        if query.keyword in ("CREATE", "ATTACH"):
            _check_kept(connection, text, params)
        outcome = self.outcome
        outcome.format = query.format or self.request.format
        outcome.read_only = kind == "READ_ONLY"
        if outcome.read_only:
            piped = query.piped(f"/dev/fd/{self.pipe}", self.request.format).encode("latin-1")
            # what the grammar does not let write elsewhere (VALUES …, an EXPLAIN of an INSERT) is small
            text = piped if connection.classify(piped)[0] != "UNKNOWN" else text
        elif query.keyword == "KILL":
            text = self._by_label(text)
        result = connection.query(text, self.request.format, params)
        outcome.result = result.bytes()
        outcome.read_rows, outcome.read_bytes = result.storage_rows_read(), result.storage_bytes_read()
        outcome.written_rows, outcome.written_bytes = result.rows_written(), result.bytes_written()
        outcome.result_rows, outcome.seconds = result.rows_read(), result.elapsed()

    def _check_space(self) -> None:
        """Refuse what fills the disk before it is full: ClickHouse would wait for room, without a word, for ever."""
        folder = self.engine.folder
        if FREEING.items() <= self.request.settings.items():
            give_up_reserve(folder.parent)
            return
        try:
            check_space(folder)
        except DiskFull as error:
            raise failure(243, "NOT_ENOUGH_SPACE", str(error)) from None

    def _by_label(self, text: bytes) -> bytes:
        """KILL QUERY WHERE query_id = '…' with the ids that clients gave: chDB gives its own, so they go by label."""

        def label(match: re.Match[str]) -> str:
            found = self.running.get(match[1])
            return match[0] if found is None else f"Settings['log_comment'] = {quote(found)}"

        return _QUERY_ID.sub(label, text.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def _check_kept(connection: Connection, text: bytes, params: dict[str, str]) -> None:
    """Refuse to make a table in a database that the engine makes anew at each start: its tables are gone by then.

    A name without a database is one of the current database.
    """
    words = [token.keyword for token in itertools.islice(tokens(text.decode("latin-1")), 4)]
    if "TEMPORARY" in words[1:2] + words[3:4]:  # CREATE [OR REPLACE] TEMPORARY
        return
    tree = connection.query(b"EXPLAIN AST " + text, params=params).bytes().decode("utf-8", "replace").split("\n")
    if not tree[0].startswith("CreateQuery ") or "  (children" in tree[0]:  # a function, or a database
        return
    names = [line.strip().removeprefix("Identifier ") for line in itertools.takewhile(_names, tree[1:])]
    current = [] if len(names) > 1 else [connection.query("SELECT currentDatabase()").bytes().decode().rstrip("\n")]
    database, name = [*current, *names][:2]
    if database.lower() not in _NOT_KEPT:
        return
    there = f"SELECT count() FROM system.tables WHERE database = {quote(database)} AND name = {quote(name)}"
    if not int(connection.query(there).bytes()):  # then nothing would be made
        where = "without a database" if current else f"in {database}"
        message = f"A table {where} would be gone when the engine starts again, name its own: CREATE TABLE laion.{name}"
        raise failure(81, "UNKNOWN_DATABASE", message)


def _names(line: str) -> bool:
    return line.startswith(" Identifier ")


def _get_is_readonly() -> EngineFailure:
    message = "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly."
    return failure(164, "READONLY", f"{message} You should use method POST for modifying queries")


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
