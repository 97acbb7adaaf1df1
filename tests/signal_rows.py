"""Pictures in a file and the rows that point at them: what the tests of the signal engine compute over."""

from __future__ import annotations

import os
import signal as system_signals
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from factory_lib.compute import pool, run
from factory_lib.signals import Signal, signal

POINTER = pa.struct([("uri", pa.string()), ("offset", pa.uint64()), ("size", pa.uint64())])


def jpeg(number: int) -> bytes:
    """A small picture whose red level is its number."""
    buffer = BytesIO()
    Image.new("RGB", (16, 12), (number % 256, 40, 40)).save(buffer, "PNG")
    return buffer.getvalue()


def packed(path: Path, members: list[bytes | None], shard: str = "a") -> pa.RecordBatch:
    """A file that holds members one after the other, and the rows that point into it."""
    pointers: list[dict[str, Any] | None] = []
    offset = 0
    with path.open("wb") as file:
        for data in members:
            pointers.append(None if data is None else {"uri": str(path), "offset": offset, "size": len(data)})
            file.write(data or b"")
            offset += len(data or b"")
    count = len(members)
    return pa.record_batch(
        {
            "shard": [shard] * count,
            "position": pa.array(range(count), pa.uint32()),
            "sample_id": pa.array(range(1000, 1000 + count), pa.uint64()),
            "key": [f"key{number:04d}" for number in range(count)],
            "caption": [None if number % 10 == 3 else "word " * (number % 7) for number in range(count)],
            "image": pa.array(pointers, POINTER),
        }
    )


def table(batches: Iterator[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(list(batches)).sort_by([("shard", "ascending"), ("position", "ascending")])


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes and several tasks for few rows."""
    monkeypatch.setattr(run, "SMALL_ROWS", 0)
    monkeypatch.setattr(run, "TASK_ROWS", 8)


@pytest.fixture(scope="module", autouse=True)
def no_workers_left() -> Iterator[None]:
    """The processes of a module end with it."""
    yield
    pool.stop_workers()


@signal
def red(image: Image.Image) -> int:
    pixel = image.getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return int(pixel[0])


@signal
def process_id(image: bytes) -> int:
    return os.getpid()


@signal
def words(caption: str) -> int:
    return len(caption.split())


def dying(folder: Path, deaths: dict[str, int], *, batch: int = 0) -> Signal:
    """A signal whose process dies at some samples, so many times."""

    def one(key: str) -> str:
        for death in range(deaths.get(key, 0)):
            try:
                (folder / f"{key}-{death}").touch(exist_ok=False)
            except FileExistsError:
                continue
            os.kill(os.getpid(), system_signals.SIGKILL)
        return key

    if batch:
        return signal(lambda image, key: [one(k) for k in key], name="dies", output=str, batch=batch,
                      inputs={"image": bytes, "key": str})  # fmt: skip
    return signal(lambda image, key: one(key), name="dies", output=str, inputs={"image": bytes, "key": str})
