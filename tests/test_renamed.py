"""Names that changed: the old ones do the same and say what they are called now."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from factory_lib import DatasetQuery
from factory_lib.renamed import renamed


@renamed({"evolve": "schema_evolution"}, {"mode": {"merge": "overwrite_shards"}})
def saved(name: str, mode: str = "new", *, schema_evolution: bool = False) -> tuple[Any, ...]:
    """What it was called with."""
    return name, mode, schema_evolution


@pytest.mark.parametrize(
    ("args", "named", "told"),
    [
        (("a", "merge"), {}, "mode='merge'.*mode='overwrite_shards'"),
        (("a",), {"mode": "merge"}, "mode='merge'.*mode='overwrite_shards'"),
        (("a", "overwrite_shards"), {"evolve": True}, "evolve=.*schema_evolution="),
    ],
)
def test_old_arguments_and_values_work_and_warn(args: tuple[str, ...], named: dict[str, Any], told: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"saved\({told}") as warned:
        assert saved(*args, **named) == ("a", "overwrite_shards", "evolve" in named)
    assert [one.filename for one in warned] == [__file__]  # whoever called, not what stands between


@pytest.mark.filterwarnings("error")
def test_new_names_do_not_warn_and_wrong_ones_are_errors() -> None:
    assert saved("a", schema_evolution=True) == ("a", "new", True)
    with pytest.raises(TypeError, match="unexpected.*'evolved'"):
        saved("a", evolved=True)  # type: ignore[call-arg]


def test_queries_are_saved_under_old_names(engine: None) -> None:
    def rows(shard: str, **columns: list[int]) -> DatasetQuery:
        return DatasetQuery.from_arrow(pa.table({"part": [shard], **columns}), shard="part")

    rows("a", x=[1]).save("old")
    with pytest.warns(DeprecationWarning, match="schema_evolution") as warned:
        rows("b", y=[2]).save("old", mode="merge", evolve=True)  # type: ignore[arg-type, call-arg]
    assert {one.filename for one in warned} == {__file__}
    assert DatasetQuery("old").select("x", "y").to_arrow().to_pylist() == [{"x": 1, "y": None}, {"x": None, "y": 2}]
    with pytest.warns(DeprecationWarning, match="refresh") as warned:
        made = DatasetQuery("old").update("copy")
    assert [one.filename for one in warned] == [__file__]
    assert made == DatasetQuery("old").refresh("copy")
    assert made.provenance is not None
    assert made.provenance.python == "DatasetQuery('old.v2').refresh('copy')"
