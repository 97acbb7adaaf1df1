"""Expressions: what each renders to, and that the engine computes what Python would."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory_lib import C, DatasetQuery, case, cosine_distance, fn, sql_text
from factory_lib.errors import QueryError
from factory_lib.plan.operators import Expr
from factory_lib.plan.sqltext import identifiers, literal, quote, type_of_value


class Scope:
    """Writes values as they are, knows one unit vector column."""

    def type_of(self, column: str) -> str:
        return {"clip": "Array(BFloat16)", "image": "Tuple(uri String)"}.get(column, "")

    def is_unit(self, column: str) -> bool:
        return column == "clip"

    def bind(self, value: Any, ch_type: str) -> str:
        return f"<{value}:{ch_type}>"

    def subquery(self, block: Any) -> str:
        return "…"

    def lazily(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (C.a + 1, "(a + <1:Int64>)"),
        (2.5 * C.a, "(<2.5:Float64> * a)"),
        (C.a == None, "isNull(a)"),  # noqa: E711
        (C.a != None, "not(isNull(a))"),  # noqa: E711
        ((C.a > 1) & ~(C.b <= "x"), "((a > <1:Int64>) AND not((b <= <x:String>)))"),
        (C.image.uri, "image.uri"),
        (C["a b"], "`a b`"),
        (C["select"], "`select`"),
        (C.tags[0], "arrayElement(tags, 1)"),
        (C.tags[-1], "arrayElement(tags, -1)"),
        (C.meta["k"], "meta[<k:String>]"),
        (C.image["uri"], "image.uri"),
        (C.a.isin([1, 2]), "in(a, tuple(<1:Int64>, <2:Int64>))"),
        (C.a.between(1, 2), "((a >= <1:Int64>) AND (a <= <2:Int64>))"),
        (C.a.cast("Float32"), "CAST(a, 'Float32')"),
        (fn.quantile(C.a, parameters=[0.9]), "quantile(<0.9:Float64>)(a)"),
        (fn.sum(C.a).over("b", "-c"), "sum(a) OVER (PARTITION BY b ORDER BY c DESC NULLS LAST)"),
        (case((C.a > 1, "x"), default="y"), "multiIf((a > <1:Int64>), <x:String>, <y:String>)"),
        (
            cosine_distance(C.clip, [3, 4]),
            "if(empty(clip), NULL, 1 - dotProduct(clip, if(empty(clip), clip, <[0.6 0.8]:Array(BFloat16)>)))",
        ),
        (
            cosine_distance(C.other, [3, 4]),
            "if(empty(other), NULL, cosineDistance(other, if(empty(other), other, <[3. 4.]:Array(Float32)>)))",
        ),
    ],
)
def test_rendering(expression: Expr, expected: str) -> None:
    assert expression.render(Scope()) == expected


def test_python_has_no_say_in_truth() -> None:
    with pytest.raises(QueryError, match="& |"):
        bool(C.a > 1)
    with pytest.raises(QueryError, match="a list of values or a query"):
        C.a.isin(C.b)
    with pytest.raises(QueryError, match="a list of values or a query"):
        C.a.isin("text")
    with pytest.raises(QueryError, match="cannot be iterated"):
        list(C.a)
    with pytest.raises(QueryError, match=r"fn\.lower"):
        C.caption.lower()


def test_identifiers_of_sql_text() -> None:
    text = "size > 3 AND name = 'size' AND arrayExists(x -> x > size, tags) AND image.size > `odd name` -- size"
    assert [name for name, _ in identifiers(text) if name] == [
        "size", "AND", "name", "AND", "size", "tags", "AND", "image", "odd name",
    ]  # fmt: skip
    assert "".join(raw for _, raw in identifiers(text)) == text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, "Bool"), (1, "Int64"), (2**63, "UInt64"), (1.0, "Float64"), ("x", "String"),
        (np.float32(1), "Float32"), (np.zeros(3, np.float16), "Array(Float32)"), ([1, 2.0], "Array(Float64)"),
        (dt.datetime(2024, 1, 1), "DateTime64(6)"),
    ],
)  # fmt: skip
def test_types_of_values(value: Any, expected: str) -> None:
    assert type_of_value(value) == expected


@pytest.mark.parametrize("value", [object(), [1, "x"], np.zeros((2, 2)), {}, -(2**64)])
def test_values_without_a_type_are_refused(value: Any) -> None:
    with pytest.raises(QueryError, match="cannot be used in a query"):
        type_of_value(value)


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
def test_literals_and_parameters_survive_the_engine(engine_for_all: None, text: str) -> None:
    from factory_lib.warehouse.client import warehouse

    assert warehouse().scalar(f"SELECT {literal(text)}") == text
    assert warehouse().scalar("SELECT {p:String}", {"p": text}) == text
    if text:
        row = warehouse().rows(f"SELECT 1 AS {quote(text)}")[0]
        assert row == {text: 1}


NUMBERS = st.one_of(st.none(), st.integers(-50, 50))


@settings(max_examples=15, deadline=None)
@given(rows=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=40), k=st.integers(1, 7))
def test_arithmetic_and_nulls_as_in_python(engine_for_all: None, rows: list[tuple[Any, Any]], k: int) -> None:
    table = pa.table({"a": pa.array([a for a, _ in rows], pa.int64()), "b": pa.array([b for _, b in rows], pa.int64())})
    query = DatasetQuery.from_arrow(table)
    computed = query.mutate(
        total=C.a + C.b, floor=C.a // k, rest=C.a % k, known=C.a.fill_null(0), size=case((C.a > C.b, "a"), default="b")
    ).to_arrow()
    for (a, b), row in zip(rows, computed.to_pylist(), strict=True):
        assert row["total"] == (None if a is None or b is None else a + b)
        assert row["floor"] == (None if a is None else a // k)
        assert row["rest"] == (None if a is None else a % k)
        assert row["known"] == (a or 0)
        assert row["size"] == ("a" if a is not None and b is not None and a > b else "b")
    kept = query.filter(C.a > C.b).count()
    assert kept == sum(1 for a, b in rows if a is not None and b is not None and a > b)
    assert query.filter(~(C.a > C.b)).count() == sum(1 for a, b in rows if None not in (a, b) and not a > b)


@pytest.mark.usefixtures("engine")
def test_arrays_maps_tuples_and_vectors() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((20, 8)).astype(np.float32)
    table = pa.table(
        {
            "tags": [["x", "y", "z"][: i % 4] for i in range(20)],
            "meta": pa.array([[("k", i)] for i in range(20)], pa.map_(pa.string(), pa.int64())),
            "v": pa.array(vectors.tolist(), pa.list_(pa.float32())),
        }
    )
    target = vectors[3] + 0.1
    query = DatasetQuery.from_arrow(table).mutate(
        first=C.tags[0], n=C.tags.length(), k=C.meta["k"], d=cosine_distance(C.v, target),
        has=fn.has(C.tags, "y"), text=sql_text("toString(length(tags))"),
    )  # fmt: skip
    rows = query.to_arrow().to_pylist()
    for i, row in enumerate(rows):
        expected = 1 - float(vectors[i] @ target / np.linalg.norm(vectors[i]) / np.linalg.norm(target))
        assert math.isclose(row["d"], expected, abs_tol=1e-5)
        assert row["n"] == i % 4
        assert row["k"] == i
        assert row["has"] == (i % 4 >= 2)
        assert row["text"] == str(i % 4)
