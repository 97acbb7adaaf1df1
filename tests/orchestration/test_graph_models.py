"""The whole graph with its models on real photos: what they see of a shard is computed once, and clusters stay."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

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


def factory(home: Path, *arguments: str) -> Any:
    """What a command prints as JSON, with the models that look at photos."""
    environment = {**os.environ, "FACTORY_HOME": str(home), "FACTORY_MODELS": "unsafe,photo", "FACTORY_TRAIN": "never"}
    command = [sys.executable, "-m", "factory_lib.entry", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=home)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def test_a_shard_more_is_all_that_models_look_at(photos: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    try:
        first = factory(home, "demo", "--source", str(photos), "--json")
        (tmp_path / "3.tar").rename(photos / "3.tar")
        second = factory(home, "demo", "--source", str(photos), "--json")
        counted = factory(home, "sql", "--json", "SELECT count() AS n, min(open_nsfw) AS low, max(open_nsfw) AS high,"
                          " countIf(length(photo_embedding) = 1280) AS seen FROM photo_signals.v2")  # fmt: skip
        made = {
            name: factory(home, "show", name, "--json") for name in ("photo_signals.v2", "photo_clusters", "duplicates")
        }
        versions = factory(home, "ls", "photo_centroids", "--json")
        third = factory(home, "demo", "--source", str(photos), "--json")
    finally:
        factory(home, "down")
    rows = {step["version"]: step["rows"] for step in second["funnel"]}
    assert rows["photo_signals.v2"] == 4 * SHARD + 1
    assert [row["seen"] for row in counted] == [4 * SHARD + 1]
    assert 0 < counted[0]["low"] <= counted[0]["high"] < 1
    # two models on the photos of the new shard, but for the one whose bytes were seen before; the cluster of these alone
    assert made["photo_signals.v2"]["provenance"]["computed"] == 2 * SHARD
    assert made["photo_clusters"]["provenance"]["computed"] <= SHARD + 1
    assert len(versions) == 1
    copies = next(step for step in second["funnel"] if step["version"].startswith("deduplicated"))
    assert copies["reasons"]["the bytes of a better sample"] == 1
    assert first["funnel"][0]["version"] == "samples.v1"
    assert third["runs"] == []
