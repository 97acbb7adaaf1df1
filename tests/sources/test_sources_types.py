"""Columns of every type that files have: the right value, or a loss that is counted and worded."""

from __future__ import annotations

import datetime
import decimal
import math
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from factory_lib import DatasetQuery, open_source
from factory_lib.sources.account import lines
from tests.samples import read_all, rows, write_tar

LARGE = decimal.Decimal("123456789012345678901234567890.12")
COLUMNS: dict[str, tuple[pa.Array, list[Any]]] = {
    "fixed": (pa.FixedSizeListArray.from_arrays(pa.array([1, 2, 3, 4], pa.float32()), 2), [[1, 2], [3, 4]]),
    "floats_with_null": (pa.array([[1.5, None], None], pa.list_(pa.float32())), [[1.5, None], []]),
    "nested_with_null": (pa.array([[[None, 2.0]], []], pa.list_(pa.list_(pa.float64()))), [[[None, 2.0]], []]),
    "ints_with_null": (pa.array([[1, None], [None]]), [[1, None], [None]]),
    "decimals": (pa.array([LARGE, None], pa.decimal128(38, 2)), [LARGE, None]),
    "duration": (pa.array([datetime.timedelta(seconds=1), None], pa.duration("us")), [1_000_000, None]),
    "uuids": (pa.array([uuid.UUID(int=7).bytes, None], pa.uuid()), [str(uuid.UUID(int=7)), None]),
    "time": (pa.array([datetime.time(1, 2, 3), None], pa.time32("s")), ["01:02:03", None]),
    "interval": (pa.array([(1, 2, 3), None], pa.month_day_nano_interval()), ["[1, 2, 3]", None]),
    "index": (pa.array([5, 6]), [5, 6]),
    "large": (pa.array([2**64 - 1, None], pa.uint64()), [2**64 - 1, None]),
    "early": (pa.array([datetime.date(1, 1, 1), datetime.date(9999, 1, 1)]), [datetime.date(1, 1, 1), datetime.date(9999, 1, 1)]),
    "labels": (pa.array(["a", None]).dictionary_encode(), ["a", None]),
    "struct": (pa.array([{"a": math.nan, "b": b"x"}, None]), ['{"a": null, "b": "eA=="}', None]),
    "nothing": (pa.nulls(2), [None, None]),
    "half": (pa.array(np.array([1.5, 2], np.float16)), [1.5, 2]),
}  # fmt: skip


@pytest.mark.usefixtures("engine")
def test_values_of_every_type(tmp_path: Path) -> None:
    table = pa.table({"key": ["a", "b"], **{name: column for name, (column, _) in COLUMNS.items()}})
    table = table.append_column("hash", pa.array([b"1234", b"5678"], pa.binary(4)))
    with pa.ipc.new_file(str(tmp_path / "t.arrow"), table.schema) as file:
        file.write_table(table)
    version = DatasetQuery.from_source(str(tmp_path)).save("odd")
    found = DatasetQuery(version).to_arrow()
    assert {name: found[name].to_pylist() for name in COLUMNS} == {name: right for name, (_, right) in COLUMNS.items()}
    assert version.provenance is not None
    (source,) = version.provenance.sources
    assert (source["counts"], source["problems"]) == ({}, [])
    account = lines(source["account"])
    assert any("duration[us] as a number of microseconds: duration" in line for line in account)
    assert "  1 fixed_size_binary[4] (hash): holds raw bytes that are no file" in account


@pytest.mark.usefixtures("engine")
def test_a_null_in_a_vector_is_never_zero(tmp_path: Path) -> None:
    # what settles the type has no nulls inside, what comes later has: NaN, and counted
    for number, values in enumerate(([[1.0, 2.0]], [[3.0, 4.0]], [[5.0, 6.0]], [[None, 7.0]])):
        part = pa.table({"key": [str(number)], "vector": pa.array(values, pa.list_(pa.float32()))})
        pq.write_table(part, tmp_path / f"{number}.parquet")
    version = DatasetQuery.from_source(str(tmp_path)).save("vectors")
    found = {row["key"]: row["vector"] for row in DatasetQuery(version).to_arrow().to_pylist()}
    assert found["2"] == [5, 6]
    assert math.isnan(found["3"][0])
    assert version.provenance is not None
    assert version.provenance.sources[0]["counts"] == {"null_elements": 1}
    given = pa.table({"key": ["a"], "v": pa.array([[None, 1.0]], pa.list_(pa.float32()))})
    assert DatasetQuery.from_arrow(given).to_arrow()["v"].to_pylist() == [[None, 1.0]]
    streamed = DatasetQuery.from_arrow(given.to_reader()).to_arrow()["v"].to_pylist()
    assert math.isnan(streamed[0][0])


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_columns_of_one_name_are_all_kept(tmp_path: Path, suffix: str) -> None:
    columns = [pa.array([0, 1]), pa.array(["a", "b"]), pa.array(["c", "d"]), pa.array(["e", "f"])]
    table = pa.Table.from_arrays(columns, names=["key", "caption", "caption", "TEXT"])
    if suffix == "parquet":
        pq.write_table(table, tmp_path / "t.parquet")
    else:
        with pa.ipc.new_file(str(tmp_path / "t.arrow"), table.schema) as file:
            file.write_table(table)
    assert rows(open_source(str(tmp_path)), "key", "caption", "caption_2", "caption_3") == [
        {"key": "0", "caption": "a", "caption_2": "c", "caption_3": "e"},
        {"key": "1", "caption": "b", "caption_2": "d", "caption_3": "f"},
    ]


@pytest.mark.parametrize(
    ("keys", "on"),
    [
        (pa.array([0, 1, 2], pa.int32()), None),
        (pa.array([0.0, 1.0, 2.0, None]), "key"),  # as pandas writes integers among which one is missing
        (pa.array(["0", "01", "002"]), None),
    ],
)
def test_numbers_as_keys_of_metadata(tmp_path: Path, keys: pa.Array, on: str | None) -> None:
    write_tar(tmp_path / "tars" / "0.tar", [(f"{n:05d}.txt", f"caption {n}") for n in range(3)])
    (tmp_path / "tables").mkdir()
    pq.write_table(pa.table({"key": keys, "score": range(len(keys))}), tmp_path / "tables" / "t.parquet")
    source = open_source(str(tmp_path / "tars"), metadata=str(tmp_path / "tables"), on=on)
    found, reports = read_all(source)
    if pa.types.is_string(keys.type):  # text is compared as text: nothing matches, and that is said
        assert reports["0"].counts == {"no_metadata": 3}
        assert "joined by 'key', which is '00000' here and '0' there" in reports["0"].problems[-1]
    else:
        assert found["score"].to_pylist() == [0, 1, 2]
        assert reports["0"].counts == {}


def test_broken_metadata_beside_good_is_said_and_loses_nothing_else(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars" / "0.tar", [(f"{n}.txt", f"caption {n}") for n in range(3)])
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "a.parquet").write_bytes(b"PAR1 and no more PAR1")
    pq.write_table(pa.table({"key": ["0", "2"], "score": [5, 7]}), tmp_path / "tables" / "b.parquet")
    pq.write_table(pa.table({"uid": ["0"], "score": [1]}), tmp_path / "tables" / "c.parquet")
    found, reports = read_all(open_source(str(tmp_path / "tars"), metadata=str(tmp_path / "tables"), on="key"))
    assert found["score"].to_pylist() == [5, None, 7]
    assert reports["0"].counts == {"unreadable_tables": 2, "no_metadata": 1}
    assert "a.parquet cannot be read" in reports["0"].problems[0]
    assert "c.parquet has no column 'key'" in reports["0"].problems[1]
