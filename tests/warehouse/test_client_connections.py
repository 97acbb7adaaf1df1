"""The client: many at once, processes, addresses, and connections that are lost."""

from __future__ import annotations

import gc
import logging
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pytest

from factory_lib.errors import EngineError, SettingsError
from factory_lib.warehouse import pool
from factory_lib.warehouse.address import client_arguments, shown
from factory_lib.warehouse.client import Warehouse, warehouse
from factory_lib.warehouse.embedded import engine_url
from tests.client_engine import table, wh

__all__ = ["table", "wh"]


def test_threads_share_one_warehouse(wh: Warehouse, table: Callable[[str], str]) -> None:
    name = table("a Int64")

    def work(number: int) -> int:
        wh.insert(name, pa.table({"a": [number]}))
        with_setting = wh.scalar("SELECT getSetting('max_block_size')", settings={"max_block_size": number + 1})
        return int(with_setting) - int(wh.scalar("SELECT {n:Int64} + 1", {"n": number}))

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(work, range(64))) == {0}
    assert wh.scalar(f"SELECT sum(a) FROM {name}") == sum(range(64))
    assert warehouse() is wh


def test_garbage_may_be_collected_while_a_connection_is_taken(wh: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result in a cycle gives its connection back in the middle of that."""
    taken: list[int] = []

    def take(self: pool.ConnectionStack) -> Any:
        taken.append(gc.collect())
        return queue.LifoQueue._get(self)

    def work() -> None:
        held: list[Any] = [wh.stream("SELECT number, repeat('x', 100) AS text FROM system.numbers")]
        held[0].read_next_batch()
        held.append(held)
        del held
        wh.scalar("SELECT 1")

    monkeypatch.setattr(pool.ConnectionStack, "_get", take)
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(60)
    assert not worker.is_alive()
    assert any(taken)


def test_a_table_is_dropped_though_a_result_of_it_is_held(wh: Warehouse, table: Callable[[str], str]) -> None:
    """As one is by the error that interrupted whoever read it; the results of other tables go on."""
    mine, other = table("a Int64"), table("a Int64")
    for name in (mine, other):
        wh.execute(f"INSERT INTO {name} SELECT number FROM numbers(100)")
    # far more than is buffered anywhere: the engine waits for its reader
    endless = "SELECT a, number, repeat('x', 100) AS text FROM system.numbers AS many, {} AS few"
    held, going = wh.stream(endless.format(mine)), wh.stream(endless.format(other))
    next(iter(held))
    wh.drop(mine)
    assert wh.rows(f"EXISTS TABLE {mine}")[0]["result"] == 0
    assert sum(going.read_next_batch().num_rows for _ in range(50)) > 0


def test_garbage_that_is_collected_while_a_connection_is_made_drops_its_table(
    wh: Warehouse, table: Callable[[str], str]
) -> None:
    name = table("a Int64")
    with wh._lock:
        wh.drop(name)
    assert wh.rows(f"EXISTS TABLE {name}")[0]["result"] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_child_has_connections_of_its_own(wh: Warehouse) -> None:
    reader = wh.stream("SELECT number FROM numbers(3000000)")
    first = reader.read_next_batch().num_rows
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answers = [wh.scalar("SELECT 41 + 1"), warehouse().scalar("SELECT 1"), warehouse() is not wh]
            os.write(write_end, repr(answers).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read_end, 100) == b"[42, 1, True]"
    assert first + sum(batch.num_rows for batch in reader) == 3000000
    os.close(read_end)
    os.close(write_end)


def test_client_loads_nothing_heavy() -> None:
    code = """
import sys
import factory_lib.warehouse.client, factory_lib.warehouse.embedded
print([name for name in ("chdb", "clickhouse_connect", "pyarrow", "numpy", "starlette", "uvicorn") if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_chdb_stays_out_of_the_clients_process(wh: Warehouse) -> None:
    assert wh.scalar("SELECT 1") == 1
    assert "chdb" not in sys.modules


def test_server_by_url(factory_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = urlsplit(engine_url(factory_home))
    Warehouse(home=factory_home).execute("CREATE DATABASE IF NOT EXISTS by_url")
    url = f"http://127.0.0.1:{parts.port}/by_url?user=me&password={parts.password}&max_block_size=123"
    monkeypatch.setenv("FACTORY_CLICKHOUSE_URL", url)
    found = warehouse()
    assert not found.is_embedded
    assert found is warehouse()
    assert found.rows("SELECT currentDatabase() AS d, getSetting('max_block_size') AS s") == [{"d": "by_url", "s": 123}]
    assert found.query("SELECT number FROM numbers(100000)").num_rows == 100000
    found.execute("DROP DATABASE by_url")


def test_no_secret_in_messages_and_logs(factory_home: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = urlsplit(engine_url(factory_home))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        unused = closed.getsockname()[1]
    wrong = Warehouse(f"http://me:s3cret@127.0.0.1:{parts.port}/")
    away = Warehouse(f"http://me:s3cret@127.0.0.1:{unused}/?password=s3cret")
    with caplog.at_level(logging.DEBUG):
        with pytest.raises(EngineError, match="password is incorrect") as refused:
            wrong.scalar("SELECT 1")
        with pytest.raises(EngineError, match=rf"http://127.0.0.1:{unused} cannot be reached") as unreachable:
            away.execute("CREATE TABLE x (a Int8) ENGINE = Memory")
    assert (refused.value.code, unreachable.value.code) == (516, 0)
    for text in (str(refused.value), str(unreachable.value), repr(refused.value.__context__), caplog.text):
        assert "s3cret" not in text
        assert str(parts.password) not in text


def test_proxy_of_the_environment_is_not_for_the_embedded_engine(
    factory_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert Warehouse(home=factory_home).scalar("SELECT 1") == 1


def test_addresses() -> None:
    found = client_arguments("https://me:p%40ss@host/db?max_threads=2")
    assert found == {
        "interface": "https",
        "host": "host",
        "port": 8443,
        "username": "me",
        "password": "p@ss",
        "database": "db",
        "settings": {"max_threads": "2"},
    }
    plain = client_arguments("http://host")
    assert (plain["port"], plain["username"], plain["password"], plain["database"]) == (
        8123,
        "default",
        "",
        "__default__",
    )
    assert client_arguments("http://h:1/?database=x&user=u&password=p")["settings"] == {}
    assert shown("https://me:pw@host:1/db?password=pw") == "https://host:1"
    for bad in ("host:8123", "ftp://host", "http://", "http://host:port", "clickhouse://me:pw@host"):
        with pytest.raises(SettingsError, match="FACTORY_CLICKHOUSE_URL") as caught:
            client_arguments(bad)
        assert "pw" not in str(caught.value)


def test_warehouse_needs_one_place() -> None:
    with pytest.raises(ValueError, match="either a url or a home"):
        Warehouse()
    with pytest.raises(ValueError, match="either a url or a home"):
        Warehouse("http://x", home=Path("y"))


def test_connection_lost_while_a_result_is_read() -> None:
    """A server that dies in the middle of its answer: never a short result."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema({"a": pa.int64()})) as writer:
        for start in range(0, 100000, 10000):
            writer.write_batch(pa.record_batch({"a": np.arange(start, start + 10000)}))
    body = sink.getvalue().to_pybytes()
    half = body[: len(body) // 2]

    class Response:
        """urllib3's response, as far as it is used, over half a body."""

        headers = {"X-ClickHouse-Exception-Tag": "t"}

        def __init__(self, ending: Callable[[], bytes]) -> None:
            self._ending = ending
            self.closed = False

        def stream(self, size: int) -> Iterator[bytes]:
            yield half
            yield self._ending()

        def close(self) -> None:
            self.closed = True

        def release_conn(self) -> None: ...

    from urllib3.exceptions import ProtocolError

    from factory_lib.warehouse.results import ResultBody, open_result

    def cut() -> bytes:
        raise ProtocolError("Connection broken")

    for ending in (cut, lambda: b""):
        response = Response(ending)
        reader = open_result(ResultBody(response))
        with pytest.raises(EngineError, match="broke off"):
            reader.read_all()
        del reader
        assert response.closed


def test_slow_first_connection_is_made_once(factory_home: Path) -> None:
    fresh = Warehouse(home=factory_home)
    barrier = threading.Barrier(8)

    def ask(_: int) -> int:
        barrier.wait()
        return int(fresh.scalar("SELECT 1"))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 8
    assert len(fresh._clients) == 1
