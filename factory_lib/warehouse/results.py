"""Arrow results as they come over HTTP, and what goes wrong on the way."""

from __future__ import annotations

import logging
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from factory_lib.errors import DiskFull, EngineError, EngineUnreachable
from factory_lib.warehouse.bfloat16 import has_binary, widened, widened_schema
from factory_lib.warehouse.valid_text import valid_batch

logger = logging.getLogger(__name__)

_CODE = re.compile(r"Code: (\d+)\.\s*(?:DB::Exception: )?(.*)", re.DOTALL)
_NO_SPACE = re.compile(r"Code: 243\b|No space left on device")
_SUFFIX = re.compile(r"(?:\s?\(version [^()]*(?:\([^()]*\))?\))?(?:\s?\(for url [^()]*\))?$")
_HINTS = {
    194: "Give user and password in FACTORY_CLICKHOUSE_URL.",
    516: "Check user and password in FACTORY_CLICKHOUSE_URL.",
    241: "The query needs more memory than the engine may use: restrict it, or raise the setting max_memory_usage.",
    202: "Others keep all its places: end what reads without need, or try again.",
    243: "Its disk is full: SELECT name, path, free_space FROM system.disks.",
}
_MARK = b"__exception__\r\n"
_KEPT = 1 << 16  # an appended error is at most 16 KiB
_PIECE = 1 << 20
_NOT_SENT = {"NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ConnectionRefusedError"}


class ConnectionLost(EngineUnreachable):
    """The connection failed.

    Args:
        sent: whether the statement may have reached the engine.
    """

    def __init__(self, message: str, hint: str = "", *, sent: bool) -> None:
        self.sent = sent
        super().__init__(message, hint)


def engine_error(text: str) -> EngineError:
    """ClickHouse's message as our error: its code, and the first line."""
    match = _CODE.search(text)
    code = int(match[1]) if match else 0
    line = next(iter((match[2] if match else text).strip().splitlines()), "no message")
    if _NO_SPACE.search(text):
        return DiskFull(f"ClickHouse refused: {_SUFFIX.sub('', line.rstrip())[:2000]}", _HINTS[243], code=243)
    return EngineError(f"ClickHouse refused: {_SUFFIX.sub('', line.rstrip())[:2000]}", _HINTS.get(code, ""), code=code)


def open_result(body: ResultBody) -> pa.RecordBatchReader:
    """A reader of an ArrowStream response. It owns the response: dropped before the end, it ends the query.

    Args:
        body: not read yet.

    Raises:
        EngineError: the result broke off; with the engine's message where it sent one.
    """
    try:
        source = _guarded(body, lambda: pa.ipc.open_stream(pa.PythonFile(body, mode="r")))
    except BaseException:
        body.close()
        raise
    if not has_binary(source.schema):
        return pa.RecordBatchReader.from_batches(source.schema, _batches(source, body))
    schema = widened_schema(source.schema)
    return pa.RecordBatchReader.from_batches(schema, (widened(batch, schema) for batch in _batches(source, body)))


def _batches(source: Any, body: ResultBody) -> Iterator[pa.RecordBatch]:
    wrong: Counter[str] = Counter()
    try:
        while True:
            try:
                batch = _guarded(body, source.read_next_batch)
            except StopIteration:
                # the end of the Arrow data is not yet the end of the answer: an error may follow
                _guarded(body, body.finish)
                return
            # what older versions and other writers stored may be no text, and must not end who reads it
            valid, counts = valid_batch(batch)
            wrong.update(counts)
            yield valid
    finally:
        body.close()
        for column, count in wrong.items():
            logger.warning(
                "%s: %s values are no text and were read with U+FFFD in them; hex(%s) has their bytes.",
                column,
                f"{count:,}",
                column,
            )


def _guarded(body: ResultBody, call: Callable[[], Any]) -> Any:
    from urllib3.exceptions import HTTPError

    try:
        return call()
    except (HTTPError, OSError, pa.ArrowException) as error:
        message = body.message()
        if message:
            raise engine_error(message) from None
        hint = "The engine may have been stopped; run the query again."
        raise ConnectionLost(f"The result broke off ({type(error).__name__}).", hint, sent=True) from None


class ResultBody:
    """The body of a response as a file; keeps its end, where ClickHouse puts an error that comes late.

    Args:
        response: urllib3's, not read yet.
    """

    closed = False

    def __init__(self, response: Any) -> None:
        self._response = response
        # HTTP chunk by chunk: urllib3's read(n) throws away what it has when the connection breaks before n bytes
        self._chunks: Iterator[bytes] = response.stream(_PIECE)
        self._rest = memoryview(b"")
        self._tag = response.headers.get("X-ClickHouse-Exception-Tag", "").encode()
        self._end = b""

    def read(self, size: int = -1) -> bytes:
        parts: list[memoryview] = []
        missing = sys.maxsize if size < 0 else size
        while missing and (self._rest or self._fill()):
            part, self._rest = self._rest[:missing], self._rest[missing:]
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _fill(self) -> bool:
        chunk = next(self._chunks, b"")
        self._rest = memoryview(chunk)
        self._end = chunk[-_KEPT:] if len(chunk) >= _KEPT else (self._end + chunk)[-_KEPT:]
        return bool(chunk)

    def whole_chunks(self) -> Iterator[bytes]:
        """The body as it comes.

        Raises:
            EngineError: it broke off, or ends in an error.
        """
        while chunk := _guarded(self, lambda: self.read(_PIECE)):
            yield chunk
        if message := self.message():
            raise engine_error(message)

    def finish(self) -> None:
        """Read to the end, so that the connection can be used again; an error there is raised."""
        if self.read():
            raise OSError("something follows the Arrow data")

    def message(self) -> str:
        """The message that ClickHouse appended to the data, or nothing."""
        from urllib3.exceptions import HTTPError

        try:
            while self.read(_KEPT):
                pass
        except (HTTPError, OSError):
            pass
        _, found, rest = self._end.partition(_MARK + self._tag)
        if self._tag and found:
            return rest.strip().decode(errors="replace")
        # servers before 25.11 append the message without marks
        begin = self._end.rfind(b"Code: ")
        return (
            self._end[begin:].decode(errors="replace") if begin >= 0 and b"DB::Exception" in self._end[begin:] else ""
        )

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """Give the connection back after a whole answer; cut it otherwise, which ends the query."""
        if not self.closed:
            self.closed = True
            self._response.close()
            self._response.release_conn()


def translated(error: Exception, where: str) -> EngineError:
    """The engine's own error with its code, or how the way to it failed.

    Args:
        error: from clickhouse-connect.
        where: the engine, for the message ("The ClickHouse server at …").
    """
    text = str(error)
    if "The engine is stopping: the statement was not begun" in text:
        return ConnectionLost(f"{where} is stopping.", "Try again.", sent=False)
    if "Code: " in text and "DB::Exception" in text:
        return engine_error(text)
    names = set()
    cause: BaseException | None = error
    while cause is not None:
        names.add(type(cause).__name__)
        cause = cause.__cause__  # not the context: what a caller was handling says nothing of this call
    if names & _NOT_SENT:
        return ConnectionLost(f"{where} cannot be reached.", "Is it running, and is the address right?", sent=False)
    if "OperationalError" in names:
        return ConnectionLost(f"{where} closed the connection before it answered.", "See its log.", sent=True)
    return EngineError(f"{where}: {next(iter(text.splitlines()), type(error).__name__)[:500]}")
