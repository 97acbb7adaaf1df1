"""The embedded engine from outside: find it, start it, stop it.

One engine a data folder, however many processes ask at once:

* the engine process holds `engine.lock` (flock) for its whole life, so a killed one frees it, zombie or not;
* who wants to start one holds `engine.starting` (flock) meanwhile, the others wait and then find it;
* `engine.json` (mode 0600, replaced atomically) says where it listens and holds the token; it is believed only if it
  belongs to this user, was written for this very folder (device and inode: a copy of a folder is not the folder) in
  this boot of the machine, and the process behind the port answers `/ping` with the id in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from factory_lib.environment import unmarked_environment
from factory_lib.errors import EngineError
from factory_lib.filelocks import exclusive
from factory_lib.home import private_folder
from factory_lib.owners import Owner, boot_id, folder_identity
from factory_lib.progress import track
from factory_lib.warehouse.space import RESERVE_BYTES, data_folder_unusable, disk_full, free_bytes

STATE, LOCK, STARTING, LOG = "engine.json", "engine.lock", "engine.starting", "engine.log"
START_SECONDS = 3600.0
"""An engine that lives is waited for: it opens its tables first, 100 s for 200,000 parts. One that ends is noticed."""

ANSWER_SECONDS = 30.0
STOP_SECONDS = 15.0
_OPENING = "seconds that the engine has been opening its tables"
LOG_BYTES = 1 << 22


@dataclass(frozen=True)
class EngineState:
    """What `engine.json` says.

    Attributes:
        owner: the process.
        folder: device and inode of the data folder.
        port: port on 127.0.0.1.
        token: the password.
        instance: random id that `/ping` answers with.
    """

    owner: Owner
    folder: str
    port: int
    token: str
    instance: str

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.owner.pid

    @property
    def url(self) -> str:
        """Where to ask, token included."""
        return f"http://default:{self.token}@127.0.0.1:{self.port}/"

    def as_dict(self) -> dict[str, Any]:
        """For `engine.json`."""
        return asdict(self)

    @classmethod
    def read(cls, home: Path) -> EngineState | None:
        """The state of a folder; None where there is none, or it is not this user's."""
        try:
            with open(home / STATE) as file:
                if os.fstat(file.fileno()).st_uid != os.geteuid():
                    return None
                found = json.load(file)
            owner = Owner.read(found.pop("owner"))
            return None if owner is None else cls(owner, **found)
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def is_of(self, home: Path) -> bool:
        """Whether it was written for this folder, not for one that this is a copy of, and in this boot."""
        return self.folder == folder_identity(home) and (not self.owner.is_here or self.owner.boot == boot_id())


def engine_url(home: Path) -> str:
    """Where the engine of a data folder answers; it is started when none runs.

    Args:
        home: the data folder, made with mode 0700 if missing.

    Returns:
        `http://default:TOKEN@127.0.0.1:PORT/`. The token must not be shown.

    Raises:
        EngineError: it cannot be started (the end of its log says why), or runs and does not answer.
        BucketError: its versions are not where the settings say, or their bucket belongs to another folder.
    """
    home = home.absolute()
    if bad := sorted(set(str(home)) & set("?*{")):
        raise EngineError(
            f"The data folder {home} cannot be used: the engine misreads {' '.join(bad)} in a path.",
            "Set FACTORY_HOME to another folder.",
        )
    from factory_lib.warehouse.bucket.binding import agree, bind

    state = _answering(home)
    if state is None:
        with _starting(home):
            state = _answering(home)
            if state is None:
                bind(home)
                state = _start(home)
    agree(home)
    return state.url


def engine_status(home: Path) -> dict[str, Any] | None:
    """Process id, port and log of the running engine; None when none runs. No token."""
    state = _answering(home)
    return None if state is None else {"pid": state.pid, "port": state.port, "log": str(home / LOG)}


def stop_engine(home: Path) -> bool:
    """Stop the engine of a data folder: asked first, killed after 15 s (committed tables are safe either way).

    Returns:
        Whether one ran.
    """
    if not is_held(home):
        return False
    # One that just starts has not yet written which process it is, one that just leaves has removed it.
    _wait(lambda: _named(home) is not None or not is_held(home), STOP_SECONDS)
    state = _named(home)
    if state is None and not is_held(home):
        return True
    if state is None or not state.owner.is_here:
        raise EngineError(
            f"An engine holds {home / LOCK}, but {home / STATE} does not say which process it is.",
            "Does it run in another container? Stop it there.",
        )
    for number, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(state.pid, number)
        if _wait(lambda: not is_held(home), patience):
            return True
    raise EngineError(f"The engine of {home} (process {state.pid}) cannot be stopped.", "Is its disk hanging?")


def _named(home: Path) -> EngineState | None:
    """What the folder's engine says of itself; None where it says nothing, or somebody else or a dead one does."""
    state = EngineState.read(home)
    if state is None or not state.is_of(home):
        return None
    return None if state.owner.is_here and state.owner.is_gone else state


def _answering(home: Path) -> EngineState | None:
    """The running engine, or None; waits for one that is alive and slow."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        state = EngineState.read(home)
        if state is None or not state.is_of(home):
            return None
        try:
            return state if _ping(state) == state.instance else None
        except ConnectionRefusedError:
            return None
        except (TimeoutError, OSError, http.client.HTTPException):
            if not is_held(home):
                return None
        if time.monotonic() > deadline:
            raise EngineError(
                f"The engine of {home} (process {state.pid}) runs but does not answer.",
                f"See {home / LOG}; kill {state.pid} and try again.",
            )
        time.sleep(0.1)


def _ping(state: EngineState) -> str | None:
    connection = http.client.HTTPConnection("127.0.0.1", state.port, timeout=5)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().getheader("X-Factory-Engine")
    finally:
        connection.close()


def is_held(home: Path) -> bool:
    """Whether an engine process is alive, by its lock."""
    try:
        descriptor = os.open(home / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def _starting(home: Path) -> Iterator[None]:
    try:
        private_folder(home, home)
        descriptor = os.open(home / STARTING, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise data_folder_unusable(home, error.strerror or str(error)) from None
    try:
        with exclusive(descriptor):
            yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def held_still(home: Path) -> Iterator[None]:
    """Within the block no engine runs on a data folder; the one that does is stopped, and who asks for one waits."""
    with _starting(home):
        stop_engine(home)
        yield


def _start(home: Path) -> EngineState:
    # Whoever started an engine may have been killed before it answered: that one is awaited, and no second one started.
    if (state := _coming_up(home)) is not None:
        return state
    log, begin = home / LOG, 0
    try:
        ready, begin = _launch(home)
    except OSError as error:
        raise EngineError(f"The engine of {home} cannot be started: {error.strerror or error}.") from None
    state = EngineState.read(home) if ready else _coming_up(home)
    if state is None:
        if free_bytes(home) < RESERVE_BYTES:
            raise disk_full(home)
        raise EngineError(f"The engine of {home} did not start:\n{_tail(log, begin)}", f"Its log: {log}.")
    return state


def _coming_up(home: Path) -> EngineState | None:
    """The engine that holds the folder, once it answers; None when none holds it."""
    found: list[EngineState] = []

    def settled() -> bool:
        if is_held(home) and (state := _answering(home)) is not None:
            found.append(state)
        return bool(found) or not is_held(home)

    holder = EngineState.read(home)
    elsewhere = holder is not None and not holder.owner.is_here
    with track(_OPENING) as progress:
        there = _wait(settled, STOP_SECONDS if elsewhere else START_SECONDS, progress.advance)
    if not there:
        state = EngineState.read(home)
        where = f"process {state.pid} on {state.owner.host}" if state else "another process"
        raise EngineError(
            f"The data folder {home} is held by an engine that does not answer here ({where}).",
            f"Stop it there (this is {socket.gethostname()}), or let FACTORY_CLICKHOUSE_URL name a server for all.",
        )
    return found[0] if found else None


def _without_current_folder() -> list[str]:
    """Python's option to import nothing from the current folder, where a `json.py` would stand before Python's own."""
    return [] if Path(__file__).resolve().parents[2] == Path.cwd() else ["-P"]


def _launch(home: Path) -> tuple[bool, int]:
    """Start a process for the folder; whether it says that it serves, and where in the log its words begin."""
    command = [sys.executable, *_without_current_folder(), "-m", "factory_lib.engine.server", str(home), "--detach"]
    read_end, write_end = os.pipe()
    try:
        log, begin = _open_log(home / LOG)
        with log:
            # A session of its own: Ctrl-C in the terminal that happened to start it must not end everybody's engine.
            process = subprocess.Popen(
                [*command, "--ready", str(write_end)],
                env=unmarked_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[write_end],
                start_new_session=True,
            )
        os.close(write_end)
        process.wait()
        with track(_OPENING) as progress:
            _wait(lambda: bool(select.select([read_end], [], [], 0)[0]), START_SECONDS, progress.advance)
        return _read(read_end) == b"ok", begin
    finally:
        os.close(read_end)


def _open_log(path: Path) -> tuple[IO[bytes], int]:
    """The log to append to, and its size now; begun anew when it has become long."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    if os.fstat(descriptor).st_size > LOG_BYTES:
        os.truncate(path, 0)
    return os.fdopen(descriptor, "ab"), os.stat(path).st_size


def _read(descriptor: int) -> bytes:
    ready, _, _ = select.select([descriptor], [], [], 0)
    return os.read(descriptor, 16) if ready else b""


def _tail(log: Path, begin: int, lines: int = 12) -> str:
    try:
        with open(log, "rb") as file:
            file.seek(begin)
            text = file.read().decode(errors="replace").strip()
    except FileNotFoundError:  # the data folder was removed meanwhile
        return "(its log is gone)"
    return "\n".join(line[:300] for line in text.splitlines()[-lines:]) or "(its log is empty)"


def _wait(done: Callable[[], bool], patience: float, second: Callable[[], None] = lambda: None) -> bool:
    """Whether it is done in time; `second` is called for each second of waiting."""
    began, told = time.monotonic(), 0
    while not done():
        waited = time.monotonic() - began
        if waited > patience:
            return False
        if waited > told + 1:
            told += 1
            second()
        time.sleep(0.02)
    return True
