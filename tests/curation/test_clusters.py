"""k-means, and the nearest centroid as a signal: beside faiss and their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from factory_lib import C, DatasetQuery
from factory_lib.catalog import lineage, reproduce
from factory_lib.curation.clusters import centroids, cluster_of, semantic_duplicates
from factory_lib.curation.clusters.kmeans import kmeans
from factory_lib.curation.clusters.nearest import Metric, nearest
from factory_lib.errors import QueryError

Matrix = NDArray[np.float32]


def blobs(count: int, width: int, groups: int, seed: int = 0, spread: float = 0.3) -> Matrix:
    """Vectors around some directions, of length 1; vector i belongs to group i % groups."""
    random = np.random.default_rng(seed)
    middles = random.standard_normal((groups, width))
    found = middles[np.arange(count) % groups] + spread * random.standard_normal((count, width))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def table_of(vectors: Matrix | list[list[float]], shards: int = 1) -> pa.Table:
    """Rows with these vectors as the column `emb`, in shards one after the other."""
    rows = [list(map(float, vector)) for vector in vectors]
    names = [f"s{number * shards // max(len(rows), 1)}" for number in range(len(rows))]
    return pa.table(
        {
            "shard": names,
            "key": [f"k{number:05}" for number in range(len(rows))],
            "emb": pa.array(rows, pa.list_(pa.float32())),
        }
    )


def saved(vectors: Matrix | list[list[float]], name: str = "samples", shards: int = 1) -> DatasetQuery:
    return DatasetQuery(DatasetQuery.from_arrow(table_of(vectors, shards), shard="shard").save(name))


def matrix_of(found: DatasetQuery) -> Matrix:
    return np.array(found.order_by("cluster").to_arrow().column("centroid").to_pylist(), np.float32)


# The algorithm ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [None, 64])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_groups_that_are_apart_are_found(metric: Metric, batch: int | None) -> None:
    vectors = blobs(600, 16, 2, spread=0.1)
    found = kmeans(vectors, 2, metric, iterations=20, seed=1, batch=batch)
    which, _ = nearest(vectors, found.centroids, metric)
    assert found.sizes.tolist() == [300, 300]
    assert {len(set(which[group::2].tolist())) for group in range(2)} == {1}


@pytest.mark.parametrize("spherical", [True, False])
def test_the_clusters_are_as_tight_as_those_of_faiss(spherical: bool) -> None:
    faiss = pytest.importorskip("faiss")
    vectors = blobs(4000, 24, 60, spread=0.8)
    peer = faiss.Kmeans(24, 40, niter=25, seed=3, spherical=spherical, max_points_per_centroid=10_000)
    peer.train(vectors)
    metric: Metric = "cosine" if spherical else "euclidean"
    found = kmeans(vectors, 40, metric, iterations=25, seed=3)

    def within(middles: Matrix) -> float:
        products = vectors @ middles.T
        if spherical:
            return float(products.max(1).mean())
        return float(-((1 + (middles**2).sum(1) - 2 * products).min(1)).mean())

    assert within(found.centroids) > within(peer.centroids) - 0.01


def test_an_iteration_is_the_mean_of_what_is_nearest() -> None:
    """Lloyd by its definition, from the same beginning."""
    vectors = blobs(200, 8, 5, spread=0.6)
    begin = np.sort(np.random.default_rng(7).choice(200, 5, replace=False))
    middles = vectors[begin].astype(np.float64)
    for _ in range(3):
        which = (vectors @ middles.T).argmax(1)
        middles = np.stack([vectors[which == one].sum(0, dtype=np.float64) for one in range(5)])
        middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    found = kmeans(vectors, 5, "cosine", iterations=3, seed=7)
    sizes = np.bincount((vectors @ middles.T).argmax(1), minlength=5)
    order = np.argsort(-sizes, kind="stable")
    assert found.sizes.tolist() == sizes[order].tolist()
    np.testing.assert_allclose(found.centroids, middles[order], atol=1e-5)


def test_an_empty_cluster_begins_anew_at_the_farthest_vector() -> None:
    """Two of three clusters begin at equal vectors, so that one is empty; the outlier gets it."""
    vectors = np.array([[0, 0]] * 50 + [[10, 0]] * 50 + [[0, 99]], np.float32)
    found = kmeans(vectors, 3, "euclidean", iterations=10, seed=0)
    assert sorted(map(tuple, found.centroids.tolist())) == [(0, 0), (0, 99), (10, 0)]
    assert found.sizes.tolist() == [50, 50, 1]


def test_fewer_different_vectors_than_clusters_give_fewer_clusters() -> None:
    vectors = np.repeat(np.eye(3, dtype=np.float32), [5, 4, 3], axis=0)
    for metric, batch in itertools.product(("cosine", "euclidean"), (None, 2)):
        found = kmeans(vectors, 8, metric, iterations=10, seed=0, batch=batch)  # type: ignore[arg-type]
        assert found.sizes.tolist() == [5, 4, 3]
        np.testing.assert_allclose(found.centroids, np.eye(3), atol=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "inner_product"])
def test_the_nearest_is_that_of_the_definition_and_does_not_hang_on_what_is_beside(metric: Metric) -> None:
    random = np.random.default_rng(0)
    vectors = blobs(50, 12, 50)
    middles = random.standard_normal((2100, 12)).astype(np.float32)  # more than a tile
    if metric == "cosine":
        middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    which, far = nearest(vectors, middles, metric)
    exact = vectors.astype(np.float64) @ middles.T
    if metric == "euclidean":
        wanted = np.linalg.norm(vectors[:, None].astype(np.float64) - middles, axis=2)
    else:
        wanted = 1 - exact if metric == "cosine" else -exact
    assert which.tolist() == wanted.argmin(1).tolist()
    np.testing.assert_allclose(far, wanted.min(1), atol=1e-4)
    for row in range(0, 50, 7):
        alone = nearest(vectors[row : row + 1], middles, metric)
        assert (alone[0][0], alone[1][0]) == (which[row], far[row])


def test_euclidean_is_the_same_wherever_the_origin_lies() -> None:
    """Numbers that float32 holds exactly, and a distance between them that its squares have no digits for."""
    grid = np.random.default_rng(0).integers(-64, 64, (300, 6)).astype(np.float32) / 64
    middles, far_off = grid[:20], np.float32(8192)
    here, there = nearest(grid, middles, "euclidean"), nearest(grid + far_off, middles + far_off, "euclidean")
    wanted = np.linalg.norm(grid[:, None].astype(np.float64) - middles, axis=2)
    for which, far in (here, there):
        np.testing.assert_allclose(wanted[np.arange(300), which], wanted.min(1))
        np.testing.assert_allclose(far, wanted.min(1), rtol=1e-6)
    found = [kmeans(points, 5, "euclidean", iterations=20, seed=0) for points in (grid, grid + far_off)]
    assert found[0].sizes.tolist() == found[1].sizes.tolist()
    np.testing.assert_allclose(found[0].centroids, found[1].centroids - far_off, atol=2e-3)


# As rows and as a signal -----------------------------------------------------------------------------------------


def test_centroids_are_rows_and_the_same_for_the_same_rows(engine: None) -> None:
    vectors = blobs(300, 8, 4, spread=0.2)
    samples = saved(vectors, shards=3)
    version = centroids(samples, "emb", 4, seed=5).save("middles")
    rows = DatasetQuery(version).to_arrow()
    assert rows.column("cluster").to_pylist() == [0, 1, 2, 3]
    assert rows.column("size").to_pylist() == sorted(rows.column("size").to_pylist(), reverse=True)
    assert sum(rows.column("size").to_pylist()) == 300
    assert set(rows.column("metric").to_pylist()) == {"cosine"}
    shuffled = table_of(vectors, 3).append_column("position", pa.array([n % 100 for n in range(300)], pa.uint32()))
    shuffled = shuffled.take(np.random.default_rng(0).permutation(300))
    again = centroids(DatasetQuery.from_arrow(shuffled, shard="shard"), "emb", 4, seed=5)
    assert matrix_of(again).tolist() == matrix_of(DatasetQuery(version)).tolist()
    assert lineage("middles").links
    assert reproduce("middles").is_equal


def test_of_more_vectors_than_asked_for_a_sample_is_looked_at(engine: None) -> None:
    samples = saved(blobs(500, 8, 2, spread=0.1))
    found = centroids(samples, "emb", 2, most_per_cluster=20).to_arrow()
    assert sum(found.column("size").to_pylist()) == 40


def test_a_new_shard_is_assigned_alone_and_other_centroids_have_all_assigned(engine: None) -> None:
    vectors = blobs(90, 8, 3, spread=0.1)
    samples = saved(vectors[:60], shards=2)
    middles = DatasetQuery(centroids(samples, "emb", 3).save("middles"))
    clustered = samples.add_signals(cluster_of(middles, "emb")).save("clustered")
    assert clustered.provenance is not None
    assert [parent["name"] for parent in clustered.provenance.parents] == ["samples.v1", "middles.v1"]
    which, far = nearest(vectors, matrix_of(middles), "cosine")
    rows = DatasetQuery("clustered").select(c=C.emb_cluster.cluster, d=C.emb_cluster.distance).to_arrow()
    assert rows.column("c").to_pylist() == which[:60].tolist()
    np.testing.assert_array_equal(rows.column("d").to_numpy(), far[:60])

    more = pa.table({"shard": ["s9"] * 30, "key": [f"n{n}" for n in range(30)], "emb": table_of(vectors[60:])["emb"]})
    DatasetQuery.from_arrow(more, shard="shard").save("samples", mode="overwrite_shards")
    saved_anew = DatasetQuery(DatasetQuery("middles").save("middles"))
    again = DatasetQuery("samples").add_signals(cluster_of(saved_anew, "emb")).save("clustered")
    assert again.provenance is not None
    assert (again.provenance.reused, again.provenance.computed) == (60, 30)
    others = centroids(DatasetQuery("samples"), "emb", 2)
    third = DatasetQuery("samples").add_signals(cluster_of(others, "emb")).save("clustered")
    assert third.provenance is not None
    assert (third.provenance.reused, third.provenance.computed) == (0, 90)


def test_centroids_of_ones_own_and_another_metric(engine: None) -> None:
    """As DataComp assigns: the largest inner product with centroids that have their lengths."""
    samples = saved([[1, 0.2], [0.2, 1]])
    own = DatasetQuery.from_arrow(pa.table({"cluster": [7, 9], "centroid": [[1.0, 0.0], [5.0, 6.0]]}))
    for metric, wanted in (("cosine", [7, 9]), ("inner_product", [9, 9]), ("euclidean", [7, 7])):
        signal = cluster_of(own, "emb", metric=metric, name="nearest")  # type: ignore[arg-type]
        found = samples.add_signals(signal).select(c=C.nearest.cluster).to_arrow()
        assert found.column("c").to_pylist() == wanted


def test_vectors_that_cannot_be_compared_are_counted_and_get_no_cluster(engine: None) -> None:
    good = blobs(20, 2, 2, spread=0.01).tolist()
    samples = saved([*good, [], [0, 0], [float("nan"), 1], [float("inf"), 1]])
    assert sum(centroids(samples, "emb", 2).to_arrow().column("size").to_pylist()) == 20
    middles = centroids(samples, "emb", 2)
    rows = DatasetQuery(samples.add_signals(cluster_of(middles, "emb")).save("clustered")).to_arrow().to_pylist()
    assert all(row["emb_cluster"]["cluster"] is not None and row["emb_cluster_error"] is None for row in rows[:20])
    assert [row["emb_cluster"] for row in rows[20:]] == [{"cluster": None, "distance": None}] * 4
    told = [row["emb_cluster_error"] for row in rows[20:]]
    assert told == [
        "no vector",
        "ValueError: the vector is all zeros",
        *["ValueError: the vector has numbers that are not finite"] * 2,
    ]
    wide = DatasetQuery.from_arrow(pa.table({"cluster": [0], "centroid": [[1.0, 0.0, 0.0]]}))
    errors = samples.add_signals(cluster_of(wide, "emb")).limit(1).to_arrow().column("emb_cluster_error")
    assert errors[0].as_py() == "ValueError: the vector has 2 numbers, not 3"


def test_how_many_clusters_there_are_where_nobody_says(engine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("factory_lib.curation.clusters.centroid_rows.VECTORS_A_CLUSTER", 10)
    assert centroids(saved(blobs(47, 4, 9)), "emb").count() == 5
    assert centroids(saved(blobs(3, 4, 3)), "emb").count() == 1
    nothing = saved([[], [0.0, 0.0]])
    none = centroids(nothing, "emb")
    assert none.count() == 0
    rows = nothing.add_signals(cluster_of(none, "emb")).to_arrow().to_pylist()
    assert [row["emb_cluster"]["cluster"] for row in rows] == [None, None]
    assert all("there are no centroids" in row["emb_cluster_error"] for row in rows)
    assert semantic_duplicates(nothing.add_signals(cluster_of(none, "emb")), "emb", eps=0.1).count() == 0


def test_what_is_asked_wrongly(engine: None) -> None:
    samples = saved(blobs(10, 4, 2))
    with pytest.raises(QueryError, match="k=11.*there are 10 vectors"):
        centroids(samples, "emb", 11).to_arrow()
    with pytest.raises(QueryError, match="k=3.*only 2 vectors can be compared, 1 all zeros"):
        centroids(saved([[1, 0], [0, 1], [0, 0]], "few"), "emb", 3).to_arrow()
    with pytest.raises(QueryError, match="differ in length: 1 have 2, 2 have 3"):
        centroids(saved([[1, 0, 1], [0, 1], [0, 0, 1]], "mixed"), "emb", 1).to_arrow()
    with pytest.raises(QueryError, match=r"'embb'.*(?s:.*)'emb'"):
        centroids(samples, "embb", 2)
    with pytest.raises(QueryError, match="is String"):
        centroids(samples, "key", 2)
    with pytest.raises(QueryError, match="cosine"):
        centroids(samples, "emb", 2, metric="cosin")  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="iterations=0"):
        centroids(samples, "emb", 2, iterations=0)
    with pytest.raises(QueryError, match="'cluster' of centroids"):
        cluster_of(samples, "emb")
    broken = DatasetQuery.from_arrow(pa.table({"cluster": [0, 1], "centroid": [[1.0, 0.0], [0.0, 0.0]]}))
    with pytest.raises(QueryError, match="centroid 1 is all zeros"):
        cluster_of(broken, "emb")
    for numbers, said in (
        ([0, -1], "whole numbers.*-1"),
        ([0, 1.5], "whole numbers.*1.5"),
        ([0, None], "1 centroids have no number"),
        ([3, 3], "several centroids of cluster 3"),
    ):
        own = DatasetQuery.from_arrow(pa.table({"cluster": numbers, "centroid": [[1.0, 0.0], [0.0, 1.0]]}))
        with pytest.raises(QueryError, match=said):
            cluster_of(own, "emb")
