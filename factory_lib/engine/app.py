"""The HTTP interface: routes, who may ask, and a statement's way from request to answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import IO

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from factory_lib.engine import request as requests
from factory_lib.engine.answer import Answer, fail, plain
from factory_lib.engine.connection import Engine
from factory_lib.engine.failure import EngineFailure, failure
from factory_lib.engine.job import Job, StatementOutcome
from factory_lib.engine.lanes import Lane, Lanes, TooManyStatements
from factory_lib.engine.request import RequestBody

logger = logging.getLogger("factory.engine")

STOPPING = "The engine is stopping: the statement was not begun"
"""What the error says that a client may take for 'start another one'."""

# Bytes of a result kept before the first leave: until then an error has a status of its own, an answer a known length.
_HELD = 1 << 20


class Interface:
    """ClickHouse's HTTP interface over one engine.

    Args:
        engine: the engine.
        token: the password.
        instance: id of this process, told by `/ping` so that a stranger on the port is noticed.
        port: where it listens.
        folder: where results that are asked for as a whole wait when they are large.
        here: whether the data folder is still where the engine looks for it; asked before each statement.

    Attributes:
        closing: set once the engine is to stop: no statement begins any more.
        in_flight: requests being served.
        last_used: when the last one ended, `time.monotonic()`.
    """

    def __init__(
        self, engine: Engine, *, token: str, instance: str, port: int, folder: str, here: Callable[[], bool]
    ) -> None:
        self._engine = engine
        self._token = token
        self._instance = instance
        self._port = port
        self._folder = folder
        self._here = here
        self._lanes = Lanes()
        self.closing = asyncio.Event()
        self._labels: dict[str, str] = {}
        self.in_flight = 0
        self.last_used = time.monotonic()

    def app(self) -> Starlette:
        """The ASGI application."""
        paths = {"/ping": self._ping, "/replicas_status": self._ping, "/": self._serve}
        return Starlette(routes=[Route(path, _Endpoint(call)) for path, call in paths.items()])

    def close_if_idle(self, seconds: float) -> bool:
        """Begin to refuse statements, unless one runs or ran within so many seconds; whether statements are refused.

        It belongs to the event loop, as all that begins statements does: none begins while this decides.
        """
        if not self.in_flight and time.monotonic() - self.last_used >= seconds:
            self.closing.set()
        return self.closing.is_set()

    def _check_open(self) -> None:
        if not self.closing.is_set() and not self._here():
            logger.warning("the data folder was moved or removed, stopping")
            self.closing.set()
        if self.closing.is_set():
            raise failure(236, "ABORTED", STOPPING)

    async def _ping(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            requests.check_host(requests.headers(scope), self._port)
            self._check_open()
        except EngineFailure as error:
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
            self._check_open()
            lane = self._lanes.enter()
        except EngineFailure as error:
            await fail(send, error, self._engine.version, query_id)
            return
        self.in_flight += 1
        try:
            await self._run(request, receive, Answer(request, send, self._engine.version, self._engine.timezone), lane)
        finally:
            lane.leave()
            self._labels.pop(query_id, None)
            self.in_flight -= 1
            self.last_used = time.monotonic()

    async def _run(self, request: requests.StatementRequest, receive: Receive, answer: Answer, lane: Lane) -> None:
        loop = asyncio.get_running_loop()
        read_end, write_end = os.pipe()
        body = RequestBody(receive, loop)
        job = Job(self._engine, request, body, write_end, self._labels)
        self._labels[request.query_id] = job.label
        reader = asyncio.StreamReader(limit=_HELD)
        pipe = os.fdopen(read_end, "rb", 0)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        work = loop.run_in_executor(lane.threads, job.run)
        watch = asyncio.ensure_future(self._cancel_when_left(body, job, work, transport))
        try:
            await self._reply(request, job, work, reader, answer, lane)
        except TooManyStatements as error:
            await answer.failed(error)
        finally:
            watch.cancel()
            transport.close()
            await self._cancel(job, work)

    async def _cancel_when_left(
        self, body: RequestBody, job: Job, work: asyncio.Future[StatementOutcome], transport: asyncio.ReadTransport
    ) -> None:
        await body.left()
        transport.close()
        await self._cancel(job, work)

    async def _cancel(self, job: Job, work: asyncio.Future[StatementOutcome]) -> None:
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
        request: requests.StatementRequest,
        job: Job,
        work: asyncio.Future[StatementOutcome],
        reader: asyncio.StreamReader,
        answer: Answer,
        lane: Lane,
    ) -> None:
        held = bytearray()
        spool: IO[bytes] | None = None
        while piece := await lane.within(reader.read(_HELD), job):
            held += piece
            if len(held) < _HELD:
                continue
            if not request.wait:
                lane.check_streams()
                await self._stream(job, work, reader, bytes(held), answer)
                return
            if spool is None:
                spool = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - most answers need none
            await asyncio.to_thread(spool.write, bytes(held))
            held.clear()
        try:
            outcome = await work
        except EngineFailure as error:
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
        self,
        job: Job,
        work: asyncio.Future[StatementOutcome],
        reader: asyncio.StreamReader,
        first: bytes,
        answer: Answer,
    ) -> None:
        await answer.begin(job.outcome)
        await answer.chunk(first)
        while piece := await reader.read(_HELD):
            await answer.chunk(piece)
        try:
            await work
        except EngineFailure as error:
            await answer.broken(error)
            return
        await answer.end()


class _Endpoint:
    """A coroutine as an ASGI application (Starlette takes bare functions for handlers of its own request objects)."""

    def __init__(self, call: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._call(scope, receive, send)
        except Exception as error:
            # One line: a traceback for each bad request fills the disk. Raised on, it would be printed, too.
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {error}"[:300]
            logger.error("a request failed in %s, line %s: %s", where.filename, where.lineno, text)
            with contextlib.suppress(RuntimeError):  # the head of the answer has left
                await plain(send, 500, {}, b"The engine failed to serve this request; its log says where.\n")
