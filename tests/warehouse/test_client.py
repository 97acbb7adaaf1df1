"""The warehouse client against the embedded engine, and where it matters against a server that is not there."""

from __future__ import annotations

import datetime
import decimal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_lib.errors import EngineError
from factory_lib.warehouse.client import Warehouse
from tests.client_engine import PROPERTY, UTC, running, table, wh
from tests.waiting import wait_for

__all__ = ["table", "wh"]


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


def test_what_is_no_text_is_read_and_told(wh: Warehouse, caplog: pytest.LogCaptureFixture) -> None:
    found = wh.rows("SELECT if(number < 3, unhex('61FF62'), 'plain') AS blob, 'ok' AS text FROM numbers(5)")
    assert [row["blob"] for row in found] == ["a\ufffdb"] * 3 + ["plain"] * 2
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "blob: 3 values are no text and were read with U+FFFD in them; hex(blob) has their bytes."
    ]
