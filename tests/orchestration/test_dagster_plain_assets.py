"""A plain asset of Dagster's on the factory's IO manager: it reads versions and makes them."""

from __future__ import annotations

import dagster as dg
import pyarrow as pa
import pytest

from factory_lib import C, DatasetQuery, fn
from factory_lib.orchestration.behind.unsynced import unsynced
from factory_lib.orchestration.io_manager import VersionedTableIOManager
from factory_lib.orchestration.stage import stage

GIVEN = dg.AssetSpec("given").with_io_manager_key("versions")


@dg.asset(io_manager_key="versions", ins={"given": dg.AssetIn(input_manager_key="versions")})
def chosen(given: DatasetQuery) -> DatasetQuery:
    """Rows above 1."""
    return given.filter(C.n > 1)


@pytest.mark.usefixtures("engine")
def test_a_run_makes_one_version_and_one_event_that_follows_the_content() -> None:
    def made(*numbers: int) -> dg.AssetMaterialization:
        DatasetQuery.from_arrow(pa.table({"n": numbers})).save("given")
        resources = {"versions": VersionedTableIOManager()}
        result = dg.materialize([GIVEN, chosen], instance=instance, resources=resources)
        [event] = result.asset_materializations_for_node("chosen")
        return event

    with dg.DagsterInstance.ephemeral() as instance:
        first, second, third = made(1, 2, 3), made(1, 2, 3), made(1, 2)
    assert [one.metadata["version"].value for one in (first, second, third)] == ["chosen.v1", "chosen.v2", "chosen.v3"]
    assert [one.metadata["dagster/row_count"].value for one in (first, second, third)] == [2, 2, 1]
    versions = [(one.tags or {})["dagster/data_version"] for one in (first, second, third)]
    assert versions[0] == versions[1] != versions[2]


SHARDS = dg.StaticPartitionsDefinition(["a", "b"])


@stage(group="test", partitions=SHARDS)
def rows(context: dg.AssetExecutionContext) -> DatasetQuery:
    """A row a shard."""
    return DatasetQuery("source", shards=list(context.partition_keys))


@dg.asset(io_manager_key="versions", ins={"rows": dg.AssetIn(input_manager_key="versions")})
def report(rows: DatasetQuery) -> DatasetQuery:
    """How many rows all shards have."""
    return rows.agg(n=fn.count())


@pytest.mark.usefixtures("engine")
def test_one_that_reads_all_shards_is_behind_when_one_changed_and_not_else() -> None:
    resources = {"versions": VersionedTableIOManager()}
    graph = dg.Definitions([rows, report], resources=resources).resolve_asset_graph()

    def is_behind() -> bool:
        return bool(unsynced(instance, graph, [report.key]))

    def made(name: str, shard: str | None = None) -> None:
        assert dg.materialize(
            [rows, report], selection=[name], instance=instance, resources=resources, partition_key=shard
        ).success

    with dg.DagsterInstance.ephemeral() as instance:
        DatasetQuery.from_arrow(pa.table({"part": ["a", "b"]}), shard="part").save("source")
        made("rows", "a")
        made("rows", "b")
        assert is_behind()
        made("report")
        assert not is_behind()
        DatasetQuery.from_arrow(pa.table({"part": ["a", "b", "b"]}), shard="part").save("source")
        made("rows", "b")
        assert is_behind()
        made("report")
        assert not is_behind()
        assert DatasetQuery("report").to_arrow()["n"].to_pylist() == [3]
