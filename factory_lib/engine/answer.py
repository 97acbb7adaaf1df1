"""Answers: whole ones in one go, long ones in chunks, and errors before and after the first chunk."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping

from starlette.types import Message, Send

from factory_lib.engine.compression import Compressor, accepted, compressor
from factory_lib.engine.failure import EngineFailure
from factory_lib.engine.job import StatementOutcome
from factory_lib.engine.request import StatementRequest

_TEXT = "text/plain; charset=UTF-8"
_TYPES = {
    "Arrow": "application/vnd.apache.arrow.file",
    "ArrowStream": "application/vnd.apache.arrow.stream",
    "Parquet": "application/octet-stream",
    "Native": "application/octet-stream",
    "RowBinary": "application/octet-stream",
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
}
_COMPRESSED_FROM = 1024  # shorter answers fit one packet anyway


class Answer:
    """The answer to one request.

    Args:
        request: the request.
        send: where it goes.
        version: ClickHouse's version, shown in errors.
        timezone: the engine's time zone.
    """

    def __init__(self, request: StatementRequest, send: Send, version: str, timezone: str) -> None:
        self._request = request
        self._send = send
        self._version = version
        self._timezone = timezone
        self._tag = secrets.token_hex(8)
        self._encoding = accepted(request.accept) if request.compress else None
        self._packer: Compressor | None = None

    async def whole(self, outcome: StatementOutcome, body: bytes) -> None:
        """A complete answer of known length."""
        found = self._headers(outcome)
        if self._encoding and len(body) >= _COMPRESSED_FROM:
            packer = compressor(self._encoding)
            body = await asyncio.to_thread(lambda: packer.compress(body) + packer.flush())
            found["Content-Encoding"] = self._encoding
        await plain(self._send, 200, found, body)

    async def begin(self, outcome: StatementOutcome) -> None:
        """The head of an answer in chunks."""
        found = {**self._headers(outcome), "X-ClickHouse-Exception-Tag": self._tag}
        if self._encoding:
            self._packer = compressor(self._encoding)
            found["Content-Encoding"] = self._encoding
        await self._send(_start(200, found))

    async def chunk(self, data: bytes) -> None:
        """A piece of it; returns when the client has taken enough of those before."""
        if self._packer is not None:
            data = await asyncio.to_thread(self._packer.compress, data)
        if data:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """The end of it."""
        rest = self._packer.flush() if self._packer is not None else b""
        await self._send({"type": "http.response.body", "body": rest, "more_body": False})

    async def broken(self, error: EngineFailure) -> None:
        """An error after the status has left: ClickHouse's message between marks, and no end: the connection is cut."""
        text, tag = _message(error, self._version), self._tag.encode()
        await self.chunk(b"\r\n__exception__\r\n%b\r\n%b%d %b\r\n__exception__\r\n" % (tag, text, len(text), tag))
        if self._packer is not None:
            await self._send({"type": "http.response.body", "body": self._packer.flush(), "more_body": True})

    async def failed(self, error: EngineFailure) -> None:
        """An error instead of an answer."""
        await fail(self._send, error, self._version, self._request.query_id)

    def _headers(self, outcome: StatementOutcome) -> dict[str, str]:
        summary = {
            "read_rows": outcome.read_rows,
            "read_bytes": outcome.read_bytes,
            "written_rows": outcome.written_rows,
            "written_bytes": outcome.written_bytes,
            "total_rows_to_read": 0,
            "result_rows": outcome.result_rows,
            "result_bytes": 0,
            "elapsed_ns": int(outcome.seconds * 1e9),
        }
        return {
            "Content-Type": _TYPES.get(outcome.format, _TEXT),
            "X-ClickHouse-Summary": json.dumps({name: str(value) for name, value in summary.items()}),
            "X-ClickHouse-Query-Id": self._request.query_id,
            "X-ClickHouse-Format": outcome.format,
            "X-ClickHouse-Timezone": self._timezone,
        }


async def plain(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """A short answer."""
    await send(_start(status, {"Content-Type": _TEXT, **headers, "Content-Length": str(len(body))}))
    await send({"type": "http.response.body", "body": body})


async def fail(send: Send, error: EngineFailure, version: str, query_id: str = "") -> None:
    """An error as ClickHouse sends it: its status, its code in a header, its text."""
    found = {"X-ClickHouse-Exception-Code": str(error.code)}
    if query_id:
        found["X-ClickHouse-Query-Id"] = query_id
    if error.status == 401:
        found["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
    await plain(send, error.status, found, _message(error, version))


def _message(error: EngineFailure, version: str) -> bytes:
    return f"{error.text} (version {version})\n".encode(errors="replace")


def _start(status: int, headers: Mapping[str, str]) -> Message:
    listed = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": listed}
