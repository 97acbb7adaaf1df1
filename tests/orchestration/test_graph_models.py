"""The whole graph with its models on real photos: what they see of a shard is computed once, and clusters stay."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from factory_lib import C, DatasetQuery, fn
from factory_lib.catalog import version, versions
from factory_lib.curation.funnel import funnel

SHARD = 12


@pytest.fixture
def photos(shared_data: Path, tmp_path: Path) -> Path:
    """Three shards of real photos, and the means for a fourth: of the last photo of the first there is a copy in it."""
    found: dict[str, dict[str, bytes]] = {}
    with tarfile.open(shared_data / "clothing" / "train96" / "00000000.tar") as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            found.setdefault(key, {})[extension] = tar.extractfile(member).read()  # type: ignore[union-attr]
            if len(found) > 4 * SHARD:
                break
    keys = sorted(found)[: 4 * SHARD]
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(4):
        mine = {key: found[key] for key in keys[shard * SHARD : (shard + 1) * SHARD]}
        if shard == 3:
            mine["copy"] = found[keys[SHARD - 1]]
        path = folder / f"{shard}.tar"
        path.write_bytes(tar_of(mine))
    (folder / "3.tar").rename(tmp_path / "3.tar")
    return folder


def tar_of(samples: dict[str, dict[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for key, members in samples.items():
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


ROOT = Path(__file__).parents[2]


@pytest.mark.usefixtures("engine")
def test_a_shard_more_is_all_that_models_look_at(photos: Path, tmp_path: Path) -> None:
    script = [sys.executable, "-m", "tests.orchestration.graph_models_process", str(photos), str(tmp_path / "3.tar")]
    environment = {**os.environ, "FACTORY_MODELS": "unsafe,photo"}
    done = subprocess.run(script, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    first, more, none = json.loads(done.stdout.splitlines()[-1])
    assert first > 0
    assert more > 0
    assert none == 0
    assert version("samples").number == 2
    signals = DatasetQuery("photo_signals")
    assert version("photo_signals").number == 2
    assert signals.filter(fn.length(C.photo_embedding) == 1280).count() == signals.count() == 4 * SHARD + 1
    seen = signals.agg(low=fn.min(C.open_nsfw), high=fn.max(C.open_nsfw)).to_arrow().to_pylist()[0]
    assert 0 < seen["low"] <= seen["high"] < 1
    # two models on the photos of the new shard, but for the one whose bytes were seen before; the cluster of these alone
    assert version("photo_signals").provenance.computed == 2 * SHARD
    assert version("photo_clusters").provenance.computed <= SHARD + 1
    assert versions("photo_centroids").num_rows == 1
    [_, copies] = funnel([version("quality_filter"), version("deduplicated")], findings=("duplicates",))
    assert copies.reasons["the bytes of a better sample"] == 1
