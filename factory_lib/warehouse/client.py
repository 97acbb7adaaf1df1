"""The warehouse: SQL and Arrow to a ClickHouse server or the embedded engine. The only user of clickhouse-connect.

Types of results (ClickHouse -> Arrow): String, LowCardinality(String) -> string; FixedString, IPv6, (U)Int128/256 ->
fixed_size_binary; BFloat16 -> float32, alone and in arrays, tuples and maps; Date, Date32 -> date32; DateTime64 ->
timestamp with its zone; **DateTime -> uint32 seconds** (use DateTime64); Enum -> its number; Decimal -> decimal;
UUID -> arrow.uuid; Tuple -> struct; Map -> map; Nullable -> nullable. Much BFloat16 is quicker as `v::Array(Float32)`
in the SELECT: ClickHouse writes that ten times as fast as the two-byte strings that are otherwise widened here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from factory_lib.errors import DiskFull, EngineError, EngineUnreachable
from factory_lib.owners import folder_identity
from factory_lib.settings import settings as read_settings

if TYPE_CHECKING:
    import pyarrow as pa

    from factory_lib.warehouse.deployment import Deployment
    from factory_lib.warehouse.results import ConnectionLost, ResultBody

_ARROW = {
    "output_format_arrow_string_as_string": 1,
    "output_format_arrow_fixed_string_as_fixed_byte_array": 1,
    "output_format_arrow_low_cardinality_as_dictionary": 0,
}
_NO_FILES = "information_schema"
"""Where a name without a database is looked for: the embedded engine's default takes it for a file of the folder."""
_IN_URL = 1 << 15  # parameters longer than this together travel in the body as a form
_READ_SECONDS = 6 * 3600
_FULL = 202  # TOO_MANY_SIMULTANEOUS_QUERIES
_PLACE_SECONDS = 20.0
Values = Mapping[str, Any] | None
_Result = TypeVar("_Result")


class Warehouse:
    """SQL in, Arrow out. Thread-safe; connects when first used.

    Args:
        url: a ClickHouse server as `http(s)://user:password@host:port/database?setting=value`; or None with `home`.
        home: the data folder whose embedded engine is used, and started when it does not run.

    Attributes:
        connections: how often the engine was connected to: another one may have been started since.
    """

    def __init__(self, url: str | None = None, *, home: Path | None = None) -> None:
        if (url is None) == (home is None):
            raise ValueError("Warehouse needs either a url or a home")
        self._url = url
        self._home = home
        self._clients: dict[tuple[bool, int, str], Any] = {}
        self.connections = 0
        self._streams: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        self.forget_lock()

    @property
    def is_embedded(self) -> bool:
        """Whether this is the embedded engine of a data folder."""
        return self._home is not None

    @cached_property
    def deployment(self) -> Deployment:
        """What kind of ClickHouse it is, by which statements differ; a server is asked.

        Raises:
            EngineError: it does not answer.
        """
        from factory_lib.warehouse.deployment import EMBEDDED, asked

        def rows(sql: str) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = self._reading(lambda: self._whole(sql, None, None, {})).to_pylist()
            return found

        return EMBEDDED if self.is_embedded else asked(rows)

    @property
    def is_up(self) -> bool:
        """Whether a statement would start no engine."""
        if self._home is None:
            return True
        from factory_lib.warehouse.embedded import is_held

        return is_held(self._home)

    @property
    def home(self) -> Path | None:
        """The data folder, where this is an embedded engine."""
        return self._home

    def execute(self, sql: str, params: Values = None, settings: Values = None) -> None:
        """Run a statement that returns nothing: DDL, mutations, INSERT … SELECT.

        Args:
            sql: one statement; `{name:Type}` stands for a parameter, bound on the server.
            params: values of the parameters: str, int, float, bool, None, date, datetime, lists, tuples, mappings,
                NumPy arrays. A server takes values of up to 128 KiB (its `http_max_field_value_size`): put longer lists
                into a table.
            settings: ClickHouse settings for this statement.

        Raises:
            EngineError: the engine refused it, or was lost while it ran (then it may have been applied, and the message
                says so).
        """
        given = {**self.deployment.writing, **(settings or {})}
        self._once(lambda: self._send("raw_query", sql, params, given), sql)

    def query(self, sql: str, params: Values = None, settings: Values = None) -> pa.Table:
        """The whole result of a SELECT. Arguments and errors as for `execute`."""
        return self._reading(lambda: self._whole(sql, params, settings, self.deployment.reading))

    def stream(self, sql: str, params: Values = None, settings: Values = None) -> pa.RecordBatchReader:
        """The result of a SELECT as it comes, in constant memory. Arguments as for `execute`.

        Dropping the reader ends the query (pyarrow's `close()` alone lets go of nothing). Errors in the middle are
        raised by the reader as `EngineError`.
        """
        return self._reading(lambda: self._streamed(sql, params, settings))

    def scalar(self, sql: str, params: Values = None, settings: Values = None) -> Any:
        """First column of the first row as a Python value; None when there is no row."""
        table = self.query(sql, params, settings)
        return table.column(0)[0].as_py() if table.num_rows and table.num_columns else None

    def rows(self, sql: str, params: Values = None, settings: Values = None) -> list[dict[str, Any]]:
        """A small result as dictionaries."""
        found: list[dict[str, Any]] = self.query(sql, params, settings).to_pylist()
        return found

    def insert(
        self,
        table: str,
        data: pa.Table | pa.RecordBatch | pa.RecordBatchReader,
        settings: Values = None,
    ) -> int:
        """Append rows to a table, in a stream.

        Args:
            table: `database.table`, as in SQL.
            data: columns by name; columns that the data lacks get their defaults. Floats may go into BFloat16 (rounded
                to nearest), lists into Array, structs into Tuple, dictionaries into what they stand for.
            settings: ClickHouse settings for this insert.

        Returns:
            Rows sent.

        Raises:
            EngineError: as for `execute`. An insert of more than a million rows that fails may leave a part of them.
        """
        from factory_lib.warehouse.arrow_types import PLAIN_TYPES
        from factory_lib.warehouse.uploads import Upload, as_reader

        def types() -> dict[str, str]:
            return {row["name"]: row["type"] for row in self.rows(f"DESCRIBE TABLE {table}", settings=PLAIN_TYPES)}

        upload = Upload(as_reader(data), types)
        if upload.empty:
            return 0

        given = {**self.deployment.writing, **(settings or {})}

        def send() -> Any:
            return self._client().raw_insert(table, upload.names, iter(upload), settings=given, fmt="ArrowStream")

        done = self._once(send, f"INSERT INTO {table}", lambda: upload.repeatable)
        written = (getattr(done, "summary", None) or {}).get("written_rows")
        if written is not None and int(written) < upload.rows:
            raise EngineError(f"Of {upload.rows:,} rows that were sent to {table}, {int(written):,} were written.")
        return upload.rows

    def copy(self, sql: str, target: Warehouse, table: str, params: Values = None) -> None:
        """Write the rows of a SELECT into a table of another warehouse, in a stream and with the types that they have.

        Args:
            sql: a SELECT without FORMAT; its columns are those of the table, in the same order.
            table: `database.table`, as in SQL.

        Raises:
            EngineError: as for `execute`, of either; a part of the rows may have been written then.
        """
        from factory_lib.warehouse.results import ResultBody

        with contextlib.closing(ResultBody(self._reading(lambda: self._native(sql, params)))) as body:
            chunks = body.whole_chunks()
            target._once(
                lambda: target._client().raw_insert(
                    table, insert_block=chunks, settings=dict(target.deployment.writing), fmt="Native"
                ),
                f"INSERT INTO {table}",
                lambda: False,
            )

    def _native(self, sql: str, params: Values) -> Any:
        return self._send("raw_stream", sql, params, None, fmt="Native")

    def drop(self, table: str) -> None:
        """Drop a table that is this process's own, if there is one; streams of it in this process are ended.

        An error holds what it interrupted for as long as somebody handles it: a stream that was read half keeps its
        tables, and their end would be waited for without an end.

        Args:
            table: `database.table`, as in SQL.

        Raises:
            EngineError: as for `execute`.
        """
        named = re.compile(rf"(?<!\w){re.escape(table.rpartition('.')[2].strip('`'))}(?!\w)")
        with self._lock:
            reading = [body for body, sql in list(self._streams.items()) if named.search(sql)]
        for body in reading:
            body.close()
        self.execute(f"DROP TABLE IF EXISTS {table} SYNC")

    def syntax_tree(self, sql: str) -> list[str]:
        """The lines of the engine's own parse of a statement that reads; it is not run.

        Raises:
            EngineError: it cannot be parsed.
        """
        text = self._reading(lambda: self._send("raw_query", f"EXPLAIN AST {sql}", None, {"readonly": 1}))
        return str(bytes(text).decode("utf-8", "replace")).split("\n")

    @property
    def version(self) -> str:
        """Version of the ClickHouse that answers, as it said when the connection was made."""
        found: str = self._translating(lambda: self._client().server_version)
        return found

    def check_space(self, needed: int) -> None:
        """Refuse to write so many bytes, on the disk of the embedded engine, when there is no room for them.

        Raises:
            DiskFull: there is not.
        """
        if self._home is not None:
            from factory_lib.warehouse.space import check_space

            check_space(self._home, needed)

    def sync(self) -> None:
        """Return when everything that was written is on the medium, safe from a power cut.

        A server does that by itself, with the settings in `docker/clickhouse/server.xml`.

        Raises:
            EngineError: the disk cannot keep it.
        """
        if self._home is not None:
            from factory_lib.warehouse.durable import sync_disk

            sync_disk(self._home / "data")

    def close(self) -> None:
        """Drop the connections; the next call makes new ones."""
        with self._lock:
            self._clients.clear()

    def _send(self, method: str, sql: str, params: Values, settings: Values, **more: Any) -> Any:
        from factory_lib.warehouse.parameters import bound

        values = bound(params)
        form = sum(map(len, values.values())) > _IN_URL
        # without any placeholder clickhouse-connect would take the SQL for a Python format string
        given = (
            {name: _Text(text) for name, text in values.items()}
            if any(f"{{{name}:" in sql for name in values)
            else None
        )
        return getattr(self._client(form), method)(sql, parameters=given, settings=dict(settings or {}), **more)

    def _whole(self, sql: str, params: Values, settings: Values, reading: Mapping[str, object]) -> pa.Table:
        from factory_lib.warehouse.results import open_result

        with contextlib.closing(self._ask(sql, params, settings, reading)) as body:
            return open_result(body).read_all()

    def _streamed(self, sql: str, params: Values, settings: Values) -> pa.RecordBatchReader:
        from factory_lib.warehouse.results import open_result

        body = self._ask(sql, params, settings, self.deployment.reading)
        with self._lock:
            self._streams[body] = sql
        return open_result(body)

    def _ask(self, sql: str, params: Values, settings: Values, reading: Mapping[str, object]) -> ResultBody:
        from factory_lib.warehouse.results import ResultBody

        asked = {**_ARROW, **reading, **(settings or {})}
        return ResultBody(self._send("raw_stream", sql, params, asked, fmt="ArrowStream"))

    def forget_lock(self) -> None:
        """A new lock, for a forked child: another thread may have held the old one at that moment."""
        # A thread may come a second time: garbage is collected at any moment, and tables go with the queries of theirs.
        self._lock = threading.RLock()

    def _client(self, form: bool = False) -> Any:
        with self._lock:
            key = self._connection_key(form)
            if key not in self._clients:
                made = self._connect(form)
                self.connections += 1
                key = self._connection_key(form)  # that may have made the folder
                self._clients[key] = made
            return self._clients[key]

    def _connection_key(self, form: bool) -> tuple[bool, int, str]:
        """A child must not use its parent's sockets, nor a copy put in a folder's place the engine of the original."""
        return form, os.getpid(), folder_identity(self._home) if self._home is not None else ""

    def _connect(self, form: bool) -> Any:
        import clickhouse_connect
        from clickhouse_connect import common

        from factory_lib.warehouse.address import client_arguments
        from factory_lib.warehouse.embedded import engine_url
        from factory_lib.warehouse.pool import pool_of

        # the server knows best which settings it has
        common.set_setting("invalid_setting_action", "send")
        # its warnings repeat the errors that are raised
        logging.getLogger("clickhouse_connect").setLevel(logging.ERROR)
        url = engine_url(self._home) if self._home is not None else self._url
        assert url is not None
        given = client_arguments(url) | ({"database": _NO_FILES} if self.is_embedded else {})
        # The embedded engine is kept away from proxies in the environment, token and all.
        pool = pool_of(given["interface"], given["host"], given["port"], proxies=not self.is_embedded)
        return clickhouse_connect.get_client(
            **given,
            pool_mgr=pool,
            # a session would allow one statement at a time
            autogenerate_session_id=False,
            compress=False,
            send_receive_timeout=_READ_SECONDS,
            client_name="dataset-factory",
            form_encode_query_params=form,
        )

    def _reading(self, call: Callable[[], _Result]) -> _Result:
        """A call that changes nothing: tried once more when the connection, or the embedded engine, was lost."""
        return self._twice(call, lambda lost: True, "")

    def _once(self, call: Callable[[], _Result], sql: str, repeatable: Callable[[], bool] = lambda: True) -> _Result:
        """A call that may change something: repeated only when it cannot have been received."""
        return self._twice(call, lambda lost: not lost.sent and repeatable(), sql)

    def _twice(self, call: Callable[[], _Result], again: Callable[[ConnectionLost], bool], sql: str) -> _Result:
        from factory_lib.warehouse.results import ConnectionLost

        try:
            return self._when_there_is_a_place(call)
        except ConnectionLost as lost:
            self.close()
            if not again(lost):
                if not lost.sent:
                    raise EngineUnreachable(f"{lost.message} The rows were not written.", "Run it again.") from None
                shown = " ".join(sql.split())[:200]
                message = f"{lost.message} The statement may or may not have been applied: {shown}"
                raise EngineUnreachable(message, "Look before you run it again.") from None
        try:
            return self._translating(call)
        except ConnectionLost as lost:
            raise EngineUnreachable(lost.message, lost.hint) from None

    def _when_there_is_a_place(self, call: Callable[[], _Result]) -> _Result:
        """A call, made again for a while when the engine has no place for one more statement and begins none."""
        until = time.monotonic() + _PLACE_SECONDS
        pause = 0.1
        while True:
            try:
                return self._translating(call)
            except EngineError as error:
                if error.code != _FULL or time.monotonic() + pause > until:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def _translating(self, call: Callable[[], _Result]) -> _Result:
        from clickhouse_connect.driver.exceptions import Error

        from factory_lib.warehouse.results import translated

        try:
            return call()
        except Error as error:
            found = translated(error, self._where())
            if isinstance(found, DiskFull) and self._home is not None:
                from factory_lib.warehouse.space import disk_full

                found = disk_full(self._home)
            elif self._home is not None and "S3_ERROR" in found.message:
                from factory_lib.warehouse.bucket.failing import bucket_failed

                found = bucket_failed(self._home, found)
            try:
                raise found from None
            finally:
                del found  # or the error holds this frame, and with it what callers have, until garbage is collected

    def _where(self) -> str:
        if self._home is not None:
            return f"The embedded engine of {self._home}"
        from factory_lib.warehouse.address import shown

        return f"The ClickHouse server at {shown(self._url or '')}"


class _Text:
    """A parameter already in ClickHouse's form; clickhouse-connect takes the text of what it does not know."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


_warehouses: dict[tuple[str, int], Warehouse] = {}
_warehouses_lock = threading.Lock()


def warehouse() -> Warehouse:
    """The warehouse that the settings name: `FACTORY_CLICKHOUSE_URL`, or the embedded engine of `FACTORY_HOME`.

    One object for each process and address; a forked child makes its own.
    """
    found = read_settings()
    key = (found.clickhouse_url or str(found.home), os.getpid())
    with _warehouses_lock:
        if key not in _warehouses:
            _warehouses[key] = Warehouse(found.clickhouse_url) if found.clickhouse_url else Warehouse(home=found.home)
        return _warehouses[key]


def _after_fork() -> None:
    global _warehouses_lock
    _warehouses_lock = threading.Lock()
    for known in _warehouses.values():
        known.forget_lock()


os.register_at_fork(after_in_child=_after_fork)
