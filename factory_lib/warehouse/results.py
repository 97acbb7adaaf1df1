"""Arrow results as they come over HTTP, and what goes wrong on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from factory_lib.errors import EngineError
from factory_lib.warehouse.values import has_binary, widened, widened_schema

_CODE = re.compile(r"Code: (\d+)\.\s*(?:DB::Exception: )?(.*)", re.DOTALL)
_SUFFIX = re.compile(r"(?:\s*\(version [^()]*(?:\([^()]*\))?\))?(?:\s*\(for url [^()]*\))?\s*$")
_MARK = b"__exception__\r\n"
_KEPT = 1 << 16


def engine_error(text: str) -> EngineError:
    """ClickHouse's message as our error: its code, and the first line."""
    match = _CODE.search(text)
    code = int(match[1]) if match else 0
    line = (match[2] if match else text).strip().splitlines()[0] if text.strip() else "unknown error"
    return EngineError(f"ClickHouse refused: {_SUFFIX.sub('', line)[:1000]}", code=code)


def open_result(response: Any) -> pa.RecordBatchReader:
    """A reader of an ArrowStream response; it owns the response and ends the query when closed or dropped.

    Raises:
        EngineError: the result broke off; with the engine's message where it sent one.
    """
    body = _Body(response)
    try:
        source = _guarded(body, lambda: pa.ipc.open_stream(pa.PythonFile(body, mode="r")))
    except BaseException:
        body.close()
        raise
    wide = has_binary(source.schema)
    schema = widened_schema(source.schema) if wide else source.schema
    return pa.RecordBatchReader.from_batches(schema, _batches(source, body, schema if wide else None))


def _batches(source: Any, body: _Body, schema: pa.Schema | None) -> Iterator[pa.RecordBatch]:
    try:
        while True:
            try:
                batch = _guarded(body, source.read_next_batch)
            except StopIteration:
                # the end of the Arrow data is not yet the end of the answer: an error may follow
                _guarded(body, body.drain)
                return
            yield batch if schema is None else widened(batch, schema)
    finally:
        body.close()


def _guarded(body: _Body, call: Any) -> Any:
    from urllib3.exceptions import HTTPError

    try:
        return call()
    except (HTTPError, OSError, pa.ArrowException) as error:
        message = body.error()
        if message:
            raise engine_error(message) from None
        raise EngineError(f"The result broke off: {type(error).__name__}.", "The engine may have been stopped; run the query again.") from None


class _Body:
    """The body of a response as a file; keeps its end, where ClickHouse puts an error that comes late."""

    closed = False

    def __init__(self, response: Any) -> None:
        self._response = response
        self._tag = response.headers.get("X-ClickHouse-Exception-Tag", "")
        self._end = b""

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._response.read(None if size < 0 else size)
        self._end = (self._end + data)[-_KEPT:] if len(data) < _KEPT else data[-_KEPT:]
        return data

    def drain(self) -> None:
        """Read what is left, so that an error in it is raised and the connection can be used again."""
        while self.read(1 << 20):
            pass
        if self.error():
            raise OSError("error after the data")

    def error(self) -> str:
        """The message that ClickHouse appended to the data, or nothing."""
        from urllib3.exceptions import HTTPError

        try:
            while self._response.read(1 << 16) and False:
                pass
            while data := self._response.read(1 << 16):
                self._end = (self._end + data)[-_KEPT:]
        except (HTTPError, OSError):
            pass
        mark = _MARK + self._tag.encode()
        if self._tag and mark in self._end:
            return self._end.rpartition(mark)[2].strip().decode(errors="replace") if self._end.count(_MARK) == 0 else self._between(mark)
        if b"DB::Exception" in self._end:
            return self._end[self._end.rfind(b"Code: ") :].decode(errors="replace")
        return ""

    def _between(self, mark: bytes) -> str:
        return self._end.partition(mark)[2].strip().decode(errors="replace")

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            # an answer read to its end gives its connection back; any other is cut, which ends the query
            self._response.release_conn() if self._response.isclosed() else self._response.close()
