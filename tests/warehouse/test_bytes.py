"""Bytes come back as they went in: from signals, from Arrow, in lists and structs, and in batches."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as trying
from hypothesis import strategies as st

from factory_lib import C, DatasetQuery, fn, signal
from factory_lib.warehouse.byte_lists import BYTES, as_byte_lists, with_byte_lists

RAW = [b"\xff\x00\xc3", b"", b"plain text", "é\u20ac".encode()]


class Parts(NamedTuple):
    head: bytes
    size: int


@signal
def raw(key: str) -> bytes:
    return RAW[int(key)]


@signal
def halves(key: str) -> list[bytes]:
    return [RAW[int(key)][:1], RAW[int(key)][1:]]


@signal
def parts(key: str) -> Parts:
    return Parts(RAW[int(key)][:2], len(RAW[int(key)]))


@signal
def missing(key: str) -> bytes | None:
    return None if key == "0" else b"\x80"


@signal
def length(raw: list[int]) -> int:
    return len(raw)


@pytest.mark.usefixtures("engine")
def test_bytes_of_signals_and_of_arrow() -> None:
    kinds = {"short": pa.binary(), "large": pa.large_binary(), "view": pa.binary_view()}
    table = pa.table({"key": [str(n) for n in range(4)], **{name: pa.array(RAW, kind) for name, kind in kinds.items()},
                      "digest": pa.array([b"\xfe\xff"] * 4, pa.binary(2))})  # fmt: skip
    version = DatasetQuery.from_arrow(table).add_signals(raw, halves, parts, missing).save("raw")
    found: Any = DatasetQuery(version).add_signals(length).order_by("key").to_arrow().to_pylist()
    for name in (*kinds, "raw"):
        assert [bytes(row[name]) for row in found] == RAW
    assert [list(map(bytes, row["halves"])) for row in found] == [[value[:1], value[1:]] for value in RAW]
    assert [(bytes(row["parts"]["head"]), row["parts"]["size"]) for row in found] == [(v[:2], len(v)) for v in RAW]
    assert [(bytes(row["missing"]), row["missing_error"]) for row in found] == [(b"", None), *[(b"\x80", None)] * 3]
    assert [bytes(row["digest"]) for row in found] == [b"\xfe\xff"] * 4
    assert [row["length"] for row in found] == [len(value) for value in RAW]
    assert DatasetQuery(version).filter(fn.length(C.raw) > 3).count() == 2
    assert re.sub(r"\s", "", str(DatasetQuery(version).columns["raw"])) == "Array(UInt8)"
    assert raw.one("2") == RAW[2]


binaries = st.lists(st.none() | st.binary(max_size=5), max_size=6)


@trying(max_examples=40)
@given(binaries, st.integers(0, 3), st.sampled_from([pa.binary(), pa.large_binary(), pa.binary_view()]))
def test_lists_of_numbers_are_the_bytes(values: list[bytes | None], start: int, kind: pa.DataType) -> None:
    column = pa.array(values, kind)[start:]
    made = as_byte_lists(column)
    made.validate(full=True)
    assert made.type == BYTES == with_byte_lists(kind)
    assert [None if value is None else bytes(value) for value in made.to_pylist()] == values[start:]


@trying(max_examples=40)
@given(st.lists(st.none() | st.lists(st.binary(max_size=3), max_size=3), max_size=5), st.integers(0, 3))
def test_lists_within_lists(values: list[list[bytes] | None], start: int) -> None:
    made = as_byte_lists(pa.array(values, pa.list_(pa.binary()))[start:])
    made.validate(full=True)
    assert [None if value is None else list(map(bytes, value)) for value in made.to_pylist()] == values[start:]
