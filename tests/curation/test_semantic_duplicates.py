"""SemDeDup: beside a transcription of the paper, and by hand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from factory_lib import C, DatasetQuery, fn
from factory_lib.catalog import reproduce
from factory_lib.curation import Without, keep
from factory_lib.curation.clusters import centroids, cluster_of, semantic, semantic_duplicates
from factory_lib.curation.clusters.semantic import whole_clusters
from factory_lib.errors import QueryError
from tests.curation.test_clusters import Matrix, blobs, matrix_of, saved

CLUSTERED = pa.struct([("cluster", pa.uint32()), ("distance", pa.float32())])


def as_published(vectors: Matrix, middles: Matrix, eps: float, keep: str, ranks: NDArray[np.uint64]) -> set[int]:
    """Which rows SemDeDup removes, written from its paper and `semdedup.py`: for each cluster sort by the distance to
    the centroid, S = E E^T, keep its upper triangle, M = the maximum of each column, remove where M > 1 - eps."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest_cent = (unit @ middles.T).argmax(1)
    removed: set[int] = set()
    for cluster_id in range(len(middles)):
        cluster_i = np.flatnonzero(nearest_cent == cluster_id)
        if len(cluster_i) == 1:
            continue
        distance = 1 - unit[cluster_i] @ middles[cluster_id]
        if keep == "hard":
            order = np.argsort(-distance, kind="stable")
        elif keep == "easy":
            order = np.argsort(distance, kind="stable")
        else:
            order = np.argsort(ranks[cluster_i])
        cluster_i = cluster_i[order]
        pair_w_sim_matrix = unit[cluster_i] @ unit[cluster_i].T
        triu_sim_mat = np.triu(pair_w_sim_matrix, k=1)
        m = triu_sim_mat.max(axis=0, initial=0)
        removed |= set(cluster_i[m > 1 - eps].tolist())
    return removed


def copied(count: int, width: int, seed: int = 0) -> Matrix:
    """Vectors in groups, of which a third are near others, at all distances."""
    random = np.random.default_rng(seed)
    found = blobs(count, width, 12, seed, spread=0.5)
    of, into = random.integers(0, count, (2, count // 3))
    noise = random.standard_normal((len(of), width)) * random.uniform(0, 0.1, (len(of), 1))
    found[into] = (found[of] + noise).astype(np.float32)
    return found


def clustered(vectors: Any, clusters: list[int | None], distances: list[float | None]) -> DatasetQuery:
    """Rows k0, k1, … with vectors and clusters as given."""
    column = [{"cluster": c, "distance": d} for c, d in zip(clusters, distances, strict=True)]
    table = pa.table(
        {
            "key": [f"k{number}" for number in range(len(column))],
            "emb": pa.array([list(map(float, v)) for v in vectors], pa.list_(pa.float32())),
            "emb_cluster": pa.array(column, CLUSTERED),
        }
    )
    return DatasetQuery(DatasetQuery.from_arrow(table).save("clustered"))


def gone(found: DatasetQuery) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in found.to_arrow().to_pylist() if not row["kept"]}


@pytest.mark.parametrize("first", ["hard", "easy", "random"])
def test_the_same_samples_go_as_in_the_paper(engine: None, first: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic, "BLOCK", 100)
    vectors = copied(5000, 32)
    samples = saved(vectors, shards=3)
    middles = centroids(samples, "emb", 10, seed=2)
    samples = DatasetQuery(samples.add_signals(cluster_of(middles, "emb")).save("clustered"))
    ids = samples.to_arrow().column("sample_id").to_numpy()
    ranks = samples.select(r=fn.sipHash64(C.sample_id, 4)).to_arrow().column("r").to_numpy()
    for eps in (0.002, 0.05):
        groups = semantic_duplicates(samples, "emb", eps=eps, keep=first, seed=4)
        check_groups(groups.to_arrow())
        found = groups.filter(~C.kept).to_arrow()
        wanted = as_published(vectors, matrix_of(middles), eps, first, ranks)
        assert 100 < len(wanted) < 2500
        assert set(found.column("key").to_pylist()) == {f"k{row:05}" for row in wanted}
        stay = set(ids) - set(found.column("sample_id").to_numpy())
        assert set(found.column("duplicate_of").to_numpy()) <= stay
        place = {one: row for row, one in enumerate(ids)}
        pairs = [
            (place[a], place[b])
            for a, b in zip(found["sample_id"].to_numpy(), found["matched"].to_numpy(), strict=True)
        ]
        cosines = [vectors[a] @ vectors[b] / np.linalg.norm(vectors[a]) / np.linalg.norm(vectors[b]) for a, b in pairs]
        np.testing.assert_allclose(found.column("score").to_numpy(), cosines, atol=1e-5)


def check_groups(rows: pa.Table) -> None:
    """Each group has one that is kept, is told by its smallest id, and has all its members."""
    groups: dict[int, list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        groups.setdefault(row["group"], []).append(row)
    for group, members in groups.items():
        ids = [one["sample_id"] for one in members]
        stay = [one["sample_id"] for one in members if one["kept"]]
        assert (len(stay), min(ids)) == (1, group)
        assert {one["duplicate_of"] for one in members} == {None, stay[0]}
        assert {one["matched"] for one in members} <= set(ids)
        assert {one["by"] for one in members} == {"emb"}


def angles(*degrees: float) -> Matrix:
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)


def test_what_comes_first_stays_and_who_goes_still_counts(engine: None) -> None:
    """A chain of three, 10 degrees apart (cosine .985): the last is near the second alone, which goes itself."""
    samples = clustered(angles(0, 10, 20), [0, 0, 0], [0.3, 0.2, 0.1])
    ids = {row["key"]: row["sample_id"] for row in samples.to_arrow().to_pylist()}
    found = gone(semantic_duplicates(samples, "emb", eps=0.02))
    assert list(found) == ["k1", "k2"]
    assert [found["k2"][name] for name in ("duplicate_of", "matched")] == [ids["k0"], ids["k1"]]
    assert found["k2"]["score"] == pytest.approx(np.cos(np.radians(10)), abs=1e-6)
    stays = semantic_duplicates(samples, "emb", eps=0.02).filter(C.kept).to_arrow().to_pylist()
    assert [(row["key"], row["matched"]) for row in stays] == [("k0", ids["k1"])]
    copies = semantic_duplicates(samples, "emb", eps=0.02)
    kept = keep(samples, Without(copies, "a semantic duplicate"))
    assert kept.samples.to_arrow()["key"].to_pylist() == ["k0"]
    easy = gone(semantic_duplicates(samples, "emb", eps=0.02, keep="easy"))
    assert {key: row["duplicate_of"] for key, row in easy.items()} == {"k0": ids["k2"], "k1": ids["k2"]}
    assert gone(semantic_duplicates(samples, "emb", eps=0.01)) == {}


def test_other_clusters_single_ones_and_samples_without_a_vector_have_no_duplicates(engine: None) -> None:
    vectors = [*angles(0, 0, 0), [], *angles(0), [0, 0]]
    samples = clustered(vectors, [0, 1, None, 2, 2, 2], [0.1, 0.1, None, 0.1, 0.1, 0.1])
    assert gone(semantic_duplicates(samples, "emb", eps=0.5)) == {}


def test_equally_far_copies_stay_by_shard_and_position(engine: None) -> None:
    samples = clustered(angles(0, 0, 0, 0), [3] * 4, [0.1] * 4)
    semantic_duplicates(samples, "emb", eps=0.001).save("copies")
    assert reproduce("copies").is_equal
    assert list(gone(semantic_duplicates(samples, "emb", eps=0.001))) == ["k1", "k2", "k3"]


@settings(max_examples=100)
@given(sizes=st.lists(st.integers(1, 9), max_size=8), cuts=st.lists(st.integers(0, 9), max_size=30))
def test_clusters_are_whole_wherever_batches_end(sizes: list[int], cuts: list[int]) -> None:
    clusters = [number for number, size in enumerate(sizes) for _ in range(size)]
    table = pa.table({"cluster": pa.array(clusters, pa.uint32()), "row": range(len(clusters))})
    ends = sorted({min(end, len(clusters)) for end in np.cumsum(cuts).tolist()} | {0, len(clusters)})
    batches = [one for a, b in pairwise(ends) for one in table.slice(a, b - a).combine_chunks().to_batches()]
    found = list(whole_clusters(batches))
    assert [row for one in found for row in one["row"].to_pylist()] == list(range(len(clusters)))
    parts = [set(one["cluster"].to_pylist()) for one in found]
    assert all(parts)
    assert sum(map(len, parts)) == len(sizes)
    most = max(sizes, default=0) + max((len(one) for one in batches), default=0)
    assert all(len(one) <= most for one in found)


def test_what_is_equal_has_a_cosine_of_one_and_no_larger_one(engine: None) -> None:
    """Dot products of unit vectors in float32 are a few 1e-7 off, above 1 as often as below."""
    vectors = np.repeat(np.random.default_rng(0).normal(size=(100, 64)), 2, axis=0)
    samples = clustered(vectors, [0] * 200, [0.1] * 200)
    found = semantic_duplicates(samples, "emb", eps=1e-6).to_arrow()
    assert set(found["score"].to_pylist()) == {1.0}
    assert len(found) == 200
    assert semantic_duplicates(samples, "emb", eps=0).count() == 0  # none is above 1


def test_what_is_asked_wrongly(engine: None) -> None:
    samples = clustered(angles(0, 0), [0, 0], [0.1, 0.2])
    with pytest.raises(QueryError, match="eps=3"):
        semantic_duplicates(samples, "emb", eps=3)
    with pytest.raises(QueryError, match="keep='hardest'.*'hard'"):
        semantic_duplicates(samples, "emb", eps=0.1, keep="hardest")  # type: ignore[arg-type]
    with pytest.raises(QueryError, match=r"'emb_cluster'.*cluster_of\(centroids, 'emb'\)"):
        semantic_duplicates(samples.drop("emb_cluster"), "emb", eps=0.1)
    with pytest.raises(QueryError, match="'key', which is String"):
        semantic_duplicates(samples, "emb", eps=0.1, cluster="key")
    mixed = clustered([[1, 0], [1, 0, 0], [0, 1]], [0, 0, 0], [0.1, 0.2, 0.3])
    with pytest.raises(QueryError, match="differ in length: 2 have 2, 1 have 3"):
        semantic_duplicates(mixed, "emb", eps=0.1).to_arrow()
    with pytest.raises(QueryError, match="'photo'"):
        semantic_duplicates(samples, "photo", eps=0.1)
