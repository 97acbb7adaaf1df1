"""Work for machines that fetch their rows themselves: which rows, and how many at a time.

Whoever gives it out sees places and counts, and no rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from factory_lib.compute.pool import WorkerPool
from factory_lib.compute.processes import PackedSignals
from factory_lib.plan.sqltext import literal

PIECE_SECONDS = 10.0
"""So long a piece is to take: what goes with it (a query, an insert) is then next to nothing."""
FIRST_PIECE_ROWS = 512
CUT = 8
_FORGET = 0.8


@dataclass(frozen=True)
class ShardSpan:
    """Rows of a shard that lie one behind the other, not all of which have to be meant.

    Attributes:
        shard: the shard.
        first, last: positions, both included.
        rows: how many are meant.
    """

    shard: str
    first: int
    last: int
    rows: int


@dataclass(frozen=True)
class Piece:
    """Rows that one worker computes.

    Attributes:
        spans: where they are.
        deaths: workers that were lost with them.
    """

    spans: tuple[ShardSpan, ...]
    deaths: int = 0

    @property
    def rows(self) -> int:
        """How many they are."""
        return sum(span.rows for span in self.spans)

    @property
    def is_sample(self) -> bool:
        """Whether it is a single one."""
        return len(self.spans) == 1 and self.spans[0].first == self.spans[0].last

    @property
    def where(self) -> str:
        """SQL condition on tables with `shard` and `position`."""
        places = (f"(shard = {literal(s.shard)} AND position BETWEEN {s.first} AND {s.last})" for s in self.spans)
        return f"({' OR '.join(places)})"

    def lost(self) -> list[Piece]:
        """What is computed next when the worker that had it was lost: at the second time smaller pieces."""
        if not self.deaths or self.is_sample:
            return [replace(self, deaths=self.deaths + 1)]
        spans = self.spans if len(self.spans) > 1 else _cut(self.spans[0])
        size = -(-len(spans) // CUT)
        return [Piece(tuple(spans[start : start + size]), 1) for start in range(0, len(spans), size)]


class Sizes:
    """How many rows the next piece has: as many as take `PIECE_SECONDS`, and fewer towards the end.

    Args:
        total: rows of all pieces.
        workers: who shares them.
        least: rows that are not worth to be cut.
    """

    def __init__(self, total: int, workers: int, least: int) -> None:
        self._left, self._workers, self._least = total, workers, least
        self._rows, self._seconds = 0.0, 0.0

    def saw(self, rows: int, seconds: float) -> None:
        """A worker computed rows in so many seconds; what was long ago counts less: setting up is over."""
        self._rows = self._rows * _FORGET + rows
        self._seconds = self._seconds * _FORGET + seconds

    def next(self) -> int:
        """Rows of the next piece, at least."""
        paced = int(self._rows / max(self._seconds, 1e-3) * PIECE_SECONDS) if self._rows else FIRST_PIECE_ROWS
        return max(self._least, min(paced, self._left // (2 * self._workers)))

    def cut(self, spans: Iterable[ShardSpan]) -> Iterator[Piece]:
        """Pieces of spans, of the size that is right when each is asked for."""
        held: list[ShardSpan] = []
        for span in spans:
            held.append(span)
            if sum(one.rows for one in held) >= self.next():
                yield self._given(held)
                held = []
        if held:
            yield self._given(held)

    def _given(self, spans: list[ShardSpan]) -> Piece:
        piece = Piece(tuple(spans))
        self._left -= piece.rows
        return piece


class PieceJob(Protocol):
    """What is done with pieces, on whatever machine."""

    def compute(self, piece: Piece, signals: PackedSignals, pool: WorkerPool) -> int:
        """Compute the values of a piece that are not there yet, and write them to where they belong; how many rows.

        Args:
            signals: what is computed, by processes of the pool.

        Raises:
            FactoryError: it cannot go on.
        """

    def blame(self, piece: Piece, signals: PackedSignals, reason: str) -> None:
        """Write an error in place of the values of a piece."""


def _cut(span: ShardSpan) -> list[ShardSpan]:
    """A span as a few, the rows shared out as if they lay evenly."""
    width = span.last - span.first + 1
    size = -(-width // CUT)
    starts = range(span.first, span.last + 1, size)
    edges = [span.rows * n // len(starts) for n in range(len(starts) + 1)]
    return [
        ShardSpan(span.shard, start, min(start + size - 1, span.last), edges[n + 1] - edges[n])
        for n, start in enumerate(starts)
    ]
