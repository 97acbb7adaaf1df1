"""A version is the same whenever it is made: what an order, a limit or an aggregate leaves open is decided."""

from __future__ import annotations

import collections

import numpy as np
import pyarrow as pa
import pytest

from factory_lib import C, DatasetQuery, fn, sql_text
from factory_lib.plan.aggregates import is_open, kind_of
from factory_lib.warehouse.client import warehouse

ROWS, SHARDS = 60_000, 8


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "shard": [f"s{i % SHARDS}" for i in range(ROWS)],
            "label": rng.integers(0, 50, ROWS),
            "score": rng.integers(0, 20, ROWS),
            "x": rng.random(ROWS),
            "name": [f"n{i % 300}" for i in range(ROWS)],
        }
    )


@pytest.fixture(scope="module")
def base(engine_for_all: None, rows: pa.Table) -> DatasetQuery:
    return DatasetQuery(DatasetQuery.from_arrow(rows, shard="shard").save("undecided"))


def queries(base: DatasetQuery) -> dict[str, DatasetQuery]:
    """Queries that leave something open."""
    twice = base.union(base.filter(C.label < 5))
    names = DatasetQuery.from_arrow(pa.table({"name": [f"n{i % 100}" for i in range(300)], "extra": range(300)}))
    joined = base.join(DatasetQuery(names.save("undecided_names")), on="name")
    return {
        "limit": base.order_by("score").limit(1000),
        "order": base.order_by(C.score.desc()).select("name", "x"),
        "distinct": base.select("label", "score").distinct(),
        "first of each": base.order_by("score").distinct("label"),
        "chosen": base.group_by("label").agg(
            a=fn.any(C.name), m=fn.argMax(C.name, C.score), g=fn.groupArray(C.x), q=fn.quantile(C.x)
        ),
        "summed": base.group_by("label").agg(a=fn.avg(C.x), s=fn.stddevPop(C.x)),
        "text": base.group_by("label").agg(a=sql_text("anyLast(name)")),
        "joined": joined,
        "joined, limited": joined.order_by("score").limit(500),
        "of a union": twice.order_by("label").limit(3000),
        "numbered": base.mutate(r=fn.row_number().over("label", "score"), f=fn.first_value(C.x).over("label", "score")),
        "summed over windows": base.mutate(r=fn.sum(C.x).over("label", "score")),
        "groups, limited": base.group_by("label").agg(n=fn.uniqExact(C.score)).order_by("n").limit(7),
        "looked up": base.join(base.order_by("score").limit(900), on="sample_id", how="semi"),
    }


def test_versions_of_one_query_are_equal(base: DatasetQuery) -> None:
    for name, query in queries(base).items():
        made = [query.save("decided") for _ in range(3)]
        prints = {tuple(sorted(v.fingerprints().items())) for v in made}
        assert len(prints) == 1, name


def test_what_is_equal_comes_in_row_order(rows: pa.Table, base: DatasetQuery) -> None:
    ordered = sorted(
        ((shard, i), label, score, name)
        for i, (shard, label, score, name) in enumerate(
            zip(*(rows.column(c).to_pylist() for c in ("shard", "label", "score", "name")), strict=True)
        )
    )
    limited = base.order_by("score").limit(1000).select("name", "score").to_arrow().to_pylist()
    expected = sorted(ordered, key=lambda row: row[2])[:1000]  # a stable sort
    assert [(r["name"], r["score"]) for r in limited] == [(name, score) for _, _, score, name in expected]

    first: dict[int, str] = {}
    every = collections.defaultdict(list)
    for _, label, _, name in ordered:
        first.setdefault(label, name)
        every[label].append(name)
    found = base.group_by("label").agg(a=fn.any(C.name), g=fn.groupArray(C.name)).to_arrow().to_pylist()
    assert {r["label"]: r["a"] for r in found} == first
    assert {r["label"]: r["g"] for r in found} == every


def test_every_aggregate_of_the_engine_is_known() -> None:
    functions = warehouse().query("SELECT name FROM system.functions WHERE is_aggregate")["name"].to_pylist()
    assert [name for name in functions if not kind_of(name)] == []
    assert kind_of("countIf") == "free"
    assert kind_of("anyOrNull") == "ordered"
    assert kind_of("sumIf") == "summed"
    assert kind_of("round") == ""


def test_text_that_numbers_rows_is_open() -> None:
    assert is_open(sql_text("row_number() OVER (ORDER BY score)"))
    assert is_open(sql_text("any(name) OVER (PARTITION BY label)"))
    assert not is_open(sql_text("rank() OVER (ORDER BY score)"))
