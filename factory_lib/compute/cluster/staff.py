"""Workers of a Ray cluster: hired, kept for the next computation for a while, dismissed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from factory_lib.compute.cluster.connection import options_of
from factory_lib.compute.cluster.pieces import Piece
from factory_lib.compute.cluster.worker import Greeting, RayWorker
from factory_lib.signals.resources import Resources

KEPT_SECONDS = 30.0
"""So long workers are kept: they hold a part of the cluster that others may want."""


@dataclass(eq=False)
class HiredWorker:
    """A worker, as the process sees it that gives it work.

    Attributes:
        actor: Ray's handle.
        greeted: reference to its answer to the greeting.
        node: what its node is called; empty until it has answered.
        flying: references to the answers that it owes -> (number of the job, piece), what it is at first.
    """

    actor: Any
    greeted: Any
    node: str = ""
    flying: dict[Any, tuple[int, Piece]] = field(default_factory=dict)

    @property
    def owed(self) -> list[Any]:
        """References to all answers that it owes."""
        return list(self.flying) if self.node else [self.greeted]


class Staff:
    """The workers of one computation.

    Args:
        ray: the package, connected.
        greeting: what a worker is told.
        needs: what it takes of a node.
    """

    def __init__(self, ray: Any, greeting: Greeting, needs: Resources) -> None:
        self._greeting = greeting
        self._hired = ray.remote(RayWorker).options(**options_of(needs))
        self._kind = ray.get_runtime_context().get_job_id(), greeting, needs
        self.workers = _take_kept(self._kind)

    def hire(self, size: int) -> None:
        """Have so many; those that there is no room for now come when there is. Kept ones that are too many go."""
        while len(self.workers) > size:
            self.dismiss(self.workers[-1])
        while len(self.workers) < size:
            actor = self._hired.remote()
            self.workers.append(HiredWorker(actor, actor.greet.remote(self._greeting)))

    def dismiss(self, worker: HiredWorker) -> dict[Any, tuple[int, Piece]]:
        """End a worker, if it is not gone already; what it owed."""
        self.workers.remove(worker)
        _end([worker])
        return worker.flying

    def keep(self) -> None:
        """Leave the workers to the next computation that wants such, if one comes soon; dismiss those still to come."""
        idle = [worker for worker in self.workers if worker.node and not worker.flying]
        _end(worker for worker in self.workers if worker not in idle)
        self.workers = []
        _keep(self._kind, idle)

    def dismiss_all(self) -> None:
        """End all workers."""
        _end(self.workers)
        self.workers = []


_Kind = tuple[str, Greeting, Resources]
"""Connection to the cluster, what workers were told, what they take."""

_kept: dict[_Kind, list[HiredWorker]] = {}
_timers: list[threading.Timer] = []
_lock = threading.Lock()


def dismiss_kept() -> None:
    """End the workers that wait for a computation."""
    with _lock:
        kept = [worker for workers in _kept.values() for worker in workers]
        _kept.clear()
    _end(kept)


def _take_kept(kind: _Kind) -> list[HiredWorker]:
    """The workers of a kind that are kept; the others make room."""
    with _lock:
        while _timers:
            _timers.pop().cancel()
        found = _kept.pop(kind, [])
    dismiss_kept()
    return found


def _keep(kind: _Kind, workers: list[HiredWorker]) -> None:
    timer = threading.Timer(KEPT_SECONDS, dismiss_kept)
    timer.daemon = True
    with _lock:
        _kept.setdefault(kind, []).extend(workers)
        _timers.append(timer)
    timer.start()


def _end(workers: Iterable[HiredWorker]) -> None:
    """End workers with the processes that they started."""
    import ray

    for worker in workers:
        # Asked without a connection Ray would start a cluster; a worker may be gone, and the cluster with it.
        with contextlib.suppress(Exception):
            if ray.is_initialized():
                ray.kill(worker.actor)
