"""The shard sensor between ticks: it waits until what comes has come, and marks what has gone before it is dropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from factory_lib import DatasetQuery
from factory_lib.errors import SettingsError
from factory_lib.orchestration.behind.unsynced import unsynced
from factory_lib.orchestration.source.shard_watch import shard_sensor
from factory_lib.orchestration.source.shards import ShardSource
from factory_lib.orchestration.source.vanishing import check_all_there
from factory_lib.settings import vanished_hours
from tests.command_line import data
from tests.dagster_graph import SHARDS, SOURCE, graph, run, write_tar

HOUR = 3600.0


@dataclass
class Watch:
    """Ticks of the sensor on a clock of its own, with what the daemon does with them."""

    instance: dg.DagsterInstance
    folder: Path
    patched: pytest.MonkeyPatch
    cursor: str | None = None
    now: float = 1_000_000.0

    def tick(self, seconds: float = 30.0) -> list[tuple[str | None, str | None]]:
        """What a tick tells, so many seconds after the last one: partition and description."""
        self.now += seconds
        self.patched.setattr("time.time", lambda: self.now)
        sensor = shard_sensor(asset=SOURCE, partitions=SHARDS)
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            definitions=graph(self.folder),
            resources={"source": ShardSource(uri=str(self.folder))},
        ) as context:
            result = sensor(context)
            self.cursor = context.cursor
        self.patched.undo()
        self.skipped = result.skip_message or "" if isinstance(result, dg.SkipReason) else ""
        if isinstance(result, dg.SkipReason):
            return []
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        for request in result.dynamic_partitions_requests or []:
            if isinstance(request, dg.AddDynamicPartitionsRequest):
                self.instance.add_dynamic_partitions("shards", list(request.partition_keys))
            else:
                for key in request.partition_keys:
                    self.instance.delete_dynamic_partition("shards", key)
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        return [(e.partition, e.description) for e in result.asset_events if isinstance(e, dg.AssetObservation)]


@pytest.fixture
def watch(engine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    folder = tmp_path / "shards"
    folder.mkdir()
    with dg.DagsterInstance.ephemeral() as instance, pytest.MonkeyPatch.context() as clock:
        yield Watch(instance, folder, clock)


def test_shards_that_arrive_one_by_one_are_told_together(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_SETTLE_SECONDS", "60")
    for name in ("a", "b", "c"):
        write_tar(watch.folder / f"{name}.tar", [name])
        assert watch.tick() == []
    assert "3 new of 3 shards: told when nothing more comes for 60 s" in watch.skipped
    assert watch.tick() == []
    assert [name for name, _ in watch.tick()] == ["a", "b", "c"]
    assert watch.tick() == []
    write_tar(watch.folder / "b.tar", ["other"])
    assert watch.tick() == []
    write_tar(watch.folder / "b.tar", ["still another"])  # written to while it is looked at
    assert watch.tick() == []
    assert watch.tick() == []
    assert watch.tick() == [("b", "changed")]


def test_a_source_that_never_rests_is_taken_as_it_is(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_SETTLE_SECONDS", "60")
    told: list[int] = []
    for tick in range(30):
        write_tar(watch.folder / f"{tick:03d}.tar", ["x"])
        if found := watch.tick():
            told.append(len(found))
    # 600 s after the first: 20 ticks later, with all that came by then
    assert told == [21]


def test_a_vanished_shard_is_marked_first_and_its_samples_go_when_it_stays_away(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORY_VANISHED", "24")
    for name in ("a", "b", "c"):
        write_tar(watch.folder / f"{name}.tar", [name, name * 3])
    watch.tick()
    definitions, every = graph(watch.folder), ["samples", "measured", "kept"]
    run(definitions, watch.instance, every, ["a", "b", "c"])
    run(definitions, watch.instance, ["chosen"])
    (watch.folder / "b.tar").rename(watch.folder / "b.away")
    ((name, said),) = watch.tick()
    assert name == "b"
    assert said == (
        "b is gone at the source since 1970-01-12 13:47 UTC; its samples are dropped after 1970-01-13 13:47 UTC"
    )
    # Nothing is behind: the samples are still there, and whoever looks is told.
    assert unsynced(watch.instance, definitions.resolve_asset_graph()) == []
    checked = check_all_there(watch.instance, SOURCE)
    assert (checked.passed, checked.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "b is gone at the source" in str(checked.description)
    assert data("show", "samples")["gone"] == {"b": "1970-01-12 13:47 UTC"}
    assert watch.tick(12 * HOUR) == []
    # It comes back, and counts as changed: a file that was moved has other times.
    (watch.folder / "b.away").rename(watch.folder / "b.tar")
    assert watch.tick() == [("b", "changed")]
    run(definitions, watch.instance, every, ["b"])
    run(definitions, watch.instance, ["chosen"])
    assert check_all_there(watch.instance, SOURCE).passed
    assert data("show", "samples")["gone"] == {}
    # It goes for good: through the whole graph, and the partition with it.
    (watch.folder / "b.tar").unlink()
    assert len(watch.tick()) == 1
    assert watch.tick(23 * HOUR) == []
    assert watch.tick(2 * HOUR) == [("b", "removed at the source")]
    assert check_all_there(watch.instance, SOURCE).passed
    assert [
        (one.asset.path[-1], one.partitions) for one in unsynced(watch.instance, definitions.resolve_asset_graph())
    ] == [("samples", ("b",))]
    run(definitions, watch.instance, every, ["b"])
    run(definitions, watch.instance, ["chosen"])
    watch.tick()
    assert watch.instance.get_dynamic_partitions("shards") == ["a", "c"]
    for dataset in ("samples", "kept"):
        assert set(DatasetQuery(dataset).to_arrow()["shard"].to_pylist()) == {"a", "c"}
    assert data("show", "samples")["gone"] == {}


def test_samples_of_vanished_shards_can_be_kept(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_VANISHED", "keep")
    for name in ("a", "b"):
        write_tar(watch.folder / f"{name}.tar", [name])
    watch.tick()
    (watch.folder / "b.tar").unlink()
    ((_, said),) = watch.tick()
    assert str(said).endswith("its samples are kept")
    assert watch.tick(10_000 * HOUR) == []
    assert watch.instance.get_dynamic_partitions("shards") == ["a", "b"]


def test_what_becomes_of_vanished_shards_is_a_number_of_hours_or_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, hours in (("keep", float("inf")), ("drop", 0.0), ("0.5", 0.5), ("", 24.0)):
        monkeypatch.setenv("FACTORY_VANISHED", text)
        assert vanished_hours() == hours
    for text, hint in (("kepe", "Did you mean 'keep'?"), ("-1", "Or a number."), ("1.2.3", "Or a number.")):
        monkeypatch.setenv("FACTORY_VANISHED", text)
        with pytest.raises(SettingsError, match=f"FACTORY_VANISHED={text!r}") as raised:
            vanished_hours()
        assert hint in str(raised.value.hint)
