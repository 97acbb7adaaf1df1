"""The warehouse client against the embedded engine, and where it matters against a server that is not there."""

from __future__ import annotations

import datetime
import decimal
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from factory_lib.errors import EngineError, SettingsError
from factory_lib.warehouse.address import client_arguments, shown
from factory_lib.warehouse.client import Warehouse, warehouse
from factory_lib.warehouse.embedded import engine_url

UTC = datetime.UTC
PROPERTY = hypothesis_settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def wh(factory_home: Path) -> Warehouse:
    found = warehouse()
    found.execute("CREATE DATABASE IF NOT EXISTS client_test")
    return found


@pytest.fixture
def table(wh: Warehouse) -> Iterator[Callable[[str], str]]:
    made: list[str] = []

    def create(columns: str) -> str:
        made.append(f"client_test.t{uuid.uuid4().hex}")
        wh.execute(f"CREATE TABLE {made[-1]} ({columns}) ENGINE = MergeTree ORDER BY tuple()")
        return made[-1]

    yield create
    for name in made:
        wh.execute(f"DROP TABLE {name} SYNC")


def wait_for(done: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


# --- results -------------------------------------------------------------------------------------------------------

TYPES: list[tuple[str, pa.DataType, Any]] = [
    ("toInt8(-1)", pa.int8(), -1),
    ("toUInt64(18446744073709551615)", pa.uint64(), 18446744073709551615),
    ("true", pa.bool_(), True),
    ("toFloat32(1.5)", pa.float32(), 1.5),
    ("1.5::Float64", pa.float64(), 1.5),
    ("'é\\0x'", pa.string(), "é\0x"),
    ("toLowCardinality('x')", pa.string(), "x"),
    ("CAST(NULL AS LowCardinality(Nullable(String)))", pa.string(), None),
    ("toFixedString('ab', 3)", pa.binary(3), b"ab\0"),
    ("toDate('2024-02-29')", pa.date32(), datetime.date(2024, 2, 29)),
    ("toDate32('1930-01-01')", pa.date32(), datetime.date(1930, 1, 1)),
    ("toDateTime('2024-01-01 00:00:00', 'UTC')", pa.uint32(), 1704067200),
    (
        "toDateTime64('2024-01-01 00:00:00.123456', 6, 'UTC')",
        pa.timestamp("us", "UTC"),
        datetime.datetime(2024, 1, 1, 0, 0, 0, 123456, UTC),
    ),
    ("toDecimal64('1.50', 2)", pa.decimal128(18, 2), decimal.Decimal("1.50")),
    ("CAST('b' AS Enum8('a' = 1, 'b' = 2))", pa.int8(), 2),
    ("toUUID('00112233-4455-6677-8899-aabbccddeeff')", pa.uuid(), uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")),
    ("CAST(NULL AS Nullable(Int32))", pa.int32(), None),
    ("[[1, 2], []]::Array(Array(Int16))", pa.list_(pa.list_(pa.int16())), [[1, 2], []]),
    ("[NULL, 'x']", pa.list_(pa.string()), [None, "x"]),
    ("map('k', 1::Int32)", pa.map_(pa.string(), pa.int32()), [("k", 1)]),
    (
        "CAST(('u', 1, 2) AS Tuple(uri LowCardinality(String), offset UInt64, size UInt64))",
        pa.struct([("uri", pa.string()), ("offset", pa.uint64()), ("size", pa.uint64())]),
        {"uri": "u", "offset": 1, "size": 2},
    ),
    ("toBFloat16(-1.5)", pa.float32(), -1.5),
    ("CAST(NULL AS Nullable(BFloat16))", pa.float32(), None),
    ("[1.5, -2]::Array(BFloat16)", pa.list_(pa.float32()), [1.5, -2.0]),
    ("[]::Array(BFloat16)", pa.list_(pa.float32()), []),
    ("[[1.5], []]::Array(Array(BFloat16))", pa.list_(pa.list_(pa.float32())), [[1.5], []]),
    ("[1.5, NULL, 2]::Array(Nullable(BFloat16))", pa.list_(pa.float32()), [1.5, None, 2.0]),
    (
        "CAST((1, [0.5]) AS Tuple(a Int8, v Array(BFloat16)))",
        pa.struct([("a", pa.int8()), ("v", pa.list_(pa.float32()))]),
        {"a": 1, "v": [0.5]},
    ),
    ("map('k', toBFloat16(0.5))", pa.map_(pa.string(), pa.float32()), [("k", 0.5)]),
]


@pytest.mark.parametrize(("sql", "type_", "value"), TYPES, ids=[sql for sql, _, _ in TYPES])
def test_types_of_results(wh: Warehouse, sql: str, type_: pa.DataType, value: Any) -> None:
    found = wh.query(f"SELECT {sql} AS x")
    column = found.column("x")
    assert same_type(column.type, type_), column.type
    assert column.to_pylist() == [value]
    empty = wh.query(f"SELECT {sql} AS x WHERE 0")
    assert empty.num_rows == 0
    assert empty.schema.types == found.schema.types


def same_type(found: pa.DataType, expected: pa.DataType) -> bool:
    """Equal but for nullability and the names of list items."""
    if found.num_fields != expected.num_fields or found.num_fields == 0:
        return bool(found == expected)
    if pa.types.is_struct(found) and [f.name for f in found] != [f.name for f in expected]:
        return False
    if pa.types.is_map(found):
        return same_type(found.key_type, expected.key_type) and same_type(found.item_type, expected.item_type)
    return found.id == expected.id and all(
        same_type(found.field(i).type, expected.field(i).type) for i in range(found.num_fields)
    )


def test_bfloat16_of_many_batches_and_slices(wh: Warehouse) -> None:
    sql = """SELECT number AS n, arrayMap(i -> toBFloat16(if(i % 3 = 0, NULL, number + i)), range(number % 5)) AS v,
        arrayMap(i -> toBFloat16(i), range(number % 4)) AS w FROM numbers(30000)"""
    rows = wh.query(sql, settings={"max_block_size": 1000}).to_pylist()
    # BFloat16 has 8 significant bits, and ClickHouse cuts
    cut = np.frombuffer((np.arange(30010, dtype="f4").view("u4") & 0xFFFF0000).astype("u4").tobytes(), "f4")
    assert len(rows) == 30000
    for row in rows:
        n = row["n"]
        assert row["v"] == [None if i % 3 == 0 else cut[n + i] for i in range(n % 5)]
        assert row["w"] == [float(i) for i in range(n % 4)]


def test_query_scalar_rows(wh: Warehouse) -> None:
    assert wh.query("SELECT number AS n FROM numbers(3)").to_pydict() == {"n": [0, 1, 2]}
    assert wh.scalar("SELECT max(number) FROM numbers(3)") == 2
    assert wh.scalar("SELECT 1 WHERE 0") is None
    assert wh.rows("SELECT 1 AS a, 'x' AS b") == [{"a": 1, "b": "x"}]
    assert wh.rows("SELECT 1 AS a WHERE 0") == []
    assert wh.rows("SHOW DATABASES LIKE 'client_test'") == [{"name": "client_test"}]
    assert wh.scalar("SELECT 5 % 3, '%s', '?', '{not_bound}'") == 2
    assert wh.is_embedded


# --- parameters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("String", "it's \\ \t\r\n\b\f\0 é 😀 % {x}"),
        ("Int64", -(2**63)),
        ("UInt64", 2**64 - 1),
        ("Float64", 0.1),
        ("Float64", float("inf")),
        ("Bool", True),
        ("Nullable(String)", None),
        ("Nullable(Int8)", np.int8(3)),
        ("Array(String)", ["it's", "\\", "\n\t", ""]),
        ("Array(Nullable(Int32))", [1, None]),
        ("Array(Array(Float64))", [[1.5], []]),
        ("Date", datetime.date(2024, 2, 29)),
        ("DateTime64(6, 'UTC')", datetime.datetime(2024, 1, 2, 3, 4, 5, 678901, UTC)),
        ("DateTime64(6, 'UTC')", datetime.datetime(1965, 1, 1, 0, 0, 0, 500000, UTC)),
        ("DateTime64(6, 'UTC')", datetime.datetime(1970, 1, 1, 0, 0, 1, 0, UTC)),
        ("DateTime64(6, 'Asia/Tokyo')", datetime.datetime(2024, 1, 2, 3, 4, 5, 678901, UTC)),
        ("Array(DateTime64(3, 'UTC'))", [datetime.datetime(2024, 1, 2, 3, 4, 5, 678000, UTC)]),
        ("UUID", uuid.UUID(int=5)),
    ],
)
def test_parameters_come_back(wh: Warehouse, type_: str, value: Any) -> None:
    assert wh.scalar(f"SELECT {{p:{type_}}}", {"p": value}) == value


def test_parameters_of_other_shapes(wh: Warehouse) -> None:
    params = {"m": {"a'": 1}, "t": (1, "x\\"), "one": (1,), "i": "number", "n": np.arange(6).reshape(2, 3)}
    sql = """SELECT {m:Map(String, Int32)}['a\\''] AS m, tupleElement({t:Tuple(Int32, String)}, 2) AS t, tupleElement({one:Tuple(Int8)}, 1) AS one,
        {i:Identifier} AS i, {n:Array(Array(Int64))} AS n FROM numbers(1)"""
    assert wh.rows(sql, params) == [{"m": 1, "t": "x\\", "one": 1, "i": 0, "n": [[0, 1, 2], [3, 4, 5]]}]
    naive = datetime.datetime(2024, 1, 2, 3, 4, 5)
    assert wh.scalar("SELECT toString({p:DateTime64(0, 'Asia/Tokyo')})", {"p": naive}) == "2024-01-02 03:04:05"
    with pytest.raises(EngineError, match="cannot be parsed as Int32"):
        wh.scalar("SELECT {p:Int32}", {"p": "x"})
    with pytest.raises(EngineError) as caught:
        wh.scalar("SELECT {p:Int32}", {"other": 1})
    assert caught.value.code == 456


@PROPERTY
@given(text=st.text(st.characters(codec="utf-8"), max_size=40), others=st.lists(st.text(max_size=10), max_size=4))
def test_any_text_is_bound_as_it_is(wh: Warehouse, text: str, others: list[str]) -> None:
    found = wh.rows("SELECT {s:String} AS s, {l:Array(String)} AS l", {"s": text, "l": others})
    assert found == [{"s": text, "l": others}]


@PROPERTY
@given(values=st.lists(st.floats(width=32, allow_nan=False), max_size=20))
def test_float32_vectors_are_bound_exactly(wh: Warehouse, values: list[float]) -> None:
    vector = np.array(values, np.float32)
    found = wh.scalar("SELECT {v:Array(Float32)}", {"v": vector})
    assert np.array_equal(np.array(found, np.float32), vector)


def test_long_parameters(wh: Warehouse) -> None:
    """More than a URL should hold; a server's limit for one value is 128 KiB."""
    numbers = list(range(20000))
    assert wh.scalar("SELECT arraySum({n:Array(UInt32)})", {"n": numbers}) == sum(numbers)
    words = ["it's \\ \n é"] * 5000
    assert wh.scalar("SELECT uniqExact(arrayJoin({w:Array(String)})), {n:UInt8}", {"w": words, "n": 1}) == 1
    assert wh.scalar("SELECT {w:Array(String)}[5000]", {"w": words}) == words[0]
    vector = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    assert wh.scalar("SELECT {v:Array(Float32)}", {"v": vector}) == vector.tolist()


# --- settings, errors ----------------------------------------------------------------------------------------------


def test_settings_go_with_the_statement(wh: Warehouse, table: Callable[[str], str]) -> None:
    assert wh.scalar("SELECT getSetting('max_block_size')", settings={"max_block_size": 7}) == 7
    name = table("a Int64")
    wh.execute(f"INSERT INTO {name} SELECT number FROM numbers(10)")
    wh.execute(f"ALTER TABLE {name} UPDATE a = a + 1 WHERE 1", settings={"mutations_sync": 2})
    assert wh.scalar(f"SELECT sum(a) FROM {name}") == 55
    wh.insert(name, pa.table({"a": pa.array([], pa.int64())}), settings={"max_threads": 1})
    with pytest.raises(EngineError, match="Unknown setting 'no_such_setting'"):
        wh.scalar("SELECT 1", settings={"no_such_setting": 1})


@pytest.mark.parametrize(
    ("sql", "code", "match"),
    [
        ("SELECT * FROM client_test.missing", 60, "missing"),
        ("SELECT * FROM missing.missing", 81, "missing does not exist"),
        ("SELECT missing FROM numbers(1)", 47, "missing"),
        ("CREATE DATABASE client_test", 82, "already exists"),
        ("RENAME TABLE client_test.x TO client_test.y", 60, "x` doesn't exist"),
        ("SELECT throwIf(1, 'mine')", 395, "mine"),
    ],
)
def test_engine_errors(wh: Warehouse, sql: str, code: int, match: str) -> None:
    for call in (wh.execute, wh.query, wh.stream):
        with pytest.raises(EngineError, match=match) as caught:
            call(sql)
        assert caught.value.code == code
        assert "\n" not in caught.value.message
        assert "version" not in caught.value.message
        assert "127.0.0.1" not in str(caught.value)


def test_taken_name_is_code_57(wh: Warehouse, table: Callable[[str], str]) -> None:
    """What a commit stands on: a rename to a name that exists is refused, and recognisable."""
    first, second = table("a Int8"), table("a Int8")
    with pytest.raises(EngineError) as caught:
        wh.execute(f"RENAME TABLE {first} TO {second}")
    assert caught.value.code == 57


# --- streams -------------------------------------------------------------------------------------------------------


def running(wh: Warehouse, mark: str) -> int:
    sql = "SELECT count() FROM system.processes WHERE query LIKE {m:String} AND query NOT LIKE '%system.processes%'"
    return int(wh.scalar(sql, {"m": f"%{mark}%"}))


def test_stream_is_lazy_and_ends_when_dropped(wh: Warehouse) -> None:
    reader = wh.stream("SELECT number AS endless_a FROM system.numbers")
    assert isinstance(reader, pa.RecordBatchReader)
    assert reader.schema.names == ["endless_a"]
    assert reader.read_next_batch().column(0)[0].as_py() == 0
    assert running(wh, "endless_a") == 1
    del reader
    wait_for(lambda: not running(wh, "endless_a"))
    unread = wh.stream("SELECT number AS endless_b FROM system.numbers")
    del unread
    wait_for(lambda: not running(wh, "endless_b"))


def test_stream_gives_everything(wh: Warehouse) -> None:
    sql = "SELECT number AS n, toBFloat16(number % 100) AS b FROM numbers(500000)"
    batches = list(wh.stream(sql))
    assert len(batches) > 1
    found = pa.Table.from_batches(batches)
    assert found["n"].to_numpy().tolist() == list(range(500000))
    assert found["b"].to_numpy().tolist() == [float(n % 100) for n in range(500000)]


@pytest.mark.parametrize("column", ["toUInt8(1)", "toBFloat16(1)"])
def test_error_in_the_middle_of_a_result(wh: Warehouse, column: str) -> None:
    sql = f"SELECT {column}, number + throwIf(number = 600000, 'too late') FROM numbers(1200000)"
    settings = {"max_block_size": 10000, "max_threads": 1}
    for _ in range(3):
        reader = wh.stream(sql, settings=settings)
        assert reader.read_next_batch().num_rows
        with pytest.raises(EngineError, match="too late") as caught:
            reader.read_all()
        assert caught.value.code == 395
        with pytest.raises(EngineError, match="too late"):
            wh.query(sql, settings=settings)
    assert wh.scalar("SELECT 1") == 1


def test_large_result_in_constant_memory(factory_home: Path) -> None:
    """In a process of its own: 160 MB pass through it."""
    code = """
import resource
from factory_lib.warehouse.client import warehouse
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
sum(batch.num_rows for batch in warehouse().stream("SELECT number, number + 1 FROM numbers(2000000)"))
before = peak()
print(sum(batch.num_rows for batch in warehouse().stream("SELECT number, number + 1 FROM numbers(10000000)")), peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rows, grown = map(int, done.stdout.split())
    assert rows == 10_000_000
    assert grown < 50


# --- inserts -------------------------------------------------------------------------------------------------------


def test_insert_of_every_kind_of_data(wh: Warehouse, table: Callable[[str], str]) -> None:
    name = table(
        """shard LowCardinality(String), position UInt32, image Tuple(uri LowCardinality(String), offset UInt64, size UInt64),
        vector Array(Float32), tags Array(String), score Nullable(Float32), at DateTime64(6, 'UTC'), ok Nullable(Bool),
        meta Map(String, Int64), day Nullable(Date), raw String, missing Int32 DEFAULT 7"""
    )
    pointer = {"uri": "s3://b/é.tar", "offset": 2**63, "size": 5}
    at = datetime.datetime(2024, 1, 2, 3, 4, 5, 678901, UTC)
    data = pa.table(
        {
            "shard": pa.array(["a", "a", "b"]).dictionary_encode(),
            "position": pa.array([0, 1, 0], pa.uint32()),
            "image": pa.array(
                [pointer] * 3, pa.struct([("uri", pa.string()), ("offset", pa.uint64()), ("size", pa.uint64())])
            ),
            "vector": pa.array([[1.5, 2], [3, 4], [5, 6]], pa.list_(pa.float32(), 2)),
            "tags": pa.array([["x"], [], ["y", "z"]], pa.large_list(pa.large_string())),
            "score": pa.array([0.5, None, 1], pa.float64()),
            "at": pa.array([at] * 3, pa.timestamp("us", "UTC")),
            "ok": [True, None, False],
            "meta": pa.array([[("k", 1)], [], [("l", 2)]], pa.map_(pa.string(), pa.int64())),
            "day": pa.array([datetime.date(2024, 2, 29), None, None], pa.date32()),
            "raw": pa.array([b"\xff\x00", b"", b"x"], pa.binary()),
        }
    )
    for shape in (data, data.combine_chunks().to_batches()[0], data.to_reader(max_chunksize=2)):
        wh.execute(f"TRUNCATE TABLE {name}")
        assert wh.insert(name, shape) == 3
        found = wh.query(f"SELECT * EXCEPT raw, hex(raw) AS raw FROM {name} ORDER BY shard, position").to_pylist()
        expected = data.to_pylist()
        for row in expected:
            row["raw"] = row["raw"].hex().upper()
            row["missing"] = 7
        assert found == [{key: row[key] for key in found[0]} for row in expected]


def test_long_inserts_are_read_from_front_to_back(wh: Warehouse, table: Callable[[str], str]) -> None:
    # Of a plain pipe with as much as this some are refused: their reader wants to seek.
    data = pa.table({"a": np.random.default_rng(0).integers(0, 2**60, 600_000)})
    name = table("a Int64")
    for _ in range(8):
        assert wh.insert(name, data) == 600_000
    assert wh.scalar(f"SELECT count() FROM {name}") == 8 * 600_000


def test_insert_of_nothing(wh: Warehouse, table: Callable[[str], str]) -> None:
    name = table("a Int64")
    assert wh.insert(name, pa.table({"a": pa.array([], pa.int64())})) == 0
    assert wh.scalar(f"SELECT count() FROM {name}") == 0


def test_insert_with_strange_names(wh: Warehouse, table: Callable[[str], str]) -> None:
    name = table("`a ``b` Int64, `c\\\\d` String")
    assert wh.insert(name, pa.table({"a `b": [1], "c\\d": ["x"]})) == 1
    assert wh.rows(f"SELECT * FROM {name}") == [{"a `b": 1, "c\\d": "x"}]


@pytest.mark.parametrize(
    "type_",
    [
        pa.list_(pa.float32()),
        pa.list_(pa.float32(), 64),
        pa.list_(pa.float64()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float16()),
    ],
)
def test_bfloat16_is_rounded_to_nearest(wh: Warehouse, table: Callable[[str], str], type_: pa.DataType) -> None:
    import torch

    values = (
        np.random.default_rng(1).standard_normal((500, 64)).astype(np.float16 if "half" in str(type_) else np.float32)
    )
    if "half" not in str(type_):
        # ties, both ways; the largest number, infinities, zeros, a subnormal
        values[0, :8] = [1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3.4e38, np.inf, -np.inf, -0.0, 1e-40]
    name = table("n UInt32, v Array(BFloat16), w Array(Float32)")
    vectors = (
        pa.array(list(values)).cast(type_)
        if not pa.types.is_float16(type_.value_type)
        else pa.array(list(values), type_)
    )
    wh.insert(name, pa.table({"n": pa.array(range(500), pa.uint32()), "v": vectors, "w": vectors}))
    found = wh.query(f"SELECT v, v::Array(Float32) AS c, w FROM {name} ORDER BY n")
    expected = torch.from_numpy(values.astype(np.float32)).to(torch.bfloat16).to(torch.float32).numpy()
    for column in ("v", "c"):
        assert np.array_equal(np.array(found[column].to_pylist(), np.float32), expected)
    assert np.array_equal(np.array(found["w"].to_pylist(), np.float32), values.astype(np.float32)), (
        "Float32 stays exact"
    )


def test_bfloat16_with_nulls_slices_and_structs(wh: Warehouse, table: Callable[[str], str]) -> None:
    third = 0.333984375  # 1/3 with 8 significant bits, by hand: 171 / 512
    name = table("s Nullable(BFloat16), t Tuple(v Array(BFloat16), k String), a Array(Nullable(BFloat16))")
    data = pa.table(
        {
            "s": pa.array([9, 1 / 3, None, float("nan")], pa.float32()),
            "t": pa.array(
                [{"v": [9.0], "k": "z"}] + [{"v": [1 / 3, 1 / 3], "k": "x"}] * 3,
                pa.struct([("v", pa.list_(pa.float32())), ("k", pa.string())]),
            ),
            "a": pa.array([[9.0], [1 / 3, None], [], [None, 1 / 3]], pa.list_(pa.float32())),
        }
    )
    assert wh.insert(name, data.slice(1)) == 3
    found = wh.query(f"SELECT * FROM {name}").to_pylist()
    assert [row["s"] for row in found[:2]] == [third, None]
    assert np.isnan(found[2]["s"])
    assert [row["t"] for row in found] == [{"v": [third, third], "k": "x"}] * 3
    assert [row["a"] for row in found] == [[third, None], [], [None, third]]


def test_failed_insert_names_the_column(wh: Warehouse, table: Callable[[str], str]) -> None:
    name = table("a Int64")
    with pytest.raises(EngineError, match="No such column b") as caught:
        wh.insert(name, pa.table({"b": [1]}))
    assert caught.value.code == 16
    with pytest.raises(EngineError) as caught:
        wh.insert("client_test.missing", pa.table({"b": [1]}))
    assert caught.value.code == 60
    with pytest.raises(EngineError) as caught:
        wh.insert(name, pa.table({"a": ["x"]}))
    assert caught.value.code == 6
    assert wh.scalar(f"SELECT count() FROM {name}") == 0


def test_insert_whose_data_fails(wh: Warehouse, table: Callable[[str], str]) -> None:
    name = table("a Int64")

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, 300000, 100000):
            yield pa.record_batch({"a": np.arange(start, start + 100000)})
        raise KeyError("the source broke")

    reader = pa.RecordBatchReader.from_batches(pa.schema({"a": pa.int64()}), batches())
    with pytest.raises(KeyError, match="the source broke"):
        wh.insert(name, reader)
    wait_for(lambda: not running(wh, "INSERT INTO"))
    assert wh.scalar(f"SELECT count() FROM {name}") == 0
    assert wh.insert(name, pa.table({"a": [1]})) == 1


# --- many at once, processes, addresses ----------------------------------------------------------------------------


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

    from factory_lib.warehouse.results import open_result

    def cut() -> bytes:
        raise ProtocolError("Connection broken")

    for ending in (cut, lambda: b""):
        response = Response(ending)
        reader = open_result(response)
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


def test_what_is_no_text_is_read_and_told(wh: Warehouse, caplog: pytest.LogCaptureFixture) -> None:
    found = wh.rows("SELECT if(number < 3, unhex('61FF62'), 'plain') AS blob, 'ok' AS text FROM numbers(5)")
    assert [row["blob"] for row in found] == ["a\ufffdb"] * 3 + ["plain"] * 2
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "blob: 3 values are no text and were read with U+FFFD in them; hex(blob) has their bytes."
    ]
