"""Samples that stand in a reference: by vectors against all cosines in float64, by pixels by known edits."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import ImageOps

from factory_lib import DatasetQuery
from factory_lib.curation import reference_matches
from factory_lib.curation.duplicates import references as module
from factory_lib.errors import ColumnNotFound, QueryError
from factory_lib.signals.thumbnails import thumbnail
from tests.curation.test_duplicates import scene


def saved(name: str, vectors: Sequence[Sequence[float] | None] | NDArray[np.float32], **columns: Any) -> DatasetQuery:
    count = len(vectors)
    table = pa.table(
        {
            "shard": [f"{name[0]}{n % 3}" for n in range(count)],
            "key": [f"{name}{n}" for n in range(count)],
            "vector": pa.array(list(vectors), pa.list_(pa.float32())),
            **columns,
        }
    )
    DatasetQuery.from_arrow(table, shard="shard").save(name)
    return DatasetQuery(name)


def test_the_largest_cosine_decides(engine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    reference = random.normal(size=(40, 16)).astype(np.float32)
    vectors = random.normal(size=(70, 16)).astype(np.float32)
    vectors[::5] = reference[:14] * 3 + random.normal(size=(14, 16)) * 0.4  # of any length
    cosines = (vectors / np.linalg.norm(vectors, axis=1)[:, None]).astype(np.float64) @ (
        reference / np.linalg.norm(reference, axis=1)[:, None]
    ).T.astype(np.float64)
    expected = {
        f"pool{n}": (f"val{row.argmax()}", pytest.approx(row.max(), abs=2e-6))
        for n, row in enumerate(cosines)
        if row.max() > 0.604169
    }
    assert 10 < len(expected) < 60
    pool, val = saved("pool", vectors), saved("val", reference)

    def found() -> dict[str, tuple[str, float]]:
        rows = reference_matches(pool, val, "vector", score=0.604169).to_arrow().to_pylist()
        return {row["key"]: (row["reference_key"], row["score"]) for row in rows}

    assert found() == expected
    monkeypatch.setattr(module, "HELD", 16)  # the reference in pieces
    monkeypatch.setattr(module, "_BLOCK", 7)
    monkeypatch.setattr(module, "_REFERENCES", 3)
    assert found() == expected


def test_samples_of_the_reference_are_left_out_and_the_reference_is_a_parent(engine: None) -> None:
    pool, val = saved("pool", [[1, 0], [0, 1], [0.6, 0.8]]), saved("val", [[0, 2], [0, 4]])
    version = reference_matches(pool, val, "vector", score=0.9).save("leaked")
    [row] = DatasetQuery(version).to_arrow().to_pylist()
    assert (row["key"], row["score"]) == ("pool1", 1.0)
    first = min(val.to_arrow()["sample_id"].to_pylist())  # of equal ones
    assert row["reference"] == first
    assert version.provenance is not None
    assert [parent["name"] for parent in version.provenance.parents] == ["pool.v1", "val.v1"]
    left = pool.join(DatasetQuery(version), on="sample_id", how="anti")
    assert sorted(left.to_arrow()["key"].to_pylist()) == ["pool0", "pool2"]


def test_vectors_that_point_nowhere_are_counted_and_match_nothing(
    engine: None, caplog: pytest.LogCaptureFixture
) -> None:
    odd = [[0, 0], [float("nan"), 1], [float("inf"), 1], None, []]
    pool, val = saved("pool", [[0, 1], *odd]), saved("val", [[0, 1], *odd[:2]])
    with caplog.at_level(logging.WARNING, logger=module.__name__):
        rows = reference_matches(pool, val, "vector", score=0.1).to_arrow().to_pylist()
    assert [row["key"] for row in rows] == ["pool0"]
    assert [message.split(" have")[0] for message in caplog.messages] == [
        "5 of 6 in the samples",
        "2 of 3 in the reference",
    ]
    empty = val.filter("key = 'none'")
    assert reference_matches(pool, empty, "vector", score=0.1).count() == 0
    assert reference_matches(empty, val, "vector", score=0.1).count() == 0


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_vectors_of_any_length_have_a_direction(engine: None, size: float) -> None:
    """Their squares are no float32."""
    pool, val = saved("pool", [[3 * size, 4 * size], [size, 0]]), saved("val", [[0.6, 0.8]])
    [row] = reference_matches(pool, val, "vector", score=0.9).to_arrow().to_pylist()
    assert (row["key"], row["score"]) == ("pool0", 1.0)


def test_vectors_of_other_models_are_refused(engine: None) -> None:
    pool, val = saved("pool", [[0, 1]] * 3), saved("val", [[0, 1, 2]] * 3)
    with pytest.raises(
        QueryError, match="'vector' of the samples has vectors of 2 numbers, that of the reference of 3"
    ):
        reference_matches(pool, val, "vector", score=0.5).count()
    mixed = saved("mixed", [[0, 1], [0, 1, 2], [1]])
    with pytest.raises(QueryError, match="vectors of [123]( and of [23])? numbers"):
        reference_matches(mixed, val, "vector", score=0.5).count()


def test_wrong_arguments_are_refused_with_what_is_right(engine: None) -> None:
    pool = saved("pool", [[0, 1]] * 3)
    with pytest.raises(ColumnNotFound, match="'vektor'.*vector"):
        reference_matches(pool, pool, "vektor", score=0.5)
    with pytest.raises(QueryError, match="needs score=.*0.604169"):
        reference_matches(pool, pool, "vector")
    with pytest.raises(QueryError, match="score=2"):
        reference_matches(pool, pool, "vector", score=2)
    with pytest.raises(QueryError, match="compares vectors, and 'key'"):
        reference_matches(pool, pool, "key", score=0.5)


def test_edited_pictures_of_the_reference_are_found_by_pixels(engine: None) -> None:
    photos = [scene(n) for n in range(6)]
    edits = [ImageOps.mirror(photos[0]), photos[1].resize((80, 60)), photos[2], photos[2], scene(20), scene(21)]

    def with_thumbnails(name: str, pictures: Sequence[Any]) -> DatasetQuery:
        thumbnails = pa.array([thumbnail.one(picture) for picture in pictures], pa.list_(pa.uint8()))
        return saved(name, [[0.0]] * len(pictures), thumbnail=thumbnails)

    pool, val = with_thumbnails("pool", edits), with_thumbnails("val", photos)
    rows = reference_matches(pool, val).to_arrow().to_pylist()
    found = {row["key"]: (row["reference_key"], row["alignment"]) for row in rows}
    assert found == {
        "pool0": ("val0", "mirrored"),
        "pool1": ("val1", "same"),
        "pool2": ("val2", "same"),
        "pool3": ("val2", "same"),
    }
    assert all(row["score"] >= 0.85 for row in rows)
    assert reference_matches(pool, val.filter("key = 'none'")).count() == 0
