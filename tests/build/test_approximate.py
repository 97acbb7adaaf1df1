"""Search by an index of vectors: beside reading all rows; what is made of an indexed version, and what it refuses."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from factory_lib import C, DatasetQuery, fn
from factory_lib.curation import index_recall
from factory_lib.errors import QueryError
from factory_lib.warehouse.client import warehouse

pytestmark = pytest.mark.usefixtures("engine")


def vectors(count: int = 3000, width: int = 8, missing: int = 0) -> pa.Table:
    random = np.random.default_rng(0).standard_normal((count, width))
    rows = [[] if number < missing else list(map(float, row)) for number, row in enumerate(random)]
    return pa.table(
        {
            "part": [f"s{number * 2 // count}" for number in range(count)],
            "key": [f"k{number}" for number in range(count)],
            "emb": pa.array(rows, pa.list_(pa.float32())),
        }
    )


def saved(table: pa.Table, index: str | None = "emb") -> DatasetQuery:
    return DatasetQuery(DatasetQuery.from_arrow(table, shard="part").save("indexed", index=index))


def test_an_index_finds_nearly_all_of_the_nearest_and_the_engine_takes_it() -> None:
    table = vectors()
    indexed = saved(table)
    wanted = table["emb"][5].as_py()
    found = indexed.search("emb", vector=wanted, k=20, approximate=True)
    rows = found.to_arrow()
    assert rows["key"][0].as_py() == "k5"
    assert rows["distance"].to_pylist() == sorted(rows["distance"].to_pylist())
    matrix = np.array(table["emb"].to_pylist())
    exact = 1 - matrix @ np.array(wanted) / np.linalg.norm(matrix, axis=1) / np.linalg.norm(wanted)
    assert len(set(rows["key"].to_pylist()) & {f"k{row}" for row in np.argsort(exact)[:20]}) >= 18
    plan = warehouse().query(f"EXPLAIN indexes = 1 {found.sql()}").column(0).to_pylist()
    assert any("nearest_emb" in line for line in plan)
    measured = index_recall(indexed, "emb", k=5, queries=8)
    assert (measured.k, measured.queries) == (5, 8)
    assert 0.9 <= measured.recall <= 1
    assert found.save("near").rows == 20


def test_what_is_made_of_an_indexed_version_has_no_index() -> None:
    indexed = saved(vectors(600))
    few = DatasetQuery(indexed.filter(C.position < 50).mutate(twice=C.position * 2).save("few"))
    assert few.count() == 100
    with pytest.raises(QueryError, match="few.v1 has no index"):
        few.search("emb", vector=[1.0] * 8, approximate=True)
    assert "emb" not in DatasetQuery(indexed.drop("emb").save("bare")).columns
    assert indexed.union(few.drop("twice")).count() == 700
    more = vectors(10).set_column(0, "part", pa.array(["s7"] * 10))
    DatasetQuery.from_arrow(more, shard="part").save("indexed", mode="overwrite_shards")
    assert DatasetQuery("indexed").count() == 610
    indexed.filter(C.position < 5).save("few", mode="overwrite_shards", schema_evolution=True)
    assert DatasetQuery("few").count() == 10
    assert indexed.search("emb", vector=[1.0] * 8, k=600, approximate=True).count() == 600


def test_masked_rows_without_a_vector_are_not_indexed() -> None:
    plain = saved(vectors(200, missing=20), index=None)
    with pytest.raises(QueryError, match=r"numbers in them: 20 have 0, 180 have 8.*filter\(C.emb.length\(\) > 0\)"):
        plain.save("with_index", index="emb")
    version = plain.filter(C.emb.length() > 0).save("with_index", index="emb")
    assert version.rows == 180
    assert DatasetQuery(version).search("emb", vector=[1.0] * 8, k=180, approximate=True).count() == 180


@pytest.mark.parametrize("odd", [[0.0] * 8, [float("nan")] + [1.0] * 7, [float("inf")] + [0.0] * 7])
def test_vectors_without_a_direction_are_not_indexed(odd: list[float]) -> None:
    table = vectors(50)
    rows = table["emb"].to_pylist()
    rows[3] = rows[40] = odd
    plain = saved(table.set_column(2, "emb", pa.array(rows, pa.list_(pa.float32()))), index=None)
    with pytest.raises(QueryError, match=r"2 of 50 vectors have no direction.*filter\(fn.L2Norm\(C.emb\) > 0"):
        plain.save("with_index", index="emb")
    there = plain.filter(fn.L2Norm(C.emb) > 0, fn.isFinite(fn.L2Norm(C.emb)))
    assert there.save("with_index", index="emb").rows == 48


@pytest.mark.parametrize("name", ["clip-b32", "a`b", "back\\slash", "two words", "INDEX"])
def test_a_column_may_have_any_name(name: str) -> None:
    indexed = saved(vectors(50).rename_columns(["part", "key", name]), index=name)
    assert indexed.search(name, vector=[1.0] * 8, k=3, approximate=True).count() == 3
    few = DatasetQuery(indexed.filter(C.position < 3).save("few"))
    with pytest.raises(QueryError, match="few.v1 has no index"):
        few.search(name, vector=[1.0] * 8, approximate=True)


def test_the_copy_with_its_index_counts_as_added() -> None:
    plain = saved(vectors(200), index=None)
    for index in (None, "emb"):
        version = plain.save("counted", index=index)
        size = warehouse().scalar(
            "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'counted' AND table = {t:String}",
            {"t": f"v{version.number}"},
        )
        told = version.provenance.bytes_added if version.provenance else None
        assert told == (size if index else 0)


def test_what_is_asked_wrongly() -> None:
    plain = saved(vectors(50), index=None)
    with pytest.raises(QueryError, match="has no index of 'emb'; it has none.*index='emb'"):
        plain.search("emb", vector=[1.0] * 8, approximate=True)
    with pytest.raises(QueryError, match="index='key'.*is String"):
        plain.save("other", index="key")
    with pytest.raises(QueryError, match="index='nothing'.*is missing"):
        plain.save("other", index="nothing")
    with pytest.raises(QueryError, match="a version of its own"):
        plain.save("indexed", mode="overwrite_shards", index="emb")
    indexed = DatasetQuery(plain.save("other", index="emb"))
    for part in (indexed.filter(C.position < 3), indexed.limit(3), DatasetQuery("other", shards=["s0"])):
        with pytest.raises(QueryError, match="all rows of a version"):
            part.search("emb", vector=[1.0] * 8, approximate=True)
