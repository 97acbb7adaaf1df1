"""What a stage looks up and the graph does not show: when it holds something else, the stage runs by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from factory_lib import C, DatasetQuery
from factory_lib.orchestration.behind.staleness import why_stale
from factory_lib.orchestration.stage import stage
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import resolve
from tests.dagster_graph import SHARDS, Daemon, look, over_samples, write_tar

STAGES = ("measured", "kept", "chosen")


def wanted(*names: str) -> None:
    DatasetQuery.from_arrow(pa.table({"name": list(names)})).save("wanted")


def graph(folder: Path) -> dg.Definitions:
    """samples, and three stages that each look up `wanted` in another way: none has it as an input."""

    @stage(group="test", partitions=SHARDS)
    def measured(samples: DatasetQuery) -> DatasetQuery:
        """What is not wanted, shard by shard."""
        return samples.join(DatasetQuery("wanted"), on={"caption": "name"}, how="anti")

    @stage(group="test", partitions=SHARDS)
    def kept(samples: DatasetQuery) -> DatasetQuery:
        """What is wanted, shard by shard."""
        return samples.filter(C.caption.isin(DatasetQuery("wanted").select("name")))

    @stage(group="test")
    def chosen(samples: DatasetQuery) -> DatasetQuery:
        """What is wanted, by a table that text names."""
        return samples.filter(f"caption IN (SELECT name FROM {resolve(warehouse(), 'wanted')})")

    return over_samples(folder, measured, kept, chosen)


@pytest.fixture
def daemon(tmp_path: Path, engine: None) -> Iterator[Daemon]:
    write_tar(tmp_path / "a.tar", ["one", "two"])
    write_tar(tmp_path / "b.tar", ["one", "three"])
    with dg.DagsterInstance.ephemeral() as instance:
        look(instance, tmp_path)
        yield Daemon(instance)


def test_other_rows_in_what_is_looked_up_start_a_run(daemon: Daemon, tmp_path: Path) -> None:
    wanted("one", "two")
    definitions = graph(tmp_path)
    daemon.settle(definitions)
    assert [DatasetQuery(name).count() for name in STAGES] == [1, 3, 3]
    wanted("one", "two")  # the same rows, in another version
    assert daemon.settle(definitions) == 0
    wanted("one", "three", "four")
    for name in STAGES:
        why = why_stale(daemon.instance, definitions.resolve_asset_graph(), dg.AssetKey(name))
        assert [one.parent for one in why.inputs] == ["wanted"]
    daemon.clear()
    daemon.settle(definitions)
    assert sorted(daemon.made, key=len) == [{"chosen": ()}, {"measured": ("a", "b"), "kept": ("a", "b")}]
    assert [sorted(DatasetQuery(name).to_arrow()["caption"].to_pylist()) for name in STAGES] == [
        ["two"],
        ["one", "one", "three"],
        ["one", "one", "three"],
    ]
