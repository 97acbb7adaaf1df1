"""What was seen at a source and not read: of every shard, in every version that holds it."""

from __future__ import annotations

import ast
import io
import random
import tarfile
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.storage.partition_status_cache import build_failed_and_in_progress_partition_subset

from factory_lib import DatasetQuery
from factory_lib.orchestration.checks.sources import check_ingest
from factory_lib.orchestration.events.partition_events import EMPTY, latest_data_versions
from factory_lib.sources.losses import FILES, NOTES, SAMPLES
from factory_lib.warehouse.losses import ShardLoss, read_losses
from factory_lib.warehouse.versions import Version
from tests.command_line import run as factory
from tests.dagster_graph import SHARDS, graph, look, run, write_tar

ROOT = Path(__file__).resolve().parents[2]


def test_every_kind_that_a_reader_counts_says_what_it_means() -> None:
    kinds: set[str] = set()
    for path in (ROOT / "factory_lib" / "sources").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            at = {"count": 0, "surviving": 2, "survived": 2, "without_the_bad": 3}.get(name, 99)
            told = node.args[at] if at < len(node.args) else None
            if isinstance(told, ast.Constant) and isinstance(told.value, str) and "_" in told.value:
                kinds.add(told.value)
    assert {"unreadable_tars", "unreadable_samples", "damaged_tars", "lfs_pointers"} <= kinds
    assert kinds - FILES - SAMPLES - NOTES == set()
    assert not FILES & SAMPLES
    assert not (FILES | SAMPLES) & NOTES


def _good() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(4):
            member = tarfile.TarInfo(f"{number}.jpg")
            member.size = 1000
            tar.addfile(member, io.BytesIO(bytes([number]) * 1000))
    return out.getvalue()


# A member takes 512 + 1,024 bytes; the tar ends in zeros, which fill it up to 10,240 bytes.
BROKEN: dict[str, tuple[bytes, int, str]] = {
    "random": (random.Random(1).randbytes(20_000), 0, "unread"),
    "nothing": (b"", 0, "unread"),
    "page": (b"<html>404 Not Found</html>", 0, "unread"),
    "head": (_good()[:300], 0, "unread"),
    "half": (_good()[:3000], 1, "damaged"),
    "rot": (_good()[:3072] + b"\1" * 1536 + _good()[4608:], 2, "damaged"),
    "hole": (_good()[:3072] + bytes(1536) + b"\1" * 3000, 2, "damaged"),
    "endless": (_good()[:6144], 4, "damaged"),
    "zeros": (bytes(10_240), 0, "damaged"),
    "good": (_good(), 4, "whole"),
}


def _states(version: Version) -> dict[str, tuple[int, str]]:
    found = {loss.shard: loss for loss in read_losses(version.warehouse, version.uuid)}
    return {s: (loss.samples, "unread" if loss.is_unread else "damaged") for s, loss in found.items() if loss.files}


@pytest.mark.usefixtures("engine")
def test_each_way_in_which_a_tar_breaks_is_told_of_its_shard(tmp_path: Path) -> None:
    for name, (data, _, _) in BROKEN.items():
        (tmp_path / f"{name}.tar").write_bytes(data)
    version = DatasetQuery.from_source(str(tmp_path)).save("broken")
    told = {name: (samples, state) for name, (_, samples, state) in BROKEN.items() if state != "whole"}
    assert _states(version) == told
    assert version.rows == sum(samples for _, samples, _ in BROKEN.values())
    losses = read_losses(version.warehouse, version.uuid)
    assert all(loss.shard in " ".join(loss.problems) or loss.shard == "zeros" for loss in losses)  # the file's name
    found = check_ingest("broken")
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    shown = factory("show", "broken").stdout
    assert "NOT READ: 4 shards, and parts of 5 more" in shown
    assert "nothing.tar is empty (0 bytes)" in shown


@pytest.mark.usefixtures("engine")
def test_a_loss_goes_with_its_shard_and_ends_when_the_shard_is_whole(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.tar").write_bytes(_good())
    (tmp_path / "b.tar").write_bytes(_good()[:3000])
    query = DatasetQuery.from_source(str(tmp_path))
    assert _states(query.refresh("kept")) == {"b": (1, "damaged")}
    (tmp_path / "c.tar").write_bytes(b"")
    version = DatasetQuery.from_source(str(tmp_path)).refresh("kept")
    assert _states(version) == {"b": (1, "damaged"), "c": (0, "unread")}, "b was not read again"
    (tmp_path / "b.tar").write_bytes(_good())
    (tmp_path / "c.tar").unlink()
    assert _states(DatasetQuery.from_source(str(tmp_path)).refresh("kept")) == {}


def _failed(instance: dg.DagsterInstance, asset: str) -> list[str]:
    with partition_loading_context(dynamic_partitions_store=instance):
        subset, _, _ = build_failed_and_in_progress_partition_subset(instance, dg.AssetKey(asset), SHARDS, instance)
        return sorted(subset.get_partition_keys())


@pytest.mark.usefixtures("engine")
def test_the_partition_of_a_shard_that_cannot_be_read_is_red_and_the_others_go_on(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_tar(tmp_path / f"{name}.tar", [name, name * 3])
    definitions = graph(tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:
        look(instance, tmp_path)
        assert run(definitions, instance, ["samples", "measured", "kept"], ["a", "b", "c"]).success
        (tmp_path / "b.tar").write_bytes(b"")
        look(instance, tmp_path)
        result = run(definitions, instance, ["samples"], ["b"])
        assert not result.success
        (failure,) = [e for e in result.all_events if e.is_step_failure]
        assert "b.tar is empty (0 bytes)" in str(failure.step_failure_data.user_failure_data)
        assert _failed(instance, "samples") == ["b"]
        # What pointed into the file that was there is gone, and what comes after it is told.
        assert set(DatasetQuery("samples").to_arrow()["shard"].to_pylist()) == {"a", "c"}
        assert latest_data_versions(instance, dg.AssetKey("samples"), ["b"]) == {"b": EMPTY}
        assert run(definitions, instance, ["measured", "kept"], ["b"]).success
        assert set(DatasetQuery("kept").to_arrow()["shard"].to_pylist()) == {"a", "c"}
        write_tar(tmp_path / "b.tar", ["back"])
        look(instance, tmp_path)
        assert run(definitions, instance, ["samples", "measured", "kept"], ["b"]).success
        assert _failed(instance, "samples") == []
        assert check_ingest("samples").passed


def test_a_loss_says_where_and_why() -> None:
    loss = ShardLoss("00007", 12, {"no_image": 2}, {"damaged_tars": 1}, ("00007.tar: truncated", "odd"))
    assert str(loss) == "00007: 12 samples were read: 00007.tar: truncated (and 1 more problems)"
    assert (
        str(ShardLoss("x", 0, {"no_image": 2}, {"damaged_tars": 1}))
        == "x: nothing was read: 1 damaged tars, 2 no image"
    )
