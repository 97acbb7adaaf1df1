"""What strangers, crowds and the end of the engine meet at its door."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from factory_lib.engine.bounded import HEAD_BYTES
from factory_lib.engine.lanes import PLACES, RESERVE
from factory_lib.warehouse import embedded
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.embedded import engine_status, engine_url, stop_engine

STREAM = "SELECT number, repeat('x', 1000) FROM system.numbers"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "home"
    yield folder
    stop_engine(folder)


def port_of(home: Path) -> int:
    engine_url(home)
    status = engine_status(home)
    assert status is not None
    return int(status["port"])


def sent_until_cut(connection: socket.socket, line: bytes) -> int:
    sent = 0
    try:
        while sent < 16 * HEAD_BYTES:
            connection.sendall(line)
            sent += len(line)
    except OSError:  # reset, or a broken pipe
        pass
    return sent


def test_a_head_without_end_is_cut_before_anybody_is_asked_who_he_is(factory_home: Path) -> None:
    port = port_of(factory_home)
    for line in (b"a: " + b"x" * 1000 + b"\r\n", b"x" * 1000):  # many headers; one that does not end
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nb: " % port)
            assert sent_until_cut(connection, line) < 16 * HEAD_BYTES
    assert httpx.get(f"http://127.0.0.1:{port}/ping").status_code == 200


@pytest.mark.parametrize(
    "value",
    [b"Basic \xff\xfe", "Basic ünicode".encode(), b"B\xc3\xa4sic x", b"Basic " + base64.b64encode(b"\xff:\xff")],
)
def test_an_authorization_that_is_no_ascii_is_refused_in_one_line(factory_home: Path, value: bytes) -> None:
    port, log = port_of(factory_home), factory_home / embedded.LOG
    before = log.stat().st_size
    answer = httpx.post(f"http://127.0.0.1:{port}/", content="SELECT 1", headers=[(b"Authorization", value)])
    assert answer.status_code in (401, 403)
    assert log.stat().st_size - before < 500


def test_held_streams_leave_a_reserve_for_short_statements(home: Path) -> None:
    url = urlsplit(engine_url(home))
    request = (
        f"POST /?max_block_size=1000&max_threads=1 HTTP/1.1\r\nHost: 127.0.0.1:{url.port}\r\nX-ClickHouse-Key: {url.password}\r\n"
        f"Content-Length: {len(STREAM)}\r\n\r\n{STREAM}"
    )
    held = []
    try:
        for _ in range(PLACES):
            connection = socket.create_connection(("127.0.0.1", url.port), timeout=60)
            connection.sendall(request.encode())
            held.append(connection)
        for connection in held:
            assert connection.recv(12) == b"HTTP/1.1 200"  # and no more of it is read
        warehouse = Warehouse(home=home)
        assert warehouse.scalar("SELECT 1") == 1
        warehouse.execute("CREATE TABLE default.t (a UInt8) ENGINE = MergeTree ORDER BY a")
        warehouse.execute("INSERT INTO default.t SELECT 1")
        assert warehouse.scalar("SELECT count() FROM default.t") == 1
        # one more that wants to stream is told so
        answer = httpx.post(f"http://127.0.0.1:{url.port}/", content=STREAM, auth=("default", url.password or ""))
        assert answer.status_code == 503
        assert "Code: 202" in answer.text
        assert RESERVE > 0
    finally:
        for connection in held:
            connection.close()


def test_a_statement_that_begins_while_an_idle_engine_stops_is_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_ENGINE_IDLE_SECONDS", "0.2")
    writers = [Warehouse(home=home) for _ in range(3)]
    writers[0].execute("CREATE TABLE default.t (a UInt64) ENGINE = MergeTree ORDER BY a")
    failed: list[Exception] = []

    def write(number: int) -> None:
        for i in range(5):
            time.sleep(0.2 + 0.05 * number + 0.02 * i)  # around the time when it leaves
            try:
                writers[number].execute(f"INSERT INTO default.t SELECT {10 * number + i}")
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert writers[0].query("SELECT a FROM default.t ORDER BY a").column(0).to_pylist() == [
        10 * number + i for number in range(3) for i in range(5)
    ]


def test_the_log_is_begun_anew_when_it_is_long(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_ENGINE_IDLE_SECONDS", "0.5")
    engine_url(home)
    log = home / embedded.LOG
    with open(log, "ab") as file:
        file.write(b"x" * (embedded.LOG_BYTES + 1))
    deadline = time.monotonic() + 20
    while log.stat().st_size > embedded.LOG_BYTES:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (home / f"{embedded.LOG}.1").stat().st_size > embedded.LOG_BYTES
