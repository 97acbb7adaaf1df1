"""What is sent to the embedded engine and what it answers: compressed, in streams, of many at once."""

from __future__ import annotations

import gzip
import json
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import clickhouse_connect
import httpx
import lz4.frame
import pyarrow as pa
import pytest
import zstandard

from tests.engine_http import MIB, Http, http, table
from tests.waiting import wait_for

__all__ = ["http", "table"]


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "lz4": lz4.frame.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "br": lambda data: pa.compress(data, "brotli", asbytes=True),
    "bz2": __import__("bz2").compress,
    "identity": bytes,
}
DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "lz4": lz4.frame.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


@pytest.mark.parametrize("encoding", ENCODERS)
def test_compressed_bodies(http: Http, table: str, encoding: str) -> None:
    rows = "".join(f"{number}\t{number % 7}\n" for number in range(200000)).encode()
    sql = f"INSERT INTO {table} FORMAT TSV"
    inside = ENCODERS[encoding](sql.encode() + b"\n" + rows)
    assert http.post(inside, {"Content-Encoding": encoding}).status_code == 200
    beside = http.post(ENCODERS[encoding](rows), {"Content-Encoding": encoding}, query=sql)
    assert beside.status_code == 200, beside.text
    assert http.text(f"SELECT count(), sum(a) FROM {table}") == f"400000\t{2 * sum(range(200000))}\n"
    if encoding != "identity":
        for damaged in (inside[: len(inside) // 2], b"nonsense" * 100):
            assert http.post(damaged, {"Content-Encoding": encoding}).headers["X-ClickHouse-Exception-Code"] == "271"


def test_unknown_encodings_are_refused(http: Http) -> None:
    assert http.post("SELECT 1", {"Content-Encoding": "rot13"}).status_code == 501
    assert http.post("SELECT 1", decompress=1).status_code == 501


@pytest.mark.parametrize("encoding", DECODERS)
@pytest.mark.parametrize("rows", [5000, 1000000])
def test_compressed_answers(http: Http, encoding: str, rows: int) -> None:
    sql = f"SELECT number FROM numbers({rows})"
    asked = {"enable_http_compression": 1}
    with http.client.stream(
        "POST", http.bare, content=sql, params=asked, headers={"Accept-Encoding": encoding}
    ) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["Content-Encoding"] == encoding
    plain = "".join(f"{number}\n" for number in range(rows)).encode()
    assert len(raw) < len(plain)
    assert DECODERS[encoding](raw) == plain
    assert "Content-Encoding" not in http.post("SELECT 1", {"Accept-Encoding": encoding}).headers


def test_encoding_is_chosen_by_weight(http: Http) -> None:
    sql = "SELECT number FROM numbers(5000)"
    for header, expected in [
        ("gzip;q=0.5, deflate", "deflate"),
        ("zstd;q=0, gzip", "gzip"),
        ("nothing", None),
        ("*", "zstd"),
    ]:
        with http.client.stream(
            "POST", http.bare, content=sql, params={"enable_http_compression": 1}, headers={"Accept-Encoding": header}
        ) as answer:
            assert answer.headers.get("Content-Encoding") == expected


def test_body_that_unpacks_into_too_much_is_refused_in_constant_memory(http: Http) -> None:
    bomb = gzip.compress(b"SELECT " + b" " * (100 * MIB), 1)
    assert len(bomb) < MIB
    http.forget_memory()
    before = http.memory()
    answer = http.post(bomb, {"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (413, "229")
    assert http.memory() - before < 200 * MIB


def test_insert_streams_in_constant_memory(http: Http) -> None:
    http.text("CREATE TABLE nothing (a UInt64, b UInt64) ENGINE = Null")
    block = (b"\x01" + b"\x00" * 15) * 65536

    def blocks(count: int) -> Iterator[bytes]:
        for _ in range(count):
            yield block

    asked = {"query": "INSERT INTO nothing FORMAT RowBinary", "min_insert_block_size_bytes": MIB}
    http.client.post(http.bare, content=blocks(16), params=asked)
    http.forget_memory()
    before = http.memory()
    answer = http.client.post(http.bare, content=blocks(256), params=asked)
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["written_rows"] == str(256 * 65536)
    assert http.memory() - before < 128 * MIB
    http.text("DROP TABLE nothing")


def test_insert_that_fails_or_breaks_off_leaves_nothing(http: Http, table: str) -> None:
    bad = http.post("1\ta\n" * 200000 + "x\ty\n", query=f"INSERT INTO {table} FORMAT TSV")
    assert bad.headers["X-ClickHouse-Exception-Code"] == "27"

    def breaking() -> Iterator[bytes]:
        yield b"1\ta\n" * 200000
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        http.client.post(http.bare, content=breaking(), params={"query": f"INSERT INTO {table} FORMAT TSV"})
    wait_for(lambda: not http.running("INSERT INTO"))
    assert http.text(f"SELECT count() FROM {table}") == "0\n"
    assert http.text(f"SELECT 1 FROM {table}") == "", "the table can still be used"


def test_many_clients_at_once(http: Http) -> None:
    barrier = threading.Barrier(24)

    def ask(number: int) -> int:
        barrier.wait()
        with httpx.Client(auth=("default", http.token), timeout=60, trust_env=False) as client:
            return sum(int(client.post(http.bare, content=f"SELECT {number} + {turn}").text) for turn in range(10))

    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(ask, range(24))) == [10 * number + 45 for number in range(24)]


def test_clickhouse_connect_with_its_own_formats(http: Http, table: str) -> None:
    for compress in ("lz4", "zstd", "gzip", False):
        client = clickhouse_connect.get_client(
            host="127.0.0.1", port=http.port, password=http.token, compress=compress, autogenerate_session_id=True
        )
        client.command(f"TRUNCATE TABLE {table}")
        client.insert(table, [[number, f"é{number}"] for number in range(5000)], column_names=["a", "s"])
        found = client.query(f"SELECT a, s FROM {table} WHERE a >= %(low)s ORDER BY a", parameters={"low": 4998})
        assert found.result_rows == [(4998, "é4998"), (4999, "é4999")]
        assert client.query_arrow(f"SELECT count() AS c FROM {table}").to_pydict() == {"c": [5000]}
        strange = client.query("SELECT {x:Array(String)}[2]", parameters={"x": ["a", "b'\\"]})
        assert strange.result_rows == [("b'\\",)]
        client.close()


def test_insert_from_the_input_function_is_refused(http: Http, table: str) -> None:
    """chDB takes the statement and drops the data."""
    sql = f"INSERT INTO {table} SELECT a + 1, upper(s) FROM input('a Int64, s String') FORMAT TSV\n1\tx\n"
    answer = http.post(sql)
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (501, "48")
