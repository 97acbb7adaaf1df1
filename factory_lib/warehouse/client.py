"""The warehouse: SQL and Arrow to a ClickHouse server or the embedded engine. The only user of clickhouse-connect.

Arrow types that results arrive with (ClickHouse -> Arrow): String, LowCardinality(String) -> string; FixedString, IPv6,
(U)Int128/256 -> fixed_size_binary; BFloat16 -> float32, alone and in arrays, tuples and maps; Date -> date32; DateTime64 ->
timestamp with its zone; **DateTime -> uint32 seconds** (use DateTime64); Enum -> its number; Decimal -> decimal; UUID -> arrow.uuid;
Tuple -> struct; Map -> map; Nullable -> nullable. A large `Array(BFloat16)` is quicker as `v::Array(Float32)` in the SELECT:
ClickHouse writes it ten times as fast as the two-byte strings that this module otherwise widens.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from factory_lib.errors import EngineError, SettingsError
from factory_lib.settings import settings as read_settings

if TYPE_CHECKING:
    import pyarrow as pa

_ARROW = {
    "output_format_arrow_string_as_string": 1,
    "output_format_arrow_fixed_string_as_fixed_byte_array": 1,
    "output_format_arrow_low_cardinality_as_dictionary": 0,
    "output_format_arrow_unsupported_types_as_binary": 1,
}
_INSERT_ROWS = 1 << 16
_Result = TypeVar("_Result")


class Warehouse:
    """SQL in, Arrow out. Thread-safe; connects when first used.

    Args:
        url: a ClickHouse server as `http(s)://user:password@host:port/database?setting=value`; or None with `home`.
        home: the data folder whose embedded engine is used, and started when it does not run.
    """

    def __init__(self, url: str | None = None, *, home: Path | None = None) -> None:
        if (url is None) == (home is None):
            raise ValueError("Warehouse needs either a url or a home")
        self._url = url
        self._home = home
        self._client: Any = None
        self._lock = threading.Lock()

    @property
    def is_embedded(self) -> bool:
        """Whether this is the embedded engine of a data folder."""
        return self._home is not None

    def execute(self, sql: str, params: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None) -> None:
        """Run a statement that returns nothing: DDL, mutations, INSERT … SELECT.

        Args:
            sql: one statement; `{name:Type}` stands for a parameter, bound on the server.
            params: values of the parameters: str, int, float, bool, None, datetime, lists and arrays.
            settings: ClickHouse settings for this statement.

        Raises:
            EngineError: the engine refused it, or was lost while it ran (then it may have been applied, and the message says so).
        """
        self._once(lambda client: client.raw_query(sql, parameters=_bound(params), settings=dict(settings or {})), sql)

    def query(self, sql: str, params: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None) -> pa.Table:
        """The whole result of a SELECT. Arguments and errors as for `execute`."""

        def read(client: Any) -> pa.Table:
            return self._open(client, sql, params, settings).read_all()

        return self._read(read)

    def stream(self, sql: str, params: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None) -> pa.RecordBatchReader:
        """The result of a SELECT as it comes, in constant memory; closing the reader ends the query.

        Errors in the middle are raised by the reader as `EngineError`. Arguments as for `execute`.
        """
        return self._read(lambda client: self._open(client, sql, params, settings))

    def scalar(self, sql: str, params: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None) -> Any:
        """First column of the first row as a Python value; None when there is no row."""
        table = self.query(sql, params, settings)
        return table.column(0)[0].as_py() if table.num_rows and table.num_columns else None

    def rows(self, sql: str, params: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """A small result as dictionaries."""
        found: list[dict[str, Any]] = self.query(sql, params, settings).to_pylist()
        return found

    def insert(self, table: str, data: pa.Table | pa.RecordBatch | pa.RecordBatchReader, settings: Mapping[str, Any] | None = None) -> int:
        """Append rows to a table, in a stream.

        Args:
            table: `database.table`, as in SQL.
            data: columns by name; columns the data lacks get their defaults. Floats may go into BFloat16 (rounded to nearest),
                lists into Array, structs into Tuple, dictionaries into what they stand for.
            settings: ClickHouse settings for this insert.

        Returns:
            Rows sent.

        Raises:
            EngineError: as for `execute`. An insert that fails after its first part of rows may leave those.
        """
        import pyarrow as pa

        from factory_lib.warehouse.values import narrow_columns, outgoing

        reader = pa.RecordBatchReader.from_batches(data.schema, [data]) if isinstance(data, pa.RecordBatch) else data
        if isinstance(reader, pa.Table):
            reader = reader.to_reader(max_chunksize=_INSERT_ROWS)
        names = list(reader.schema.names)
        narrow: frozenset[str] = frozenset()
        if any("float" in str(field.type) or "double" in str(field.type) for field in reader.schema):
            narrow = narrow_columns({row["name"]: row["type"] for row in self.rows(f"DESCRIBE TABLE {table}")})
        sent = 0

        def blocks() -> Iterator[bytes]:
            nonlocal sent
            sink = _Sink()
            writer: Any = None
            for batch in reader:
                for start in range(0, batch.num_rows, _INSERT_ROWS):
                    piece = outgoing(batch.slice(start, _INSERT_ROWS), narrow)
                    writer = writer or pa.ipc.new_stream(sink, piece.schema)
                    writer.write_batch(piece)
                    sent += piece.num_rows
                    yield sink.take()
            if writer is not None:
                writer.close()
                yield sink.take()

        first = next(stream := blocks(), None)
        if first is None:
            return 0

        def whole() -> Iterator[bytes]:
            yield first
            yield from stream

        columns = ", ".join(_quoted(name) for name in names)
        statement = f"INSERT INTO {table} ({columns}) FORMAT ArrowStream"
        values = {"query": statement}
        self._once(
            lambda client: client.raw_insert(
                insert_block=whole(), settings=dict(settings or {}), transport_settings=None, fmt="ArrowStream", table=table, column_names=names
            ),
            values["query"],
        )
        return sent

    def close(self) -> None:
        """Drop the connections; the next call makes new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _open(self, client: Any, sql: str, params: Mapping[str, Any] | None, settings: Mapping[str, Any] | None) -> pa.RecordBatchReader:
        from factory_lib.warehouse.results import open_result

        asked = {**_ARROW, "output_format_arrow_compression_method": "none" if self.is_embedded else "lz4_frame", **(settings or {})}
        response = client.raw_stream(sql, parameters=_bound(params), settings=asked, fmt="ArrowStream")
        return open_result(response)

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> Any:
        import clickhouse_connect
        from clickhouse_connect import common

        from factory_lib.warehouse.embedded import engine_url

        # what the server does not know it refuses itself
        common.set_setting("invalid_setting_action", "send")
        url = engine_url(self._home) if self._home is not None else self._url
        assert url is not None
        return clickhouse_connect.get_client(**_arguments(url, embedded=self.is_embedded))

    def _read(self, call: Callable[[Any], _Result]) -> _Result:
        """A call that changes nothing: tried once more when the connection, or the embedded engine, was lost."""
        try:
            return self._call(call)
        except _Lost:
            self.close()
        try:
            return self._call(call)
        except _Lost as error:
            raise EngineError(error.message, error.hint) from None

    def _once(self, call: Callable[[Any], _Result], sql: str) -> _Result:
        """A call that may change something: repeated only when it cannot have been received."""
        try:
            return self._call(call)
        except _Lost as error:
            self.close()
            if error.sent:
                raise EngineError(
                    f"{error.message} This statement may or may not have been applied: {_short(sql)}", "Look before you run it again."
                ) from None
        try:
            return self._call(call)
        except _Lost as error:
            raise EngineError(error.message, error.hint) from None

    def _call(self, call: Callable[[Any], _Result]) -> _Result:
        from clickhouse_connect.driver.exceptions import Error as DriverError

        try:
            client = self._connected()
            return call(client)
        except DriverError as error:
            raise _translated(error, self._where()) from None

    def _where(self) -> str:
        if self._home is not None:
            return f"the embedded engine of {self._home}"
        parts = urlsplit(self._url or "")
        return f"{parts.scheme}://{parts.hostname}:{parts.port or ''}".rstrip(":")


class _Lost(EngineError):
    """The connection failed. `sent`: the statement may have reached the engine."""

    def __init__(self, message: str, hint: str = "", *, sent: bool) -> None:
        self.sent = sent
        super().__init__(message, hint)


class _Sink:
    """A file that keeps what is written until it is taken."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def flush(self) -> None: ...

    def close(self) -> None: ...


def _translated(error: Exception, where: str) -> EngineError:
    from factory_lib.warehouse.results import engine_error

    text = str(error)
    if "Code: " in text and "DB::Exception" in text:
        return engine_error(text)
    cause: BaseException | None = error
    names = []
    while cause is not None:
        names.append(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    refused = any(name in ("NewConnectionError", "ConnectionRefusedError", "NameResolutionError") for name in names)
    kind = "cannot be reached" if refused else "closed the connection"
    return _Lost(f"The connection to {where} failed: it {kind}.", "Is it running?", sent=not refused)


def _bound(params: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not params:
        return None
    from factory_lib.warehouse.values import bound

    return {name: bound(value) for name, value in params.items()}


def _quoted(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _short(sql: str, limit: int = 120) -> str:
    line = " ".join(sql.split())
    return line if len(line) <= limit else line[:limit] + "…"


def _arguments(url: str, *, embedded: bool) -> dict[str, Any]:
    """clickhouse-connect's arguments for a URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(
            "FACTORY_CLICKHOUSE_URL is not the address of a ClickHouse server.", "It looks like https://user:password@host:8443/database?setting=value"
        )
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    database = given.pop("database", "") or unquote(parts.path.strip("/"))
    user = given.pop("user", "") or unquote(parts.username or "") or "default"
    password = given.pop("password", "") or unquote(parts.password or "")
    return {
        "interface": parts.scheme,
        "host": parts.hostname,
        "port": port or (8443 if parts.scheme == "https" else 8123),
        "username": user,
        "password": password,
        "database": database or "__default__",
        "settings": given,
        # sessions would forbid two statements at once
        "autogenerate_session_id": False,
        "compress": False,
        "query_limit": 0,
        "send_receive_timeout": 24 * 3600 if embedded else 3600,
        "client_name": "dataset-factory",
        "form_encode_query_params": False,
    }


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


os.register_at_fork(after_in_child=_after_fork)
