"""The HTTP interface: routes, who may ask, and a statement's way from request to answer."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from factory_lib.warehouse.engine import request as requests
from factory_lib.warehouse.engine.answer import Answer, fail, plain
from factory_lib.warehouse.engine.connection import Engine
from factory_lib.warehouse.engine.failure import Failure, failure
from factory_lib.warehouse.engine.job import Job, Outcome
from factory_lib.warehouse.engine.request_body import Body

# Bytes of a result kept before the first leave: until then an error has a status of its own, an answer a known length.
_HELD = 1 << 20
_THREADS = 128


class Interface:
    """ClickHouse's HTTP interface over one engine.

    Args:
        engine: the engine.
        token: the password.
        instance: id of this process, told by `/ping` so that a stranger on the port is noticed.
        port: where it listens.
        folder: where results that are asked for as a whole wait when they are large.

    Attributes:
        in_flight: requests being served.
        last_used: when the last one ended, `time.monotonic()`.
    """

    def __init__(self, engine: Engine, *, token: str, instance: str, port: int, folder: str) -> None:
        self._engine = engine
        self._token = token
        self._instance = instance
        self._port = port
        self._folder = folder
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="query")
        self._labels: dict[str, str] = {}
        self.in_flight = 0
        self.last_used = time.monotonic()

    def app(self) -> Starlette:
        """The ASGI application."""
        paths = {"/ping": self._ping, "/replicas_status": self._ping, "/": self._serve}
        return Starlette(routes=[Route(path, _Endpoint(call)) for path, call in paths.items()])

    async def _ping(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            requests.check_host(requests.headers(scope), self._port)
        except Failure as error:
            await fail(send, error, self._engine.version)
            return
        await plain(send, 200, {"X-Factory-Engine": self._instance}, b"Ok.\n")

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        query_id = ""
        try:
            found, given = requests.headers(scope), requests.arguments(scope)
            requests.check_host(found, self._port)
            if scope["method"] in ("GET", "HEAD") and not given:
                await plain(send, 200, {}, b"Ok.\n")
                return
            requests.check_token(found, given, self._token)
            request = requests.read(scope["method"], found, given)
            query_id = request.query_id
            if query_id in self._labels:
                message = f"Query with id = {query_id} is already running"
                raise failure(216, "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING", message)
        except Failure as error:
            await fail(send, error, self._engine.version, query_id)
            return
        self.in_flight += 1
        try:
            await self._run(request, receive, Answer(request, send, self._engine.version, self._engine.timezone))
        finally:
            self._labels.pop(query_id, None)
            self.in_flight -= 1
            self.last_used = time.monotonic()

    async def _run(self, request: requests.Request, receive: Receive, answer: Answer) -> None:
        loop = asyncio.get_running_loop()
        read_end, write_end = os.pipe()
        body = Body(receive, loop)
        job = Job(self._engine, request, body, write_end, self._labels)
        self._labels[request.query_id] = job.label
        reader = asyncio.StreamReader(limit=_HELD)
        pipe = os.fdopen(read_end, "rb", 0)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        work = loop.run_in_executor(self._threads, job.run)
        watch = asyncio.ensure_future(self._cancel_when_left(body, job, work, transport))
        try:
            await self._reply(request, job, work, reader, answer)
        finally:
            watch.cancel()
            transport.close()
            await self._cancel(job, work)

    async def _cancel_when_left(
        self, body: Body, job: Job, work: asyncio.Future[Outcome], transport: asyncio.ReadTransport
    ) -> None:
        await body.left()
        transport.close()
        await self._cancel(job, work)

    async def _cancel(self, job: Job, work: asyncio.Future[Outcome]) -> None:
        """Wait for the statement; one that only reads is cancelled, one that writes runs on, as in ClickHouse.

        It may not have begun yet when it is to be cancelled, hence again and again.
        """
        while not work.done():
            if job.outcome.read_only:
                await asyncio.to_thread(self._engine.kill, job.label)
            await asyncio.wait([work], timeout=0.2)
        work.exception()

    async def _reply(
        self,
        request: requests.Request,
        job: Job,
        work: asyncio.Future[Outcome],
        reader: asyncio.StreamReader,
        answer: Answer,
    ) -> None:
        held = bytearray()
        spool: IO[bytes] | None = None
        while piece := await reader.read(_HELD):
            held += piece
            if len(held) < _HELD:
                continue
            if not request.wait:
                await self._stream(job, work, reader, bytes(held), answer)
                return
            if spool is None:
                spool = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - most answers need none
            await asyncio.to_thread(spool.write, bytes(held))
            held.clear()
        try:
            outcome = await work
        except Failure as error:
            await answer.failed(error)
            return
        if spool is None:
            await answer.whole(outcome, bytes(held) or outcome.result)
            return
        with spool:
            spool.write(held)
            spool.seek(0)
            await answer.begin(outcome)
            while piece := await asyncio.to_thread(spool.read, _HELD):
                await answer.chunk(piece)
        await answer.end()

    async def _stream(
        self, job: Job, work: asyncio.Future[Outcome], reader: asyncio.StreamReader, first: bytes, answer: Answer
    ) -> None:
        await answer.begin(job.outcome)
        await answer.chunk(first)
        while piece := await reader.read(_HELD):
            await answer.chunk(piece)
        try:
            await work
        except Failure as error:
            await answer.broken(error)
            return
        await answer.end()


class _Endpoint:
    """A coroutine as an ASGI application (Starlette takes bare functions for handlers of its own request objects)."""

    def __init__(self, call: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._call(scope, receive, send)
