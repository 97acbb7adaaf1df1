"""The engine's HTTP interface with what people speak to ClickHouse with: curl, httpx, clickhouse-connect."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import subprocess
import time
import uuid
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import clickhouse_connect
import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.engine_http import MIB, Http, http, table
from tests.waiting import wait_for

__all__ = ["http", "table"]


# --- who may ask ---------------------------------------------------------------------------------------------------


def test_token_in_each_of_its_places(http: Http) -> None:
    with httpx.Client(trust_env=False) as client:
        assert client.get(http.bare, params={"query": "SELECT 1", "password": http.token}).text == "1\n"
        assert client.post(http.bare, content="SELECT 1", headers={"X-ClickHouse-Key": http.token}).text == "1\n"
        assert client.post(http.bare, content="SELECT 1", auth=("anybody", http.token)).text == "1\n"
        nobody = client.post(http.bare, content="SELECT 1")
        assert (nobody.status_code, nobody.headers["X-ClickHouse-Exception-Code"]) == (401, "194")
        for wrong in (
            {"auth": ("default", "wrong")},
            {"headers": {"X-ClickHouse-Key": "wrong"}},
            {"params": {"password": "wrong"}},
        ):
            answer = client.post(http.bare, content="CREATE TABLE never (a Int8) ENGINE = Memory", **wrong)
            assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "516")
        broken = client.post(http.bare, content="SELECT 1", headers={"Authorization": "Basic !!"})
        assert broken.status_code == 403
    assert http.text("EXISTS TABLE never") == "0\n"


def test_only_loopback_under_its_own_name(http: Http) -> None:
    assert http.client.post(http.bare, content="SELECT 1", headers={"Host": f"localhost:{http.port}"}).text == "1\n"
    for host in ("evil.example", f"evil.example:{http.port}", "127.0.0.1", f"127.0.0.1:{http.port + 1}"):
        for path in ("", "ping"):
            assert http.client.post(http.bare + path, content="SELECT 1", headers={"Host": host}).status_code == 403
    listening = subprocess.run(["cat", f"/proc/{http.pid}/net/tcp"], capture_output=True, text=True, check=True).stdout
    assert f"0100007F:{http.port:04X}" in listening
    assert f"00000000:{http.port:04X}" not in listening


def test_ping(http: Http) -> None:
    with httpx.Client(trust_env=False) as client:
        assert client.get(http.bare + "ping").text == "Ok.\n"
        assert client.get(http.bare + "replicas_status").text == "Ok.\n"
        assert client.get(http.bare).text == "Ok.\n"
        assert client.get(http.bare + "nothing").status_code == 404


# --- statements ----------------------------------------------------------------------------------------------------


def test_curl_with_clickhouse_habits(http: Http, table: str, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")

    def run(*arguments: str, data: bytes = b"") -> str:
        done = subprocess.run([curl, "-sS", "--noproxy", "*", *arguments], input=data, capture_output=True, check=True)
        return done.stdout.decode()

    assert run(http.url, "-d", "SELECT 1") == "1\n"
    assert run(f"{http.url}?query=SELECT+1+FORMAT+CSV") == "1\n"
    assert run(f"{http.url}?query=SELECT+1%2B", "--data-binary", "1") == "2\n"
    assert run(f"{http.url}?query=INSERT+INTO+{table}+FORMAT+CSV", "--data-binary", "@-", data=b'1,"x"\n2,"y"\n') == ""
    assert run(http.url, "--data-binary", f"INSERT INTO {table} VALUES (3, 'z')") == ""
    assert run(f"{http.url}?query=INSERT+INTO+{table}+VALUES", "--data-binary", "(4,''),(5,'\\n')") == ""
    (tmp_path / "rows.tsv.gz").write_bytes(gzip.compress(b"6\tsix\n"))
    upload = [f"{http.url}?query=INSERT+INTO+{table}+FORMAT+TSV", "-H", "Content-Encoding: gzip"]
    assert run(*upload, "--data-binary", f"@{tmp_path / 'rows.tsv.gz'}") == ""
    assert run(f"{http.url}?query=INSERT+INTO+{table}+FORMAT+TSV", "-T", "-", data=b"7\tchunked\n") == ""
    asked = [f"{http.url}?default_format=JSONCompactEachRow&max_threads=1", "-d", f"SELECT * FROM {table} ORDER BY a"]
    rows = [json.loads(line) for line in run(*asked).splitlines()]
    assert rows == [[1, "x"], [2, "y"], [3, "z"], [4, ""], [5, "\n"], [6, "six"], [7, "chunked"]]
    assert run(http.url, "-F", "param_x=[1,3]", "-F", "query=SELECT arraySum({x:Array(UInt8)})") == "4\n"
    failed = run("-w", "%{http_code} %header{x-clickhouse-exception-code}", http.url, "-d", "SELEC 1")
    assert failed.startswith("Code: 62. DB::Exception: Syntax error")
    assert failed.endswith("400 62")


@pytest.mark.parametrize(
    ("sql", "status", "code"),
    [
        ("SELECT * FROM missing", 404, 60),
        ("SELECT * FROM nowhere.missing", 404, 81),
        ("SELECT missing", 404, 47),
        ("SELECT missing()", 404, 46),
        ("SELECT 1 FORMAT Missing", 404, 73),
        ("SELECT 1 SETTINGS missing = 1", 404, 115),
        ("SELEC", 400, 62),
        ("SELECT 1; SELECT 2", 400, 62),
        ("SELECT toInt32('x')", 400, 6),
        ("SELECT throwIf(1)", 500, 395),
        (
            "SELECT sleep(3) SETTINGS max_execution_time = 0.1, function_sleep_max_microseconds_per_block = 9000000",
            408,
            159,
        ),
        ("SELECT 1 INTO OUTFILE '/tmp/x'", 500, 358),
        ("INSERT INTO missing VALUES (1)", 404, 60),
        ("CREATE TABLE system.one (a Int8) ENGINE = Memory", 500, 57),
        ("", 400, 62),
    ],
)
def test_errors_have_clickhouses_code_status_and_text(http: Http, sql: str, status: int, code: int) -> None:
    answer = http.post(sql)
    assert answer.status_code == status, answer.text
    assert answer.headers["X-ClickHouse-Exception-Code"] == str(code)
    assert answer.text.startswith(f"Code: {code}. DB::Exception: ")
    assert answer.text.endswith(")\n")
    assert "version" in answer.text


def test_get_cannot_write(http: Http, table: str) -> None:
    for sql in (f"INSERT INTO {table} VALUES (1, '')", f"DROP TABLE {table}", f"ALTER TABLE {table} DELETE WHERE 1"):
        answer = http.client.get(http.bare, params={"query": sql})
        assert answer.headers["X-ClickHouse-Exception-Code"] == "164"
    assert http.text(f"SELECT count() FROM {table}") == "0\n"


def test_settings_with_every_kind_of_statement_and_no_leak(http: Http, table: str) -> None:
    assert http.text("SELECT getSetting('max_block_size')", max_block_size=77) == "77\n"
    http.text(f"INSERT INTO {table} SELECT number, '' FROM numbers(10)", max_block_size=1)
    http.text(f"ALTER TABLE {table} DELETE WHERE a = 3", mutations_sync=2, lightweight_deletes_sync=2)
    assert http.text(f"SELECT count() FROM {table}") == "9\n"
    http.text(
        "CREATE TABLE memory_t (a LowCardinality(Int8)) ENGINE = Memory", allow_suspicious_low_cardinality_types=1
    )
    refused = http.post("CREATE TABLE memory_u (a LowCardinality(Int8)) ENGINE = Memory")
    assert refused.headers["X-ClickHouse-Exception-Code"] == "455"
    http.text("DROP TABLE memory_t")
    assert http.post("SELECT 1", missing_setting=1).headers["X-ClickHouse-Exception-Code"] == "115"
    assert http.post("SELECT 1", **{"max_threads=1, x": "1"}).headers["X-ClickHouse-Exception-Code"] == "115"

    def ask(number: int) -> str:
        return http.text(
            "SELECT getSetting('max_block_size'), sleep(0.01), {x:UInt64}", max_block_size=number, param_x=number
        )

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(1, 81))) == [f"{number}\t0\t{number}\n" for number in range(1, 81)]
    assert http.text("SELECT count() FROM system.settings WHERE changed AND name = 'max_block_size'") == "0\n"


def test_database_of_the_request(http: Http) -> None:
    http.text("CREATE DATABASE `o dd`")
    http.text("CREATE TABLE t (a Int8) ENGINE = Memory", database="o dd")
    assert http.text("SELECT database FROM system.tables WHERE name = 't'") == "o dd\n"
    assert http.post("SELECT count() FROM t", {"X-ClickHouse-Database": "o dd"}).text == "0\n"
    assert http.post("SELECT 1", database="missing").status_code == 404
    http.text("DROP DATABASE `o dd`")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE x (a Int8) ENGINE = Memory",
        "/* now */ CREATE OR REPLACE TABLE x (a Int8) ENGINE = Memory",
        "CREATE TABLE IF NOT EXISTS x AS other_kept.x",
        "CREATE VIEW x AS SELECT 1 AS temporary",
        "CREATE TABLE temporary.x (a Int8) ENGINE = Memory; ",
        "CREATE TABLE system.x (a Int8) ENGINE = Memory",
        "CREATE TABLE `INFORMATION_SCHEMA`.x (a Int8) ENGINE = Memory",
    ],
)
def test_no_table_is_made_where_none_is_kept(http: Http, statement: str) -> None:
    """The engine makes these databases anew when it starts: what was put there would be gone without a word."""
    answer = http.post(statement, database="information_schema")
    assert answer.headers["X-ClickHouse-Exception-Code"] == "81", answer.text
    if "temporary." not in statement:
        assert "CREATE TABLE laion.x" in answer.text
    assert http.text("SELECT count() FROM system.tables WHERE name = 'x'") == "0\n"


def test_tables_that_are_kept_or_temporary_are_made(http: Http) -> None:
    where = {"database": "information_schema"}
    http.text("CREATE DATABASE `o d`", **where)
    http.text("CREATE TABLE `o d`.`a b` (a Int8) ENGINE = Memory", **where)
    http.text("CREATE TEMPORARY TABLE mine (a Int8)", session_id=uuid.uuid4().hex, **where)
    http.text("CREATE FUNCTION kept_twice AS x -> 2 * x", **where)
    assert http.text("SELECT name FROM system.tables WHERE database = 'o d'") == "a b\n"
    http.text("DROP FUNCTION kept_twice")
    http.text("DROP DATABASE `o d`")


def test_sessions_keep_their_state_and_no_request_settings(http: Http) -> None:
    session = {"session_id": uuid.uuid4().hex}
    http.text("CREATE TEMPORARY TABLE mine (a Int8)", **session)
    http.text("SET max_block_size = 5", **session)
    assert http.text("SELECT count(), getSetting('max_block_size') FROM mine", **session) == "0\t5\n"
    assert http.text("SELECT getSetting('max_block_size')", **session, max_block_size=6) == "6\n"
    assert http.text("SELECT getSetting('max_block_size'), getSetting('max_threads')", **session).startswith("5\t")
    assert http.post("SELECT count() FROM mine").status_code == 404
    unknown = http.post("SELECT 1", session_id="unknown", session_check=1)
    assert unknown.headers["X-ClickHouse-Exception-Code"] == "372"
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(http.post, "SELECT sleep(2) AS in_session", **session)
        wait_for(lambda: http.running("in_session"))
        assert http.post("SELECT 1", **session).headers["X-ClickHouse-Exception-Code"] == "373"
        assert slow.result().status_code == 200


@pytest.mark.parametrize(
    ("type_", "value", "literal"),
    [
        ("String", "it\\'s \\t\\\\ é", "'it\\'s \\t\\\\ é'"),
        ("Array(Float32)", "[1.5,-2]", "[1.5, -2]"),
        ("Nullable(Int32)", "\\N", "NULL"),
        ("Map(String, UInt8)", "{'a':1}", "map('a', 1)"),
        ("Tuple(Int8, String)", "(1,'x')", "(1, 'x')"),
        ("DateTime64(3, 'UTC')", "2024-01-02 03:04:05.678", "'2024-01-02 03:04:05.678'"),
        ("UUID", "61f0c404-5cb3-11e7-907b-a6006ad3dba0", "'61f0c404-5cb3-11e7-907b-a6006ad3dba0'"),
        ("Array(Array(String))", "[['a','b'],[]]", "[['a', 'b'], []]"),
    ],
)
def test_parameters_arrive_as_they_read(http: Http, type_: str, value: str, literal: str) -> None:
    assert http.text(f"SELECT {{p:{type_}}} = {literal}, toTypeName({{p:{type_}}})", param_p=value).split("\t", 1) == [
        "\\N" if literal == "NULL" else "1",
        http.text(f"SELECT toTypeName(CAST({literal} AS {type_}))"),
    ]


def test_parameters_in_inserts_and_identifiers(http: Http, table: str) -> None:
    http.text("INSERT INTO {t:Identifier} VALUES ({a:Int64}, {s:String})", param_t=table, param_a=1, param_s="x")
    assert http.text("SELECT * FROM {t:Identifier}", param_t=table) == "1\tx\n"


# --- results -------------------------------------------------------------------------------------------------------

LONG = "SELECT number AS n, toString(number) AS s FROM numbers(150000)"


def test_long_results_are_one_document_in_every_format(http: Http) -> None:
    assert len(http.post(LONG).content) > MIB, "must be longer than what is held back"
    document = json.loads(http.text(f"{LONG} FORMAT JSONCompact"))
    assert document["rows"] == 150000
    assert document["data"][-1][1] == "149999"
    lines = list(csv.reader(io.StringIO(http.text(LONG, default_format="CSVWithNames"))))
    assert (len(lines), lines[0], lines[-1]) == (150001, ["n", "s"], ["149999", "149999"])
    expected = pa.table({"n": pa.array(range(150000), pa.uint64()), "s": [str(n) for n in range(150000)]})
    stream = pa.ipc.open_stream(http.post(f"{LONG} FORMAT ArrowStream").content).read_all()
    file = pa.ipc.open_file(http.post(f"{LONG} FORMAT Arrow").content).read_all()
    parquet = pq.read_table(io.BytesIO(http.post(f"{LONG} FORMAT Parquet").content))
    for found in (stream, file, parquet):
        assert found.cast(expected.schema).equals(expected)


def test_empty_result_has_its_schema(http: Http) -> None:
    answer = http.post("SELECT number AS n FROM numbers(3) WHERE n > 5 FORMAT ArrowStream")
    assert answer.headers["Content-Type"] == "application/vnd.apache.arrow.stream"
    found = pa.ipc.open_stream(answer.content).read_all()
    assert (found.num_rows, found.schema.names) == (0, ["n"])
    assert http.text("SELECT 1 AS a WHERE 0 FORMAT TSVWithNames") == "a\n"


def test_headers_tell_format_id_and_counts(http: Http, table: str) -> None:
    answer = http.post("SELECT number FROM numbers(10) FORMAT JSONEachRow", query_id="mine")
    assert answer.headers["X-ClickHouse-Query-Id"] == "mine"
    assert answer.headers["X-ClickHouse-Format"] == "JSONEachRow"
    summary = json.loads(answer.headers["X-ClickHouse-Summary"])
    assert (summary["read_rows"], summary["result_rows"]) == ("10", "10")
    inserted = http.post(f"INSERT INTO {table} FORMAT TSV\n1\ta\n2\tb\n")
    assert json.loads(inserted.headers["X-ClickHouse-Summary"])["written_rows"] == "2"


def test_statements_that_are_no_select(http: Http, table: str) -> None:
    assert http.text(f"EXISTS {table}") == "1\n"
    assert http.text(f"DESCRIBE TABLE {table} FORMAT CSV").startswith('"a","Int64"')
    assert table in http.text("SHOW TABLES")
    assert "ReadFromSystemOne" in http.text("EXPLAIN SELECT 1")
    assert http.text("WITH 1 AS x SELECT x") == "1\n"
    assert sorted(http.text("(SELECT 1) UNION ALL (SELECT 2)").split()) == ["1", "2"]
    http.text(f"INSERT INTO {table} VALUES (1, 'x')")
    assert http.text(f"CHECK TABLE {table}").split()[-1] == "1"
    assert http.text(f"OPTIMIZE TABLE {table} FINAL") == ""


@pytest.mark.parametrize("wait", [0, 1])
def test_large_result_streams_in_constant_memory(http: Http, wait: int) -> None:
    sql = "SELECT number, number * 3 AS m FROM numbers(4000000)"
    http.post(
        "SELECT number, number * 3 AS m FROM numbers(1000000)", default_format="RowBinary", wait_end_of_query=wait
    )
    http.forget_memory()
    before = http.memory()
    params: dict[str, Any] = {"default_format": "RowBinary", "wait_end_of_query": wait}
    with http.client.stream("POST", http.bare, content=sql, params=params) as answer:
        size = 0
        for number, chunk in enumerate(answer.iter_raw(1 << 18)):
            size += len(chunk)
            if number % 50 == 0:
                time.sleep(0.02)  # a slow reader must hold the engine back, not fill it
    assert size == 4_000_000 * 16
    assert http.memory() - before < 32 * MIB


def test_error_before_the_first_chunk_is_an_error(http: Http) -> None:
    answer = http.post("SELECT throwIf(number = 100000) FROM numbers(200000)", max_block_size=1000, max_threads=1)
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (500, "395")


LATE = "SELECT throwIf(number = 1500000, 'too late') FROM numbers(6000000) SETTINGS max_block_size = 10000, max_threads = 1"


def read_tail(answer: httpx.Response, got: bytearray, decode: Callable[[bytes], bytes] = bytes) -> None:
    """Read to the end and keep the last 4 KiB in `got`, also when the end is an error."""
    for chunk in answer.iter_raw():
        got += decode(chunk)
        del got[:-4096]


def test_error_in_the_middle_is_seen_by_every_client(http: Http) -> None:
    got = bytearray()
    with http.client.stream("POST", http.bare, content=LATE) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            read_tail(answer, got)
    tag = answer.headers["X-ClickHouse-Exception-Tag"]
    assert f"\r\n__exception__\r\n{tag}\r\nCode: 395. DB::Exception: too late".encode() in got
    assert got.endswith(f" {tag}\r\n__exception__\r\n".encode())

    got = bytearray()
    asked = {"enable_http_compression": 1}
    with http.client.stream(
        "POST", http.bare, content=LATE, params=asked, headers={"Accept-Encoding": "gzip"}
    ) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        with pytest.raises(httpx.RemoteProtocolError):
            read_tail(answer, got, zlib.decompressobj(31).decompress)
    assert b"too late" in got

    # asked to wait for the end, the engine can still answer with a status
    waited = http.post(LATE, wait_end_of_query=1)
    assert (waited.status_code, waited.headers["X-ClickHouse-Exception-Code"]) == (500, "395")

    curl = shutil.which("curl")
    if curl:
        done = subprocess.run([curl, "-sS", "--noproxy", "*", http.url, "-d", LATE], capture_output=True, check=False)
        assert done.returncode == 18

    client = clickhouse_connect.get_client(
        host="127.0.0.1", port=http.port, password=http.token, autogenerate_session_id=False
    )
    with (
        pytest.raises(clickhouse_connect.driver.exceptions.Error, match="too late"),
        client.query_rows_stream(LATE) as rows,
    ):
        for _ in rows:
            pass


# --- leaving and killing -------------------------------------------------------------------------------------------


def test_query_ends_when_its_client_leaves(http: Http) -> None:
    with pytest.raises(httpx.ReadTimeout):
        http.client.post(http.bare, content="SELECT count() AS left_alone FROM system.numbers", timeout=0.5)
    wait_for(lambda: not http.running("left_alone"))
    with http.client.stream(
        "POST", http.bare, content="SELECT number AS left_while_reading FROM system.numbers"
    ) as answer:
        chunks = answer.iter_raw()
        next(chunks)
        assert http.running("left_while_reading")
    wait_for(lambda: not http.running("left_while_reading"))


def test_write_goes_on_when_its_client_leaves(http: Http, table: str) -> None:
    sql = f"INSERT INTO {table} SELECT number, toString(sleep(0.2)) FROM numbers(5) SETTINGS max_block_size = 1"
    with pytest.raises(httpx.ReadTimeout):
        http.client.post(http.bare, content=sql, timeout=0.3)
    wait_for(lambda: http.text(f"SELECT count() FROM {table}") == "5\n")


def test_kill_query_by_the_clients_id(http: Http) -> None:
    query_id = f"it's {uuid.uuid4().hex}".replace("'", "")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(http.post, "SELECT count() AS to_be_killed FROM system.numbers", query_id=query_id)
        wait_for(lambda: http.running("to_be_killed"))
        again = http.post("SELECT 1", query_id=query_id)
        assert again.headers["X-ClickHouse-Exception-Code"] == "216"
        assert http.text("KILL QUERY WHERE query_id = 'unknown'") == ""
        assert "to_be_killed" in http.text(f"KILL QUERY WHERE query_id = '{query_id}' SYNC")
        assert asked.result().headers["X-ClickHouse-Exception-Code"] == "394"
    assert http.text("SELECT 1", query_id=query_id) == "1\n"
