"""chDB inside the engine process: connections, sessions, settings, cancelling.

What chDB (4.4, core 26.9) does, and what follows:

* One engine a process and one process a folder; connections to it are cheap (0.1 ms) and each has its own settings,
  current database and temporary tables. So every request gets a connection of its own and nothing leaks into the next;
  only `session_id` keeps one. When the last connection closes, the engine shuts down: one stays open all the time.
* A connection runs one statement at a time; calls release the GIL, so threads run in parallel.
* Never fork once chDB is loaded: its threads stay behind.
* `import chdb` opens an engine in memory and installs handlers for SEGV & co. (they print a stack trace); SIGTERM stays
  free.
* `query` gathers a result in memory, at 30 MB/s when it is large. `send_query` encodes every block as a file of its own
  (a header each in Arrow, JSON, CSVWithNames, …), so it cannot stream what a server would send either.
  `INTO OUTFILE '/dev/fd/N' APPEND` into a pipe does: one well-formed result, back pressure, constant memory. When the
  reader closes the pipe the query ends without an error.
* `send_insert` and `insert_done` say that rows are written which a full disk has lost. `FROM INFILE '/dev/fd/N'` out of
  a pipe is a statement like any other: it ends when its parts are there, or raises. Arrow out of a plain file is now
  and then read by seeking, which a pipe refuses (CANNOT_SEEK_THROUGH_FILE); in what is compressed nobody seeks. So the
  data goes as a frame of LZ4 whose blocks are stored as they are: it costs nothing, and its end cannot be mistaken.
* A `?`, `*` or `{` in the path is taken for options or a glob, and the connection still opens: `embedded` refuses them.
* There is no way to give a query its id. `log_comment`, a setting without effect, carries it, and `system.processes`
  shows it.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from factory_lib.engine.failure import EngineFailure, failure, from_engine
from factory_lib.engine.statement import Insert

_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_.]*$")
# clickhouse-local's own habits that a server does not have.
_AS_SERVER = {"implicit_select": "0"}


# LZ4's magic number, independent blocks of up to 4 MiB without checksums, and the checksum of that.
_FRAME = bytes.fromhex("04224d18 6070 73")
_FRAME_END = bytes(4)
_BLOCK, _STORED = 4 << 20, 1 << 31


def _write(pipe: IO[bytes], data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[pipe.write(rest) :]


def _write_blocks(pipe: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    for i in range(0, len(view), _BLOCK):
        block = view[i : i + _BLOCK]
        _write(pipe, (_STORED | len(block)).to_bytes(4, "little"))
        _write(pipe, block)


def quote(value: str) -> str:
    """A string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Connection:
    """One chDB connection. Not for two threads at once."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def query(self, sql: str | bytes, format: str = "TabSeparated", params: Mapping[str, str] | None = None) -> Any:
        """Run a statement to its end; the result holds `bytes()` and counts. Raises `EngineFailure`."""
        try:
            return self._raw.query(sql, format, params=dict(params or {}))
        except RuntimeError as error:
            raise from_engine(error) from None

    def set(self, settings: Mapping[str, str]) -> None:
        """Settings of this connection, all or none."""
        if not settings:
            return
        for name in settings:
            if not _NAME.match(name):
                raise failure(115, "UNKNOWN_SETTING", f"Unknown setting '{name}'")
        self.query("SET " + ", ".join(f"{name} = {quote(value)}" for name, value in settings.items()))

    def use(self, database: str) -> None:
        """The database that unqualified names refer to."""
        self.query("USE `" + database.replace("\\", "\\\\").replace("`", "\\`") + "`")

    def classify(self, sql: str | bytes) -> tuple[str, int]:
        """What the text would do (READ_ONLY, MUTATING, CONTROL, …; UNKNOWN: not parsed), in how many statements."""
        found = self._raw.classify_query(sql)
        return found["query_class"].name, int(found["statement_count"])

    def insert(self, insert: Insert, chunks: Iterator[bytes], cancel: Callable[[], bool]) -> tuple[int, int]:
        """An INSERT of data that comes in pieces: rows and bytes written. After an error, written parts may stay.

        Args:
            chunks: the data; when it raises, the statement is cancelled.
            cancel: cancels the statement of this connection; whether it ran already.
        """
        source, sink = os.pipe()
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(self._insert_from, insert, source)
            try:
                with os.fdopen(sink, "wb", 0) as pipe:
                    try:
                        _write(pipe, _FRAME)
                        for chunk in chunks:
                            _write_blocks(pipe, chunk)
                        _write(pipe, _FRAME_END)
                    except BrokenPipeError:  # the statement failed, and says why
                        pass
                    except BaseException:
                        # An end of the data that is none must not look like one: first the statement is cancelled.
                        while not running.done() and not cancel():
                            wait([running], timeout=0.05)
                        raise
                return running.result()
            finally:
                wait([running])

    def _insert_from(self, insert: Insert, source: int) -> tuple[int, int]:
        try:
            result = self.query(insert.piped(f"/dev/fd/{source}"))
            return int(result.rows_written()), int(result.bytes_written())
        finally:
            os.close(source)

    @contextlib.contextmanager
    def temporarily(self, settings: Mapping[str, str]) -> Iterator[None]:
        """Settings for one statement of a session, put back afterwards."""
        names = ", ".join(quote(name) for name in settings)
        lines = ""
        if settings:
            found = self.query(f"SELECT name, value, changed FROM system.settings WHERE name IN ({names})")
            lines = found.bytes().decode()
        before = [line.split("\t") for line in lines.splitlines()]
        self.set(settings)
        try:
            yield
        finally:
            self.set({name: value for name, value, changed in before if changed == "1"})
            defaults = [f"{name} = DEFAULT" for name, _, changed in before if changed != "1"]
            if defaults:
                self.query("SET " + ", ".join(defaults))

    def close(self) -> None:
        """Give the connection back to chDB."""
        self._raw.close()


@dataclass
class _Session:
    connection: Connection
    expires: float
    lock: threading.Lock = field(default_factory=threading.Lock)


class Engine:
    """The engine of this process.

    Args:
        path: folder of the tables, with chDB's options after a question mark.

    Attributes:
        folder: that folder.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.folder = Path(path.partition("?")[0]).absolute()
        self._first = self.connection()
        self._sessions: dict[str, _Session] = {}
        self._guard = threading.Lock()
        answer = self._first.query("SELECT version(), timezone()").bytes().decode()
        self.version, self.timezone = answer.rstrip("\n").split("\t")

    def connection(self, settings: Mapping[str, str] | None = None) -> Connection:
        """A new connection with these settings; its user closes it. Raises `EngineFailure`."""
        from chdb import _chdb

        connection = Connection(_chdb.connect(self._path))  # type: ignore[attr-defined]
        try:
            # one SET for all: each costs 0.2 ms
            connection.set({**_AS_SERVER, **(settings or {})})
        except EngineFailure:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def session(self, name: str, timeout: float, must_exist: bool) -> Iterator[Connection]:
        """The connection of a session, kept for `timeout` seconds after its last use.

        Raises:
            EngineFailure: another statement runs in it (373), or it should exist and does not (372).
        """
        with self._guard:
            found = self._sessions.get(name)
            if found is None:
                if must_exist:
                    raise failure(372, "SESSION_NOT_FOUND", f"Session {name} not found")
                found = self._sessions[name] = _Session(self.connection(), 0.0)
            if not found.lock.acquire(blocking=False):
                raise failure(373, "SESSION_IS_LOCKED", f"Session {name} is locked by a concurrent client")
        try:
            yield found.connection
        finally:
            found.expires = time.monotonic() + timeout
            found.lock.release()

    def expire_sessions(self) -> int:
        """Close the sessions whose time is over; how many are left."""
        with self._guard:
            for name, session in list(self._sessions.items()):
                if session.expires < time.monotonic() and session.lock.acquire(blocking=False):
                    del self._sessions[name]
                    session.connection.close()
            return len(self._sessions)

    def kill(self, label: str) -> bool:
        """Cancel the statements that carry `label` as their log_comment; whether there were any."""
        with contextlib.closing(self.connection()) as connection, contextlib.suppress(EngineFailure):
            return bool(connection.query(f"KILL QUERY WHERE Settings['log_comment'] = {quote(label)} ASYNC").bytes())
        return False

    def at_work(self) -> bool:
        """Whether mutations (but ones that keep failing) or merges run in the background; also when it cannot say."""
        mutations = "SELECT count() FROM system.mutations WHERE NOT is_done AND latest_fail_reason = ''"
        with contextlib.closing(self.connection()) as connection, contextlib.suppress(EngineFailure):
            return int(connection.query(f"SELECT ({mutations}) + (SELECT count() FROM system.merges)").bytes()) > 0
        return True

    def close(self) -> None:
        """Close every connection, which shuts chDB down."""
        for session in self._sessions.values():
            session.connection.close()
        self._first.close()
