"""Running what is behind without a daemon, and knowing what is behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from factory_lib import DatasetQuery
from factory_lib.errors import SettingsError, SourceError
from factory_lib.orchestration.behind.staleness import why_stale
from factory_lib.orchestration.behind.unsynced import CODE, INPUT, MISSING, unsynced
from factory_lib.orchestration.checks.synced import check_synced
from factory_lib.orchestration.home import dagster_home, factory_instance
from factory_lib.orchestration.io_manager import VersionedTableIOManager
from factory_lib.orchestration.runs.running import Telling, run_graph
from factory_lib.orchestration.source.shard_watch import SHARDS_A_TICK, shard_sensor
from factory_lib.orchestration.source.shards import ShardSource
from factory_lib.orchestration.stage import stage
from factory_lib.plan.expressions import C
from factory_lib.sources.shards import SourceListing
from tests.dagster_graph import SHARDS, SOURCE, Code, graph, look, over_samples, run, write_tar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        write_tar(tmp_path / f"{name}.tar", [name, name * 3])
    return tmp_path


@pytest.fixture
def instance(engine: None) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def _runs(outcome: object) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(r.stages, r.partitions) for r in outcome.runs]  # type: ignore[attr-defined]


def _behind(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dict[str, tuple[str, tuple[str | None, ...]]]:
    found = unsynced(instance, definitions.resolve_asset_graph())
    return {one.asset.path[-1]: (one.reason, one.partitions) for one in found}


def test_before_anything_was_made_all_of_it_is_behind(folder: Path, instance: dg.DagsterInstance) -> None:
    definitions = graph(folder)
    shown = definitions.resolve_asset_graph()
    stages = ("samples", "measured", "kept")
    found = _behind(definitions, instance)
    assert {name: found[name] for name in (*stages, "chosen")} == {
        **dict.fromkeys(stages, ("never made", ())),
        "chosen": ("never made", (None,)),
    }
    assert all(why_stale(instance, shown, dg.AssetKey(name)).is_missing for name in (*stages, "chosen"))
    checked = {one.asset_key.path[-1]: one for one in check_synced(instance, shown, [dg.AssetKey(s) for s in stages])}
    assert [checked[name].passed for name in stages] == [False] * 3
    assert {one.description for one in checked.values()} == {"Never made: no shard is known yet."}


def test_everything_at_first_then_nothing_then_what_changed(folder: Path, instance: dg.DagsterInstance) -> None:
    definitions = graph(folder)
    heard: list[tuple[str, ...]] = []
    first = run_graph(instance, definitions, telling=Telling(run=lambda stages, _: heard.append(stages)))
    assert _runs(first) == [(("samples", "measured", "kept"), ("a", "b", "c")), (("chosen",), ())]
    assert heard == [("samples", "measured", "kept"), ("chosen",)]
    assert [shard.name for shard in first.changes.new] == ["a", "b", "c"]
    assert (first.errors, first.behind) == ([], [])

    assert _runs(run_graph(instance, definitions)) == []

    write_tar(folder / "d.tar", ["new"])
    write_tar(folder / "b.tar", ["b", "bbb"])  # written again with the same content, as a copy would be
    (folder / "c.tar").unlink()
    third = run_graph(instance, definitions)
    assert [s.name for s in third.changes.new] == ["d"]
    assert [s.name for s in third.changes.changed] == ["b"]
    assert third.changes.removed == ("c",)
    assert (third.errors, third.behind) == ([], [])
    assert sorted(DatasetQuery("kept").select("caption").to_arrow()["caption"].to_pylist()) == [
        "a",
        "aaa",
        "b",
        "bbb",
        "new",
    ]
    assert instance.get_dynamic_partitions("shards") == ["a", "b", "d"]

    # code that yields the same data: one run, nothing made after it
    [same] = run_graph(instance, graph(folder, Code(note="x"))).runs
    assert (same.stages, same.partitions) == (("measured", "kept"), ("a", "b", "d"))
    assert same.made == {"measured": 3}


def test_a_bad_shard_is_reported_and_the_others_get_through(folder: Path, instance: dg.DagsterInstance) -> None:
    write_tar(folder / "b.tar", ["bad"])
    definitions = graph(folder)
    outcome = run_graph(instance, definitions)
    [error] = outcome.errors
    assert error.startswith("measured: shard b: ClickHouse refused: caption is bad")
    assert error.endswith(
        " · the other 2 are published as measured.v2 · repeat: factory run --select measured --shards b"
    )
    assert DatasetQuery("chosen").count() == 2
    assert {(one.asset.path[-1], one.reason, one.partitions) for one in outcome.behind} == {
        ("measured", MISSING, ("b",)),
        ("kept", MISSING, ("b",)),
    }


def test_what_is_behind_and_why(folder: Path, instance: dg.DagsterInstance) -> None:
    definitions = graph(folder)
    look(instance, folder)
    every = ("a", "b", "c")
    assert _behind(definitions, instance) == {
        **dict.fromkeys(("samples", "measured", "kept"), (MISSING, every)),
        "chosen": (MISSING, (None,)),
    }
    run_graph(instance, definitions)
    assert _behind(definitions, instance) == {}
    assert _behind(graph(folder, Code(unit=2)), instance) == {"measured": (CODE, every)}
    write_tar(folder / "b.tar", ["changed"])
    look(instance, folder)
    assert _behind(definitions, instance) == {"samples": (INPUT, ("b",))}
    run(definitions, instance, ["samples"], every)  # all three again, of which one differs
    assert _behind(definitions, instance) == {"measured": (INPUT, ("b",))}
    run(definitions, instance, ["measured", "kept"], ["b"])
    assert _behind(definitions, instance) == {"chosen": (INPUT, (None,))}


def _tick(definitions: dg.Definitions, instance: dg.DagsterInstance, folder: Path) -> dg.SensorResult | dg.SkipReason:
    sensor = shard_sensor(asset=SOURCE, partitions=SHARDS)
    with dg.build_sensor_context(
        instance=instance, definitions=definitions, resources={"source": ShardSource(uri=str(folder))}
    ) as context:
        result = sensor(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    if isinstance(result, dg.SensorResult):  # what the daemon does with it
        for request in result.dynamic_partitions_requests or []:
            if isinstance(request, dg.AddDynamicPartitionsRequest):
                instance.add_dynamic_partitions("shards", list(request.partition_keys))
            else:
                for key in request.partition_keys:
                    instance.delete_dynamic_partition("shards", key)
        for event in result.asset_events:
            instance.report_runless_asset_event(event)
    return result


def test_the_sensor_announces_new_changed_and_removed_shards_once(folder: Path, instance: dg.DagsterInstance) -> None:
    definitions = graph(folder)
    first = _tick(definitions, instance, folder)
    assert isinstance(first, dg.SensorResult)
    assert instance.get_dynamic_partitions("shards") == ["a", "b", "c"]
    assert [(e.partition, e.description) for e in first.asset_events] == [("a", "new"), ("b", "new"), ("c", "new")]
    assert not first.run_requests
    assert isinstance(_tick(definitions, instance, folder), dg.SkipReason)

    write_tar(folder / "a.tar", ["changed"])
    (folder / "b.tar").unlink()
    second = _tick(definitions, instance, folder)
    assert isinstance(second, dg.SensorResult)
    assert [(e.partition, e.description) for e in second.asset_events[:2]] == [
        ("a", "changed"),
        ("b", "removed at the source"),
    ]
    # no stage ever made it, so nothing holds it back
    _tick(definitions, instance, folder)
    assert instance.get_dynamic_partitions("shards") == ["a", "c"]
    assert isinstance(_tick(definitions, instance, folder), dg.SkipReason)


def test_a_source_that_is_suddenly_empty_removes_nothing(folder: Path, instance: dg.DagsterInstance) -> None:
    definitions = graph(folder)
    _tick(definitions, instance, folder)
    for tar in folder.glob("*.tar"):
        tar.unlink()
    # a folder without any tar is no source; one that lists nothing, like an empty bucket, would be refused by the sensor
    from factory_lib.orchestration.source.shard_changes import shard_changes

    with pytest.raises(SettingsError, match="lists no shard at all, but 3 are known"):
        shard_changes(instance, SourceListing(()), asset=SOURCE, partitions="shards", stages=[])
    assert len(instance.get_dynamic_partitions("shards")) == 3


def test_the_sensor_waits_for_the_first_shard(folder: Path, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    definitions = graph(folder)
    bucket = tmp_path / "to come"
    assert "Waiting for the first shard" in str(_tick(definitions, instance, bucket).skip_message)  # type: ignore[union-attr]
    bucket.mkdir()
    assert "Waiting for the first shard" in str(_tick(definitions, instance, bucket).skip_message)  # type: ignore[union-attr]
    write_tar(bucket / "a.tar", ["first"])
    assert isinstance(_tick(definitions, instance, bucket), dg.SensorResult)
    (bucket / "a.tar").unlink()
    with pytest.raises(SourceError, match="it is empty"):
        _tick(definitions, instance, bucket)
    assert instance.get_dynamic_partitions("shards") == ["a"]


def test_the_sensor_takes_many_shards_in_several_ticks(
    folder: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SHARDS_A_TICK == 5000
    monkeypatch.setattr("factory_lib.orchestration.source.shard_watch.SHARDS_A_TICK", 2)
    definitions = graph(folder)
    _tick(definitions, instance, folder)
    assert instance.get_dynamic_partitions("shards") == ["a", "b"]
    _tick(definitions, instance, folder)
    assert instance.get_dynamic_partitions("shards") == ["a", "b", "c"]


def test_without_a_source_the_sensor_says_what_to_set(instance: dg.DagsterInstance, folder: Path) -> None:
    sensor = shard_sensor(asset=SOURCE, partitions=SHARDS)
    with dg.build_sensor_context(
        instance=instance, definitions=graph(folder), resources={"source": ShardSource()}
    ) as context:
        result = sensor(context)
    assert isinstance(result, dg.SkipReason)
    assert "FACTORY_SOURCE" in str(result.skip_message)


def test_dagsters_home_is_made_once_and_left_alone(tmp_path: Path) -> None:
    home = dagster_home(tmp_path)
    assert home == tmp_path / "dagster"
    with factory_instance(tmp_path) as instance:
        assert instance.run_monitoring_enabled
        assert not instance.telemetry_enabled
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 2
    (home / "dagster.yaml").write_text("telemetry: {enabled: true}\n")
    assert (dagster_home(tmp_path) / "dagster.yaml").read_text() == "telemetry: {enabled: true}\n"


def test_what_a_stage_looks_up_counts_though_the_graph_does_not_show_it(instance: dg.DagsterInstance) -> None:
    def liked(*words: str) -> None:
        DatasetQuery.from_arrow(pa.table({"key": list(words), "word": list(words)})).save("liked")

    @stage(group="test")
    def plain() -> DatasetQuery:
        """Has no inputs."""
        return DatasetQuery("all_words")

    @stage(group="test")
    def matching(plain: DatasetQuery) -> DatasetQuery:
        """Looks the liked words up."""
        return plain.filter(C.word.isin(DatasetQuery("liked").select("word")))

    DatasetQuery.from_arrow(pa.table({"key": ["a", "b"], "word": ["a", "b"]})).save("all_words")
    liked("a")
    resources = {"versions": VersionedTableIOManager()}
    definitions = dg.Definitions([plain, matching], resources=resources, executor=dg.in_process_executor)
    shown = definitions.resolve_asset_graph()

    def behind() -> dict[str, str]:
        found = {one.asset.path[-1]: one.reason for one in unsynced(instance, shown)}
        why = {name: why_stale(instance, shown, dg.AssetKey(name)) for name in ("plain", "matching")}
        assert {name for name, one in why.items() if one.is_stale} == set(found)
        return found

    assert behind() == {"plain": MISSING, "matching": MISSING}
    done = run(definitions, instance, ["plain", "matching"])
    texts = [event.user_message for event in instance.all_logs(done.run_id)]
    assert any("'matching' reads liked.v1, which the graph does not show" in text for text in texts)
    assert behind() == {}
    liked("a")  # another version that holds the same
    assert behind() == {}
    liked("a", "b")
    assert behind() == {"matching": INPUT}
    assert [one.parent for one in why_stale(instance, shown, dg.AssetKey("matching")).inputs] == ["liked"]
    run(definitions, instance, ["matching"])
    assert behind() == {}
    assert DatasetQuery("matching").count() == 2


def test_shards_that_are_no_neighbours_are_one_run(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    names = [f"s{n}" for n in range(7)]
    for name in names:
        write_tar(tmp_path / f"{name}.tar", [name])
    definitions = graph(tmp_path)
    run_graph(instance, definitions)
    for name in ("s1", "s3", "s6"):
        write_tar(tmp_path / f"{name}.tar", [f"{name} changed"])
    [shards, whole] = run_graph(instance, definitions).runs
    assert (shards.stages, shards.partitions) == (("samples", "measured", "kept"), ("s1", "s3", "s6"))
    assert shards.made == {"samples": 3, "measured": 3, "kept": 3}
    assert whole.stages == ("chosen",)
    # what Dagster was told: these three shards are to be made, and no other
    events = [entry.dagster_event for entry in instance.all_logs(shards.run_id)]
    planned = {e.partition for e in events if e and e.event_type_value == "ASSET_MATERIALIZATION_PLANNED"}
    assert planned == {"s1", "s3", "s6"}
    recorded = instance.get_run_by_id(shards.run_id)
    assert recorded is not None
    assert recorded.tags["factory/shards"] == "s1,s3,s6"
    assert instance.get_dynamic_partitions("shards") == names
    assert _behind(definitions, instance) == {}


def test_some_stages_some_shards_and_all_the_same(folder: Path, instance: dg.DagsterInstance) -> None:
    definitions = graph(folder)
    some = run_graph(instance, definitions, stages=["samples", "measured"], shards=["a", "c"])
    assert _runs(some) == [(("samples", "measured"), ("a", "c"))]
    # its input is not there, and was not asked for
    lacking = run_graph(instance, definitions, stages=["kept"], shards=["b"])
    assert (lacking.runs, [(b.asset.path[-1], b.reason) for b in lacking.behind]) == ([], [("kept", MISSING)])
    run_graph(instance, definitions)
    assert run_graph(instance, definitions, stages=["measured"], shards=["b"]).runs == []
    forced = run_graph(instance, definitions, stages=["measured", "chosen"], shards=["b", "c"], force=True)
    assert _runs(forced) == [(("measured",), ("b", "c")), (("chosen",), ())]
    assert [run.made for run in forced.runs] == [{"measured": 2}, {"chosen": 1}]


def _interrupts(folder: Path, how: str) -> dg.Definitions:
    @stage(group="test")
    def interrupted(samples: DatasetQuery) -> DatasetQuery:
        """Gets an interrupt."""
        if how == "at once":
            os.kill(os.getpid(), signal.SIGINT)
        else:
            _Last()
        time.sleep(10)
        return samples

    return over_samples(folder, interrupted)


class _Last:
    """When it goes an interrupt comes, which Python raises here and ignores."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)


@pytest.mark.parametrize("how", ["at once", "while garbage is collected"])
def test_an_interrupt_cancels_the_run_and_the_next_one_goes_on(
    folder: Path, instance: dg.DagsterInstance, how: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_graph(instance, _interrupts(folder, how))
    last, first = instance.get_runs()
    assert (first.status, last.status) == (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED)
    assert instance.get_dynamic_partitions("shards") == ["a", "b", "c"]
    done = run_graph(instance, over_samples(folder, *graph(folder).assets[2:]))  # type: ignore[arg-type]
    assert done.errors == []
    assert done.runs[0].stages == ("measured", "kept")


def test_an_interrupt_before_a_run_begins_cancels_it_too(
    folder: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = type(instance).add_event_listener

    def interrupt(self: dg.DagsterInstance, run_id: str, heard: object) -> None:
        def at_first(entry: dg.EventLogEntry) -> None:
            raise KeyboardInterrupt  # while what is planned is written down

        original(self, run_id, at_first)

    monkeypatch.setattr(type(instance), "add_event_listener", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_graph(instance, graph(folder))
    assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.CANCELED]
