"""The whole asset graph, through Dagster, on real photos and on S3."""

from __future__ import annotations

import contextlib
import csv
import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from factory_assets.demo.report import print_report
from factory_assets.demo.run import DemoSource, demonstrate
from factory_lib import C, DatasetQuery
from factory_lib.errors import FileMissing
from factory_lib.orchestration.code_location import load_definitions
from factory_lib.orchestration.runs.running import run_graph
from factory_lib.orchestration.source.shards import ShardSource
from factory_lib.settings import remember_source, settings
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import latest
from tests.s3 import Bucket
from tests.samples import write_tar


@pytest.fixture
def instance(engine: None) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return load_definitions()


UP_TO_THE_BASIC_FILTER = ["samples", "image_signals", "clip_embeddings", "photo_signals", "basic_filter"]


def numbers(instance: dg.DagsterInstance, asset: str) -> dict[str, Any]:
    """Metadata of an asset's newest event."""
    event = instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert event is not None
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def rows(dataset: str) -> int:
    version = latest(warehouse(), dataset)
    assert version is not None
    assert DatasetQuery(version).count() == version.rows
    return version.rows


def test_real_photos_of_clothes(
    instance: dg.DagsterInstance, definitions: dg.Definitions, shared_data: Path, tmp_path: Path
) -> None:
    shard, photos = tmp_path / "0.tar", 300
    with tarfile.open(shared_data / "clothing" / "train96" / "00000000.tar") as tar, tarfile.open(shard, "w") as some:
        names = sorted({name.partition(".")[0] for name in tar.getnames() if name.endswith(".jpg")})[:photos]
        for member in tar:
            if member.name.partition(".")[0] in names:
                some.addfile(member, tar.extractfile(member))
    source = ShardSource(uri=str(shard))
    outcome = run_graph(instance, definitions, source=source)
    assert (outcome.errors, outcome.behind) == ([], [])
    assert rows("samples") == rows("image_signals") == rows("clip_embeddings") == photos
    samples = DatasetQuery("clip_embeddings")
    undecoded = samples.filter(~C.image_header.decodes.fill_null(False))
    assert undecoded.select("key", "image_header", "image_header_error").to_arrow().to_pylist() == []
    assert samples.filter(C.clip_error.not_null() | C.clip_text_error.not_null()).count() == 0
    vectors = np.stack(samples.limit(50).select("clip").to_arrow()["clip"].to_numpy(zero_copy_only=False))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=0.01)
    assert rows("training_set") <= rows("clip_score_filter") <= rows("deduplicated") <= rows("basic_filter") <= photos
    assert rows("training_set") > 0
    assert 0 <= numbers(instance, "trained_model")["accuracy"] <= 1
    assert run_graph(instance, definitions, source=source).runs == []


def test_a_pool_whose_metadata_lies_in_other_shards(
    instance: dg.DagsterInstance, definitions: dg.Definitions, shared_data: Path
) -> None:
    folder = shared_data / "datacomp_like"
    with open(folder / "groundtruth.csv") as lines:
        truth = {row["uid"]: row for row in csv.DictReader(lines)}
    downloaded = {uid for uid, row in truth.items() if row["failed"] == "0"}
    stages = UP_TO_THE_BASIC_FILTER
    outcome = run_graph(instance, definitions, source=ShardSource(uri=str(folder)), stages=stages)
    assert outcome.errors == []
    found = DatasetQuery("samples").filter(C.image.size > 0).select("uid", "caption").to_arrow().to_pylist()
    assert len(found) == len(downloaded) == 461
    assert {row["uid"] for row in found} == downloaded
    kept = DatasetQuery("basic_filter").select("caption").to_arrow()["caption"].to_pylist()
    assert all(len(caption.split()) >= 3 for caption in kept)


def test_a_source_that_is_not_there_is_not_remembered(
    definitions: dg.Definitions, factory_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("factory_lib.orchestration.runs.running.load_definitions", lambda: definitions)
    remember_source("s3://before/it")
    with pytest.raises(FileMissing, match="does not exist"):
        demonstrate(str(tmp_path / "nowhere"), Console(file=io.StringIO()))
    assert settings().source == "s3://before/it"
    (factory_home / "source").unlink()


@pytest.mark.parametrize("lacking", ["captions", "pictures"])
def test_what_cannot_be_judged_is_kept_and_said(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    tmp_path: Path,
    lacking: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if lacking == "captions":
        noise = np.random.default_rng(0).integers(0, 255, (6, 96, 96, 3), np.uint8)
        write_tar(tmp_path / "0.tar", [(f"{n}.jpg", jpeg_of(pixels)) for n, pixels in enumerate(noise)])
    else:
        (tmp_path / "pool.csv").write_text("uid,text\n" + "".join(f"{n:032x},caption {n} of six\n" for n in range(6)))
    outcome = run_graph(instance, definitions, source=ShardSource(uri=str(tmp_path)))
    assert (outcome.errors, outcome.behind) == ([], [])
    kept = [rows(name) for name in ("samples", "basic_filter", "deduplicated", "clip_score_filter", "training_set")]
    assert kept == [6] * 5
    assert "no captions, or no pictures" in numbers(instance, "trained_model")["why"]
    check = dg.AssetCheckKey(dg.AssetKey("clip_score_filter"), "rejected")
    record = instance.event_log_storage.get_asset_check_execution_history(check, limit=1)[0]
    assert record.event is not None
    said = record.event.dagster_event.event_specific_data.description  # type: ignore[union-attr]
    assert f"these samples have no {lacking}" in str(said)
    monkeypatch.setattr("factory_lib.orchestration.home.factory_instance", lambda: contextlib.nullcontext(instance))
    report = io.StringIO()
    print_report(DemoSource(str(tmp_path), None), outcome, 1.0, Console(file=report, width=200))
    assert "kept all" in report.getvalue()
    (suggested,) = re.findall(r'factory sql "(.*)"', report.getvalue())
    assert warehouse().query(suggested).num_rows == 5
    if lacking == "captions":  # those of a later shard show that these should have some
        captioned = [(f"{n}.{kind}", data) for n, pixels in enumerate(noise)
                     for kind, data in (("jpg", jpeg_of(pixels)), ("txt", b"noise and nothing else"))]  # fmt: skip
        write_tar(tmp_path / "1.tar", captioned)
        run_graph(instance, definitions, source=ShardSource(uri=str(tmp_path)), stages=UP_TO_THE_BASIC_FILTER)
        assert DatasetQuery("basic_filter").select("shard").to_arrow()["shard"].to_pylist() == ["1"] * 6


def jpeg_of(pixels: np.ndarray[Any, Any]) -> bytes:
    into = io.BytesIO()
    Image.fromarray(pixels).save(into, "jpeg")
    return into.getvalue()


def test_shards_on_s3(instance: dg.DagsterInstance, definitions: dg.Definitions, s3: Bucket, tmp_path: Path) -> None:
    from factory_assets.demo.rendered.folder import add_shard, write_folder

    folder = write_folder(tmp_path / "shards", samples=32, shards=2)
    uri = s3.put_folder(folder.path, "shards")
    stages = UP_TO_THE_BASIC_FILTER
    outcome = run_graph(instance, definitions, source=ShardSource(uri=uri), stages=stages)
    assert (outcome.errors, [run.partitions for run in outcome.runs]) == ([], [("00000", "00001"), ()])
    pointer = DatasetQuery("samples").filter(C.image.size > 0).limit(1).to_arrow()["image"].to_pylist()[0]
    assert pointer["uri"].startswith(uri)
    body = s3.client.get_object(
        Bucket=s3.name,
        Key=pointer["uri"].removeprefix(f"s3://{s3.name}/"),
        Range=f"bytes={pointer['offset']}-{pointer['offset'] + pointer['size'] - 1}",
    )["Body"].read()
    kept = DatasetQuery("basic_filter")
    batch = next(iter(kept.to_torch(columns=["caption"], global_batch_size=8, image_size=32)))
    assert batch["image"].shape == (8, 32, 32, 3)
    hashed = DatasetQuery("samples").filter(C.image.uri == pointer["uri"]).filter(C.image.offset == pointer["offset"])
    import hashlib

    from factory_lib.signals.hashes import sha256

    assert hashed.add_signals(sha256).to_arrow()["sha256"].to_pylist() == [hashlib.sha256(body).hexdigest()]
    add_shard(folder.path)
    s3.put_folder(folder.path, "shards")
    later = run_graph(instance, definitions, source=ShardSource(uri=uri), stages=stages)
    assert "00002" in {name for run in later.runs for name in run.partitions}
    assert rows("samples") == rows("clip_embeddings")
