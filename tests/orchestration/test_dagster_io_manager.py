"""The IO manager on a real engine: what it publishes when shards fail, what it loads, what it refuses."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from factory_lib import C, DatasetQuery, signal
from factory_lib.build import signal_rows
from factory_lib.errors import EngineError, ExecutorError, SourceError
from factory_lib.orchestration.io_manager import VersionedTableIOManager
from factory_lib.orchestration.shard_saving import save_shards
from factory_lib.orchestration.source.shards import ShardSource
from factory_lib.orchestration.stage import stage
from factory_lib.sources.webdataset import WebDataset
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import resolve, versions
from tests.dagster_graph import SHARDS, graph, look, run, write_tar

NAMES = ["a", "b", "c", "d", "e"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        write_tar(tmp_path / f"{name}.tar", [name, name * 2])
    return tmp_path


@pytest.fixture
def instance(folder: Path, engine: None) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        look(made, folder)
        yield made


def _broken_reader(monkeypatch: pytest.MonkeyPatch, bad: set[str]) -> None:
    """Make reading some shards fail, as when their files cannot be read."""
    original = WebDataset.read

    def failing(self: WebDataset, shard, report):  # type: ignore[no-untyped-def]
        if shard.name in bad:
            raise SourceError("permission denied")
        return original(self, shard, report)

    monkeypatch.setattr(WebDataset, "read", failing)


@pytest.mark.parametrize("bad", [{"b"}, {"a", "e"}])
def test_shards_whose_error_names_them_are_left_out_of_one_version(
    folder: Path, engine: None, monkeypatch: pytest.MonkeyPatch, bad: set[str]
) -> None:
    _broken_reader(monkeypatch, bad)
    query = ShardSource(uri=str(folder)).query(NAMES)
    saved = save_shards(query, "samples", NAMES, {})
    assert set(saved.failed) == bad
    assert set(saved.shards) == set(NAMES) - bad
    assert [str(v) for v in versions(warehouse(), "samples")] == ["samples.v1"]
    assert set(resolve(warehouse(), "samples").shards) == set(NAMES) - bad


def test_a_shard_whose_error_does_not_name_it_is_found_by_halving(
    folder: Path, engine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = ShardSource(uri=str(folder)).query(NAMES).filter(C.caption != "").mutate(n=_fails_for("d"))
    saved = save_shards(query, "samples", NAMES, {})
    assert set(saved.failed) == {"d"}
    assert set(resolve(warehouse(), "samples").shards) == {"a", "b", "c", "e"}


def _fails_for(caption: str):  # type: ignore[no-untyped-def]
    from factory_lib import fn

    return fn.throwIf(C.caption == caption, "no")


def test_an_error_that_is_the_same_for_all_shards_is_not_tried_shard_by_shard(
    folder: Path, engine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [f"s{n:02d}" for n in range(32)]
    for name in many:
        write_tar(folder / f"{name}.tar", [name])
    tried, original = [], DatasetQuery.save

    def saved(self: DatasetQuery, *args: Any, **kwargs: Any) -> Any:
        tried.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(DatasetQuery, "save", saved)
    query = ShardSource(uri=str(folder)).query(many).add_signals(signal(_NeedsAModel, name="broken"))
    result = save_shards(query, "samples", many, {})
    assert result.version is None
    assert set(result.failed) == set(many)
    assert len(tried) == 7  # all, halves, quarters


class _NeedsAModel:
    """A signal whose model is not there."""

    def setup(self) -> None:
        raise FileNotFoundError("model.bin")

    def __call__(self, caption: str) -> int:
        return len(caption)


def test_a_signal_that_raises_leaves_out_the_shard_of_its_sample(folder: Path, engine: None) -> None:
    ShardSource(uri=str(folder)).query(NAMES).save("samples")
    query = DatasetQuery("samples", shards=NAMES).add_signals(not_cc, on_error="raise")
    saved = save_shards(query, "measured", NAMES, {})
    assert set(saved.failed) == {"c"}
    assert [str(v) for v in versions(warehouse(), "measured")] == ["measured.v1"]


@signal
def not_cc(caption: str) -> int:
    if caption == "cc":
        raise ValueError("cc")
    return len(caption)


def test_an_engine_that_is_gone_is_nobodys_fault(folder: Path, engine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*args: object, **kwargs: object) -> None:
        raise EngineError("not reached", code=0)

    monkeypatch.setattr(DatasetQuery, "save", gone)
    with pytest.raises(EngineError, match="not reached"):
        save_shards(ShardSource(uri=str(folder)).query(NAMES), "samples", NAMES, {})


def test_shards_that_the_source_no_longer_has_leave_the_dataset(folder: Path, engine: None) -> None:
    save_shards(ShardSource(uri=str(folder)).query(NAMES), "samples", NAMES, {})
    (folder / "b.tar").unlink()
    saved = save_shards(ShardSource(uri=str(folder)).query(["a", "b"]), "samples", ["a", "b"], {})
    assert saved.version is not None
    assert saved.version.shard_rows() == {"a": 2, "c": 2, "d": 2, "e": 2}


def test_a_stage_with_partitions_that_reads_everything_is_refused(folder: Path, instance: dg.DagsterInstance) -> None:
    definitions = graph(folder)
    assert run(definitions, instance, ["samples"], NAMES).success

    @stage(group="test", partitions=SHARDS)
    def greedy(samples: DatasetQuery) -> DatasetQuery:
        return DatasetQuery("samples")

    wrong = dg.Definitions(
        assets=[*definitions.assets, greedy], resources=definitions.resources, executor=dg.in_process_executor
    )
    result = run(wrong, instance, ["greedy"], ["a"])
    assert not result.success
    [failure] = [e.step_failure_data.error for e in result.all_events if e.is_step_failure]
    assert "its query reads all shards" in failure.cause.message


def test_a_stage_that_returns_no_query_says_so(folder: Path, instance: dg.DagsterInstance) -> None:
    @stage(group="test")
    def wrong() -> DatasetQuery:
        return DatasetQuery.from_arrow  # type: ignore[return-value]

    definitions = graph(folder)
    made = dg.Definitions(assets=[wrong], resources=definitions.resources, executor=dg.in_process_executor)
    result = run(made, instance, ["wrong"])
    [failure] = [e.step_failure_data.error for e in result.all_events if e.is_step_failure]
    assert "returned method, not a DatasetQuery" in failure.cause.message


def test_inputs_are_loaded_by_partition_and_as_a_whole(folder: Path, instance: dg.DagsterInstance) -> None:
    definitions = graph(folder)
    run(definitions, instance, ["samples"], ["a", "b"])
    loader = definitions.get_asset_value_loader(instance)
    one = loader.load_asset_value("samples", partition_key="b")
    assert one.select("shard").distinct().to_arrow()["shard"].to_pylist() == ["b"]
    with loader:
        assert loader.load_asset_value("samples").count() == 4


def test_an_input_that_was_never_made_is_named(folder: Path, instance: dg.DagsterInstance) -> None:
    definitions = graph(folder)
    run(definitions, instance, ["samples"], ["a"])
    result = run(definitions, instance, ["measured"], ["b"])
    [failure] = [e.step_failure_data.error for e in result.all_events if e.is_step_failure]
    assert "1 shards of 'samples' were never made: b" in failure.cause.message


def test_what_the_ui_shows_of_a_version(folder: Path, instance: dg.DagsterInstance) -> None:
    definitions = graph(folder)
    result = run(definitions, instance, ["samples", "measured"], NAMES)
    events = [e for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey("measured")]
    shown = {e.partition: {k: v.value for k, v in e.materialization.metadata.items()} for e in events}
    assert {p: m["dagster/partition_row_count"] for p, m in shown.items()} == dict.fromkeys(NAMES, 2)
    assert {m["dagster/row_count"] for m in shown.values()} == {10}
    assert {m["version"] for m in shown.values()} == {"measured.v1"}
    [whole] = [m for m in shown.values() if "dagster/column_schema" in m]  # once a run
    assert [c.name for c in whole["dagster/column_schema"].columns][-1] == "measure"
    deps = whole["dagster/column_lineage"].deps_by_column
    assert [(d.asset_key.path[-1], d.column_name) for d in deps["measure"]] == [("samples", "caption")]
    assert [(d.asset_key.path[-1], d.column_name) for d in deps["key"]] == [("samples", "key")]
    assert whole["rows_in"] == 10
    assert whole["stored_as"] == "new columns beside its parent's"
    assert whole["parents"] == "samples.v1"
    assert "mutate" in whole["query"]
    recorded = resolve(warehouse(), "measured").provenance
    assert recorded is not None
    assert recorded.context == {"run": result.run_id, "asset": "measured"}


def test_a_cluster_that_is_not_there_is_no_fault_of_the_shards(
    folder: Path, engine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    @signal
    def letters(caption: str) -> int:
        return len(caption)

    save_shards(ShardSource(uri=str(folder)).query(NAMES), "samples", NAMES, {})
    query = DatasetQuery("samples", shards=NAMES).add_signals(letters)
    monkeypatch.setattr(signal_rows, "SMALL_ROWS", 0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ExecutorError, match="which is not installed"):
        save_shards(query, "measured", NAMES, {}, executor="ray")
    assert save_shards(query, "measured", NAMES, {}, executor="local").shards == tuple(NAMES)


def test_the_io_manager_says_where_signals_are_computed(engine: None) -> None:
    @stage(group="test")
    def words() -> DatasetQuery:
        return DatasetQuery.from_arrow(pa.table({"key": ["a"]}))

    for executor, fails in ((None, False), ("local", False), ("rey", True)):
        resources = {"versions": VersionedTableIOManager(executor=executor)}
        with dg.DagsterInstance.ephemeral() as instance:
            done = dg.materialize([words], instance=instance, resources=resources, raise_on_error=False)
            told = [str(event.event_specific_data) for event in done.all_events if event.is_step_failure]
        assert done.success is not fails
        assert len(told) == fails
        assert all("executor='rey': there is no such executor. Did you mean 'ray'?" in text for text in told)
