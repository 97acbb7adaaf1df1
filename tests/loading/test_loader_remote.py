"""Loading from remote storage: caches, many machines, and storage that fails. Never a wrong byte."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from factory_lib.errors import FileChanged, FileMissing, StoreError
from factory_lib.loading.dataset import BatchDataset, to_torch
from factory_lib.storage import store as store_module
from factory_lib.storage.cache import CacheOptions, mirrors_of
from factory_lib.storage.files import FileInfo
from tests.loading_rows import reader_of, write_shards
from tests.stub_s3 import StubS3

ROWS = 1920
SIZE = 6000
SHARDS = [480] * 4


def sample(number: int) -> bytes:
    return np.random.default_rng(number).bytes(SIZE)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pa.Table]:
    folder = tmp_path_factory.mktemp("shards")
    return folder, moved(write_shards(folder, SHARDS, sample))


def moved(table: pa.Table) -> pa.Table:
    """The same rows with their files in the stub's bucket."""
    pointers = table.column("image").combine_chunks()
    uris = ["s3://stub/" + uri.rsplit("/", 1)[1] for uri in pointers.field("uri").to_pylist()]
    parts = [pa.array(uris), pointers.field("offset"), pointers.field("size")]
    remote = pa.StructArray.from_arrays(parts, ["uri", "offset", "size"])
    return table.set_column(1, "image", remote)


Serve = Callable[..., StubS3]


@pytest.fixture
def serve(shards: tuple[Path, pa.Table], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts the stub over a copy of the shards and points the environment at it."""
    monkeypatch.setenv("FACTORY_HOME", str(tmp_path / "home"))
    running: list[StubS3] = []

    def start(**faults: float) -> StubS3:
        shutil.copytree(shards[0], tmp_path / "bucket")
        stub = StubS3(tmp_path / "bucket", **faults).__enter__()
        running.append(stub)
        for name, value in stub.environment.items():
            monkeypatch.setenv(name, value)
        store_module._clients.clear()
        return stub

    yield start
    for stub in running:
        stub.__exit__(None, None, None)
    store_module._clients.clear()


def load(rows: pa.Table, cache: CacheOptions | None, **arguments) -> BatchDataset:
    arguments = {"global_batch_size": 192, "tail": "mask", **arguments}
    options = {"members": ["image"], "columns": ["number"], "decoders": "raw", "cache": cache}
    return to_torch(reader_of(rows), "remote", **options, **arguments)


def check(batch: dict) -> list[int]:
    """Every byte is right; returns the numbers of the samples."""
    data, offsets = batch["image"]["data"].numpy(), batch["image"]["offsets"].tolist()
    for index, number in enumerate(batch["number"].tolist()):
        assert data[offsets[index] : offsets[index + 1]].tobytes() == sample(number)
    return batch["number"][batch["mask"]].tolist()


def everything(dataset: BatchDataset) -> list[int]:
    return sorted(number for batch in dataset for number in check(batch))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_second_epoch_reads_no_origin(shards, serve, tmp_path, workers):
    stub = serve()
    options = CacheOptions(tmp_path / "cache", 10**9)
    dataset = load(shards[1], options, num_workers=workers)
    stub.counters()
    assert everything(dataset) == list(range(ROWS))
    data = sum(path.stat().st_size for path in shards[0].iterdir())
    assert ROWS * SIZE <= stub.counters()["bytes"] <= 1.02 * data
    assert everything(dataset) == list(range(ROWS))
    assert stub.counters().get("bytes", 0) == 0
    assert dataset.counters["bytes_cache"] >= ROWS * SIZE


def test_without_a_cache_each_epoch_reads_the_origin(shards, serve):
    stub = serve()
    dataset = load(shards[1], None)
    assert everything(dataset) == list(range(ROWS))
    assert stub.counters()["bytes"] >= ROWS * SIZE
    assert dataset.counters["bytes_origin"] == ROWS * SIZE


def test_a_cache_that_cannot_hold_the_windows_still_delivers(shards, serve, tmp_path):
    serve()
    dataset = load(shards[1], CacheOptions(tmp_path / "cache", 600_000), num_workers=1)
    assert everything(dataset) == list(range(ROWS))


def nodes(shards: pa.Table, tmp_path: Path, shared: str | None) -> list[BatchDataset]:
    return [
        load(shards, CacheOptions(tmp_path / f"node{r}", 10**9, shared), unit_rows=20, rank=r, world_size=8)
        for r in range(8)
    ]


@pytest.mark.parametrize("shared", [False, True])
def test_eight_machines_read_each_byte_about_once(shards, serve, tmp_path, shared):
    """Without the shared tier only pages at borders are read twice; with it nothing is, also not in later epochs."""
    stub = serve()
    data = sum(path.stat().st_size for path in shards[0].iterdir())
    cluster = nodes(shards[1], tmp_path, str(tmp_path / "shared") if shared else None)
    stub.counters()
    for epoch in range(2 if shared else 1):
        running = [iter(node) for node in cluster]
        seen = [number for step in range(len(cluster[0])) for node in running for number in check(next(node))]
        assert sorted(seen) == list(range(ROWS)), epoch
    fetched = sum(node.counters.get("bytes_origin", 0) for node in cluster)
    assert fetched == stub.counters()["bytes"]
    assert fetched <= (1.0 if shared else 1.1) * data
    if shared:
        assert sum(node.counters["bytes_shared"] for node in cluster) >= 0.8 * ROWS * SIZE


@pytest.mark.parametrize("workers", [0, 2])
def test_unreliable_storage_is_overcome(shards, serve, tmp_path, workers, monkeypatch):
    """5 % of the requests are refused, 5 % break in the middle, and one of the workers is killed."""
    monkeypatch.setattr("factory_lib.storage.retry.FIRST_WAIT_SECONDS", 0.001)
    stub = serve(unavailable=0.05, reset=0.05)
    marks = tmp_path / "marks"
    marks.mkdir()

    def killed_once(batch: dict) -> dict:
        (marks / str(batch["number"][0].item())).touch()
        if workers and len(list(marks.iterdir())) >= 5:  # batches that weren't delivered are made again
            with contextlib.suppress(FileExistsError):
                (tmp_path / "killed").touch(exist_ok=False)
                os.kill(os.getpid(), 9)
        return batch

    options = CacheOptions(tmp_path / "cache", 10**9)
    dataset = load(shards[1], options, num_workers=workers, unit_rows=4, collate=killed_once)
    stub.counters()
    assert everything(dataset) == list(range(ROWS))
    counted = stub.counters()
    assert counted["unavailable"] > 3
    assert counted["resets"] > 3
    assert dataset.counters.get("restarted_workers", 0) == (1 if workers else 0)


@pytest.mark.parametrize("change", ["truncate", "replace", "delete"])
def test_a_shard_that_changed_is_an_error_that_names_it(shards, serve, tmp_path, change):
    serve()
    dataset = load(shards[1], CacheOptions(tmp_path / "cache", 10**9), num_workers=1, on_error="raise")
    shard = tmp_path / "bucket" / "00002.tar"
    if change == "truncate":
        os.truncate(shard, 100_000)
    elif change == "replace":
        shard.write_bytes(os.urandom(shard.stat().st_size))
    else:
        shard.unlink()
    kind = {"truncate": StoreError, "replace": FileChanged, "delete": FileMissing}[change]
    with pytest.raises(kind, match=r"00002\.tar"):
        everything(dataset)


@pytest.mark.parametrize("trouble", ["corrupt", "removed", "unwritable"])
def test_a_broken_cache_folder_harms_nothing(shards, serve, tmp_path, trouble):
    serve()
    options = CacheOptions(tmp_path / "cache", 10**9)
    if trouble == "unwritable":
        options.folder.write_text("a file in its place")
    dataset = load(shards[1], options)
    assert everything(dataset) == list(range(ROWS))
    if trouble == "corrupt":
        for path in options.folder.rglob("data"):
            content = np.fromfile(path, np.uint8)
            content[np.random.default_rng(0).integers(0, len(content), 50)] ^= 0x10
            content.tofile(path)
    elif trouble == "removed":
        shutil.rmtree(options.folder)
    again = load(shards[1], options)
    assert everything(again) == list(range(ROWS))
    counted = {"corrupt": "corrupt_pages", "removed": "bytes_origin", "unwritable": "cache_errors"}[trouble]
    assert again.counters[counted] > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_disk_that_fills_up_and_then_cannot_be_written_harms_nothing(shards, serve, tmp_path):
    serve()
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)]).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        options = CacheOptions(disk / "cache", 10**9)
        dataset = load(shards[1], options, unit_rows=4, window_rows=4)  # most is not yet asked for
        steps = iter(dataset)
        seen = check(next(steps))
        filled = subprocess.run(["dd", "if=/dev/zero", f"of={disk}/others", "bs=64k"], capture_output=True)
        assert b"No space left" in filled.stderr
        assert sorted(seen + [number for batch in steps for number in check(batch)]) == list(range(ROWS))
        assert dataset.counters["cache_errors"] > 0
        del dataset, steps
        gc.collect()  # what still has files open there for writing
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        again = load(shards[1], options)
        assert everything(again) == list(range(ROWS))
        assert again.counters["cache_errors"] > 0
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_worker_takes_less_than_300_megabytes_more_than_torch(serve, tmp_path):
    """Large pictures in tars of 30 MB, through the cache, and a tokenizer's worth of captions."""
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1600, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "JPEG", quality=50)
    picture = out.getvalue()
    rows = write_shards(tmp_path / "large", [40, 32], lambda _: picture)
    serve()
    for path in (tmp_path / "large").iterdir():
        shutil.copy(path, tmp_path / "bucket" / path.name)
    alone = subprocess.run(
        [sys.executable, "-c", "import torch; print(open('/proc/self/status').read())"],
        capture_output=True,
        text=True,
        check=True,
    )

    def measured(batch: dict) -> dict:
        return {**batch, "status": Path("/proc/self/status").read_text()}

    def peak(status: str) -> int:
        """Megabytes; not what getrusage says, which a process inherits from the one that started it."""
        return int(status.split("VmHWM:")[1].split(maxsplit=1)[0]) // 1024

    options = {"members": ["image"], "columns": ["caption"], "image_size": 256, "global_batch_size": 24}
    cache = CacheOptions(tmp_path / "cache", 10**9)
    options |= {"cache": cache, "num_workers": 1, "start_method": "spawn"}  # a process that shares no page with others
    dataset = to_torch(reader_of(moved(rows)), "large", collate=measured, **options)
    batches = list(dataset)
    assert {batch["image"].shape for batch in batches} == {(24, 256, 256, 3)}
    assert 0 < max(peak(batch["status"]) for batch in batches) - peak(alone.stdout) <= 300


class Memory:
    """A store over the shards in memory, that counts."""

    def __init__(self, folder: Path) -> None:
        self.files = {f"s3://stub/{path.name}": path.read_bytes() for path in folder.iterdir()}
        self.fetched = 0

    def info(self, uri: str) -> FileInfo:
        return FileInfo(uri, len(self.files[uri]), "1")

    def read_ranges(self, uri: str, ranges: list[tuple[int, int]], etag: str) -> list[memoryview]:
        self.fetched += sum(size for _, size in ranges)
        return [memoryview(self.files[uri])[offset : offset + size] for offset, size in ranges]


def test_a_cache_of_half_the_data_is_hit_by_almost_half_and_stays_within_its_bound(shards, tmp_path, monkeypatch):
    """Windows take 13 % of the data here. No policy can do better than half."""
    monkeypatch.setenv("FACTORY_HOME", str(tmp_path))
    memory = Memory(shards[0])
    monkeypatch.setattr("factory_lib.storage.cache.store", lambda: memory)
    monkeypatch.setattr("factory_lib.loading.index.store", lambda: memory)
    data = sum(len(content) for content in memory.files.values())
    options = CacheOptions(tmp_path / "cache", data // 2)
    dataset = load(shards[1], options, unit_rows=8, window_rows=8, lanes=16, global_batch_size=96)
    fetched = []
    for _ in range(4):
        memory.fetched = 0
        assert everything(dataset) == list(range(ROWS))
        assert sum(mirror.bytes for mirror in mirrors_of(options.folder)) <= data // 2
        fetched.append(memory.fetched)
    assert fetched[0] <= 1.07 * data
    assert all(amount <= 0.62 * fetched[0] for amount in fetched[1:])
    assert dataset.counters.get("bypassed_bytes", 0) == 0
