"""Centroids stay while shards come: what is measured by them is computed for the new shard alone."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from factory_lib import C, DatasetQuery
from factory_lib.catalog import version
from factory_lib.curation import centroids, cluster_of, semantic_duplicates
from factory_lib.orchestration.behind.staleness import why_stale
from factory_lib.orchestration.behind.unsynced import unsynced
from factory_lib.orchestration.checks.volume import Volume
from factory_lib.orchestration.stage import stage
from factory_lib.plan.expressions import sql_text
from tests.dagster_graph import SHARDS, Daemon, look, over_samples, run, write_tar

STAGES = ("embedded", "middles", "clustered", "copies")


def graph(folder: Path, k: int = 2) -> dg.Definitions:
    """samples -> embedded (a partition a shard) -> middles, clustered, copies (the whole dataset)."""

    @stage(group="test", partitions=SHARDS)
    def embedded(samples: DatasetQuery) -> DatasetQuery:
        """The caption `3` as the direction of 3 degrees."""
        return samples.mutate(
            emb=sql_text("[cos(radians(toFloat32(caption))), sin(radians(toFloat32(caption)))]::Array(Float32)")
        )

    @stage(group="test", stays=True)
    def middles(embedded: DatasetQuery) -> DatasetQuery:
        """Centroids."""
        return centroids(embedded, "emb", k)

    @stage(group="test")
    def clustered(embedded: DatasetQuery, middles: DatasetQuery) -> DatasetQuery:
        """Samples with their cluster."""
        return embedded.add_signals(cluster_of(middles, "emb"))

    @stage(group="test")
    def copies(clustered: DatasetQuery) -> DatasetQuery:
        """Semantic duplicates."""
        return semantic_duplicates(clustered, "emb", eps=0.001)

    return over_samples(folder, embedded, middles, clustered, copies)


def counts(name: str) -> tuple[int, int]:
    record = version(name).provenance
    assert record is not None
    return record.reused, record.computed


@pytest.mark.usefixtures("engine")
def test_centroids_stay_until_they_are_asked_for(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", ["0", "1", "90"])
    write_tar(tmp_path / "b.tar", ["10", "80", "95"])
    with dg.DagsterInstance.ephemeral() as instance:
        look(instance, tmp_path)
        daemon, definitions = Daemon(instance), graph(tmp_path)
        daemon.settle(definitions)
        assert [str(version(name)) for name in STAGES] == [f"{name}.v1" for name in STAGES]
        assert DatasetQuery("copies").filter(~C.kept).count() == 1

        write_tar(tmp_path / "c.tar", ["3", "179", "178"])
        look(instance, tmp_path)
        daemon.settle(definitions)
        assert [str(version(name)) for name in STAGES] == ["embedded.v2", "middles.v1", "clustered.v2", "copies.v2"]
        assert counts("clustered") == (6, 3)
        copies = DatasetQuery("clustered").join(DatasetQuery("copies").filter(~C.kept), on="sample_id", how="semi")
        # 1 is near 0, 3 near 1, 178 near 179, and these are farther from their centroids
        assert sorted(copies.to_arrow()["caption"].to_pylist()) == ["1", "178", "3"]
        assert daemon.settle(definitions) == 0
        assert unsynced(instance, definitions.resolve_asset_graph()) == []
        why = why_stale(instance, definitions.resolve_asset_graph(), dg.AssetKey("middles"))
        assert not why.is_stale

        run(definitions, instance, ["middles"])
        assert str(version("middles")) == "middles.v2"
        daemon.settle(definitions)
        assert counts("clustered") == (0, 9)

        changed = graph(tmp_path, k=3)
        daemon.settle(changed)
        assert DatasetQuery("middles").count() == 3
        assert DatasetQuery("clustered").select(c=C.emb_cluster.cluster).distinct("c").count() == 3


@pytest.mark.usefixtures("engine")
def test_what_has_no_rows_yet_follows_its_input(tmp_path: Path) -> None:
    """The first shard has no vectors, as where the model is off; later ones bring some, and from there on it stays."""

    @stage(group="test", partitions=SHARDS)
    def embedded(samples: DatasetQuery) -> DatasetQuery:
        return samples.mutate(emb=sql_text("if(caption = '', [], [toFloat32(1), toFloat32(2)])"))

    @stage(group="test", stays=True, volume=Volume(may_be_empty=True))
    def middles(embedded: DatasetQuery) -> DatasetQuery:
        return centroids(embedded, "emb")

    definitions = over_samples(tmp_path, embedded, middles)
    assets = definitions.resolve_asset_graph()
    with dg.DagsterInstance.ephemeral() as instance:
        daemon = Daemon(instance)
        found = []
        for name, captions in (("a", ["", ""]), ("b", ["x", "y"]), ("c", ["z"])):
            write_tar(tmp_path / f"{name}.tar", captions)
            look(instance, tmp_path)
            daemon.settle(definitions)
            found.append((str(version("middles")), DatasetQuery("middles").count()))
            assert unsynced(instance, assets) == []
            assert not why_stale(instance, assets, dg.AssetKey("middles")).is_stale
    assert found == [("middles.v1", 0), ("middles.v2", 1), ("middles.v2", 1)]
