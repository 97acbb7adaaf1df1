"""Pieces over the workers of a Ray cluster, and what becomes of them when nodes go.

Each worker has a piece that it computes and one that waits. A worker that is lost costs what it had not written yet:
its pieces go to others, who compute what is not there. A piece that workers are lost with again and again is cut, down
to single samples; one of these that takes two workers with it gets an error in place of a value.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from factory_lib.compute.cluster.connection import check_reach, connected, losses, workers_on
from factory_lib.compute.cluster.pieces import Piece, PieceJob, Sizes
from factory_lib.compute.cluster.staff import HiredWorker, Staff
from factory_lib.compute.cluster.worker import Computed, Greeting
from factory_lib.compute.processes import PackedSignals
from factory_lib.errors import FactoryError, SignalError
from factory_lib.progress import Tracked

PIECES_AHEAD = 2
MAX_LOST = 20
MAX_LOST_UNREADY = 3
"""So many workers lost without a piece done between them end the run, and so many before any was ready."""

_POLL_SECONDS = 1.0
_log = logging.getLogger(__name__)


@dataclass
class NodeShare:
    """What a node has done: samples, since its first worker was ready."""

    rows: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long it has been at it."""
        return max(time.monotonic() - self.began, 1e-3)

    @property
    def speed(self) -> float:
        """Samples in a second."""
        return self.rows / self.seconds


class Spreading:
    """A computation on the Ray cluster that the settings name.

    Args:
        signals: what is computed.
        rows: how many there are to compute.
        least: rows that are not worth to be cut.
        progress: is told of what is done.

    Raises:
        ExecutorError: there is no cluster that fits.
        EngineError: nodes cannot reach the warehouse.
    """

    def __init__(self, signals: PackedSignals, rows: int, least: int, progress: Tracked) -> None:
        self._ray = connected()
        needs = signals.resources
        greeting = Greeting.here()
        check_reach(self._ray, greeting)
        self._size = min(workers_on(self._ray, needs), -(-rows // least))
        self._staff = Staff(self._ray, greeting, needs)
        self._losses = losses(self._ray)
        self._progress = progress
        self.sizes = Sizes(rows, self._size, least)
        self.nodes = {worker.node: NodeShare() for worker in self._staff.workers}
        self._signals, self._shared = signals, self._ray.put(signals.for_elsewhere())
        self._jobs: dict[int, tuple[PieceJob, Any]] = {}
        self._added = 0
        self._again: deque[tuple[int, Piece]] = deque()
        self._lost = 0

    def add(self, job: PieceJob) -> int:
        """Put a job where workers find it; its number."""
        self._added += 1
        self._jobs[self._added] = job, self._ray.put(job)
        return self._added

    @property
    def workers(self) -> int:
        """How many compute at once."""
        return self._size

    def results(self, pieces: Iterator[tuple[int, Piece]]) -> Generator[Piece]:
        """Pieces as they are done.

        Args:
            pieces: numbers of jobs and rows of them; taken as workers get free.

        Raises:
            FactoryError: what a worker met, with the node that it happened on.
        """
        try:
            while True:
                self._staff.hire(self._size)
                self._feed(pieces)
                if not any(worker.flying for worker in self._staff.workers) and self._is_over(pieces):
                    break
                yield from self._hear()
            self._staff.keep()
        finally:
            self._staff.dismiss_all()
        for node, share in sorted(self.nodes.items()):
            _log.info("Ray node %s: %s samples, %.0f/s", node, f"{share.rows:,}", share.speed)

    def _is_over(self, pieces: Iterator[tuple[int, Piece]]) -> bool:
        """Whether no piece is left, now that no worker is at one; one that is gets first in line."""
        if not self._again and (one := next(pieces, None)) is not None:
            self._again.append(one)
        return not self._again

    def _feed(self, pieces: Iterator[tuple[int, Piece]]) -> None:
        """Pieces for the workers that are there: one for each before a second for any, and that when all are there."""
        ahead = PIECES_AHEAD if all(worker.node for worker in self._staff.workers) else 1
        for most in range(1, ahead + 1):
            for worker in self._staff.workers:
                if worker.node and len(worker.flying) < most:
                    one = self._again.popleft() if self._again else next(pieces, None)
                    if one is None:
                        return
                    worker.flying[self._begin(worker, *one)] = one

    def _begin(self, worker: HiredWorker, number: int, piece: Piece) -> Any:
        return worker.actor.compute.remote([self._shared, self._jobs[number][1]], piece)

    def _hear(self) -> Iterator[Piece]:
        """What workers answer, after a while without an answer nothing."""
        owed = {answer: worker for worker in self._staff.workers for answer in worker.owed}
        ready, _ = self._ray.wait(list(owed), num_returns=1, timeout=_POLL_SECONDS)
        for answer in ready:
            yield from self._take(owed[answer], answer)
        self._tell()

    def _take(self, worker: HiredWorker, answer: Any) -> Iterator[Piece]:
        try:
            found = self._ray.get(answer)
        except self._losses as error:
            yield from self._bury(worker, error)
            return
        except Exception as error:
            raise _told(error, worker.node) from None
        if not isinstance(found, Computed):
            worker.node = found
            self.nodes.setdefault(found, NodeShare())
            return
        self._lost = 0
        number, piece = worker.flying.pop(answer)
        self._forget(number)
        self.sizes.saw(found.rows, found.seconds)
        self.nodes[worker.node].rows += found.rows
        self._progress.advance(piece.rows)
        yield piece

    def _forget(self, done: int) -> None:
        """Let go of the jobs of which nothing is left: pieces come in the order of their jobs."""
        flying = (number for worker in self._staff.workers for number, _ in worker.flying.values())
        oldest = min([done, *flying, *(number for number, _ in self._again)])
        for number in [number for number in self._jobs if number < oldest]:
            del self._jobs[number]

    def _bury(self, worker: HiredWorker, error: Exception) -> Iterator[Piece]:
        """A worker was lost: what it was at is tried again, in smaller pieces where it is not the first time."""
        _log.warning("A Ray worker on %s was lost: %s", worker.node or "a node", _first_line(error))
        self._lost += 1
        if self._lost > (MAX_LOST if self.nodes else MAX_LOST_UNREADY):
            raise SignalError(
                f"{self._lost} Ray workers were lost, one after the other: {_first_line(error)}",
                "Do they have memory enough? @signal(memory=…) says how much one takes.",
            )
        owed = deque(self._staff.dismiss(worker).values())
        if not owed:
            return
        number, piece = owed.popleft()
        self._again.extend(owed)
        for one in piece.lost():
            if one.is_sample and one.deaths > 1:
                reason = f"WorkerDied: the Ray worker computing it was lost: {_first_line(error)}"
                self._jobs[number][0].blame(one, self._signals, reason)
                self._progress.advance(one.rows)
                yield one
            else:
                self._again.appendleft((number, one))

    def _tell(self) -> None:
        """Say how far each node is."""
        ready = sum(bool(worker.node) for worker in self._staff.workers)
        coming = f"{ready} of {self._size} workers; " if ready < self._size else ""
        shares = (f"{node} {share.speed:,.0f}/s" for node, share in sorted(self.nodes.items()))
        self._progress.describe(coming + ", ".join(shares))


def _told(error: Exception, node: str) -> Exception:
    """An error of a worker as one of this process, with the node where it happened unless it is a sample's doing."""
    cause = getattr(error, "cause", None) or error
    if not isinstance(cause, FactoryError):
        text = _first_line(cause)
        return SignalError(
            f"A Ray worker{f' on {node}' if node else ''} cannot work: {type(cause).__name__}: {text}",
            "Is dataset-factory installed on all nodes, with what the signals use? Driver and workers are to run in the"
            " same image.",
        )
    if node and cause.sample is None:
        cause.message = f"Ray node {node}: {cause.message}"
        cause.args = (f"{cause.message} {cause.hint}".strip(),)
    return cause


def _first_line(error: BaseException) -> str:
    """What an error says, without the pages of logs that Ray adds."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
