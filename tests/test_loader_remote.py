"""Loading from remote storage: caches, many machines, and storage that fails. Never a wrong byte."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

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
    table = write_shards(folder, SHARDS, sample)
    pointers = table.column("image").combine_chunks()
    uris = ["s3://stub/" + uri.rsplit("/", 1)[1] for uri in pointers.field("uri").to_pylist()]
    parts = [pa.array(uris), pointers.field("offset"), pointers.field("size")]
    remote = pa.StructArray.from_arrays(parts, ["uri", "offset", "size"])
    return folder, table.set_column(1, "image", remote)


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
    """5 % of the requests are refused and 5 % break in the middle."""
    monkeypatch.setattr("factory_lib.storage.retry.FIRST_WAIT_SECONDS", 0.001)
    stub = serve(unavailable=0.05, reset=0.05)
    dataset = load(shards[1], CacheOptions(tmp_path / "cache", 10**9), num_workers=workers, unit_rows=4)
    stub.counters()
    assert everything(dataset) == list(range(ROWS))
    counted = stub.counters()
    assert counted["unavailable"] > 3
    assert counted["resets"] > 3


@pytest.mark.parametrize("change", ["truncate", "replace", "delete"])
def test_a_shard_that_changed_is_an_error_that_names_it(shards, serve, tmp_path, change):
    serve()
    dataset = load(shards[1], CacheOptions(tmp_path / "cache", 10**9), num_workers=1)
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
