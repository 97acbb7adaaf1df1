"""The client: rows that are inserted, of every kind of data, and inserts that fail."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pytest

from factory_lib.errors import EngineError
from factory_lib.warehouse.client import Warehouse
from tests.client_engine import UTC, running, table, wh
from tests.waiting import wait_for

__all__ = ["table", "wh"]


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
