"""Signals in the graph: how many values a run took over and computed, in the asset's metadata and in the log."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from factory_lib import DatasetQuery, signal
from factory_lib.orchestration.runs.running import run_graph
from factory_lib.orchestration.shard_saving import save_shards
from factory_lib.orchestration.source.shards import ShardSource
from factory_lib.orchestration.stage import stage
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import resolve
from tests.dagster_graph import SHARDS, over_samples, run, write_tar


@signal
def length(caption: str) -> int:
    return len(caption)


@signal
def size(image: bytes) -> int:
    return len(image)


@signal
def fussy(caption: str) -> int:
    if caption == "bad":
        raise ValueError("bad")
    return len(caption)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        write_tar(tmp_path / f"{name}.tar", [f"{name}{i}" for i in range(4)])
    return tmp_path


@pytest.fixture
def instance(engine: None) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def graph(folder: Path) -> dg.Definitions:
    """source_shards -> samples -> measured."""

    @stage(group="test", partitions=SHARDS)
    def measured(samples: DatasetQuery) -> DatasetQuery:
        """Samples with signals."""
        return samples.add_signals(length, size)

    return over_samples(folder, measured)


def newest(instance: dg.DagsterInstance) -> dict[str, Any]:
    """Numbers in the metadata of the newest event of `measured`."""
    records = instance.fetch_materializations(dg.AssetKey("measured"), limit=1).records
    assert records[0].asset_materialization is not None
    metadata = records[0].asset_materialization.metadata
    return {name: metadata[name].value for name in ("values_computed", "values_reused")}


def lines(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """What a run wrote into the log."""
    return [record.event_log_entry.user_message for record in instance.get_records_for_run(run_id).records]


def rewrite(path: Path, captions: Sequence[str]) -> None:
    before = path.stat().st_mtime_ns
    write_tar(path, captions)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def test_the_log_the_metadata_and_provenance_say_what_was_taken_over(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    definitions = graph(folder)
    first = run_graph(instance, definitions)
    assert newest(instance) == {"values_computed": 16, "values_reused": 0}
    assert "measured.v1: 8 rows, 0 values taken over, 16 computed" in lines(instance, first.runs[-1].run_id)
    rewrite(folder / "b.tar", [f"b{i}" for i in range(6)])
    second = run_graph(instance, definitions)
    assert [(r.stages, r.partitions) for r in second.runs] == [(("samples", "measured"), ("b",))]
    # two captions are new; all pictures are the same bytes
    assert newest(instance) == {"values_computed": 2, "values_reused": 10}
    record = resolve(warehouse(), "measured").provenance
    assert record is not None
    assert (record.reused, record.computed) == (10, 2)
    said = lines(instance, second.runs[-1].run_id)
    assert "measured.v2: 10 rows, 10 values taken over, 2 computed" in said
    assert any(line.startswith("values of length, size taken over: 10 of 12") for line in said)
    assert any(line.startswith("computed length: 2 of 2") for line in said)
    # the same once more, asked for by hand
    run(definitions, instance, ["measured"], ["a", "b"])
    assert newest(instance) == {"values_computed": 0, "values_reused": 20}


def test_values_of_good_shards_are_kept_when_a_bad_one_ends_the_run(folder: Path, engine: None) -> None:
    rewrite(folder / "b.tar", ["b", "bad"])
    names = ["a", "b"]
    ShardSource(uri=str(folder)).query(names).save("samples")
    saved = save_shards(DatasetQuery("samples", shards=names).add_signals(fussy, on_error="raise"), "good", names, {})
    assert set(saved.failed) == {"b"}
    assert saved.shards == ("a",)
    assert saved.reused + saved.computed == 4
