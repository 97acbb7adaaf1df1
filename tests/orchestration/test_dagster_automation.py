"""What runs by itself, and what does not: the automation conditions on a real graph, real tars and a real engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from factory_lib import C, DatasetQuery, fn
from factory_lib.orchestration.automation.sensor import FewRunsSensor
from factory_lib.orchestration.events.partition_events import EMPTY
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import resolve, versions
from tests.dagster_graph import Code, Daemon, data_version, graph, look, partition_status, run, write_tar

SHARDS = ("a", "b", "c")
BY_SHARD = ("samples", "measured", "kept")
CAPTIONS = {"a": ["one", "three"], "b": ["seventeen"], "c": ["four", "six"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, captions in CAPTIONS.items():
        write_tar(tmp_path / f"{name}.tar", captions)
    return tmp_path


@pytest.fixture
def daemon(folder: Path, engine: None) -> Iterator[Daemon]:
    """A daemon that has seen the source, with nothing made yet."""
    with dg.DagsterInstance.ephemeral() as instance:
        look(instance, folder)
        yield Daemon(instance)


def _measures(dataset: str) -> dict[str, list[int]]:
    rows = DatasetQuery(dataset).group_by("shard").agg(m=fn.arraySort(fn.groupArray(C.measure))).to_arrow()
    return dict(sorted(zip(rows["shard"].to_pylist(), rows["m"].to_pylist(), strict=True)))


def test_everything_is_made_in_two_runs_and_then_a_new_shard_in_two_that_touch_no_other(
    folder: Path, daemon: Daemon
) -> None:
    assert daemon.settle(graph(folder)) == 2
    assert daemon.runs == [(BY_SHARD, SHARDS), (("chosen",), ())]
    assert daemon.made == [dict.fromkeys(BY_SHARD, SHARDS), {"chosen": ()}]
    assert _measures("kept") == {"a": [3, 5], "b": [9], "c": [3, 4]}
    assert DatasetQuery("chosen").count() == 4  # measures 3, 4, 5, 9
    before = {shard: data_version(daemon.instance, "kept", shard) for shard in SHARDS}
    daemon.clear()
    write_tar(folder / "d.tar", ["sixteen chars ok"])
    look(daemon.instance, folder)
    daemon.settle(graph(folder))
    assert daemon.runs == [(BY_SHARD, ("d",)), (("chosen",), ())]
    assert {shard: data_version(daemon.instance, "kept", shard) for shard in SHARDS} == before
    assert _measures("kept")["d"] == [16]
    assert [str(v) for v in versions(warehouse(), "kept")] == ["kept.v1", "kept.v2"]


def test_a_changed_stage_runs_for_all_shards_and_what_follows_only_where_the_data_changed(
    folder: Path, daemon: Daemon
) -> None:
    daemon.settle(graph(folder))
    # rows of 4 and more: only shards a and c lose a row
    daemon.clear()
    daemon.settle(graph(folder, Code(least=4)))
    assert daemon.made == [{"kept": SHARDS}, {"chosen": ()}]
    assert _measures("kept") == {"a": [5], "b": [9], "c": [4]}
    # twice the measure: all shards change, the stage after it runs for all
    changed = Code(least=4, unit=2)
    daemon.clear()
    daemon.settle(graph(folder, changed))
    assert daemon.made == [{"measured": SHARDS, "kept": SHARDS}, {"chosen": ()}]
    assert _measures("kept") == {"a": [6, 10], "b": [18], "c": [6, 8]}


def test_a_change_that_yields_the_same_data_stops_there_and_leaves_no_event_and_no_partition_waiting(
    folder: Path, daemon: Daemon
) -> None:
    daemon.settle(graph(folder))
    before = [data_version(daemon.instance, "kept", shard) for shard in SHARDS]
    daemon.clear()
    daemon.settle(graph(folder, Code(note="refactored")))
    assert daemon.runs == [(("measured", "kept"), SHARDS)]
    assert daemon.made == [{"measured": SHARDS}]
    assert [str(v) for v in versions(warehouse(), "kept")] == ["kept.v1"]
    assert len(daemon.instance.fetch_materializations(dg.AssetKey("kept"), limit=100).records) == len(SHARDS)
    assert [data_version(daemon.instance, "kept", shard) for shard in SHARDS] == before
    assert partition_status(daemon.instance, "kept") == dict.fromkeys(SHARDS, "materialized")


def test_a_run_that_a_person_starts_makes_all_that_it_is_for(folder: Path, daemon: Daemon) -> None:
    daemon.settle(graph(folder))
    made = run(graph(folder), daemon.instance, ["measured", "kept"], ["a", "b"]).get_asset_materialization_events()
    assert sorted((e.asset_key.path[-1], e.partition) for e in made) == [
        ("kept", "a"),
        ("kept", "b"),
        ("measured", "a"),
        ("measured", "b"),
    ]


def test_a_stage_that_is_added_later_is_made_for_all_shards_and_nothing_else_runs(folder: Path, daemon: Daemon) -> None:
    daemon.settle(graph(folder))
    daemon.clear()
    daemon.settle(graph(folder, Code(extra=True)))
    assert daemon.made == [{"extra": SHARDS}]


def test_a_changed_shard_runs_alone(folder: Path, daemon: Daemon) -> None:
    definitions = graph(folder)
    daemon.settle(definitions)
    write_tar(folder / "b.tar", ["other"])
    look(daemon.instance, folder)
    daemon.clear()
    assert daemon.settle(definitions) == 2
    assert daemon.made == [dict.fromkeys(BY_SHARD, ("b",)), {"chosen": ()}]
    assert _measures("kept") == {"a": [3, 5], "b": [5], "c": [3, 4]}


def test_shards_that_are_no_neighbours_share_a_run_with_those_between_that_have_nothing_to_do(
    folder: Path, daemon: Daemon
) -> None:
    daemon.settle(graph(folder))
    write_tar(folder / "a.tar", ["other"])
    write_tar(folder / "c.tar", ["another"])
    look(daemon.instance, folder)
    daemon.clear()
    daemon.settle(graph(folder))
    assert daemon.runs == [(BY_SHARD, SHARDS), (("chosen",), ())]
    assert daemon.made == [dict.fromkeys(BY_SHARD, ("a", "c")), {"chosen": ()}]
    assert _measures("kept") == {"a": [5], "b": [9], "c": [7]}


def test_a_partition_that_had_nothing_to_do_in_a_run_that_failed_is_not_shown_as_failed(
    folder: Path, daemon: Daemon
) -> None:
    daemon.settle(graph(folder))
    write_tar(folder / "a.tar", ["bad"])
    write_tar(folder / "c.tar", ["good"])
    look(daemon.instance, folder)
    daemon.settle(graph(folder))
    for asset in ("measured", "kept"):
        before = data_version(daemon.instance, asset, "b")
        expected = {"b": "materialized", "c": "materialized"}
        status = partition_status(daemon.instance, asset)
        assert {shard: status[shard] for shard in expected} == expected, asset
        assert data_version(daemon.instance, asset, "b") == before
    assert partition_status(daemon.instance, "measured")["a"] == "failed"
    assert [str(v) for v in versions(warehouse(), "samples")] == ["samples.v1", "samples.v2"]


def test_a_removed_shard_leaves_every_stage_and_then_its_partition_goes(folder: Path, daemon: Daemon) -> None:
    definitions = graph(folder)
    daemon.settle(definitions)
    (folder / "b.tar").unlink()
    look(daemon.instance, folder)
    daemon.settle(definitions)
    assert _measures("kept") == {"a": [3, 5], "c": [3, 4]}
    assert sorted(resolve(warehouse(), "samples").shards) == ["a", "c"]
    assert DatasetQuery("chosen").count() == 3
    assert data_version(daemon.instance, "kept", "b") == EMPTY
    assert _measures("kept.v1")["b"] == [9]  # old versions are what they were
    look(daemon.instance, folder)
    assert daemon.instance.get_dynamic_partitions("shards") == ["a", "c"]
    assert daemon.settle(definitions) == 0
    # it comes back under its name
    write_tar(folder / "b.tar", ["back again"])
    look(daemon.instance, folder)
    daemon.settle(definitions)
    assert _measures("kept") == {"a": [3, 5], "b": [10], "c": [3, 4]}


def test_a_run_that_fails_after_a_change_of_code_is_tried_once_more_not_for_ever(
    folder: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.settle(graph(folder))
    changed = graph(folder, Code(unit=3))
    with monkeypatch.context() as broken:
        broken.setattr(DatasetQuery, "save", _no_space)
        daemon.clear()
        daemon.tick(changed)
    assert daemon.made == [{}]
    daemon.settle(changed)  # once more, and it works now
    assert daemon.made == [{}, {"measured": SHARDS, "kept": SHARDS}, {"chosen": ()}]
    assert _measures("kept") == {"a": [9, 15], "b": [27], "c": [9, 12]}
    with monkeypatch.context() as broken:
        broken.setattr(DatasetQuery, "save", _no_space)
        again = graph(folder, Code(unit=4))
        daemon.clear()
        daemon.settle(again)
        assert daemon.runs == [(("measured", "kept"), SHARDS)] * 2


def test_it_is_so_when_ticks_fall_into_the_runs_that_fail(
    folder: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.settle(graph(folder))
    changed = graph(folder, Code(unit=3))

    def saved(self: DatasetQuery, *args: Any, **kwargs: Any) -> Any:
        daemon.evaluate(changed)
        _no_space()

    with monkeypatch.context() as broken:
        broken.setattr(DatasetQuery, "save", saved)
        daemon.clear()
        daemon.settle(changed)
    assert daemon.runs == [(("measured", "kept"), SHARDS)] * 2


def _no_space(*args: object, **kwargs: object) -> None:
    from factory_lib.errors import CommitError

    raise CommitError("no space left")


def test_ticks_in_the_middle_of_a_run_request_nothing_then_or_later(
    folder: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    definitions = graph(folder)
    original, in_between = DatasetQuery.save, []

    def saved(self: DatasetQuery, *args: Any, **kwargs: Any) -> Any:
        in_between.append(daemon.evaluate(definitions))
        return original(self, *args, **kwargs)

    with monkeypatch.context() as slow:
        slow.setattr(DatasetQuery, "save", saved)
        daemon.tick(definitions)
    assert in_between == [[], [], []]
    daemon.clear()
    daemon.settle(definitions)
    assert daemon.made == [{"chosen": ()}]


def test_a_change_that_lands_while_a_run_reads_the_old_data_is_not_lost(
    folder: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    definitions = graph(folder)
    daemon.settle(definitions)
    write_tar(folder / "b.tar", ["other"])
    look(daemon.instance, folder)
    original = DatasetQuery.save

    def saved(self: DatasetQuery, *args: Any, **kwargs: Any) -> Any:
        if args[0] == "measured" and "other" in DatasetQuery("samples").to_arrow()["caption"].to_pylist():
            # what `measured` reads is replaced before it is done
            write_tar(folder / "b.tar", ["still another"])
            look(daemon.instance, folder)
            run(definitions, daemon.instance, ["samples"], ["b"])
            daemon.evaluate(definitions)
        return original(self, *args, **kwargs)

    with monkeypatch.context() as slow:
        slow.setattr(DatasetQuery, "save", saved)
        daemon.tick(definitions)
    daemon.settle(definitions)
    assert _measures("kept")["b"] == [len("still another")]


def test_a_bad_shard_holds_up_no_other(folder: Path, daemon: Daemon) -> None:
    write_tar(folder / "b.tar", ["bad"])
    look(daemon.instance, folder)
    definitions = graph(folder)
    daemon.settle(definitions)
    assert _measures("kept") == {"a": [3, 5], "c": [3, 4]}
    assert DatasetQuery("chosen").count() == 3
    # another shard comes: the bad one is not tried again and is in nobody's way
    daemon.clear()
    write_tar(folder / "d.tar", ["twenty characters ok"])
    look(daemon.instance, folder)
    daemon.settle(definitions)
    assert daemon.runs == [(BY_SHARD, ("d",)), (("chosen",), ())]
    # the bad one is mended
    write_tar(folder / "b.tar", ["good"])
    look(daemon.instance, folder)
    daemon.settle(definitions)
    assert _measures("kept") == {"a": [3, 5], "b": [4], "c": [3, 4], "d": [20]}


def test_a_stage_with_other_columns_and_what_follows_end_in_one_version_each(folder: Path, daemon: Daemon) -> None:
    daemon.settle(graph(folder))
    changed = graph(folder, Code(columns=True))
    daemon.clear()
    daemon.settle(changed)
    assert daemon.made == [{"measured": SHARDS, "kept": SHARDS}, {"chosen": ()}]
    for name in ("measured", "kept", "chosen"):
        assert [str(v) for v in versions(warehouse(), name)] == [f"{name}.v1", f"{name}.v2"]
        version = resolve(warehouse(), name)
        assert "note" in version.columns
        assert "caption" not in version.columns
    assert sorted(DatasetQuery("kept").to_arrow()["note"].to_pylist()) == sorted(
        c for some in CAPTIONS.values() for c in some
    )
    assert {shard.origin for shard in resolve(warehouse(), "kept").shards.values()} == {
        resolve(warehouse(), "kept").uuid
    }


def test_a_tick_waits_while_the_source_is_told_of(daemon: Daemon, tmp_path: Path) -> None:
    sensor = FewRunsSensor("automation", description="", rest=60)
    with dg.build_sensor_context(instance=daemon.instance, definitions=graph(tmp_path)) as context:
        told = sensor.evaluate_tick(context)
    assert not told.run_requests
    assert "being told of" in str(told.skip_message)
    assert daemon.tick(graph(tmp_path)), "without a rest, all of it is asked for"
