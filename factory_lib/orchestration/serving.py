"""Dagster's UI and daemon beside the local engine: `factory up`.

They run in a process group of their own, so that all of it can be stopped, whatever Dagster started in it; where the
system allows it (Linux) they also end when this process is killed. `up.json` in the factory's home says who serves.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from factory_lib.errors import FactoryError
from factory_lib.orchestration.home import dagster_home
from factory_lib.settings import environment
from factory_lib.warehouse.embedded import process_started

STATE = "up.json"
FIRST_PORT, PORTS = 3000, 20
READY_SECONDS = 300.0
STOP_SECONDS = 20.0
_PARENT_DEATH = 1  # PR_SET_PDEATHSIG


@dataclass(frozen=True)
class Serving:
    """A running UI.

    Attributes:
        pid: the process that started it and stops it.
        started: when that process started, in the system's own units; tells it from a later one with its id.
        url: where the UI answers.
    """

    pid: int
    started: str
    url: str


def serving(home: Path) -> Serving | None:
    """The UI that serves a factory's home; None when none does."""
    try:
        state = Serving(**json.loads((home / STATE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return state if process_started(state.pid) == state.started else None


def stop_serving(home: Path) -> bool:
    """Ask the process that serves a home to stop, and wait for it.

    Returns:
        Whether one did.

    Raises:
        FactoryError: it does not stop.
    """
    state = serving(home)
    if state is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + 2 * STOP_SECONDS
    while serving(home) is not None:
        if time.monotonic() > deadline:
            raise FactoryError(f"The UI at {state.url} (process {state.pid}) does not stop.", f"kill -9 {state.pid}")
        time.sleep(0.1)
    return True


@contextlib.contextmanager
def serve(home: Path, host: str, port: int | None) -> Iterator[subprocess.Popen[bytes]]:
    """Run Dagster's UI and daemon over `workspace.yaml` of this folder, or the graph that comes with the package.

    Args:
        home: the factory's home.
        host: address to listen at.
        port: None for the first free one from 3000.

    Yields:
        The process, when the UI answers. It is stopped, with all that it started, at the end of the block.

    Raises:
        FactoryError: something serves this home already, the port is taken, or Dagster does not start.
    """
    port = port_for(home, host, port)
    url = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"
    folder = dagster_home(home)
    with open(folder / "dev.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, "dev", *_workspace(), "--host", host, "--port", str(port)],
            env={**environment(), "DAGSTER_HOME": str(folder), "FACTORY_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _write_state(home, Serving(os.getpid(), process_started(os.getpid()), url))
        _wait_until_ready(process, host, port, folder / "dev.log")
        yield process
    finally:
        stop_group(process)
        (home / STATE).unlink(missing_ok=True)


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """Stop a process that leads a group, and the whole group: asked first, killed after 20 s."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    # what it left behind, and itself if it did not listen
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def port_for(home: Path, host: str, port: int | None) -> int:
    """The port asked for, or the first free one from 3000, for the UI of a home.

    Raises:
        FactoryError: it is taken, or the UI runs already.
    """
    if (running := serving(home)) is not None:
        raise FactoryError(f"The UI runs already, at {running.url}.", "Stop it: factory down.")
    for candidate in [port] if port is not None else range(FIRST_PORT, FIRST_PORT + PORTS):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError as error:
                if port is not None:
                    raise FactoryError(f"{host}:{port} cannot be used: {error.strerror}.", "Choose a --port.") from None
            else:
                return int(probe.getsockname()[1])
    raise FactoryError(f"The ports {FIRST_PORT} to {FIRST_PORT + PORTS - 1} are taken.", "Choose one with --port.")


def _workspace() -> list[str]:
    return ["-w", "workspace.yaml"] if Path("workspace.yaml").exists() else ["-m", "factory_assets.definitions"]


def become_dagster(arguments: list[str]) -> None:
    """Turn this process into Dagster's command line, which is told to stop when its parent is gone."""
    # A shell that starts things in the background has them ignore interrupts, and Dagster takes SIGTERM for one.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGTERM)
    os.execv(sys.executable, [sys.executable, "-m", "dagster", *arguments])


def _write_state(home: Path, state: Serving) -> None:
    temporary = home / f"{STATE}.{os.getpid()}"
    temporary.write_text(json.dumps(asdict(state)))
    temporary.replace(home / STATE)


def _wait_until_ready(process: subprocess.Popen[bytes], host: str, port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not _answers(host, port):
        if process.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text(errors="replace").strip().splitlines()[-12:]
            raise FactoryError("Dagster did not start:\n" + "\n".join(line[:300] for line in lines), f"Its log: {log}.")
        time.sleep(0.25)


def _answers(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/server_info")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    become_dagster(sys.argv[1:])
