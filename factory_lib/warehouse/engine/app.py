"""The HTTP interface: routes, answers, errors in the middle of an answer, leaving clients."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from factory_lib.warehouse.engine import request as requests
from factory_lib.warehouse.engine.compression import Compressor, accepted, compressor
from factory_lib.warehouse.engine.connection import Engine
from factory_lib.warehouse.engine.failure import Failure, failure
from factory_lib.warehouse.engine.job import Job, Outcome

logger = logging.getLogger("factory.engine")

HELD = 1 << 20  # bytes of a result kept before the first leave: an error until then has its own status, a small answer its length
THREADS = 128
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


class Interface:
    """ClickHouse's HTTP interface over one engine.

    Args:
        engine: the engine.
        token: the password.
        instance: id of this process, told by `/ping` so that a stranger on the port is noticed.
        port: where it listens.
        folder: where results asked for as a whole wait when they are large.
    """

    def __init__(self, engine: Engine, *, token: str, instance: str, port: int, folder: str) -> None:
        self._engine = engine
        self._token = token
        self._instance = instance
        self._port = port
        self._folder = folder
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="query")
        self._running: set[str] = set()
        self.in_flight = 0
        self.last_used = time.monotonic()

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(routes=[Route("/ping", _Endpoint(self._ping)), Route("/replicas_status", _Endpoint(self._ping)), Route("/", _Endpoint(self._serve))])

    async def _ping(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            requests.check_host(requests.headers(scope), self._port)
        except Failure as error:
            return await self._fail(send, error, "")
        await _answer(send, 200, {"Content-Type": "text/plain; charset=UTF-8", "X-Factory-Engine": self._instance}, b"Ok.\n")

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        query_id = ""
        try:
            found, given = requests.headers(scope), requests.arguments(scope)
            requests.check_host(found, self._port)
            if scope["method"] == "GET" and not given and "authorization" not in found and "x-clickhouse-key" not in found:
                return await _answer(send, 200, {"Content-Type": "text/html; charset=UTF-8"}, b"Ok.\n")
            requests.check_token(found, given, self._token)
            request = requests.read(scope["method"], found, given)
            query_id = request.query_id
            if query_id in self._running:
                raise failure(216, "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING", f"Query with id = {query_id} is already running")
        except Failure as error:
            return await self._fail(send, error, query_id)
        self._running.add(query_id)
        self.in_flight += 1
        try:
            await self._run(request, receive, send)
        finally:
            self._running.discard(query_id)
            self.in_flight -= 1
            self.last_used = time.monotonic()

    async def _run(self, request: requests.Request, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        read_end, write_end = os.pipe()
        job = Job(self._engine, request, _Body(receive, loop), write_end)
        work = loop.run_in_executor(self._threads, job.run)
        reader = asyncio.StreamReader(limit=HELD)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", 0))
        watch = asyncio.ensure_future(self._watch(job, receive, transport))
        try:
            await self._reply(request, job, work, reader, send)
        finally:
            watch.cancel()
            transport.close()
            if not work.done():
                if job.outcome.read_only:
                    await loop.run_in_executor(None, self._engine.kill, job.label)
                await asyncio.wait([work])
            if not work.cancelled():
                work.exception()

    async def _watch(self, job: Job, receive: Receive, transport: asyncio.ReadTransport) -> None:
        """Cancel a statement that only reads when its client leaves; one that writes runs on, as in ClickHouse."""
        body = job.body
        assert isinstance(body, _Body)
        await body.finished.wait()
        while (await receive())["type"] != "http.disconnect":
            pass
        if job.outcome.read_only:
            transport.close()
            await asyncio.get_running_loop().run_in_executor(None, self._engine.kill, job.label)

    async def _reply(self, request: requests.Request, job: Job, work: asyncio.Future[Outcome], reader: asyncio.StreamReader, send: Send) -> None:
        held = bytearray()
        spool: IO[bytes] | None = None
        while piece := await reader.read(HELD):
            held += piece
            if len(held) < HELD:
                continue
            if not request.wait:
                return await self._stream(request, job, work, reader, bytes(held), send)
            spool = spool or tempfile.TemporaryFile(dir=self._folder)
            await asyncio.get_running_loop().run_in_executor(None, spool.write, bytes(held))
            held.clear()
        try:
            outcome = await work
        except Failure as error:
            return await self._fail(send, error, request.query_id)
        if spool is None:
            return await self._whole(request, outcome, bytes(held) or outcome.result, send)
        spool.write(held)
        await self._spooled(request, outcome, spool, send)

    def _headers(self, request: requests.Request, outcome: Outcome) -> dict[str, str]:
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
            "Content-Type": _TYPES.get(outcome.format, "text/plain; charset=UTF-8"),
            "X-ClickHouse-Summary": json.dumps({name: str(value) for name, value in summary.items()}),
            "X-ClickHouse-Query-Id": request.query_id,
            "X-ClickHouse-Format": outcome.format,
            "X-ClickHouse-Timezone": self._engine.timezone,
        }

    async def _whole(self, request: requests.Request, outcome: Outcome, body: bytes, send: Send) -> None:
        answer = self._headers(request, outcome)
        encoding = accepted(request.accept) if request.compress and len(body) > 1024 else None
        if encoding:
            packer = compressor(encoding)
            body = await asyncio.get_running_loop().run_in_executor(None, lambda: packer.compress(body) + packer.flush())
            answer["Content-Encoding"] = encoding
        await _answer(send, 200, answer, body)

    async def _stream(
        self, request: requests.Request, job: Job, work: asyncio.Future[Outcome], reader: asyncio.StreamReader, first: bytes, send: Send
    ) -> None:
        tag = secrets.token_hex(8)
        body = _Outgoing(request, {**self._headers(request, job.outcome), "X-ClickHouse-Exception-Tag": tag}, send)
        await body.write(first)
        while piece := await reader.read(HELD):
            await body.write(piece)
        try:
            await work
        except Failure as error:
            # The status is out. ClickHouse's way: the message between marks, then a connection cut inside the chunked body.
            text = f"{error.text} (version {self._engine.version})\n".encode(errors="replace")
            await body.write(b"\r\n__exception__\r\n%b\r\n%b%d %b\r\n__exception__\r\n" % (tag.encode(), text, len(text), tag.encode()))
            await body.flush()
            return
        await body.finish()

    async def _spooled(self, request: requests.Request, outcome: Outcome, spool: IO[bytes], send: Send) -> None:
        body = _Outgoing(request, self._headers(request, outcome), send)
        with spool:
            spool.seek(0)
            while piece := await asyncio.get_running_loop().run_in_executor(None, spool.read, HELD):
                await body.write(piece)
        await body.finish()

    async def _fail(self, send: Send, error: Failure, query_id: str) -> None:
        answer = {"Content-Type": "text/plain; charset=UTF-8", "X-ClickHouse-Exception-Code": str(error.code)}
        if query_id:
            answer["X-ClickHouse-Query-Id"] = query_id
        if error.status == 401:
            answer["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
        await _answer(send, error.status, answer, f"{error.text} (version {self._engine.version})\n".encode(errors="replace"))


class _Endpoint:
    """An ASGI application of one coroutine (Starlette takes bare functions for request handlers)."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._call(scope, receive, send)


class _Outgoing:
    """A chunked answer, compressed where the client asked for it."""

    def __init__(self, request: requests.Request, headers: dict[str, str], send: Send) -> None:
        self._send = send
        self._headers = headers
        self._started = False
        self._packer: Compressor | None = None
        encoding = accepted(request.accept) if request.compress else None
        if encoding:
            self._packer = compressor(encoding)
            headers["Content-Encoding"] = encoding

    async def write(self, data: bytes) -> None:
        if self._packer is not None:
            data = await asyncio.get_running_loop().run_in_executor(None, self._packer.compress, data)
        if data:
            await self._out(data, True)

    async def flush(self) -> None:
        """Everything out but the end."""
        if self._packer is not None:
            await self._out(self._packer.flush(), True)

    async def finish(self) -> None:
        """The end of the answer."""
        await self._out(self._packer.flush() if self._packer is not None else b"", False)

    async def _out(self, data: bytes, more: bool) -> None:
        if not self._started:
            self._started = True
            await self._send(_start(200, self._headers))
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


class _Body(Iterator[bytes]):
    """The request's body, read by the job's thread from the event loop."""

    def __init__(self, receive: Receive, loop: asyncio.AbstractEventLoop) -> None:
        self._receive = receive
        self._loop = loop
        self._more = True
        self.finished = asyncio.Event()

    def __next__(self) -> bytes:
        if not self._more:
            raise StopIteration
        data = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
        if not data:
            raise StopIteration
        return data

    async def _next(self) -> bytes:
        """At least 256 KiB, or what is left: each hop between the threads costs 0.1 ms."""
        parts: list[bytes] = []
        size = 0
        while self._more and size < 1 << 18:
            message: MutableMapping[str, Any] = await self._receive()
            if message["type"] == "http.disconnect":
                self._more = False
                self.finished.set()
                raise failure(210, "NETWORK_ERROR", "The client left before the end of its request")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            self._more = bool(message.get("more_body", False))
        if not self._more:
            self.finished.set()
        return b"".join(parts)


def _start(status: int, headers: dict[str, str]) -> Message:
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()],
    }


async def _answer(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    await send(_start(status, {**headers, "Content-Length": str(len(body))}))
    await send({"type": "http.response.body", "body": body})
