"""Folders of small pictures, signals over them, and what computing these read and took over."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from factory_lib import DatasetQuery, signal
from factory_lib.signals import Signal, Vector
from factory_lib.storage.store import Store
from factory_lib.warehouse.versions import Version


def picture(level: int) -> bytes:
    """A small lossless picture of one grey level, always of the same size in bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (level, level, level)).save(buffer, "BMP")
    return buffer.getvalue()


def write(path: Path, samples: Mapping[str, tuple[bytes, str]], pad: int = 0) -> None:
    """A tar of pictures with captions; the file is new, whatever the clock says."""
    path.parent.mkdir(exist_ok=True)
    before = path.stat().st_mtime_ns if path.exists() else 0
    with tarfile.open(path.with_suffix(".part"), "w") as tar:
        if pad:
            add_member(tar, "LICENSE", b"x" * pad)
        for key, (data, caption) in samples.items():
            add_member(tar, f"{key}.jpg", data)
            add_member(tar, f"{key}.txt", caption.encode())
    path.with_suffix(".part").rename(path)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    about = tarfile.TarInfo(name)
    about.size = len(data)
    tar.addfile(about, io.BytesIO(data))


def grey(n: int, start: int = 0) -> dict[str, tuple[bytes, str]]:
    """Samples whose grey level is their number."""
    return {f"k{i:03d}": (picture(i), f"caption {i}") for i in range(start, start + n)}


class Look(NamedTuple):
    level: int
    half: float


@signal
def level(image: Image.Image) -> int:
    pixel = image.getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return int(pixel[0])


@signal
def look(image: Image.Image) -> Look:
    value = image.getpixel((0, 0))[0]  # type: ignore[index]
    return Look(int(value), value / 2)


@signal(output=Vector(3))
def vector(image: Image.Image) -> Any:
    value = float(image.getpixel((0, 0))[0])  # type: ignore[index]
    return np.array([value + 0.3, 1.7, value / 3])


@signal
def length(caption: str) -> int:
    return len(caption)


@signal
def both(image: bytes, caption: str) -> str:
    return f"{len(image)} {image[-1]} {caption}"


class Reads:
    """What was read of members: from the store, range by range."""

    def __init__(self) -> None:
        self.ranges: list[tuple[str, int, int]] = []

    @property
    def count(self) -> int:
        return len(self.ranges)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    found, original = Reads(), Store.read_ranges

    def counted(self: Store, uri: str, ranges: Sequence[tuple[int, int]], **named: Any) -> Any:
        found.ranges += [(uri, *one) for one in ranges]
        return original(self, uri, ranges, **named)

    monkeypatch.setattr(Store, "read_ranges", counted)
    return found


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_WORKERS", "1")


def make(folder: Path, signals: Sequence[Signal], name: str = "measured", **options: Any) -> Version:
    """Ingest a folder and compute signals over it."""
    DatasetQuery.from_source(str(folder)).save("samples")
    return DatasetQuery("samples").add_signals(*signals, **options).save(name)


def counts(version: Version) -> tuple[int, int]:
    """Values taken over, and computed."""
    assert version.provenance is not None
    return version.provenance.reused, version.provenance.computed


def values(version: Version, column: str) -> dict[str, Any]:
    """Key -> value."""
    table = DatasetQuery(version).select("key", column).to_arrow()
    return dict(zip(table["key"].to_pylist(), table[column].to_pylist(), strict=True))
