"""The whole default graph, written in YAML: row for row what the one in Python makes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.orchestration.yaml_graph_process import STAGES

ROOT = Path(__file__).parents[2]
PHOTOS = 20


@pytest.fixture
def source(shared_data: Path, tmp_path: Path) -> Path:
    """Two shards of real photos; among those of the second copies of some of the first, and some that nobody wants."""
    members: dict[str, bytes] = {}
    with tarfile.open(shared_data / "clothing" / "train96" / "00000000.tar") as tar:
        for member in tar:
            if member.name.endswith((".jpg", ".txt")) and len(members) < 2 * PHOTOS:
                members[member.name] = tar.extractfile(member).read()  # type: ignore[union-attr]
    keys = sorted({name.partition(".")[0] for name in members})
    caption, photo = members[f"{keys[0]}.txt"], Image.open(io.BytesIO(members[f"{keys[1]}.jpg"]))
    grey = np.random.default_rng(0).integers(0, 9, (96, 96, 3), np.uint8)
    more = {
        "copy": (members[f"{keys[0]}.jpg"], caption),
        "recoded": (jpeg_of(photo, 60), caption),
        "dark": (jpeg_of(Image.fromarray(grey), 90), caption),
        "wordless": (jpeg_of(photo.rotate(7), 90), b"x"),
    }
    folder = tmp_path / "shards"
    folder.mkdir()
    first = {name: data for name, data in members.items() if name.partition(".")[0] in keys[: PHOTOS // 2]}
    second = {name: data for name, data in members.items() if name not in first}
    second |= {f"{key}.jpg": data for key, (data, _) in more.items()}
    second |= {f"{key}.txt": text for key, (_, text) in more.items()}
    for shard, files in enumerate((first, second)):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for name in sorted(files):
                member = tarfile.TarInfo(name)
                member.size = len(files[name])
                tar.addfile(member, io.BytesIO(files[name]))
    return folder


def jpeg_of(picture: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose graph is YAML."""
    package = tmp_path / "src" / "yaml_graph"
    (package / "defs" / "graph").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(
        "[project]\nname = 'yaml_graph'\nversion = '1'\n[tool.dg]\ndirectory_type = 'project'\n"
        "[tool.dg.project]\nroot_module = 'yaml_graph'\n"
    )
    for module in ("__init__", "defs/__init__"):
        (package / f"{module}.py").touch()
    for module, name in (("ingest", "source_shards"), ("resources", "resources")):
        (package / "defs" / f"{module}.py").write_text(f"from factory_assets.defs.{module} import {name}\n")
    graph = ROOT / "tests" / "fixtures" / "default_graph.yaml"
    (package / "defs" / "graph" / "defs.yaml").write_text(graph.read_text())
    return package


@pytest.mark.parametrize("models", ["unsafe,photo", "none"])
def test_it_makes_the_rows_of_the_graph_in_python(source: Path, project: Path, tmp_path: Path, models: str) -> None:
    text = project / "defs" / "graph" / "defs.yaml"
    if models == "none":
        text.write_text(text.read_text().replace("signals: [punsafe, photo_embedding]", "signals: []"))
    path = os.pathsep.join([str(ROOT), str(project.parent)])
    environment = {**os.environ, "FACTORY_MODELS": models, "PYTHONPATH": path}
    command = [sys.executable, "-m", "tests.orchestration.yaml_graph_process", str(tmp_path / "home"), str(source)]
    done = subprocess.run([*command, str(project)], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert list(found) == list(STAGES)
    rows = {name: one["rows"][0] for name, one in found.items()}
    assert {name: one["rows"][1] for name, one in found.items()} == rows
    assert {name: one["differ"] for name, one in found.items() if one["differ"]} == {}
    assert rows["samples"] == PHOTOS + 4
    assert rows["basic_filter"] < rows["samples"]
    assert rows["quality_filter"] < rows["basic_filter"]
    assert rows["near_duplicates"] >= 4
    assert rows["deduplicated"] == rows["quality_filter"] - 2
    assert rows["photo_centroids"] == (models != "none")
