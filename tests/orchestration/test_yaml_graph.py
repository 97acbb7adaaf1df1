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
    photos: list[bytes] = []
    with tarfile.open(shared_data / "clothing" / "train96" / "00000000.tar") as tar:
        for member in tar:
            if member.name.endswith(".jpg") and len(photos) < PHOTOS:
                photo = tar.extractfile(member).read()  # type: ignore[union-attr]
                photos += [photo] if min(Image.open(io.BytesIO(photo)).size) >= 80 else []
    picture, caption = Image.open(io.BytesIO(photos[1])), b"a photo that was taken twice"
    grey = np.random.default_rng(0).integers(0, 9, (96, 96, 3), np.uint8)
    more = {
        "copy": (photos[0], caption),
        "recoded": (jpeg_of(picture, 60), caption),
        "dark": (jpeg_of(Image.fromarray(grey), 90), caption),
        "wordless": (jpeg_of(picture.rotate(7), 90), b"x"),
    }
    folder = tmp_path / "shards"
    folder.mkdir()
    words = {f"{n:02d}": (photo, f"photo number {n} of some clothes".encode()) for n, photo in enumerate(photos)}
    half = PHOTOS // 2
    first = dict(list(words.items())[:half])
    second = {**dict(list(words.items())[half:]), **more}
    for shard, files in enumerate((first, second)):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for key, members in files.items():
                for extension, data in zip(("jpg", "txt"), members, strict=True):
                    member = tarfile.TarInfo(f"{key}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
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


@pytest.mark.parametrize("models", ["unsafe,photo,text,faces", "none"])
def test_it_makes_the_rows_of_the_graph_in_python(source: Path, project: Path, tmp_path: Path, models: str) -> None:
    text = project / "defs" / "graph" / "defs.yaml"
    if models == "none":
        asked = ("signals: [open_nsfw]", "signals: [photo_embedding, text_area, faces]")
        assert all(one in text.read_text() for one in asked)
        text.write_text(text.read_text().replace(asked[0], "signals: []").replace(asked[1], "signals: []"))
    path = os.pathsep.join([str(ROOT), str(project.parent)])
    derived = {} if models == "none" else {"FACTORY_DERIVED": str(tmp_path / "derived")}
    environment = {**os.environ, **derived, "FACTORY_MODELS": models, "PYTHONPATH": path}
    command = [sys.executable, "-m", "tests.orchestration.yaml_graph_process", str(tmp_path / "home"), str(source)]
    done = subprocess.run([*command, str(project)], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert list(found) == [*STAGES, *(["private_set"] if derived else [])]
    rows = {name: one["rows"][0] for name, one in found.items()}
    assert {name: one["rows"][1] for name, one in found.items()} == rows
    assert {name: one["differ"] for name, one in found.items() if one["differ"]} == {}
    assert rows["samples"] == PHOTOS + 4
    assert rows["basic_filter"] < rows["samples"]
    assert rows["quality_filter"] < rows["basic_filter"]
    assert rows["near_duplicates"] >= 4
    assert rows["deduplicated"] == rows["quality_filter"] - 2
    assert rows["photo_centroids"] == (models != "none")
    assert rows.get("private_set") == (rows["clip_score_filter"] if derived else None)
