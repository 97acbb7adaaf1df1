"""Filters by text and faces on photos: what is known decides, what is not removes nothing."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from factory_lib import DatasetQuery
from factory_lib.curation import BasicFilter, FaceFilter, TextFilter, keep
from factory_lib.errors import QueryError
from factory_lib.signals.models.faces import faces
from factory_lib.signals.models.text_area import text_area

pytestmark = pytest.mark.usefixtures("engine")

TEXTS: list[Any] = [(0.0, 0), (0.1, 1), (0.11, 1), (0.9, 7), None]
FACES: list[Any] = [[], [0.99], [0.8], [0.99, 0.96, 0.7], None]


class Row:
    """Fields of a value as attributes."""

    def __init__(self, **fields: object) -> None:
        self.__dict__ |= fields


def pool() -> DatasetQuery:
    shares = [None if one is None else Row(share=one[0], number=one[1]) for one in TEXTS]
    boxes = [
        None if one is None else Row(number=len(one), scores=one, boxes=[[0.0, 0.0, 0.5, 0.5]] * len(one))
        for one in FACES
    ]
    table = pa.table(
        {"key": list("abcde"), "text_area": text_area.output.array(shares), "faces": faces.output.array(boxes)}
    )
    return DatasetQuery(DatasetQuery.from_arrow(table).save("pool"))


def keys(query: DatasetQuery) -> str:
    return "".join(sorted(query.to_arrow()["key"].to_pylist()))


def test_text_and_faces_beyond_the_bounds_are_removed_with_their_reason() -> None:
    samples = pool()
    kept = keep(samples, TextFilter(most=0.1), FaceFilter(most=1))
    assert kept.removed() == {"text covers more than 0.1 of the picture": 2, "more than 1 faces": 0}
    assert keys(kept.samples) == "abe"
    assert kept.judged.remark == ""
    assert keys(keep(samples, FaceFilter()).samples) == "ace"
    assert keys(keep(samples, FaceFilter(sure=0.7)).samples) == "ae"
    assert keys(keep(samples, FaceFilter(most=1, sure=0.7)).samples) == "abce"
    assert keys(keep(samples, FaceFilter(most=2, sure=0.7)).samples) == "abce"
    assert keys(keep(samples, FaceFilter(most=3, sure=0.7)).samples) == "abcde"


def test_without_values_nothing_is_removed_and_that_is_said() -> None:
    samples = pool()
    without = keep(samples.select("key"), TextFilter(), FaceFilter())
    assert keys(without.samples) == "abcde"
    assert without.judged.remark == (
        "No column 'text_area': rules on it removed nothing. No column 'faces': rules on it removed nothing."
    )
    few = keep(samples, TextFilter(min_known=0.9))
    assert keys(few.samples) == "abcde"
    assert few.judged.remark.startswith("4 of 5 samples have a 'text_area': rules on it removed nothing.")


@pytest.mark.parametrize(
    ("scores", "kept", "remark"),
    [
        ([0.001, 0.002, 0.003], 3, ""),  # nothing is unsafe: nothing to remove, and no fault
        ([0.004], 1, ""),
        ([0.01, 0.02, 0.9], 2, ""),
        ([0.3, 0.3, 0.3], 3, "does not spread"),
        ([None, None, None], 3, "does not spread"),
    ],
)
def test_a_pool_where_nothing_is_unsafe_is_no_fault(scores: list[float | None], kept: int, remark: str) -> None:
    table = pa.table({"key": [str(place) for place in range(len(scores))], "punsafe": pa.array(scores, pa.float32())})
    judged = keep(DatasetQuery(DatasetQuery.from_arrow(table).save("scored")), BasicFilter())
    assert judged.samples.count() == kept
    assert remark in judged.judged.remark
    assert bool(remark) == ("punsafe" in judged.judged.remark)


def test_no_picture_has_fewer_faces_than_none() -> None:
    with pytest.raises(QueryError, match="most=-1"):
        FaceFilter(most=-1)
