"""The process of the embedded engine: `python -m factory_lib.engine.server FOLDER`.

It holds a lock on `engine.lock` for its whole life, writes `engine.json` (who may read it may use the engine) when it
can serve, and leaves when nobody asked anything for a while. `embedded.engine_url` starts it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import logging
import os
import resource
import secrets
import shutil
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from factory_lib.owners import Owner, folder_identity, replacing
from factory_lib.settings import settings
from factory_lib.warehouse.embedded import LOCK, LOG, LOG_BYTES, STATE, EngineState
from factory_lib.warehouse.remote_disk import REMOTE
from factory_lib.warehouse.space import give_up_reserve, keep_reserve

if TYPE_CHECKING:
    import uvicorn

    from factory_lib.engine.app import Interface
    from factory_lib.engine.connection import Engine

logger = logging.getLogger("factory.engine")

# A mutation over 64 partitions takes 10.5 s with chDB's default of one background thread a core, 0.35 s with 64.
_OPTIONS = "background_pool_size=64"
_END_BYTES = 4096
_STOP_SECONDS = 5.0
_REFUSING_SECONDS = 0.3


def main() -> None:
    """Run the engine of a folder; with --detach in the background."""
    parser = argparse.ArgumentParser(description="The embedded engine of a data folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--detach", action="store_true", help="leave the parent, which then has no child to wait for")
    parser.add_argument("--ready", type=int, default=-1, help="file descriptor to write 'ok' to when it can serve")
    arguments = parser.parse_args()
    # before chDB is loaded: its threads do not survive a fork
    if arguments.detach and os.fork():
        os._exit(0)
    os.umask(0o077)
    # chDB reads options out of a path; a relative one has no surprises
    os.chdir(arguments.folder)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    if not _locked():
        sys.exit("Another engine runs on this folder.")
    _raise_file_limit()
    _serve(arguments.ready)


def _locked() -> bool:
    """Take the folder for the life of this process; who only looks whether it is taken holds the lock for a moment."""
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(20):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.02)
    return False


def _serve(ready: int) -> None:
    from factory_lib.engine.app import Interface
    from factory_lib.engine.connection import Engine
    from factory_lib.engine.disks import configured

    give_up_reserve(Path())
    set_aside_unfinished(Path("data"))
    leave_remote(Path("data"))
    try:
        engine = Engine(f"data?{_OPTIONS}{configured(Path())}")
    except (RuntimeError, ImportError) as error:
        # chDB has written the cause above; its exception brings forty lines of its own stack
        sys.exit(f"The tables cannot be opened: {str(error).splitlines()[0]}")
    listener = _listener()
    state = EngineState(
        owner=Owner.here(),
        folder=folder_identity(Path()),
        port=listener.getsockname()[1],
        token=secrets.token_urlsafe(32),
        instance=secrets.token_hex(16),
    )
    folder = Path("data", "tmp")
    folder.mkdir(exist_ok=True)
    # chDB keeps the path that it began with: of a folder moved away it would write into what is put in its place.
    home = Path.cwd()
    interface = Interface(
        engine,
        token=state.token,
        instance=state.instance,
        port=state.port,
        folder=str(folder),
        here=lambda: folder_identity(home) == state.folder,
    )
    server = _http_server(interface)
    _write_state(state)
    keep_reserve(Path())
    logger.info("ready on 127.0.0.1:%s, process %s, ClickHouse %s", state.port, state.pid, engine.version)
    if ready >= 0:
        with contextlib.suppress(BrokenPipeError):  # who started it was killed; the next one finds it
            os.write(ready, b"ok")
        os.close(ready)
    # uvicorn stops on SIGTERM and then raises it again for whoever handled it before: nobody, but not to die of it
    signal.signal(signal.SIGTERM, lambda *_: None)
    asyncio.run(_until_idle(server, listener, interface, engine, state))


def _raise_file_limit() -> None:
    """As many open files as the system lets us: a part is a file a column, and 1024, a usual limit, are soon used."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1 << 18 if hard == resource.RLIM_INFINITY else hard
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _listener() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    # Headers and body leave as two writes; without this the second waits 45 ms for the client's delayed acknowledgement
    # (asyncio sets it only on sockets made with an explicit protocol; accepted ones inherit it from here).
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _http_server(interface: Interface) -> uvicorn.Server:
    import uvicorn

    from factory_lib.engine.bounded import BoundedProtocol

    # An answer that ends in an error has no end on purpose. The access log would show tokens given as a parameter.
    logging.getLogger("uvicorn.error").addFilter(lambda record: "without completing" not in record.getMessage())
    config = uvicorn.Config(
        interface.app(),
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_keep_alive=3600,
        timeout_graceful_shutdown=2,
        http=BoundedProtocol,
    )
    return uvicorn.Server(config)


async def _until_idle(
    server: uvicorn.Server, listener: socket.socket, interface: Interface, engine: Engine, state: EngineState
) -> None:
    idle = asyncio.ensure_future(_stop_when_idle(server, interface, engine, state))
    await server.serve(sockets=[listener])
    idle.cancel()
    _remove_state(state)
    if not interface.in_flight:
        # committed tables are on disk either way
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(engine.close), _STOP_SECONDS)
    logger.info("stopped")
    # past the usual way out, which would wait for the threads that still run a statement
    os._exit(0)


async def _stop_when_idle(server: uvicorn.Server, interface: Interface, engine: Engine, state: EngineState) -> None:
    limit = settings().engine_idle_seconds
    while not server.should_exit:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(interface.closing.wait(), min(5.0, max(0.1, limit / 4)))
        _bound_log()
        keep_reserve(Path())
        if not interface.closing.is_set():
            idle = time.monotonic() - interface.last_used
            if await asyncio.to_thread(engine.expire_sessions) or interface.in_flight or idle < limit:
                continue
            if await asyncio.to_thread(engine.at_work) or not interface.close_if_idle(limit):
                continue
            logger.info("idle for %.0f s, stopping", idle)
        # Who asks now is refused and starts another engine, once this one has let go of the folder.
        _remove_state(state)
        await asyncio.sleep(_REFUSING_SECONDS)
        server.should_exit = True


def _bound_log() -> None:
    """Begin the log anew when it has become long; the one before is kept beside it."""
    found = os.fstat(sys.stderr.fileno())
    if stat.S_ISREG(found.st_mode) and found.st_size > LOG_BYTES:
        with contextlib.suppress(OSError):
            shutil.copyfile(LOG, f"{LOG}.1")
        os.ftruncate(sys.stderr.fileno(), 0)


def _write_state(state: EngineState) -> None:
    with replacing(Path(STATE)) as beside, open(beside, "w") as file:
        json.dump(state.as_dict(), file)


def _remove_state(state: EngineState) -> None:
    found = EngineState.read(Path())
    if found is not None and found.instance == state.instance:
        os.unlink(STATE)


def set_aside_unfinished(data: Path) -> list[Path]:
    """Take definitions of tables that a full disk cut out of the engine's way; which ones, as they are called now.

    The engine reads all definitions when it starts, and does not start over a cut one. A definition ends with a line
    break; one that does not is of a table that was being made: nothing was published by its name.

    Args:
        data: the folder of the engine's tables, which no engine has open.
    """
    found = [path for path in _definitions(data) if not _is_whole(path)]
    for path in found:
        # The engine passes over .bak.
        path.rename(path.with_name(f"{path.name}.bak"))
        logger.warning("%s was not written to its end, and is set aside", path)
    return [path.with_name(f"{path.name}.bak") for path in found]


def leave_remote(data: Path) -> list[Path]:
    """Have the engine open no table when it starts that lies in somebody's bucket or folder; which ones.

    It does not start while such a place is away. The mark is the engine's own, of tables that were detached for good;
    attaching one, as `warehouse.pulled` does when it is asked for, takes it away.

    Args:
        data: the folder of the engine's tables, which no engine has open.
    """
    found = [path for path in _definitions(data) if REMOTE in _end(path)]
    for path in found:
        path.with_name(f"{path.name}.detached").touch(mode=0o600)
    return found


def _end(path: Path) -> bytes:
    """The last 4 KiB of a file."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return os.pread(file.fileno(), _END_BYTES, max(0, size - _END_BYTES))


def _definitions(data: Path) -> Iterator[Path]:
    yield from (data / "metadata").glob("*.sql")
    yield from (data / "store").glob("*/*/*.sql")


def _is_whole(path: Path) -> bool:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return size > 0 and os.pread(file.fileno(), 1, size - 1) == b"\n"


if __name__ == "__main__":
    main()
