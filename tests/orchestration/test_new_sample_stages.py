"""Stages that make new samples: shard by shard, and only of what changed."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import dagster as dg
import pytest
from PIL import Image

from factory_lib import DatasetQuery, version
from factory_lib.augmentation import HorizontalFlip, StripExif
from factory_lib.curation import make_samples, superset
from factory_lib.orchestration.io_manager import VersionedTableIOManager
from factory_lib.orchestration.source.shards import ShardSource
from factory_lib.orchestration.stage import stage
from tests.samples import write_tar

PARTS = dg.StaticPartitionsDefinition(["a", "b"])


@stage(group="ingest", partitions=PARTS)
def pool(context: dg.AssetExecutionContext, source: ShardSource) -> DatasetQuery:
    """All samples."""
    return source.query(context.partition_keys)


@stage(group="curation", partitions=PARTS)
def mirrored(pool: DatasetQuery) -> DatasetQuery:
    """Mirrored samples."""
    return make_samples(pool, StripExif(), HorizontalFlip())


@stage(group="curation", partitions=PARTS)
def both(pool: DatasetQuery, mirrored: DatasetQuery) -> DatasetQuery:
    """Samples, and mirrored ones."""
    return superset(pool, mirrored)


def shard(folder: Path, name: str, colours: list[str]) -> None:
    members: list[tuple[str, bytes]] = []
    for i, colour in enumerate(colours):
        into = BytesIO()
        Image.new("RGB", (8, 6), colour).save(into, "PNG")
        members.append((f"{name}{i}.png", into.getvalue()))
    write_tar(folder / f"{name}.tar", members)


@pytest.mark.usefixtures("engine")
def test_stages_make_new_samples_of_the_shards_that_they_run_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORY_DERIVED", str(tmp_path / "derived"))
    for name in ("a", "b"):
        shard(tmp_path / "source", name, ["red", "green"])
    resources = {"versions": VersionedTableIOManager(), "source": ShardSource(uri=str(tmp_path / "source"))}

    def run(part: str) -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            done = dg.materialize([pool, mirrored, both], instance=instance, partition_key=part, resources=resources)
        assert done.success

    run("a")
    assert DatasetQuery("both").to_arrow()["shard"].to_pylist() == ["a"] * 4
    run("b")
    table = DatasetQuery("both").to_arrow()
    assert (table.num_rows, table["parent_sample_id"].null_count) == (8, 4)
    shard(tmp_path / "source", "b", ["red", "blue"])
    run("b")
    made = version("mirrored").provenance
    assert made is not None
    assert (made.computed, made.reused) == (1, 1)
    assert DatasetQuery("both").count() == 8
