"""The query: SQL that it becomes, rows that it gives, and how each is stored."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from factory_lib import C, DatasetQuery, case, cosine_distance, fn, lit, sql_text
from factory_lib.build.rows import INSERT_ROWS, _gathered
from factory_lib.errors import (
    ColumnNotFound,
    DatasetNotFound,
    InvalidName,
    LoaderError,
    QueryError,
    SignalError,
    VersionNotFound,
)
from factory_lib.warehouse.client import warehouse

ROWS = 1000
pytestmark = pytest.mark.usefixtures("engine")


def people() -> pa.Table:
    """1,000 rows in shards a (600) and b (400); every seventh score is NULL."""
    return pa.table(
        {
            "part": ["a"] * 600 + ["b"] * 400,
            "size": np.arange(ROWS),
            "name": [f"n{i}" for i in range(ROWS)],
            "score": pa.array([None if i % 7 == 0 else i / 2 for i in range(ROWS)], pa.float32()),
        }
    )


@pytest.fixture
def base(engine: None) -> DatasetQuery:
    return DatasetQuery(DatasetQuery.from_arrow(people(), shard="part").save("people"))


ALL = "shard, position, sample_id, key, size, name, score"


def queries(q: DatasetQuery) -> dict[str, tuple[DatasetQuery, str, str]]:
    """Query, its SQL, and how a save of it is stored."""
    return {
        "filter": (q.filter(C["size"] > 5), f"SELECT {ALL} FROM people.v1 WHERE (size > 5)", "mask"),
        "sql text": (q.filter("size > 5 and name != 'n7'"), f"SELECT {ALL} FROM people.v1 WHERE (size > 5 and name != 'n7')", "mask"),
        "mutate": (q.mutate(twice=C["size"] * 2), f"SELECT {ALL}, (size * 2) AS twice FROM people.v1", "columns"),
        "substituted": (
            q.mutate(size=C["size"] * 2).filter(C["size"] > 5),
            "SELECT shard, position, sample_id, key, (size * 2) AS size, name, score FROM people.v1 WHERE ((size * 2) > 5)",
            "mask+columns",
        ),
        "substituted in text": (
            q.mutate(half=C["size"] / 2).filter("half > 5"),
            f"SELECT {ALL}, (size / 2) AS half FROM people.v1 WHERE ((size / 2) > 5)",
            "mask+columns",
        ),
        "select": (q.select("name", n=C["size"]), "SELECT name, size AS n FROM people.v1", "clone"),
        "rename": (
            q.rename(label="name"),
            "SELECT shard, position, sample_id, key, size, name AS label, score FROM people.v1",
            "clone",
        ),
        "limited": (
            q.order_by(C.score.desc(), "name").limit(3),
            f"SELECT {ALL} FROM people.v1 ORDER BY score DESC NULLS LAST, name ASC NULLS LAST, "
            "shard ASC NULLS LAST, position ASC NULLS LAST LIMIT 3",
            "copy",
        ),
        "filter behind limit": (
            q.limit(3).filter(C["size"] > 1),
            f"SELECT {ALL} FROM (SELECT {ALL} FROM people.v1 ORDER BY shard ASC NULLS LAST, position ASC NULLS LAST LIMIT 3) "
            "WHERE (size > 1)",
            "copy",
        ),
        "aggregated": (
            q.group_by(k=C["size"] % 3).agg(n=fn.count()),
            "SELECT positiveModulo(size, 3) AS k, count() AS n FROM people.v1 GROUP BY positiveModulo(size, 3)",
            "copy",
        ),
        "semi": (
            q.join(q.filter(C["size"] < 9).select("name"), on="name", how="semi"),
            f"SELECT {ALL} FROM people.v1 WHERE (name IN (SELECT name FROM people.v1 WHERE (size < 9)))",
            "mask",
        ),
        "random": (q.mutate(r=fn.rand()), f"SELECT {ALL}, rand() AS r FROM people.v1", "copy"),
    }  # fmt: skip


ROW_ORDER = " ORDER BY shard ASC NULLS LAST, position ASC NULLS LAST"
NAMES = (
    "filter", "sql text", "mutate", "substituted", "substituted in text", "select", "rename", "limited",
    "filter behind limit", "aggregated", "semi", "random",
)  # fmt: skip


def test_sql_and_storage(base: DatasetQuery) -> None:
    cases = queries(base)
    assert tuple(cases) == NAMES
    for name, (query, expected, storage) in cases.items():
        order = " ORDER BY positiveModulo(size, 3) ASC NULLS LAST" if name == "aggregated" else ROW_ORDER
        assert query.sql().removesuffix(order) == expected, name
        assert query.explain().startswith(f"storage: {storage}"), name
        assert "\ncost: " in query.explain(), name


@pytest.mark.parametrize("name", NAMES)
def test_saved_rows_are_the_query_s_rows(base: DatasetQuery, name: str) -> None:
    query = queries(base)[name][0]
    names = [n for n in query.columns if n not in ("shard", "position", "r")]
    before = query.select(*names).to_arrow()
    saved = DatasetQuery(query.save("saved")).select(*names).to_arrow()

    def sortable(table: pa.Table) -> list[str]:
        return sorted(map(repr, table.to_pylist()))

    assert sortable(saved) == sortable(before)


def test_rows_against_python(base: DatasetQuery) -> None:
    scores = people()["score"].to_pylist()
    kept = [i for i, s in enumerate(scores) if s is not None and s > 100]
    assert base.filter(C.score > 100).select("size").to_arrow()["size"].to_pylist() == kept
    top = sorted((i for i in range(ROWS) if scores[i] is not None), key=lambda i: -scores[i])[:5]
    assert base.order_by("-score").limit(5).to_arrow()["size"].to_pylist() == top
    evens = base.order_by("-size").limit(10).filter(C["size"] % 2 == 0).to_arrow()["size"].to_pylist()
    assert evens == [998, 996, 994, 992, 990]
    assert base.offset(997).to_arrow()["size"].to_pylist() == [997, 998, 999]
    assert base.filter(C["size"].isin([3, 5, 5000])).count() == 2
    assert base.filter(C["size"].isin([])).count() == 0
    assert base.filter(C.name.isin(base.filter(C["size"] < 4).select("name"))).count() == 4
    grouped = base.group_by("shard").agg(n=fn.count(), total=fn.sum(C["size"])).order_by("shard").to_arrow().to_pylist()
    assert grouped == [
        {"shard": "a", "n": 600, "total": sum(range(600))},
        {"shard": "b", "n": 400, "total": sum(range(600, 1000))},
    ]
    assert base.agg(m=fn.max(C["size"])).to_arrow().to_pylist() == [{"m": 999}]
    best = base.mutate(rank=sql_text("row_number() OVER (PARTITION BY shard ORDER BY size DESC)")).filter(C.rank <= 2)
    assert sorted(best.to_arrow()["size"].to_pylist()) == [598, 599, 998, 999]
    assert base.distinct("shard").to_arrow()["size"].to_pylist() == [0, 600]
    assert base.select(parity=C["size"] % 2).distinct().count() == 2


def rows_of(query: DatasetQuery, *names: str) -> list[tuple[Any, ...]]:
    return sorted((tuple(row[n] for n in names) for row in query.to_arrow().to_pylist()), key=str)


def test_rows_of_the_right_without_a_partner_keep_their_keys_and_places(engine: None) -> None:
    left = pa.table({"key": ["a", "b"], "lot": [1, 2], "x": [10, 20]})
    right = pa.table({"key": ["b", "c"], "lot": [2, 3], "y": [5, 6]})
    here, there = (
        DatasetQuery(DatasetQuery.from_arrow(one).save(name)) for one, name in ((left, "here"), (right, "there"))
    )
    outer = {"right": [("b", 2, 20, 5), ("c", 3, None, 6)]}
    outer["full"] = [("a", 1, 10, None), *outer["right"]]
    for how, wanted in outer.items():
        for on in ("key", "lot", {"key": "key", "lot": "lot"}):
            joined = here.join(there, on=on, how=how)  # type: ignore[arg-type]
            names = ("key", "lot" if on != "key" else "lot_right", "x", "y")
            told = [w if on != "key" or w[0] != "a" else (*w[:1], None, *w[2:]) for w in wanted]
            assert rows_of(joined, *names) == told
            saved = DatasetQuery(joined.save(f"{how}_outer"))
            assert rows_of(saved, *names) == told
            assert rows_of(saved, "position") == [(i,) for i in range(len(told))]
            ids = {row["key"]: row["sample_id"] for one in (there, here) for row in one.to_arrow().to_pylist()}
            assert dict(rows_of(saved, "key", "sample_id")) == {row[0]: ids[row[0]] for row in told}
    counted = there.group_by("lot").agg(n=fn.count())
    saved = DatasetQuery(here.join(counted, on="lot", how="full").save("counted"))
    assert rows_of(saved, "lot", "x", "n") == [(1, 10, None), (2, 20, 1), (3, None, 1)]
    assert len(set(rows_of(saved, "shard", "position"))) == len(set(rows_of(saved, "sample_id"))) == 3


def test_joins_keep_unmatched_rows_as_null(base: DatasetQuery) -> None:
    other = DatasetQuery.from_arrow(pa.table({"name": ["n1", "n2", "zz"], "size": [10, 20, 30]})).select("name", "size")
    inner = base.join(other, on="name").select("name", "size", "size_right").to_arrow().to_pylist()
    assert sorted(map(repr, inner)) == sorted(
        map(repr, [{"name": "n1", "size": 1, "size_right": 10}, {"name": "n2", "size": 2, "size_right": 20}])
    )
    left = base.join(other, on={"name": "name"}, how="left")
    assert left.count() == ROWS
    assert left.filter(C.size_right.is_null()).count() == ROWS - 2
    assert base.join(other, on="name", how="anti").count() == ROWS - 2
    version = left.save("joined")
    assert DatasetQuery(version).filter(C.size_right.is_null()).count() == ROWS - 2
    with pytest.raises(QueryError, match="no such join"):
        base.join(other, on="name", how="outer")  # type: ignore[arg-type]
    with pytest.raises(ColumnNotFound, match="'name'"):
        base.join(other, on="nme")


def test_unions_attach_shards_and_copy_where_they_share_one(base: DatasetQuery) -> None:
    a, b = DatasetQuery("people", shards=["a"]), DatasetQuery("people", shards=["b"])
    both = a.union(b).save("both")
    assert both.provenance is not None
    assert both.provenance.storage == "attach"
    assert both.shard_rows() == {"a": 600, "b": 400}
    doubled = a.mutate(extra=C["size"] * 2).union(a).save("doubled")
    assert doubled.rows == 1200
    table = DatasetQuery(doubled).to_arrow()
    assert table["extra"].null_count == 600
    assert sorted(table["position"].to_pylist()) == list(range(1200))
    with pytest.raises(QueryError, match=r"Column 'size' is .*Int64.* in .* and .*String"):
        a.union(b.mutate(size=C["size"].cast("String"))).save("mixed")


def test_samples_are_deterministic_and_of_the_right_size(base: DatasetQuery) -> None:
    first = base.sample(100, seed=3).to_arrow()["size"].to_pylist()
    assert len(first) == 100
    assert first == base.sample(100, seed=3).to_arrow()["size"].to_pylist()
    assert first != base.sample(100, seed=4).to_arrow()["size"].to_pylist()
    share = base.sample(fraction=0.3, seed=1).count() / ROWS
    assert abs(share - 0.3) < 0.06  # four standard deviations
    assert base.sample(fraction=1.0).count() == ROWS
    assert base.sample(100).save("sampled").provenance.storage == "mask"  # type: ignore[union-attr]
    for wrong in ({}, {"n": 3, "fraction": 0.5}, {"fraction": 1.5}, {"n": -1}):
        with pytest.raises(QueryError):
            base.sample(**wrong)  # type: ignore[arg-type]


def test_an_ordered_save_reads_back_in_its_order(engine: None) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 16)).astype(np.float32)
    table = pa.table({"v": pa.array(vectors.tolist(), pa.list_(pa.float32())), "i": np.arange(300)})
    target = rng.standard_normal(16).astype(np.float32)
    near = DatasetQuery.from_arrow(table).mutate(dist=cosine_distance(C.v, target)).order_by(C.dist).limit(20)
    version = near.save("most_similar")
    assert str(version) == "most_similar.v1"
    cosine = 1 - vectors @ target / np.linalg.norm(vectors, axis=1) / np.linalg.norm(target)
    assert DatasetQuery("most_similar.v1").to_arrow()["i"].to_pylist() == np.argsort(cosine)[:20].tolist()


@pytest.mark.parametrize("other", ["target", "column"])
def test_a_missing_vector_has_no_distance_however_the_query_runs(engine: None, other: str) -> None:
    vectors = [[1.0, 0.0], [], [0.0, 1.0], [], [1.0, 1.0]]
    table = pa.table({"v": pa.array(vectors, pa.list_(pa.float32())), "w": pa.array([[1.0, 0.0]] * 5), "i": range(5)})
    rows = DatasetQuery(DatasetQuery.from_arrow(table).mutate(w=C.w.cast("Array(Float32)")).save("vectors"))
    query = rows.mutate(d=cosine_distance(C.v, C.w if other == "column" else np.array([1.0, 0.0])))
    expected = [0.0, None, 1.0, None, 1 - math.sqrt(0.5)]
    for found in (
        query.to_arrow()["d"],  # a SELECT
        DatasetQuery(query.save("columns")).to_arrow()["d"],  # an update
        DatasetQuery(query.order_by("i").save("copied")).to_arrow()["d"],  # an INSERT … SELECT
        warehouse().query(query.sql())["d"],  # as it is shown
    ):
        assert found.to_pylist() == pytest.approx(expected, abs=1e-6)
    near = query.filter(C.d < 0.5)
    assert near.count() == 2
    assert DatasetQuery(near.save("masked")).to_arrow()["i"].to_pylist() == [0, 4]


def test_terminals_agree(base: DatasetQuery, capsys: pytest.CaptureFixture[str]) -> None:
    query = base.filter(C["size"] < 20).mutate(label=case((C["size"] > 9, "big"), default="small"))
    table = query.to_arrow()
    assert query.count() == table.num_rows == len(query.to_pandas()) == query.to_polars().height == 20
    assert sum(batch.num_rows for batch in query.to_batches()) == 20
    assert dict(zip(*query.describe().to_pydict().values(), strict=True)) == query.columns
    query.show(3)
    assert "label" in capsys.readouterr().out


def test_values_from_arrow_by_position_and_by_key(base: DatasetQuery) -> None:
    positions = [*range(600), *range(400)]
    values = pa.table(
        {"shard": ["a"] * 600 + ["b"] * 400, "position": pa.array(positions, pa.uint32()), "v": np.arange(ROWS) * 1.5}
    )
    complete = DatasetQuery(base.add_columns(values, on=("shard", "position")).save("given"))
    assert complete.to_arrow()["v"].to_pylist() == values["v"].to_pylist()
    gaps = values.take(np.arange(1, ROWS, 3))
    assert DatasetQuery(base.add_columns(gaps, on=("shard", "position")).save("given")).to_arrow()["v"].to_pylist() == [
        i * 1.5 if i % 3 == 1 else None for i in range(ROWS)
    ]
    by_name = pa.table(
        {"name": ["n5", "n7"], "v": pa.array([[1.0, 2.0], None], pa.list_(pa.float32())), "t": ["x", None]}
    )
    rows = base.filter(C["size"] < 10).add_columns(by_name, on="name").select("name", "v", "t").to_arrow().to_pylist()
    assert {r["name"]: (r["v"], r["t"]) for r in rows if r["v"] or r["t"]} == {"n5": ([1.0, 2.0], "x")}
    for twice in ([0, 0, 3, 3], [0, 1, 1, 2]):
        wrong = pa.table({"shard": ["a"] * 4, "position": pa.array(twice, pa.uint32()), "v": [1, 2, 3, 4]})
        with pytest.raises(Exception, match="more than one value"):
            base.add_columns(wrong, on=("shard", "position")).count()


def test_a_text_is_a_column_where_columns_stand_and_lit_is_the_text_itself(base: DatasetQuery) -> None:
    chosen = base.limit(2).select("shard", other="name", text=lit("name"), count=lit(3))
    assert chosen.to_arrow().to_pylist() == [
        {"shard": "a", "other": f"n{i}", "text": "name", "count": 3} for i in range(2)
    ]
    assert str(chosen).endswith(".select('shard', other='name', text=lit('name'), count=3).limit(2)")
    groups = base.group_by(part="shard", kind=lit("photo")).agg(n=fn.count()).order_by("part").to_arrow().to_pylist()
    assert groups == [{"part": "a", "kind": "photo", "n": 600}, {"part": "b", "kind": "photo", "n": 400}]
    assert base.limit(1).mutate(t="name").to_arrow()["t"].to_pylist() == ["name"]
    vectors = base.limit(1).mutate(v=sql_text("[1., 0.]"))
    assert vectors.select(d=cosine_distance("v", [0.0, 1.0])).to_arrow()["d"].to_pylist() == [1.0]


def test_errors_name_the_nearest_right_thing(base: DatasetQuery) -> None:
    wrong: list[tuple[type[Exception], str, Any]] = [
        (ColumnNotFound, "'nme' in people.v1. Did you mean 'name'", lambda: base.filter(C.nme == "x")),
        (ColumnNotFound, "Did you mean 'size'", lambda: base.filter("sze > 1").count()),
        (ColumnNotFound, "Did you mean 'score'", lambda: base.drop("scor")),
        (ColumnNotFound, "'nme' in people.v1. Did you mean 'name'.*lit\\('nme'\\)", lambda: base.select(n="nme")),
        (ColumnNotFound, "Did you mean 'name'.*lit\\('nme'\\)", lambda: base.group_by(n="nme")),
        (DatasetNotFound, "Did you mean 'people'", lambda: DatasetQuery("peple")),
        (VersionNotFound, "people has v1", lambda: DatasetQuery("people.v7")),
        (VersionNotFound, "no tag", lambda: DatasetQuery("people@icml")),
        (InvalidName, "Try 'my_data'", lambda: base.save("My Data")),
        (InvalidName, "system_dataset", lambda: base.save("system")),
        (InvalidName, "laion.v3", lambda: DatasetQuery("a.b.c")),
        (QueryError, "no such mode", lambda: base.save("x", mode="append")),  # type: ignore[arg-type]
        (QueryError, "whole number", lambda: base.limit(-1)),
        (QueryError, "not a signal", lambda: base.add_signals(len)),  # type: ignore[arg-type]
    ]
    for kind, message, act in wrong:
        with pytest.raises(kind, match=message):
            act()


def test_bytes_are_read_where_pointers_point_and_something_is_delivered(engine: None) -> None:
    from factory_lib.curation.duplicates import near_duplicates
    from factory_lib.signals.hashes import phash
    from factory_lib.signals.inputs import computable
    from factory_lib.signals.text import caption_stats

    pointer = {"uri": "/nowhere", "offset": 0, "size": 1}
    kind = pa.struct([("uri", pa.string()), ("offset", pa.uint64()), ("size", pa.uint64())])
    table = pa.table({"key": ["a"], "caption": ["x"], "image": pa.array([pointer], kind)})
    DatasetQuery.from_arrow(table).save("pointing")
    query = DatasetQuery("pointing")
    for name in ("caption", "sample_id"):
        with pytest.raises(SignalError, match=f"'phash' reads the bytes that '{name}' points at"):
            query.add_signals(phash.reading(image=name))
    assert "phash" in query.rename(photo="image").add_signals(phash.reading(image="photo")).columns
    with pytest.raises(LoaderError, match="nothing to deliver.*Name members .image. or columns"):
        query.to_torch(members=[])
    with pytest.raises(LoaderError, match="nothing to deliver.*there are none"):
        query.drop("image").to_torch()
    with pytest.raises(LoaderError, match="nothing to deliver.*there are none"):
        query.drop("image").mutate(image=C.caption).to_torch()
    joined = query.join(query.select("sample_id"), on="sample_id", how="semi")
    assert joined.columns["image"] == query.columns["image"]  # as the engine says it, and as it is known
    assert "phash" in joined.add_signals(phash).columns
    texts = {**query.columns, "image": "Nullable(String)"}  # as a table has it that names pictures
    assert computable([phash, caption_stats], query.columns) == [phash, caption_stats]
    assert computable([phash, caption_stats], texts) == [caption_stats]
    with pytest.raises(QueryError, match="'thumbnail' as its signal makes it"):
        near_duplicates(query.mutate(thumbnail="abc", image_header="x"))


def test_provenance_shows_the_query_as_written(base: DatasetQuery) -> None:
    version = base.filter((C.score > 1.5) & C.name.like("n%")).mutate(x=fn.lower(C.name)).save("shown")
    record = version.provenance
    assert record is not None
    assert record.python == (
        "DatasetQuery('people.v1').filter(((C.score > 1.5) & fn.like(C.name, 'n%'))).mutate(x=fn.lower(C.name)).save('shown')"
    )
    assert record.sql == (f"SELECT {ALL}, lower(name) AS x FROM people.v1 WHERE ((score > 1.5) AND like(name, 'n%'))")
    assert record.parents == [{"name": "people.v1", "uuid": DatasetQuery("people.v1") and record.parents[0]["uuid"]}]
    assert (record.rows_in, record.rows) == (ROWS, version.rows)


def test_inserts_end_with_shards_and_mixed_shards_share_them() -> None:
    def batch(shards: list[str]) -> pa.RecordBatch:
        return pa.RecordBatch.from_pydict({"shard": (shards * INSERT_ROWS)[:INSERT_ROWS]})

    in_order = [batch([name]) for name in ("a", "a", "b", "c")]
    assert [sorted(t["shard"].unique().to_pylist()) for t in _gathered(in_order)] == [["a"], ["b"], ["c"]]
    mixed = [batch(["a", "b", "c"]) for _ in range(5)]
    assert [t.num_rows for t in _gathered(mixed)] == [5 * INSERT_ROWS]
