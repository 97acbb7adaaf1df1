"""Dagster's UI and daemon beside the local engine: `factory up`.

One at a time serves a home: it holds `up.lock` as long as it does. `up.json` says who it is and marks what it started:
a word in the environment of every process, by which they are found and stopped, also those that a killed `factory up`
left behind. They run in a process group of their own; where the system allows it (Linux) they also end when it is
killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import fcntl
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from factory_lib.environment import ENV_FILE, SERVED, env_file, environment
from factory_lib.errors import FactoryError
from factory_lib.home import private_folder
from factory_lib.orchestration.code_location import dagster_arguments
from factory_lib.orchestration.home import dagster_home
from factory_lib.owners import Owner, folder_identity, replacing

STATE, LOCK = "up.json", "up.lock"
FIRST_PORT, PORTS = 3000, 20
READY_SECONDS = 300.0
STOP_SECONDS = 20.0
_PARENT_DEATH = 1  # PR_SET_PDEATHSIG


@dataclass(frozen=True)
class Serving:
    """A running UI.

    Attributes:
        owner: the process that started it and stops it.
        folder: device and inode of the home that it serves: a copy of the folder has the file, too.
        mark: what the environment of all its processes says in `SERVED`.
        url: where the UI answers; empty until it is started.
    """

    owner: Owner
    folder: str
    mark: str
    url: str = ""


def serving(home: Path) -> Serving | None:
    """The UI that serves a factory's home; None when none does."""
    state = _read_state(home)
    return None if state is None or state.owner.is_gone else state


def stop_serving(home: Path) -> bool:
    """Ask the process that serves a home to stop, and wait for it; stop what a killed one left.

    Returns:
        Whether anything ran.

    Raises:
        FactoryError: it does not stop, or runs on another machine.
    """
    state = serving(home)
    if state is None:
        return _stop_left(home)
    if not state.owner.is_here:
        raise FactoryError(f"The UI at {state.url} was started on {state.owner.host}.", "Stop it there: factory down.")
    with contextlib.suppress(ProcessLookupError):
        os.kill(state.owner.pid, signal.SIGTERM)
    deadline = time.monotonic() + 2 * STOP_SECONDS
    while not state.owner.is_gone:
        if time.monotonic() > deadline:
            pid = state.owner.pid
            raise FactoryError(f"The UI at {state.url} (process {pid}) does not stop.", f"kill -9 {pid}; factory down")
        time.sleep(0.1)
    _stop_left(home)
    return True


@contextlib.contextmanager
def sole_server(home: Path) -> Iterator[Serving]:
    """Be the one that serves a home, until the end of the block; what a killed one left is stopped.

    Raises:
        FactoryError: another process serves it, or is about to.
    """
    private_folder(home, home)
    lock = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            running = serving(home)
            at = f", at {running.url}" if running and running.url else ""
            raise FactoryError(f"The UI of {home} runs already{at}.", "Stop it: factory down.") from None
        _stop_left(home)
        # Before anything is started: whatever happens now, what carries the mark is found.
        me = Serving(Owner.here(), folder_identity(home), secrets.token_hex(16))
        _write_state(home, me)
        try:
            yield me
        finally:
            _stop_left(home)
    finally:
        os.close(lock)


@contextlib.contextmanager
def serve(home: Path, me: Serving, host: str, port: int | None) -> Iterator[subprocess.Popen[bytes]]:
    """Run Dagster's UI and daemon over the project in this folder, or the graph that comes with the package.

    Args:
        home: the factory's home.
        me: the caller, who serves it alone (`sole_server`).
        host: address to listen at.
        port: None for the first free one from 3000.

    Yields:
        The process, when the UI answers. It is stopped, with all that it started, at the end of the block.

    Raises:
        FactoryError: the port is taken, or Dagster does not start.
    """
    port = port_for(host, port)
    url = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"
    folder = dagster_home(home)
    variables = {**environment(), "DAGSTER_HOME": str(folder), "FACTORY_HOME": str(home), SERVED: me.mark}
    _check_env_file(variables, home)
    _write_state(home, dataclasses.replace(me, url=url))
    with open(folder / "dev.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, "dev", *dagster_arguments(), "--host", host, "--port", str(port)],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, host, port, folder / "dev.log")
        yield process
    finally:
        stop_group(process)


def _check_env_file(variables: Mapping[str, str], home: Path) -> None:
    """Dagster takes what `.env` says before what it is told: then it would serve something else.

    Raises:
        FactoryError: the two differ.
    """
    for name, value in env_file(Path.cwd()).items():
        same = Path(value).absolute() == home if name == "FACTORY_HOME" else value == variables.get(name)
        if not same and name.startswith(("FACTORY_", "DAGSTER_")):
            raise FactoryError(
                f"{ENV_FILE} says {name}={value}, and the command line or the environment {variables.get(name)}.",
                f"Let the environment come first, in {ENV_FILE}: {name}=${{{name}:-{value}}}",
            )


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


def port_for(host: str, port: int | None) -> int:
    """The port asked for, or the first free one from 3000, for the UI of a home.

    Raises:
        FactoryError: it is taken.
    """
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


def become_dagster(arguments: list[str]) -> None:
    """Turn this process into Dagster's command line, which is told to stop when its parent is gone."""
    # A shell that starts things in the background has them ignore interrupts, and Dagster takes SIGTERM for one.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGTERM)
    os.execv(sys.executable, [sys.executable, "-m", "dagster", *arguments])


def _read_state(home: Path) -> Serving | None:
    try:
        found = json.loads((home / STATE).read_text())
        owner = Owner.read(found.pop("owner"))
        state = None if owner is None else Serving(owner, **found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return state if state is not None and state.folder == folder_identity(home) else None


def _write_state(home: Path, state: Serving) -> None:
    with replacing(home / STATE) as beside:
        beside.touch(0o600)
        beside.write_text(json.dumps(asdict(state)))


def _stop_left(home: Path) -> bool:
    """Stop what carries the mark of the last one that served a home; whether there was anything."""
    state = _read_state(home)
    (home / STATE).unlink(missing_ok=True)
    found = _marked(state.mark) if state is not None else []
    for number, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        for one in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, number)
        deadline = time.monotonic() + patience
        while not all(one.is_gone for one in found) and time.monotonic() < deadline:
            time.sleep(0.05)
        if state is None or not (left := _marked(state.mark)):
            break
        found += [one for one in left if one not in found]
    return bool(found)


def _marked(mark: str) -> list[Owner]:
    """Processes of this user that carry a mark (Linux; elsewhere the process group is all that is known)."""
    found = []
    wanted = f"{SERVED}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(Owner.process(int(folder.name)))
    return [one for one in found if one.started and one.pid != os.getpid()]


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
