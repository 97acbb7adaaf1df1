"""The process of the embedded engine: `python -m factory_lib.warehouse.server FOLDER`.

It holds a lock on `engine.lock` for its whole life, writes `engine.json` (who may read it may use the engine) when it can serve,
and leaves when nobody asked anything for a while. Started by `embedded.engine_url`.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import logging
import os
import secrets
import signal
import socket
import sys
import time
from pathlib import Path

from factory_lib.settings import settings
from factory_lib.warehouse.embedded import LOCK, STATE, EngineState, process_started

logger = logging.getLogger("factory.engine")

# A mutation over 64 partitions takes 10.5 s with chDB's default of one background thread a core, 0.35 s with 64.
DATA = "data?background_pool_size=64"


def main() -> None:
    """Start the engine of a folder, in the background with --detach."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--detach", action="store_true", help="leave the parent, so that nobody has to wait for this process")
    parser.add_argument("--ready", type=int, default=-1, help="file descriptor that gets 'ok' when the engine can serve")
    arguments = parser.parse_args()
    if arguments.detach and os.fork():
        os._exit(0)
    os.umask(0o077)
    # chDB takes characters of an absolute path for its own; a relative one is free of them.
    os.chdir(arguments.folder)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit("another engine runs on this folder")
    _serve(arguments.ready)
    # Committed tables are on disk; chDB's own way out takes seconds in its thread pools.
    os._exit(0)


def _serve(ready: int) -> None:
    import uvicorn

    from factory_lib.warehouse.engine.app import Interface
    from factory_lib.warehouse.engine.connection import Engine

    engine = Engine(DATA)
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    # Headers and body leave as two writes; without this the second waits 45 ms for the client's delayed acknowledgement
    # (asyncio sets it only on sockets made with an explicit protocol; accepted ones inherit it from here).
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    state = EngineState(
        pid=os.getpid(),
        started=process_started(os.getpid()),
        host=socket.gethostname(),
        port=listener.getsockname()[1],
        token=secrets.token_urlsafe(32),
        instance=secrets.token_hex(16),
    )
    folder = Path("data", "tmp")
    folder.mkdir(exist_ok=True)
    interface = Interface(engine, token=state.token, instance=state.instance, port=state.port, folder=str(folder))
    logging.getLogger("uvicorn.error").addFilter(lambda record: "without completing response" not in record.getMessage())
    config = uvicorn.Config(
        interface.app(),
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_keep_alive=3600,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=1 << 21,
    )
    server = uvicorn.Server(config)
    _write_state(state)
    if ready >= 0:
        os.write(ready, b"ok")
        os.close(ready)
    logger.info("ready on 127.0.0.1:%s, pid %s, ClickHouse %s", state.port, state.pid, engine.version)

    async def run() -> None:
        idle = asyncio.ensure_future(_stop_when_idle(server, interface, engine))
        await server.serve(sockets=[listener])
        idle.cancel()

    # uvicorn stops on SIGTERM and then raises it again, for whoever handled it before: nobody, but not to die of it
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        asyncio.run(run())
    finally:
        _remove_state(state)
    engine.close()
    logger.info("stopped")


async def _stop_when_idle(server: object, interface: object, engine: object) -> None:
    from factory_lib.warehouse.engine.app import Interface
    from factory_lib.warehouse.engine.connection import Engine

    assert isinstance(interface, Interface)
    assert isinstance(engine, Engine)
    limit = settings().engine_idle_seconds
    while True:
        await asyncio.sleep(min(5.0, max(0.1, limit / 4)))
        sessions = await asyncio.to_thread(engine.expire_sessions)
        idle = time.monotonic() - interface.last_used
        if sessions or interface.in_flight or idle < limit or await asyncio.to_thread(engine.at_work):
            continue
        logger.info("idle for %.0f s, stopping", idle)
        server.should_exit = True  # type: ignore[attr-defined]
        return


def _write_state(state: EngineState) -> None:
    temporary = f"{STATE}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(state.as_dict(), file)
    os.replace(temporary, STATE)


def _remove_state(state: EngineState) -> None:
    found = EngineState.read(Path("."))
    if found is not None and found.instance == state.instance:
        os.unlink(STATE)


if __name__ == "__main__":
    main()
