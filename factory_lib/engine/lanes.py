"""How many statements run at once, and a reserve for short ones.

Clients that hold their streams open, or queries of minutes, must not keep `factory ls` from its answer: when all places
are taken a statement runs in the reserve, where it has ten seconds and no stream. One that only reads and needs more is
cancelled with the error of a full server; one that writes is never cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from factory_lib.engine.failure import EngineFailure, failure
from factory_lib.engine.job import Job

PLACES, RESERVE = 112, 16
SHORT_SECONDS = 10.0


class TooManyStatements(EngineFailure):
    """Too many statements run, ClickHouse's code 202."""

    def __init__(self) -> None:
        found = failure(
            202,
            "TOO_MANY_SIMULTANEOUS_QUERIES",
            f"Too many simultaneous queries: {PLACES} run or are held open by their readers, and this is no short one",
            503,
        )
        super().__init__(found.code, found.text, found.status)


class Lane:
    """A number of places for statements, a thread each.

    Args:
        places: how many.
        short: it is for short statements.
    """

    def __init__(self, places: int, *, short: bool) -> None:
        self.threads = ThreadPoolExecutor(places, thread_name_prefix="short" if short else "query")
        self.free = places
        self._short = short

    def leave(self) -> None:
        """Give a place back."""
        self.free += 1

    def check_streams(self) -> None:
        """Raises `TooManyStatements` where results may not be streamed."""
        if self._short:
            raise TooManyStatements

    async def within(self, reading: Coroutine[Any, Any, bytes], job: Job) -> bytes:
        """What is read from a statement's result.

        Raises:
            TooManyStatements: in the reserve, for one that reads for too long.
        """
        if not self._short:
            return await reading
        piece = asyncio.ensure_future(reading)
        try:
            while not piece.done():
                await asyncio.wait([piece], timeout=SHORT_SECONDS)
                if not piece.done() and job.outcome.read_only:
                    raise TooManyStatements
            return piece.result()
        finally:
            piece.cancel()


class Lanes:
    """The usual places, and the reserve. They belong to the event loop."""

    def __init__(self) -> None:
        self._usual, self._reserve = Lane(PLACES, short=False), Lane(RESERVE, short=True)

    def enter(self) -> Lane:
        """Take a place. Raises `TooManyStatements` when there is none."""
        for lane in (self._usual, self._reserve):
            if lane.free:
                lane.free -= 1
                return lane
        raise TooManyStatements
