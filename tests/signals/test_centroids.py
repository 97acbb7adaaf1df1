"""The nearest centroid of a vector, against numpy's inner products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from factory_lib import DatasetQuery
from factory_lib.errors import SignalError
from factory_lib.signals.centroids import nearest_centroid


def saved(path: Path, array: object) -> str:
    np.save(path, np.asarray(array))
    return str(path)


def test_centroids_are_compared_by_inner_products_and_not_by_distance(tmp_path: Path) -> None:
    nearest = nearest_centroid(saved(tmp_path / "c.npy", [[1.0, 0.0], [0.0, 1.0], [3.0, 3.0]]), vectors="v")
    assert nearest.one([1.0, 0.0]) == 2  # though the first lies on it
    assert nearest.one([1.0, -3.0]) == 0
    assert nearest.one([-1.0, 0.5]) == 1


def test_vectors_of_a_dataset(engine: None, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(300, 16)).astype(np.float16).astype(np.float32)
    centroids = (random.normal(size=(20, 16)) * random.uniform(0.5, 2, (20, 1))).astype(np.float32)
    uri = saved(tmp_path / "c.npy", centroids)
    rows: list[list[float] | None] = vectors.tolist()
    rows[3], rows[5], rows[7], rows[9] = None, [1.0, 2.0], [0.0] * 16, [float("nan"), *[1.0] * 15]
    pool = DatasetQuery.from_arrow(pa.table({"l14_img": pa.array(rows, pa.list_(pa.float32()))}))
    pool.add_signals(nearest_centroid(uri)).save("pool")
    found = DatasetQuery("pool").select("nearest_centroid", "nearest_centroid_error").to_arrow()
    expected: list[int | None] = [int(np.argmax([vector @ centroid for centroid in centroids])) for vector in vectors]
    expected[3] = expected[5] = expected[7] = expected[9] = None
    assert found["nearest_centroid"].to_pylist() == expected
    errors = found["nearest_centroid_error"].to_pylist()
    assert [errors[row] for row in (3, 5, 7, 9)] == [
        "no vector",
        "ValueError: the vector has 2 numbers, not 16",
        "ValueError: the vector is all zeros",
        "ValueError: the vector has numbers that are not finite",
    ]
    assert sum(error is not None for error in errors) == 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros(4), r"float64 of shape \(4,\)"),
        (np.zeros((0, 4)), r"shape \(0, 4\)"),
        (np.array([["a"]]), "<U1 of shape"),
        (np.array([[1.0, np.inf]]), "not finite"),
        (np.array([[{}]]), "holds no centroids: Object arrays"),
    ],
)
def test_files_that_hold_no_centroids(tmp_path: Path, given: object, said: str) -> None:
    with pytest.raises(SignalError, match=said):
        nearest_centroid(saved(tmp_path / "c.npy", given), vectors="v").one([1.0] * 4)


def test_other_files_are_no_centroids(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", np.ones((2, 2)))
    whole = Path(saved(tmp_path / "c.npy", np.ones((9, 9)))).read_bytes()
    (tmp_path / "short.npy").write_bytes(whole[:-8])
    for name in ("c.npz", "short.npy"):
        with pytest.raises(SignalError, match=f"{name} holds no centroids"):
            nearest_centroid(str(tmp_path / name), vectors="v").one([1.0])


def test_values_depend_on_the_centroids_and_not_on_their_place(tmp_path: Path) -> None:
    same = [nearest_centroid(saved(tmp_path / name, np.eye(3))).fingerprint for name in ("a.npy", "b.npy")]
    assert same[0] == same[1]
    assert nearest_centroid(saved(tmp_path / "a.npy", np.eye(4))).fingerprint != same[0]
