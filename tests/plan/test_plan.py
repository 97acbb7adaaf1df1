"""Plans: what is derived from one says the same as it, and two are the same query exactly when their identities are."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from factory_lib import C, DatasetQuery, case, cosine_distance, fn, lit, signal, sql_text
from factory_lib.build.recipes import recipe_of
from factory_lib.plan.difference import changes
from factory_lib.plan.identity import identity
from factory_lib.plan.nodes import Table, pending, transform, walk
from factory_lib.plan.operators import Column
from factory_lib.plan.python import python_of
from factory_lib.plan.recorded import recorded
from factory_lib.plan.select import Select
from factory_lib.plan.sql import Rendering

pytestmark = pytest.mark.usefixtures("engine_for_all")

Build = Callable[[DatasetQuery], DatasetQuery]
VECTORS = np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32)


@signal
def shout(caption: str) -> str:
    """The caption in capitals."""
    return caption.upper()


@signal
def whisper(caption: str) -> str:
    """The caption in small letters."""
    return caption.lower()


@pytest.fixture(scope="module")
def pool(engine_for_all: None) -> DatasetQuery:
    """Two versions of one dataset, of which the second has a shard more."""
    rows = pa.table(
        {
            "part": ["a"] * 8 + ["b"] * 4,
            "key": [f"k{i:02}" for i in range(12)],
            "width": pa.array(range(60, 72), pa.int32()),
            "height": pa.array([64] * 12, pa.int32()),
            "caption": [f"picture {i}" for i in range(12)],
            "emb": pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.ravel()), 16),
        }
    )
    DatasetQuery.from_arrow(rows.slice(0, 8), shard="part").save("pool")
    DatasetQuery.from_arrow(rows, shard="part").save("pool")
    return DatasetQuery("pool.v1")


PRINTED: dict[str, Build] = {
    "filter": lambda q: q.filter(C.width > 60, "length(caption) > 3"),
    "columns": lambda q: q.mutate(ratio=C.width / C.height, n=C.caption.length()).drop("height"),
    "rename": lambda q: q.rename(w="width"),
    "select": lambda q: q.select("shard", "position", text=lit("x"), w="width", day=datetime.date(2026, 1, 2)),
    "window": lambda q: q.mutate(rank=fn.row_number().over("shard", [C.width.desc(), C.key])),
    "filtered window": lambda q: q.mutate(rank=fn.row_number().over("shard", C.width.desc())).filter(C.rank <= 2),
    "sample": lambda q: q.sample(7, seed=3).union(q.sample(fraction=0.3)),
    "order": lambda q: q.order_by(C.width.desc(), "key").offset(2).limit(9),
    "nested": lambda q: q.order_by("key").limit(20).filter(C.key > "0"),
    "distinct": lambda q: q.order_by("key").distinct("width").limit(3),
    "distinct rows": lambda q: q.select("width").distinct(),
    "groups": lambda q: q.group_by("width", parity=C.height % 2).agg(n=fn.count()).filter(C.n > 0).order_by("width"),
    "whole": lambda q: q.agg(n=fn.count(), q=fn.quantileExact(C.width, parameters=[0.9])),
    "join": lambda q: q.select("shard", "position", "key").join(q.select("key", w2=C.width), on="key", how="left"),
    "joined by others": lambda q: q.select("key").join(q.select(other=C.key, h="height"), on={"key": "other"}),
    "semi": lambda q: q.join(q.filter(C.width > 65), on="sample_id", how="semi"),
    "isin": lambda q: q.filter(C.key.isin(q.order_by("key").limit(3).select("key")) & C.width.isin([1, 61, 62])),
    "case": lambda q: q.mutate(c=case((C.width > 64, "wide"), default="narrow"), s=sql_text("upper(caption)")),
    "items": lambda q: q.mutate(first=C.emb[0], last=C.emb[-1], some=C.emb[1:3], wide=C.width.cast("Float64")),
    "nulls": lambda q: q.filter(C.caption.not_null() | (C.width.fill_null(0) == 0)),
    "union": lambda q: q.filter(C.width > 65).union(q.filter(C.width <= 61).drop("height")),
    "signals": lambda q: q.filter(C.width > 61).add_signals(shout).filter(C.shout != "X"),
    "shards": lambda q: DatasetQuery("pool.v1", shards=["a"]),
}
# fmt: off
DIFFERENT: dict[str, tuple[Build, Build, str, str, str]] = {
    "exemplar": (
        lambda q: q.order_by(cosine_distance(C.emb, VECTORS[3])).limit(5),
        lambda q: q.order_by(cosine_distance(C.emb, VECTORS[9])).limit(5),
        "the order cosine_distance(C.emb, <vector of 16>) differs in 16 of the 16 values of a vector, first in place 1",
        repr(float(VECTORS[3][0])), repr(float(VECTORS[9][0])),
    ),
    "constant": (
        lambda q: q.filter(C.width > 61, C.height > 1), lambda q: q.filter(C.width > 62, C.height > 1),
        "the condition differs in a constant", "(C.width > 61)", "(C.width > 62)",
    ),
    "operator": (
        lambda q: q.filter(C.width > 61), lambda q: q.filter(C.width >= 61),
        "the condition differs", "(C.width > 61)", "(C.width >= 61)",
    ),
    "condition more": (
        lambda q: q.filter(C.width > 61), lambda q: q.filter(C.width > 61).filter(C.height > 3),
        "the condition is new", "", "(C.height > 3)",
    ),
    "condition less": (
        lambda q: q.filter(C.width > 61, "height > 3"), lambda q: q.filter(C.width > 61),
        "the condition is gone", "sql_text('height > 3')", "",
    ),
    "column": (
        lambda q: q.mutate(r=C.width / C.height), lambda q: q.mutate(r=C.height / C.width),
        "column r differs", "(C.width / C.height)", "(C.height / C.width)",
    ),
    "column gone": (
        lambda q: q, lambda q: q.drop("caption"),
        "column caption is gone", "caption", "",
    ),
    "list": (
        lambda q: q.filter(C.width.isin(range(50, 62))), lambda q: q.filter(C.width.isin([*range(50, 61), 99])),
        "the condition C.width.isin(<12 values>) differs in a constant", "61", "99",
    ),
    "limit": (lambda q: q.limit(5), lambda q: q.limit(6), "the limit differs in a constant", "5", "6"),
    "order": (
        lambda q: q.order_by("width").limit(5), lambda q: q.order_by("-width").limit(5),
        "the order differs", "C.width", "C.width.desc()",
    ),
    "signal": (
        lambda q: q.add_signals(shout), lambda q: q.add_signals(whisper),
        "signal shout is gone", "computed", "",
    ),
    "looked up": (
        lambda q: q.join(q.filter(C.height > 1), on="key", how="semi"),
        lambda q: q.join(q.filter(C.height > 2), on="key", how="semi"),
        "the condition differs in a constant", "(C.height > 1)", "(C.height > 2)",
    ),
    "join": (
        lambda q: q.select("key").join(q.select("key", "width"), on="key"),
        lambda q: q.select("key").join(q.select("key", "width"), on="key", how="left"),
        "the join differs", "inner, on key", "left, on key",
    ),
    "seed": (
        lambda q: q.sample(fraction=0.5, seed=1), lambda q: q.sample(fraction=0.5, seed=2),
        "the condition differs in a constant",
        "(fn.sipHash64(C.sample_id, C.shard, C.position, 1) <= 9223372036854775807)",
        "(fn.sipHash64(C.sample_id, C.shard, C.position, 2) <= 9223372036854775807)",
    ),
}
# fmt: on


def sql(plan: Select) -> str:
    """The SQL of a plan with its columns in the order of their names: arguments with names come behind those without."""
    return Rendering(inline=True).select(plan.nested().select({name: Column(name) for name in sorted(plan.names)}))


def identity_of(query: DatasetQuery) -> str:
    return identity(json.loads(json.dumps(recipe_of(query.plan, {}))))


@pytest.mark.parametrize("name", PRINTED)
def test_the_python_of_a_query_makes_it_again(name: str, pool: DatasetQuery) -> None:
    query = PRINTED[name](pool)
    names = {"DatasetQuery": DatasetQuery, "C": C, "fn": fn, "lit": lit, "datetime": datetime, "shout": shout}
    again = eval(repr(query), {**names, "cosine_distance": cosine_distance, "sql_text": sql_text})
    if name == "sample":  # a query in brackets, which Python has no words for
        assert again.order_by("key", "shard").to_arrow() == query.order_by("key", "shard").to_arrow()
    else:
        assert sql(again.plan) == sql(query.plan)


@pytest.mark.parametrize("name", PRINTED)
def test_a_recorded_plan_says_what_the_live_one_does(name: str, pool: DatasetQuery) -> None:
    plan = PRINTED[name](pool).plan
    seen = recorded(json.loads(json.dumps(recipe_of(plan, {}))))
    assert python_of(seen) == python_of(plan)
    assert Rendering(inline=True).select(seen) == Rendering(inline=True).select(plan)
    assert changes(seen, plan) == []


@pytest.mark.parametrize("name", PRINTED)
def test_a_query_is_the_same_over_another_version_and_other_shards(name: str, pool: DatasetQuery) -> None:
    build = PRINTED[name]
    if name != "shards":
        assert identity_of(build(pool)) == identity_of(build(DatasetQuery("pool.v2", shards=["b"])))
    assert identity_of(build(pool)) != identity_of(
        build(pool.filter(C.width > 64)) if name != "shards" else pool.limit(1)
    )


def test_no_two_different_queries_have_one_identity(pool: DatasetQuery) -> None:
    built = {name: build(pool) for name, build in PRINTED.items() if name != "shards"}
    built |= {f"{name} {i}": pair[i](pool) for name, pair in DIFFERENT.items() for i in range(2)}  # type: ignore[operator]
    by_text = {sql(query.plan): query for query in built.values()}
    assert len({identity_of(query) for query in by_text.values()}) == len(by_text)


def test_numbers_of_numpy_are_numbers(pool: DatasetQuery) -> None:
    assert identity_of(pool.filter(C.width > np.int64(61))) == identity_of(pool.filter(C.width > 61))
    assert identity_of(pool.filter(C.width > 61.0)) != identity_of(pool.filter(C.width > 61))


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_differs_is_named(name: str, pool: DatasetQuery) -> None:
    before, after, text, old, new = DIFFERENT[name]
    found = changes(before(pool).plan, after(pool).plan)
    assert (text, old, new) in [(one.text, one.before, one.after) for one in found]
    assert len(found) == (2 if name == "signal" else 1) or all(
        one.text.startswith(("signal", "column")) for one in found
    )
    assert changes(before(pool).plan, before(DatasetQuery("pool.v2")).plan) == []


def test_a_plan_that_does_not_change_is_the_same_object(pool: DatasetQuery) -> None:
    for build in PRINTED.values():
        plan = build(pool).plan
        assert transform(plan, lambda node: None) is plan
        renamed = transform(
            plan, lambda node: Table("other.v1", columns=node.columns) if isinstance(node, Table) else None
        )
        assert renamed is not plan
        tables = {node.name for node in walk(renamed) if isinstance(node, Table)}
        assert tables == {"other.v1"}


def test_rows_that_are_in_no_table_are_found_however_deep(pool: DatasetQuery) -> None:
    signals = pool.add_signals(shout)
    looked_up = pool.filter(C.sample_id.isin(signals.filter(C.shout != "X").select("sample_id")))
    assert [node.label for node in pending(looked_up.plan)] == ["signals shout"]
    twice = signals.add_signals(whisper)
    assert [node.label for node in pending(twice.plan)] == ["signals whisper", "signals shout"]
