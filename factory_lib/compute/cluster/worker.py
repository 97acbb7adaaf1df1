"""A worker on a Ray cluster: an actor that fetches rows, has one process compute them, and writes the values.

The signals run in a process of the pool that also computes locally, which is what finds a sample that kills, or one
that takes forever: the actor survives it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from factory_lib.compute.cluster.pieces import Piece, PieceJob
from factory_lib.compute.pool import WorkerPool
from factory_lib.compute.processes import PackedSignals
from factory_lib.environment import environment, use_environment
from factory_lib.errors import EngineError, FactoryError, SignalError
from factory_lib.owners import boot_id
from factory_lib.settings import settings

TRAVELLING = tuple(
    f"FACTORY_{name}" for name in "CLICKHOUSE_URL CLIP MAX_PIXELS AS_STORED SIGNAL_TIMEOUT RETRY_SECONDS".split()
)
"""Settings that hold wherever signals are computed; the others are those of each machine."""

_SAME = ("dataset-factory", "cloudpickle")
"""Distributions of which driver and workers have one version; those that signals use are part of their fingerprints."""


@dataclass(frozen=True)
class Greeting:
    """What a worker is told at first.

    Attributes:
        settings: those that hold here, too; None for one that is not set.
        home: the data folder, where the warehouse is its embedded engine; else empty.
        machine: the one that this comes from.
        path, folder: where modules and files are found there.
        versions: of Python and of distributions.
    """

    settings: tuple[tuple[str, str | None], ...]
    home: str
    machine: tuple[str, str]
    path: tuple[str, ...]
    folder: str
    versions: tuple[tuple[str, str], ...]

    @staticmethod
    def here() -> Greeting:
        """What this process has to say."""
        known = environment()
        found = settings()
        return Greeting(
            tuple((name, known.get(name)) for name in TRAVELLING),
            "" if found.clickhouse_url else str(found.home),
            machine(),
            tuple(sys.path),
            os.getcwd(),
            tuple(versions_here().items()),
        )


@dataclass(frozen=True)
class Computed:
    """What a worker says of a piece: how many rows it computed in how many seconds."""

    rows: int
    seconds: float


class RayWorker:
    """The actor."""

    def __init__(self) -> None:
        self._pool = WorkerPool()
        self._files = contextlib.ExitStack()
        self._signals: tuple[str, PackedSignals] | None = None
        self._job: tuple[str, PieceJob] | None = None

    def greet(self, greeting: Greeting) -> str:
        """Get ready to work for another process; returns what this node is called.

        Raises:
            SignalError: the two do not fit together.
            EngineError: the warehouse is out of reach.
        """
        node = node_name()
        check_versions(dict(greeting.versions), versions_here(), node)
        _take_over(greeting)
        check_warehouse(greeting, node)
        return node

    def compute(self, given: Sequence[Any], piece: Piece) -> Computed:
        """Compute a piece.

        Args:
            given: references to the signals and to the job, in a list: they are fetched once, not with each piece.

        Raises:
            FactoryError: as the job does.
        """
        started = time.monotonic()
        signals, job = self._fetched(*given)
        rows = job.compute(piece, signals, self._pool)
        return Computed(rows, time.monotonic() - started)

    def _fetched(self, signals: Any, job: Any) -> tuple[PackedSignals, PieceJob]:
        import ray

        if self._signals is None or self._signals[0] != signals.hex():
            self._files.close()
            self._signals = signals.hex(), ray.get(signals).landed(self._files)
        if self._job is None or self._job[0] != job.hex():
            self._job = job.hex(), ray.get(job)
        return self._signals[1], self._job[1]


def machine() -> tuple[str, str]:
    """Which machine this is: containers on one have names of their own."""
    return socket.gethostname(), boot_id()


def node_name() -> str:
    """What this node of the cluster is called: its address, and the beginning of its id: a machine may be several."""
    import ray

    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return f"{address} ({ray.get_runtime_context().get_node_id()[:6]})"


def versions_here() -> dict[str, str]:
    """Versions that driver and workers have to have alike."""
    found = {"Python": ".".join(map(str, sys.version_info[:2]))}
    for name in _SAME:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def check_versions(there: Mapping[str, str], here: Mapping[str, str], node: str) -> None:
    """Refuse to work for a process that has other versions.

    Raises:
        SignalError: it has.
    """
    different = [
        f"{name} {here.get(name, 'none')} where it is {there.get(name, 'none')} here"
        for name in sorted({**there, **here})
        if there.get(name) != here.get(name)
    ]
    if different:
        raise SignalError(
            f"Ray node {node} has {', '.join(different)}.", "Driver and workers are to run in the same image."
        )


def check_warehouse(greeting: Greeting, node: str) -> None:
    """Make sure that values can be written from here.

    Raises:
        EngineError: the warehouse is another machine's embedded engine, or does not answer.
    """
    if greeting.home and greeting.machine != machine():
        raise embedded_elsewhere(greeting.home, [node])
    from factory_lib.warehouse.client import warehouse

    try:
        warehouse().scalar("SELECT 1")
    except FactoryError as error:
        raise EngineError(
            f"Ray node {node} cannot write values: {error.message}",
            "FACTORY_CLICKHOUSE_URL has to be an address that all nodes reach.",
        ) from None


def embedded_elsewhere(home: str, nodes: Sequence[str]) -> EngineError:
    """The error of an engine that nodes cannot reach."""
    return EngineError(
        f"The warehouse is the embedded engine of {home}, which only its own machine reaches, and Ray has nodes on"
        f" others: {', '.join(nodes)}.",
        "Two ways out: a ClickHouse server that all nodes reach (FACTORY_CLICKHOUSE_URL), or Ray on this machine alone"
        " (ray start --head).",
    )


def _take_over(greeting: Greeting) -> None:
    """Have the settings of the process that greets, and find modules and files where it does if they are here, too."""
    own = {name: value for name, value in environment().items() if name not in TRAVELLING}
    given = {name: value for name, value in greeting.settings if value is not None}
    use_environment(own | given | ({"FACTORY_HOME": greeting.home} if greeting.home else {}))
    sys.path += [one for one in greeting.path if one not in sys.path and os.path.exists(one)]
    with contextlib.suppress(OSError):
        os.chdir(greeting.folder)
