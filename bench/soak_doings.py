"""What goes on in a soak: each in a process of its own, which says what calls returned and may be killed at any moment."""

from __future__ import annotations

import contextlib
import os
import signal as signals
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.soak_oracle import weight as weight_of
from factory_lib import DatasetQuery, signal

if TYPE_CHECKING:
    from dagster import DagsterInstance

SOURCE = "SOAK_SOURCE"
"""Variable that names the folder of tars to `bench.soak_graph`."""
_SLOW_SECONDS = 0.01
_DAEMON_SECONDS, _SETTLED_SECONDS = 240.0, 20.0


@signal
def weight(caption: str, image: bytes) -> int:
    """A number of a text, slow enough to be killed at, and computed by workers: they read members."""
    time.sleep(_SLOW_SECONDS)
    return weight_of(caption)


def act(name: str, source: Path, sender: Any, chance: float) -> None:
    """Do something by its name (`_DOES`), and send what came of it."""
    from factory_lib.errors import FactoryError

    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        for version in _DOES[name](source, chance):
            sender.send(version)
        sender.send(("done",))
    except FactoryError as error:
        sender.send(("refused", type(error).__name__))
    except OSError as error:
        sender.send(("refused", f"{type(error).__name__} {error.errno}"))


def _update(source: Path, chance: float) -> Iterator[tuple[str, ...]]:
    one = DatasetQuery.from_source(str(source)).refresh("texts")
    yield "version", str(one), one.uuid
    two = DatasetQuery("texts").add_signals(weight).refresh("weighed")
    yield "version", str(two), two.uuid


def _save(source: Path, chance: float) -> Iterator[tuple[str, ...]]:
    time.sleep(0.3 * chance)
    one = DatasetQuery("texts").add_signals(weight).save("both")
    yield "version", str(one), one.uuid


def _tag(source: Path, chance: float) -> Iterator[tuple[str, ...]]:
    from factory_lib.warehouse.client import warehouse
    from factory_lib.warehouse.tags import set_tag
    from factory_lib.warehouse.versions import latest

    found = latest(warehouse(), "texts")
    if found is not None:
        tag = f"t{int(chance * 1e9)}"
        set_tag(warehouse(), "texts", str(found), found.uuid, tag)
        yield "tag", f"texts@{tag}", found.uuid


def _gc(source: Path, chance: float) -> Iterator[tuple[str, ...]]:
    from factory_lib.warehouse.client import warehouse
    from factory_lib.warehouse.policy import KeepPolicy, drop_versions, expired
    from factory_lib.warehouse.retention import find_sweepable, sweep

    policy = KeepPolicy(last=2, days=0)
    drop_versions(warehouse(), expired(warehouse(), policy), policy)
    sweep(warehouse(), find_sweepable(warehouse()))
    yield from ()


def _dagster(source: Path, chance: float) -> Iterator[tuple[str, ...]]:
    from factory_lib.orchestration.home import factory_instance
    from factory_lib.orchestration.runs.running import run_graph
    from tests.dagster_graph import graph

    with factory_instance() as instance:
        run_graph(instance, graph(source))
    yield from ()


def _daemon(source: Path, chance: float) -> Iterator[tuple[str, ...]]:
    """Dagster's daemon, until it has made what the source's change asks for."""
    from factory_lib.orchestration.home import dagster_home, factory_instance
    from tests.dagster_graph import look

    home = dagster_home()
    command = [sys.executable, "-m", "dagster._daemon", "run", "-m", "bench.soak_graph"]
    variables = {**os.environ, "DAGSTER_HOME": str(home), SOURCE: str(source)}
    with factory_instance() as instance:
        look(instance, source)
        process = subprocess.Popen(command, env=variables, start_new_session=True, stdout=2)
        try:
            _wait_until_settled(process, instance)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signals.SIGKILL)
            process.wait()
    yield from ()


def _wait_until_settled(process: subprocess.Popen[bytes], instance: DagsterInstance) -> None:
    """Until no run and no backfill is under way for a while, or the daemon is gone."""
    from dagster import DagsterRunStatus, RunsFilter
    from dagster._core.execution.backfill import BulkActionStatus

    running = RunsFilter(statuses=[DagsterRunStatus.QUEUED, DagsterRunStatus.STARTING, DagsterRunStatus.STARTED])
    began = time.monotonic()
    busy = began + _SETTLED_SECONDS  # it has to start first
    while process.poll() is None and time.monotonic() - began < _DAEMON_SECONDS:
        time.sleep(0.5)
        if instance.get_runs_count(running) or instance.get_backfills(status=BulkActionStatus.REQUESTED, limit=1):
            busy = time.monotonic()
        elif time.monotonic() - busy > _SETTLED_SECONDS:
            return


_DOES: dict[str, Callable[[Path, float], Iterator[tuple[str, ...]]]] = {
    "update": _update,
    "save": _save,
    "tag": _tag,
    "gc": _gc,
    "Dagster run": _dagster,
    "daemon": _daemon,
}
