"""A request's body, read from the event loop by the thread that runs its statement."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from starlette.types import Message, Receive

from factory_lib.engine.failure import failure

_PIECE = 1 << 18  # each hop between thread and loop costs 0.1 ms, so small pieces are gathered


class RequestBody(Iterator[bytes]):
    """The body as it arrives. Asking for the next piece is what lets the client send on.

    Args:
        receive: the request's messages.
        loop: the loop that `receive` belongs to.
    """

    def __init__(self, receive: Receive, loop: asyncio.AbstractEventLoop) -> None:
        self._receive = receive
        self._loop = loop
        self._more = True
        self._finished = asyncio.Event()

    def __next__(self) -> bytes:
        if not self._more:
            raise StopIteration
        data = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
        if not data:
            raise StopIteration
        return data

    async def left(self) -> None:
        """Return when the client has left; only its whole body having been read can show that."""
        await self._finished.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while self._more and size < _PIECE:
            message: Message = await self._receive()
            if message["type"] == "http.disconnect":
                self._more = False
                raise failure(210, "NETWORK_ERROR", "The client left before the end of its request")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            self._more = bool(message.get("more_body", False))
        if not self._more:
            self._finished.set()
        return b"".join(parts)
