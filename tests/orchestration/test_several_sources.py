"""Several sources in one dataset: what one brings, loses or fails at is no matter of the others."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from factory_lib import DatasetQuery, open_source
from factory_lib.orchestration.checks.sources import check_account, check_ingest
from factory_lib.orchestration.io_manager import VersionedTableIOManager
from factory_lib.orchestration.runs.running import GraphOutcome, run_graph
from factory_lib.orchestration.source.shard_watch import shard_sensor
from factory_lib.orchestration.source.shards import SECONDS_OF_A_LOOK, ShardSource
from factory_lib.orchestration.source.vanishing import check_all_there
from factory_lib.orchestration.stage import stage
from factory_lib.plan.expressions import C
from factory_lib.signals.hashes import sha256
from factory_lib.sources import UnitedSource, detect
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import latest
from tests.command_line import data
from tests.dagster_graph import SHARDS, SOURCE, over_samples, run, write_tar
from tests.layouts import COUNT, coco, img2dataset_tars, jpeg, plain_tar, tar


@stage(group="test", partitions=SHARDS)
def hashed(samples: DatasetQuery) -> DatasetQuery:
    """A signal of the bytes of each picture."""
    return samples.add_signals(sha256)


@stage(group="test")
def unique(hashed: DatasetQuery) -> DatasetQuery:
    """One sample of each picture, whatever source it is from."""
    return hashed.order_by("shard", "position").distinct("sha256")


class OtherSource(ShardSource):
    """A second resource of the kind."""


@dataclass
class Sources:
    """A file that declares sources, with the same pictures each, in another format."""

    folder: Path
    instance: dg.DagsterInstance

    @property
    def file(self) -> Path:
        return self.folder / "sources.toml"

    @property
    def graph(self) -> dg.Definitions:
        return over_samples(self.file, hashed, unique)

    def declare(self, *names: str, **said: str) -> None:
        """Declare these sources, in the folders of their names, and what is said of them besides."""
        tables = [f'[{name}]\nuri = "{name}"\n{said.get(name, "")}\n' for name in names]
        self.file.write_text("".join(tables))

    def run(self) -> GraphOutcome:
        return run_graph(self.instance, self.graph)


def made(outcome: GraphOutcome) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(one.stages, one.partitions) for one in outcome.runs]


def computed(dataset: str) -> tuple[int, int]:
    """Values that the newest version of a dataset computed, and took over."""
    version = latest(warehouse(), dataset)
    assert version is not None
    assert version.provenance is not None
    return version.provenance.computed, version.provenance.reused


def by_source(dataset: str) -> dict[str, int]:
    counted = warehouse().rows(
        f"SELECT source, count() AS n FROM {DatasetQuery(dataset).plan.source.label} GROUP BY source ORDER BY source"
    )
    return {row["source"]: row["n"] for row in counted}


@pytest.fixture
def sources(engine: None, tmp_path: Path) -> Iterator[Sources]:
    for name, write in (("tars", plain_tar), ("crawl", img2dataset_tars), ("coco", coco), ("late", plain_tar)):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
    with dg.DagsterInstance.ephemeral() as instance:
        found = Sources(tmp_path, instance)
        found.declare("tars", "crawl", "coco")
        yield found


def test_a_fourth_source_computes_that_one_alone_and_pictures_that_two_sources_have_are_found(sources: Sources) -> None:
    first = sources.run()
    shards = first.runs[0].partitions
    assert {name.partition(":")[0] for name in shards} == {"tars", "crawl", "coco"}
    assert made(first) == [(("samples", "hashed"), shards), (("unique",), ())]
    assert by_source("samples") == {"coco": COUNT, "crawl": COUNT, "tars": COUNT}
    assert computed("hashed") == (3 * COUNT, 0)
    assert DatasetQuery("unique").count() == COUNT
    assert (sources.run().runs, sources.run().runs) == ([], [])
    before = warehouse().rows(f"SELECT * EXCEPT (shard) FROM {DatasetQuery('hashed').plan.source.label} ORDER BY ALL")

    tar(sources.folder / "late" / "own.tar", [("x.jpg", jpeg(99))])
    sources.declare("tars", "crawl", "coco", "late")
    later = sources.run()
    new = tuple(shard.name for shard in later.changes.new)
    assert (len(new), str(later.changes)) == (2, "late: 2 new")
    assert made(later) == [(("samples", "hashed"), new), (("unique",), ())]
    # pictures that another source has were hashed before
    assert computed("hashed") == (1, COUNT)
    assert by_source("hashed") == {"coco": COUNT, "crawl": COUNT, "late": COUNT + 1, "tars": COUNT}
    assert DatasetQuery("unique").count() == COUNT + 1
    rows = warehouse().rows(
        f"SELECT * EXCEPT (shard) FROM {DatasetQuery('hashed').plan.source.label} WHERE source != 'late' ORDER BY ALL"
    )
    assert rows == before
    assert sources.run().runs == []


def test_a_source_that_is_away_keeps_its_samples_and_the_others_go_on(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORY_VANISHED", "drop")
    sources.run()
    assert check_all_there(sources.instance, SOURCE).passed
    (sources.folder / "tars").rename(sources.folder / "_tars")
    (sources.folder / "crawl").rename(sources.folder / "_crawl")
    (sources.folder / "crawl").mkdir()  # a mount that is empty
    sources.declare("tars", "crawl", "coco", "late")
    outcome = sources.run()
    assert (outcome.errors, outcome.behind) == ([], [])
    assert outcome.changes.listing.away.keys() == {"tars", "crawl"}
    assert [one.partition(":")[0] for one in outcome.runs[0].partitions] == ["late"]
    assert by_source("hashed") == {"coco": COUNT, "crawl": COUNT, "late": COUNT, "tars": COUNT}
    checked = check_all_there(sources.instance, SOURCE)
    assert (checked.passed, checked.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "tars cannot be read, and its samples stay: " in str(checked.description)
    assert "crawl cannot be read" in str(checked.description)
    assert sources.run().runs == []
    shutil.rmtree(sources.folder / "crawl")
    for name in ("tars", "crawl"):
        (sources.folder / f"_{name}").rename(sources.folder / name)
    assert sources.run().changes.listing.away == {}
    assert check_all_there(sources.instance, SOURCE).passed


def test_a_source_that_goes_while_its_shard_is_to_be_made_fails_that_shard_alone(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources.run()
    write_tar(sources.folder / "tars" / "more.tar", ["one", "two"])
    write_tar(sources.folder / "late" / "more.tar", ["three"])
    sources.declare("tars", "crawl", "coco", "late")
    opened = ShardSource.open

    def gone(self: ShardSource, seconds: float | None = None) -> object:
        if (sources.folder / "tars").exists():  # looked at once, and then it goes
            found = opened(self, seconds)
            (sources.folder / "tars").rename(sources.folder / "_tars")
            return found
        return opened(self, seconds)

    monkeypatch.setattr(ShardSource, "open", gone)
    outcome = sources.run()
    assert len(outcome.errors) == 1
    assert "tars:more" in outcome.errors[0]
    assert "source 'tars' cannot be read" in outcome.errors[0]
    assert by_source("hashed") == {"coco": COUNT, "crawl": COUNT, "late": COUNT + 1, "tars": COUNT}


def test_a_source_that_does_not_go_with_the_others_is_left_aside_until_that_is_mended(sources: Sources) -> None:
    frame = pa.table({"key": ["k"], "caption": ["a table"], "image": ["no pointer"]})
    (sources.folder / "odd").mkdir()
    pq.write_table(frame, sources.folder / "odd" / "t.parquet")
    sources.declare("tars", "odd", "coco")
    outcome = sources.run()
    assert (outcome.errors, outcome.behind) == ([], [])
    assert "column 'image' is pointer in 'tars' and string in 'odd'" in outcome.changes.listing.away["odd"]
    assert by_source("hashed") == {"coco": COUNT, "tars": COUNT}
    assert "odd cannot be read" in str(check_all_there(sources.instance, SOURCE).description)
    sources.declare("tars", "odd", "coco", odd='drop_columns = ["image"]')
    assert sources.run().errors == []
    assert by_source("hashed") == {"coco": COUNT, "odd": 1, "tars": COUNT}


@pytest.mark.parametrize("late", ["coarse", "fine"])
def test_the_types_of_columns_do_not_hang_on_which_source_was_away_first(
    engine: None, tmp_path: Path, late: str
) -> None:
    kinds = {"coarse": pa.float32(), "fine": pa.float64()}

    def write(name: str, file: str) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        rows = {"key": [f"{name}{file}"], "score": pa.array([0.1], kinds[name])}
        pq.write_table(pa.table(rows), tmp_path / name / f"{file}.parquet")

    with dg.DagsterInstance.ephemeral() as instance:
        found, there = Sources(tmp_path, instance), "fine" if late == "coarse" else "coarse"
        write("fine", "0")
        write("coarse", "0")
        found.declare("fine", "coarse")
        graph = over_samples(found.file)
        (tmp_path / late).rename(tmp_path / "_away")
        assert run_graph(instance, graph).errors == []
        (tmp_path / "_away").rename(tmp_path / late)
        assert run_graph(instance, graph).errors == []
        (tmp_path / late).rename(tmp_path / "_away")
        write(there, "1")
        assert run_graph(instance, graph).errors == []
    rows = DatasetQuery("samples").to_arrow()
    assert rows.schema.field("score").type == pa.float64()
    scores = dict(zip(rows["key"].to_pylist(), rows["score"].to_pylist(), strict=True))
    single = float(np.float32(0.1))
    assert scores == {"fine0": 0.1, "coarse0": single, f"{there}1": 0.1 if there == "fine" else single}


def test_a_run_waits_for_a_source_no_longer_than_a_tick_does(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[object] = []
    opened = detect.open_several

    def spied(*arguments: Any) -> UnitedSource:
        waited.append(arguments[-1])
        return opened(*arguments)

    monkeypatch.setattr(detect, "open_several", spied)
    ShardSource(uri=str(sources.file)).query(["tars:nothing"])
    assert waited == [SECONDS_OF_A_LOOK] == [30.0]


def test_status_names_the_sources(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_SOURCE", str(sources.file))
    assert data("status")["sources"] == {name: str(sources.folder / name) for name in ("tars", "crawl", "coco")}
    sources.file.write_text("[tars")
    assert "is no TOML" in data("status")["sources"]["not read"]


def test_samples_of_a_source_that_is_no_longer_declared_go_as_those_of_vanished_shards(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources.run()
    sources.declare("tars", "coco")
    monkeypatch.setenv("FACTORY_VANISHED", "24")
    outcome = sources.run()
    assert str(outcome.changes) == "no longer declared: 1 not listed any more"
    assert by_source("hashed") == {"coco": COUNT, "crawl": COUNT, "tars": COUNT}
    (gone,) = data("show", "samples")["gone"]
    assert gone.startswith("crawl:")
    monkeypatch.setenv("FACTORY_VANISHED", "drop")
    sources.run()
    assert by_source("hashed") == {"coco": COUNT, "tars": COUNT}
    assert not [name for name in sources.instance.get_dynamic_partitions("shards") if name.startswith("crawl")]
    assert data("show", "samples")["gone"] == {}


def test_one_source_becomes_one_of_several_and_no_value_is_computed_again(sources: Sources) -> None:
    alone = over_samples(sources.folder / "tars", hashed, unique)
    run_graph(sources.instance, alone)
    partitions = sources.instance.get_dynamic_partitions("shards")
    assert computed("hashed") == (COUNT, 0)
    ids = set(DatasetQuery("hashed").to_arrow()["sample_id"].to_pylist())
    sources.declare("tars", "crawl", tars='shards = ""')
    sources.run()
    assert computed("hashed") == (0, 2 * COUNT)
    assert sources.instance.get_dynamic_partitions("shards")[: len(partitions)] == partitions
    assert by_source("hashed") == {"crawl": COUNT, "tars": COUNT}
    kept = DatasetQuery("hashed").filter(C.source == "tars")
    assert set(kept.to_arrow()["sample_id"].to_pylist()) == ids
    # renamed, its shards keep their names, and its rows are read again
    (sources.folder / "pictures").symlink_to(sources.folder / "tars")
    sources.file.write_text(sources.file.read_text().replace("[tars]", "[pictures]"))
    sources.run()
    assert computed("hashed") == (0, COUNT)
    assert by_source("hashed") == {"crawl": COUNT, "pictures": COUNT}


def test_what_is_read_and_lost_is_said_of_each_source(sources: Sources) -> None:
    broken = sources.folder / "late"
    write_tar(broken / "plain.tar", ["x"])
    (broken / "cut.tar").write_bytes(b"no tar at all" * 100)
    sources.declare("tars", "coco", "late")
    outcome = sources.run()
    assert len(outcome.errors) == 1
    checked = check_ingest("samples")
    assert not checked.passed
    table = checked.metadata["sources"]
    assert isinstance(table, dg.TableMetadataValue)
    rows = {str(one.data["source"]): one.data["samples read"] for one in table.records}
    assert rows == {"tars": COUNT, "coco": COUNT, "late": COUNT + 1}
    account = check_account("samples").metadata["account"]
    assert isinstance(account, dg.TableMetadataValue)
    assert {one.data["source"] for one in account.records} == {"tars", "coco", "late"}
    shown = {one["name"]: one["samples"] for one in data("show", "samples")["sources"]}
    assert shown == {"tars": COUNT, "coco": COUNT, "late": COUNT + 1}


def test_sources_are_told_by_their_names_whatever_their_shards_begin_with(sources: Sources) -> None:
    write_tar(sources.folder / "late" / "plain.tar", ["x"])
    (sources.folder / "late" / "cut.tar").write_bytes(b"no tar at all" * 100)
    said = {"coco": 'shards = ""', "late": 'shards = "crawl"'}
    sources.declare("tars", "coco", "late", **said)
    DatasetQuery.from_source(open_source(str(sources.file))).save("opened")
    table = check_ingest("opened").metadata["sources"]
    assert isinstance(table, dg.TableMetadataValue)
    read = {str(one.data["source"]): one.data["samples read"] for one in table.records}
    assert read == {"tars": COUNT, "coco": COUNT, "late": COUNT + 1}


def test_the_sensor_looks_at_all_sources_and_leaves_aside_the_one_that_is_away(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORY_SETTLE_SECONDS", "0")
    sensor = shard_sensor(asset=SOURCE, partitions=SHARDS)

    def tick() -> dg.SensorResult | dg.SkipReason:
        resources = {"source": ShardSource(uri=str(sources.file))}
        with dg.build_sensor_context(
            instance=sources.instance, definitions=sources.graph, resources=resources
        ) as context:
            result = sensor(context)
        if isinstance(result, dg.SensorResult):
            for request in result.dynamic_partitions_requests or []:
                sources.instance.add_dynamic_partitions("shards", list(request.partition_keys))
            for event in result.asset_events:
                sources.instance.report_runless_asset_event(event)
        assert isinstance(result, dg.SensorResult | dg.SkipReason)
        return result

    (sources.folder / "crawl").rename(sources.folder / "_crawl")
    told = tick()
    assert isinstance(told, dg.SensorResult)
    assert {str(e.partition).partition(":")[0] for e in told.asset_events if isinstance(e, dg.AssetObservation)} == {
        "tars",
        "coco",
    }
    skipped = tick()
    assert isinstance(skipped, dg.SkipReason)
    assert "(crawl cannot be read: " in str(skipped.skip_message)
    (sources.folder / "_crawl").rename(sources.folder / "crawl")
    later = tick()
    assert isinstance(later, dg.SensorResult)
    seen = [e for e in later.asset_events if isinstance(e, dg.AssetObservation)]
    assert [str(e.partition).partition(":")[0] for e in seen] == ["crawl"]
    assert isinstance(tick(), dg.SkipReason)


def test_a_source_at_which_files_keep_coming_does_not_hold_up_another(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORY_SETTLE_SECONDS", "60")
    sensor, cursor, told = shard_sensor(asset=SOURCE, partitions=SHARDS), None, []
    for tick in range(3):
        write_tar(sources.folder / "tars" / f"{tick}.tar", ["x"])
        monkeypatch.setattr("time.time", lambda now=1_000_000.0 + 60 * tick: now)
        with dg.build_sensor_context(
            instance=sources.instance,
            cursor=cursor,
            definitions=sources.graph,
            resources={"source": ShardSource(uri=str(sources.file))},
        ) as context:
            result = sensor(context)
            cursor = result.cursor if isinstance(result, dg.SensorResult) else context.cursor
        if isinstance(result, dg.SensorResult):
            told.append({str(e.partition).partition(":")[0] for e in result.asset_events})
            break
    assert told == [{"crawl", "coco"}]


def test_a_graph_of_ones_own_unites_stages_with_partitions_of_their_own(engine: None, tmp_path: Path) -> None:
    """Two ingest stages, each with its source and partitions, and what comes after them both."""
    write_tar(tmp_path / "a.tar", ["one", "two"])
    (tmp_path / "b").mkdir()
    write_tar(tmp_path / "b" / "b.tar", ["one", "three", "four"])
    first = dg.StaticPartitionsDefinition(["a"])
    second = dg.StaticPartitionsDefinition(["b"])

    @stage(group="test", partitions=first)
    def photos(context: dg.AssetExecutionContext, source: ShardSource) -> DatasetQuery:
        """From the first."""
        return source.query(context.partition_keys).mutate(score=C.image.size)

    @stage(group="test", partitions=second)
    def web(context: dg.AssetExecutionContext, other: OtherSource) -> DatasetQuery:
        """From the second."""
        return other.query(context.partition_keys)

    @stage(group="test")
    def both(photos: DatasetQuery, web: DatasetQuery) -> DatasetQuery:
        """All samples."""
        return photos.mutate(source="photos").union(web.mutate(source="web"))

    definitions = dg.Definitions(
        assets=[photos, web, both],
        resources={
            "versions": VersionedTableIOManager(),
            "source": ShardSource(uri=str(tmp_path / "a.tar")),
            "other": OtherSource(uri=str(tmp_path / "b")),
        },
    )
    with dg.DagsterInstance.ephemeral() as instance:
        assert run(definitions, instance, ["photos"], ["a"]).success
        assert run(definitions, instance, ["web"], ["b"]).success
        assert run(definitions, instance, ["both"]).success
    rows = DatasetQuery("both").select("source", "caption", "score").to_arrow().to_pylist()
    assert sorted((row["source"], row["caption"], row["score"]) for row in rows if row["source"] == "photos") == [
        ("photos", "one", 52),
        ("photos", "two", 52),
    ]
    assert {(row["caption"], row["score"]) for row in rows if row["source"] == "web"} == {
        ("one", None),
        ("three", None),
        ("four", None),
    }
