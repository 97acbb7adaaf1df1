"""Every partition of a run gets its own data version. These tests fail when an upgrade of Dagster changes what that stands on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    CachingStaleStatusResolver,
    StaleStatus,
)
from dagster._core.loader import LoadingContextForTest

from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import resolve
from tests.dagster_graph import data_version, graph, look, run, write_tar

SHARDS = ["a", "b", "c"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(SHARDS):
        write_tar(tmp_path / f"{name}.tar", [f"{name}{'x' * n}" for n in range(number + 1)])
    return tmp_path


@pytest.fixture
def instance(folder: Path, engine: None) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        look(made, folder)
        yield made


def test_one_run_over_three_shards_records_each_with_its_own_data_version(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    definitions = graph(folder)
    result = run(definitions, instance, ["samples", "measured"], SHARDS)
    assert result.success

    # one event for each asset and partition, and none without a data version of its own
    recorded = result.get_asset_materialization_events()
    assert sorted((str(e.asset_key.path[-1]), e.partition) for e in recorded) == sorted(
        (name, shard) for name in ("samples", "measured") for shard in SHARDS
    )
    stored = instance.fetch_materializations(dg.AssetKey("measured"), limit=10).records
    assert len(stored) == 3
    versions = {r.partition_key: (r.asset_materialization.tags or {})[DATA_VERSION_TAG] for r in stored}
    assert len(set(versions.values())) == 3
    # they are the fingerprints that the warehouse gives for the shards
    assert versions == resolve(warehouse(), "measured").fingerprints()
    codes = {(r.asset_materialization.tags or {})[CODE_VERSION_TAG] for r in stored}
    assert codes == {definitions.resolve_asset_graph().get(dg.AssetKey("measured")).code_version}
    # one run, one version
    assert str(resolve(warehouse(), "measured")) == "measured.v1"


def test_a_shard_run_alone_keeps_the_data_version_it_got_in_a_run_of_all(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    definitions = graph(folder)
    run(definitions, instance, ["samples", "measured"], SHARDS)
    before = {shard: data_version(instance, "measured", shard) for shard in SHARDS}
    run(definitions, instance, ["measured"], ["b"])
    assert {shard: data_version(instance, "measured", shard) for shard in SHARDS} == before


def test_only_the_partition_whose_input_changed_is_stale(folder: Path, instance: dg.DagsterInstance) -> None:
    definitions = graph(folder)
    run(definitions, instance, ["samples", "measured", "kept"], SHARDS)
    assert {_stale(definitions, instance, name, s) for name in ("samples", "measured", "kept") for s in SHARDS} == {
        StaleStatus.FRESH
    }

    write_tar(folder / "b.tar", ["other", "captions"])
    look(instance, folder)
    assert [_stale(definitions, instance, "samples", shard) for shard in SHARDS] == [
        StaleStatus.FRESH,
        StaleStatus.STALE,
        StaleStatus.FRESH,
    ]

    run(definitions, instance, ["samples"], SHARDS)  # all three again, of which one differs
    assert [_stale(definitions, instance, "measured", shard) for shard in SHARDS] == [
        StaleStatus.FRESH,
        StaleStatus.STALE,
        StaleStatus.FRESH,
    ]


def test_a_stage_over_the_whole_dataset_is_stale_when_one_shard_changes(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    definitions = graph(folder)
    run(definitions, instance, ["samples", "measured", "kept"], SHARDS)
    assert run(definitions, instance, ["chosen"]).success
    assert _stale(definitions, instance, "chosen") == StaleStatus.FRESH
    write_tar(folder / "c.tar", ["c"])
    look(instance, folder)
    run(definitions, instance, ["samples", "measured", "kept"], ["c"])
    assert _stale(definitions, instance, "chosen") == StaleStatus.STALE


def test_a_bad_shard_fails_the_step_and_leaves_the_good_ones(folder: Path, instance: dg.DagsterInstance) -> None:
    write_tar(folder / "b.tar", ["fine", "bad"])
    look(instance, folder)
    definitions = graph(folder)
    result = run(definitions, instance, ["samples", "measured"], SHARDS)
    assert not result.success
    [failure] = [e for e in result.all_events if e.is_step_failure]
    described = failure.step_failure_data.user_failure_data.description
    assert described.startswith("measured: shard b: ClickHouse refused: caption is bad")
    assert described.endswith("repeat: factory run --select measured --shards b")
    assert [data_version(instance, "measured", shard) is not None for shard in SHARDS] == [True, False, True]
    assert sorted(resolve(warehouse(), "measured").shards) == ["a", "c"]


def _stale(
    definitions: dg.Definitions, instance: dg.DagsterInstance, asset: str, partition: str | None = None
) -> StaleStatus:
    assets = definitions.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, assets, LoadingContextForTest(instance))
    return resolver.get_status(dg.AssetKey(asset), partition)
