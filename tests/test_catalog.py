"""The catalog from Python: tables and reports, and that commands print the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

import factory_lib as factory
from factory_lib import C, DatasetQuery, Version
from factory_lib.errors import DatasetNotFound, InvalidName, NotFound, TagExists, VersionNotFound
from tests.command_line import data
from tests.history_rows import samples, save

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture
def made(engine: None) -> Version:
    """`d.v1` (a: k0-k3), `d.v2` (a, and b: k4-k8), and `kept.v1` of `d.v2` without k0-k2."""
    save(samples("a", range(4)))
    save(samples("b", range(4, 9)), mode="overwrite_shards")
    return DatasetQuery("d").filter(C.x > 2).save("kept")


@pytest.mark.usefixtures("made")
def test_datasets_and_versions_are_tables() -> None:
    found = factory.datasets()
    assert found.select(["dataset", "latest", "versions", "rows"]).to_pylist() == [
        {"dataset": "d", "latest": "d.v2", "versions": 2, "rows": 9},
        {"dataset": "kept", "latest": "kept.v1", "versions": 1, "rows": 6},
    ]
    assert found.schema.field("tags").type == pa.map_(pa.string(), pa.string())
    listed = factory.versions("d")
    assert listed.select(["name", "rows", "shards"]).to_pylist() == [
        {"name": "d.v1", "rows": 4, "shards": 1},
        {"name": "d.v2", "rows": 9, "shards": 2},
    ]
    assert factory.versions("kept")["parents"].to_pylist() == [["d.v2"]]
    told = data("ls", "d")
    assert [{**row, "created": ""} for row in told] == [{**row, "created": ""} for row in listed.to_pylist()]


def test_tables_without_rows_have_their_columns() -> None:
    assert factory.datasets().num_rows == 0
    assert factory.datasets().schema.field("rows").type == pa.int64()
    assert factory.tags().schema.names == ["dataset", "tag", "version", "uuid", "since"]


@pytest.mark.usefixtures("made")
def test_names_mean_the_same_everywhere() -> None:
    factory.tag("d.v1", "icml")
    for one, other in (("d", "d.v2"), ("d@icml", "d.v1")):
        assert str(factory.version(one)) == other
        assert factory.diff(one, other).is_empty
        assert factory.lineage(one).version == factory.lineage(factory.version(other)).version == other


def test_differences(made: Version) -> None:
    found = factory.diff("d.v1", "d.v2")
    assert (found.added, found.removed, found.changed) == (5, 0, 0)
    assert [r.kind for r in found.reasons] == ["made"]
    assert found.to_arrow().select(["shard", "rows_before", "rows_after", "added"]).to_pylist() == [
        {"shard": "b", "rows_before": 0, "rows_after": 5, "added": 5}
    ]
    told = data("diff", "d.v1", "d.v2")
    assert (told["shards"][0]["added"], told["reasons"][0]["kind"]) == (5, "made")
    assert factory.diff(made, "kept").to_arrow().num_rows == 0


def test_lineage_and_trace(made: Version) -> None:
    links = factory.lineage(made).to_arrow().to_pylist()
    assert {"parent": "d.v2", "child": "kept.v1", "kind": "made of", "shards": 2} in links
    found = factory.trace("kept", "k1")
    assert found.dropped_by == "kept.v1"
    assert factory.trace("kept", found.sample_id) == found
    steps = found.to_arrow()
    assert steps["version"].to_pylist() == [step.version for step in found.steps]
    assert steps["is_there"].to_pylist()[-1] is False
    assert dict(steps["failures"].to_pylist()[-1][0]["values"]) == {"x": "1"}  # JSON text


def test_a_version_is_reproduced(made: Version) -> None:
    said: list[str] = []
    found = factory.reproduce("kept", said.append)
    assert found.is_equal
    rows = found.to_arrow().select(["shard", "made_by", "verdict"]).to_pylist()
    assert rows == [{"shard": s, "made_by": "kept.v1", "verdict": "equal"} for s in ("a", "b")]


@pytest.mark.usefixtures("made")
def test_tags() -> None:
    assert factory.tag("d.v1", "icml")
    assert not factory.tag("d.v1", "icml")
    with pytest.raises(TagExists, match="force=True"):
        factory.tag("d.v2", "icml")
    assert factory.tag("d.v2", "icml", force=True)
    factory.tag("kept", "final")
    assert factory.tags().select(["tag", "version"]).to_pylist() == [
        {"tag": "icml", "version": "d.v2"},
        {"tag": "final", "version": "kept.v1"},
    ]
    assert factory.tags("d").num_rows == 1
    assert factory.untag("d@icml").version == "d.v2"
    assert factory.tags("d").num_rows == 0


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(
    ("kind", "message", "act"),
    [
        (DatasetNotFound, "Did you mean 'kept'", lambda: factory.versions("kpet")),
        (VersionNotFound, "d has v1", lambda: factory.diff("d.v1", "d.v9")),
        (DatasetNotFound, "Did you mean 'kept'", lambda: factory.tags("kpet")),
        (NotFound, "'k99'", lambda: factory.trace("kept", "k99")),
        (InvalidName, "names no tag", lambda: factory.untag("d.v1")),
        (VersionNotFound, "no tag", lambda: factory.untag("d@icml")),
    ],
)
def test_errors(kind: type[Exception], message: str, act: Callable[[], Any]) -> None:
    with pytest.raises(kind, match=message):
        act()
