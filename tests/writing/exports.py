"""Samples to export, and exports read back with nothing of ours."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from factory_lib import DatasetQuery
from tests.samples import write_tar


def picture(number: int, kind: str = "JPEG") -> bytes:
    """A picture of one colour that tells its number."""
    out = io.BytesIO()
    Image.new("RGB", (16, 12), (number * 7 % 256, number, 128)).save(out, kind)
    return out.getvalue()


def sample(number: int) -> dict[str, Any]:
    """What sample `number` has: extension -> content."""
    about = {
        "uid": f"{number:032x}",
        "width": 16,
        "score": number / 8,
        "license": "CC0-1.0" if number % 3 else "CC BY 4.0",
    }
    kind = "png" if number % 5 == 4 else "jpg"
    return {
        kind: picture(number, {"png": "PNG", "jpg": "JPEG"}[kind]),
        "json": about,
        "seg.npy": bytes([number]) * 40,
        "txt": f"photo {number}, “grün”",
    }


def write_pool(folder: Path, shards: int = 3, each: int = 20) -> Path:
    """Tars of samples 0, 1, …"""
    for shard in range(shards):
        members = [
            (f"{number:06d}.{extension}", content)
            for number in range(shard * each, (shard + 1) * each)
            for extension, content in sample(number).items()
        ]
        write_tar(folder / f"{shard:05d}.tar", members)
    return folder


@pytest.fixture
def pool(engine: None, tmp_path: Path) -> Path:
    """`pool.v1`, of 60 samples in three tars; the folder of the tars."""
    folder = write_pool(tmp_path / "pool")
    DatasetQuery.from_source(str(folder)).save("pool")
    return folder


def tar_samples(path: Path) -> dict[str, dict[str, bytes]]:
    """Samples of a tar by Python's tarfile, by the part of the name before its first dot."""
    found: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as archive:
        for about in archive:
            key, _, extension = about.name.partition(".")
            content = archive.extractfile(about)
            assert content is not None
            found.setdefault(key, {})[extension] = content.read()
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def said(folder: Path) -> dict[str, Any]:
    """What an export says of itself."""
    found: dict[str, Any] = json.loads((folder / "provenance.json").read_text())
    return found
