"""The cache of remote files: never a wrong byte, bounded, shared by processes and machines, harmless when broken."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from factory_lib.cli import factory
from factory_lib.errors import FileChanged, StoreError
from factory_lib.storage import cache as cache_module
from factory_lib.storage import cache_statistics
from factory_lib.storage.cache import BlockCache, CacheOptions, CacheRequest, clear, mirrors_of
from factory_lib.storage.files import FileInfo
from factory_lib.storage.mirror import PAGE, Mirror, page_sums
from factory_lib.storage.shared import SharedTier, clear_shared, content_key, shared_use
from factory_lib.storage.store import store
from tests.s3 import Bucket, s3, s3_endpoint  # noqa: F401 - fixtures

SIZE = 300_123
ALL_PAGES = -(-SIZE // PAGE)


def content(seed: int, size: int = SIZE) -> bytes:
    return np.random.default_rng(seed).bytes(size)


class Origin:
    """A store in memory that counts what is read from it."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.read_bytes = self.reads = 0

    def read_ranges(self, uri: str, ranges: list[tuple[int, int]], *, etag: str | None = None) -> list[memoryview]:
        data = self.files[uri]
        for offset, size in ranges:
            if offset + size > len(data):
                raise StoreError(f"{uri} ends before byte {offset + size}.")
        self.reads += len(ranges)
        self.read_bytes += sum(size for _, size in ranges)
        return [memoryview(data[offset : offset + size]) for offset, size in ranges]

    def infos(self) -> list[FileInfo]:
        return [FileInfo(uri, len(data), "1") for uri, data in self.files.items()]


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> Origin:
    files = Origin({f"mem://{i}": content(i) for i in range(4)})
    monkeypatch.setattr(cache_module, "store", lambda: files)
    return files


@pytest.fixture
def options(tmp_path: Path) -> CacheOptions:
    return CacheOptions(tmp_path / "cache", 10**9)


def read(cache: BlockCache, file: FileInfo, ranges: list[tuple[int, int]]) -> list[bytes]:
    places = [bytearray(size) for _, size in ranges]
    cache.read(
        [CacheRequest(file, [(offset, memoryview(place)) for (offset, _), place in zip(ranges, places, strict=True)])]
    )
    return [bytes(place) for place in places]


def expected(origin: Origin, file: FileInfo, ranges: list[tuple[int, int]]) -> list[bytes]:
    return [origin.files[file.uri][offset : offset + size] for offset, size in ranges]


def kept_pages(cache: BlockCache, file: FileInfo) -> int:
    return int(cache.kept_pages(file, np.array([0]), np.array([ALL_PAGES]))[0])


RANGES = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, 20_000)), min_size=1, max_size=8).map(
    lambda pairs: [(offset, min(size, SIZE - offset)) for offset, size in pairs]
)


@settings(max_examples=25, deadline=None)
@given(reads=st.lists(RANGES, min_size=1, max_size=4))
def test_any_ranges_come_back_as_written(tmp_path_factory, reads):
    files = Origin({"mem://0": content(0)})
    folder = tmp_path_factory.mktemp("any")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module, "store", lambda: files)
        for process in range(2):  # the second one finds what the first one kept
            cache = BlockCache(CacheOptions(folder, 10**9))
            for ranges in reads:
                assert read(cache, files.infos()[0], ranges) == expected(files, files.infos()[0], ranges)
            counted = cache.take_counters()
            if process == 1:
                assert counted["bytes_origin"] == 0
            cache.close()
        assert files.read_bytes <= SIZE + 10 * PAGE * len(reads) * 8


def test_the_second_reader_reads_no_origin(origin, options):
    file = origin.infos()[0]
    ranges = [(0, 6000), (10_000, 5000), (SIZE - 10, 10)]
    first = BlockCache(options)
    assert read(first, file, ranges) == expected(origin, file, ranges)
    assert first.take_counters()["bytes_origin"] == origin.read_bytes > 0
    before = origin.read_bytes
    second = BlockCache(options)
    assert read(second, file, ranges) == expected(origin, file, ranges)
    assert origin.read_bytes == before
    assert second.take_counters() == {"bytes_read": 11_010, "bytes_cache": 11_010}


def test_a_new_etag_is_another_file(origin, options):
    cache = BlockCache(options)
    old, new = FileInfo("mem://0", SIZE, "1"), FileInfo("mem://0", SIZE, "2")
    read(cache, old, [(0, 100)])
    origin.files["mem://0"] = content(9)
    assert read(cache, new, [(0, 100)]) == [content(9)[:100]]
    assert read(cache, old, [(0, 100)]) == [content(0)[:100]]  # kept under the etag that it had


@pytest.mark.parametrize("name", ["data", "sums", "about.json"])
def test_flipped_bytes_are_found_and_fetched_again(origin, options, name):
    file = origin.infos()[0]
    read(BlockCache(options), file, [(0, SIZE)])
    path = options.folder / content_key(file)[:2] / content_key(file) / name
    damaged = bytearray(path.read_bytes())
    for place in range(0, len(damaged), max(1, len(damaged) // 50)):
        damaged[place] ^= 0x80
    path.write_bytes(damaged)
    cache = BlockCache(options)
    assert read(cache, file, [(0, SIZE)]) == [content(0)]
    assert (cache.take_counters()["corrupt_pages"] > 0) == (name != "about.json")
    again = BlockCache(options)
    assert read(again, file, [(0, SIZE)]) == [content(0)]
    assert again.take_counters()["bytes_origin"] == 0


def test_page_sums_find_every_changed_byte():
    page = np.frombuffer(content(3, PAGE), np.uint8)
    numbers = np.zeros(1, np.int64)
    right = page_sums(page[None].copy(), numbers)[0]
    generator = np.random.default_rng(0)
    for _ in range(300):
        wrong = page.copy()
        places = generator.choice(np.arange(7, PAGE, 8), 2, replace=False)  # uppermost bytes: the hard case
        wrong[places] ^= generator.choice([0x80, 0xFF, 0x40], 2).astype(np.uint8)
        assert page_sums(wrong[None], numbers)[0] != right
    assert page_sums(page[None].copy(), numbers + 1)[0] != right
    assert page_sums(np.zeros((1, PAGE), np.uint8), numbers)[0] != 0


def test_a_full_disk_only_switches_the_cache_off(origin, options, monkeypatch):
    file = origin.infos()[0]

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    cache = BlockCache(options)
    monkeypatch.setattr(cache_module.Mirror, "write", full)
    assert read(cache, file, [(5, 7000)]) == [content(0)[5:7005]]
    assert read(cache, file, [(9000, 50)]) == [content(0)[9000:9050]]
    assert cache.take_counters()["cache_errors"] == 1


def test_a_disk_that_is_really_full(origin, options):
    """A file size limit makes the kernel refuse the write, as a full disk does."""
    child = multiprocessing.get_context("fork").Process(target=_read_with_small_files, args=(options,))
    child.start()
    child.join()
    assert child.exitcode == 0


def _read_with_small_files(options: CacheOptions) -> None:
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    cache = BlockCache(options)
    file = FileInfo("mem://1", SIZE, "1")
    assert read(cache, file, [(0, SIZE), (200_000, 10)]) == [content(1), content(1)[200_000:200_010]]
    assert cache.take_counters()["cache_errors"] >= 1
    os._exit(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a folder unwritable for itself")
def test_a_folder_that_cannot_be_used_only_switches_the_cache_off(origin, tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = BlockCache(CacheOptions(tmp_path / "file" / "cache", 10**9))
    file = origin.infos()[2]
    assert read(cache, file, [(1, 2)]) == [content(2)[1:3]]
    cache.prefetch(file, 0, 1000)
    cache.close()
    assert cache.take_counters()["cache_errors"] >= 1


def test_errors_of_the_origin_reach_the_reader(origin, options):
    cache = BlockCache(options)
    file = FileInfo("mem://0", SIZE + 5000, "1")  # the pointer says more than there is
    with pytest.raises(StoreError, match="ends before"):
        read(cache, file, [(SIZE - 10, 1000)])
    assert read(cache, origin.infos()[0], [(0, 10)]) == [content(0)[:10]]


class Ahead:
    """Foresight for tests: files are needed in the order of their names, the last one last."""

    def __init__(self, files: list[FileInfo]) -> None:
        self.files = files

    def knows(self, key: str) -> bool:
        return key in {content_key(file) for file in self.files}

    def span_around(self, file: FileInfo, start: int, stop: int) -> None:
        return None

    def last_needed(self, cache: BlockCache) -> Iterator[tuple[FileInfo, int, int]]:
        for file in reversed(self.files):
            if kept_pages(cache, file):
                yield file, 0, ALL_PAGES


def test_room_is_bounded_and_what_is_needed_last_goes_first(origin, tmp_path):
    files = origin.infos()
    options = CacheOptions(tmp_path / "cache", 3 * SIZE)
    cache = BlockCache(options, Ahead([files[1], files[3], files[0], files[2]]))
    for file in (files[2], files[0], files[1], files[3]):
        assert read(cache, file, [(0, SIZE)]) == [origin.files[file.uri]]
    assert sum(mirror.bytes for mirror in mirrors_of(options.folder)) <= 3 * SIZE
    kept = [kept_pages(cache, file) for file in files]
    assert kept[2] == 0
    assert kept[1] == kept[3] == ALL_PAGES
    assert cache.take_counters()["evicted_bytes"] >= SIZE


def test_without_foresight_a_full_cache_is_read_past(origin, tmp_path):
    options = CacheOptions(tmp_path / "cache", int(1.5 * SIZE))
    cache = BlockCache(options)
    for file in origin.infos():
        assert read(cache, file, [(0, SIZE)]) == [origin.files[file.uri]]
    assert cache.take_counters()["bypassed_bytes"] >= 2 * SIZE
    assert sum(mirror.bytes for mirror in mirrors_of(options.folder)) <= 1.5 * SIZE


def test_mirrors_that_no_job_uses_go_before_those_of_running_ones(origin, tmp_path):
    options = CacheOptions(tmp_path / "cache", int(2.2 * SIZE))
    files = origin.infos()
    read(BlockCache(options), files[0], [(0, SIZE)])
    old = options.folder / content_key(files[0])[:2] / content_key(files[0])
    os.utime(old / "about.json", (1, 1))
    cache = BlockCache(options)
    for file in files[1:3]:
        read(cache, file, [(0, SIZE)])
    assert not old.exists()
    assert all(kept_pages(cache, file) == ALL_PAGES for file in files[1:3])


def test_processes_fill_one_cache_together(origin, options):
    """Eight processes read everything in different orders: each byte is fetched about once, and all are right."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    children = [context.Process(target=_read_all, args=(origin, options, seed, queue)) for seed in range(8)]
    for child in children:
        child.start()
    fetched = [queue.get() for _ in children]
    for child in children:
        child.join()
    assert all(amount is not None for amount in fetched)
    whole = sum(len(data) for data in origin.files.values())
    assert whole <= sum(fetched) <= 1.1 * whole


def _read_all(origin: Origin, options: CacheOptions, seed: int, queue) -> None:
    try:
        cache = BlockCache(options)
        generator = np.random.default_rng(seed)
        for index in generator.permutation(4):
            file = origin.infos()[index]
            for start in generator.permutation(np.arange(0, SIZE, 50_000)).tolist():
                ranges = [(start, min(50_000, SIZE - start))]
                assert read(cache, file, ranges) == expected(origin, file, ranges)
        queue.put(int(cache.take_counters()["bytes_origin"]))
    except BaseException:
        queue.put(None)
        raise


def test_a_killed_writer_leaves_nothing_wrong(origin, options):
    """Killed between data and checksum, or in the middle of the data: the page is absent."""
    file = origin.infos()[0]
    folder = options.folder / content_key(file)[:2] / content_key(file)
    mirror = Mirror(folder, file)
    mirror.write(0, content(0)[: 4 * PAGE])
    with (folder / "data").open("r+b") as data:
        data.seek(10 * PAGE)
        data.write(b"half a page")
    cache = BlockCache(options)
    assert read(cache, file, [(0, SIZE)]) == [content(0)]
    assert cache.take_counters()["corrupt_pages"] == 0


def test_books_are_put_right(origin, tmp_path):
    """Entries of killed processes for bytes never written don't shrink the cache for ever."""
    options = CacheOptions(tmp_path / "cache", 2 * SIZE)
    files = origin.infos()
    read(BlockCache(options), files[0], [(0, 1000)])
    (options.folder / "used").write_bytes((10**12).to_bytes(8, "little"))
    cache = BlockCache(options)
    read(cache, files[0], [(0, SIZE)])
    assert kept_pages(cache, files[0]) == ALL_PAGES


def test_clear_removes_everything_while_a_reader_goes_on(origin, options):
    cache = BlockCache(options)
    file = origin.infos()[0]
    read(cache, file, [(0, SIZE)])
    assert [mirror.uri for mirror in mirrors_of(options.folder)] == ["mem://0"]
    assert clear(options.folder) >= SIZE
    assert mirrors_of(options.folder) == []
    assert read(cache, file, [(0, SIZE)]) == [content(0)]


# The shared tier


def test_machines_share_what_one_of_them_fetched(origin, tmp_path, monkeypatch):
    shared = str(tmp_path / "shared")
    big = content(7, 20_000_000)
    origin.files = {"mem://big": big}
    file = origin.infos()[0]
    nodes = [BlockCache(CacheOptions(tmp_path / f"node{i}", 10**9, shared)) for i in range(4)]
    for index, node in enumerate(nodes):
        for start in range(index * 1_000_000, len(big), 4_000_000):
            assert read(node, file, [(start, 1_000_000)]) == [big[start : start + 1_000_000]]
    counted = sum((node.take_counters() for node in nodes), start=nodes[0].take_counters())
    assert counted["bytes_origin"] == origin.read_bytes == len(big)
    assert counted["shared_writes"] == 3
    late = BlockCache(CacheOptions(tmp_path / "late", 10**9, shared))
    assert read(late, file, [(0, len(big))]) == [big]
    assert origin.read_bytes == len(big)


def test_a_damaged_shared_object_is_made_anew(origin, tmp_path):
    shared = tmp_path / "shared"
    file = origin.infos()[0]
    first = BlockCache(CacheOptions(tmp_path / "a", 10**9, str(shared)))
    assert read(first, file, [(0, SIZE)]) == [content(0)]
    (path,) = (p for p in shared.rglob("*") if p.is_file() and not p.name.endswith(".claim"))
    for place in (3, 100, 5000):  # magic, checksums, data
        damaged = bytearray(path.read_bytes())
        damaged[place] ^= 1
        path.write_bytes(damaged)
        node = BlockCache(CacheOptions(tmp_path / str(place), 10**9, str(shared)))
        assert read(node, file, [(0, SIZE)]) == [content(0)]
        assert node.take_counters()["corrupt_objects"] == 1


def test_a_dead_claimant_is_not_waited_for_forever(origin, tmp_path):
    file = origin.infos()[0]
    for age in (0, 1000):  # claimed just now, or long ago
        tier = SharedTier(str(tmp_path / str(age)), wait_seconds=0.1)
        assert store().create(f"{tier._name(file, 0)}.claim", repr(time.time() - age).encode())
        data = tier.read(file, 0, SIZE, lambda a, b: bytes(origin.read_ranges(file.uri, [(a, b - a)])[0]))
        assert data == content(0)
        assert tier.counters["shared_timeouts"] == 1
        assert tier.counters["shared_writes"] == 1


def test_an_unusable_shared_tier_is_read_past(origin, tmp_path):
    (tmp_path / "file").write_text("in the way")
    node = BlockCache(CacheOptions(tmp_path / "a", 10**9, str(tmp_path / "file" / "shared")))
    assert read(node, origin.infos()[0], [(0, 10)]) == [content(0)[:10]]
    assert node.take_counters()["shared_errors"] >= 1


def test_from_s3_through_a_shared_bucket(s3: Bucket, tmp_path):  # noqa: F811
    data = content(5, 9_000_000)
    uri = s3.put("a.tar", data)
    file = store().info(uri)
    nodes = [BlockCache(CacheOptions(tmp_path / f"{i}", 10**9, f"{s3.uri}/shared")) for i in range(2)]
    for node in nodes:
        assert read(node, file, [(100, 1000), (8_999_000, 1000)]) == [data[100:1100], data[8_999_000:]]
    assert nodes[0].take_counters()["shared_writes"] == 2
    assert nodes[1].take_counters()["bytes_origin"] == 0
    s3.put("a.tar", content(6, 9_000_000))
    fresh = BlockCache(CacheOptions(tmp_path / "fresh", 10**9))
    with pytest.raises(FileChanged, match=r"a\.tar"):
        read(fresh, file, [(0, 10)])
    assert read(nodes[0], file, [(150, 10)]) == [data[150:160]]  # kept while it was the right one


def test_create_lets_one_writer_win(s3: Bucket, tmp_path):  # noqa: F811
    for folder in (s3.uri, str(tmp_path), "memory://shared"):
        assert store().create(f"{folder}/claim", b"first")
        assert not store().create(f"{folder}/claim", b"second")
        assert store().read(f"{folder}/claim") == b"first"
        assert store().exists(f"{folder}/claim")
        assert not store().exists(f"{folder}/other")


# What the command line shows and clears


@pytest.fixture
def settled(options: CacheOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CacheOptions:
    """A cache with a shared tier, as the settings describe it."""
    monkeypatch.setenv("FACTORY_CACHE", str(options.folder))
    monkeypatch.setenv("FACTORY_CACHE_BYTES", str(options.capacity))
    monkeypatch.setenv("FACTORY_SHARED_CACHE", str(tmp_path / "shared"))
    return CacheOptions(options.folder, options.capacity, str(tmp_path / "shared"))


def command(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(factory, ["cache", *arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_the_command_shows_sizes_and_hits_by_tier(origin, settled):
    assert json.loads(command("show", "--json").stdout)["shares"] == {}
    for _ in range(4):  # processes, one after the other
        cache = BlockCache(settled)
        read(cache, origin.infos()[0], [(0, SIZE)])
        cache.take_counters()
    shown = json.loads(command("show", "--json").stdout)
    assert [(file["uri"], file["bytes"] >= SIZE) for file in shown["local"]["files"]] == [("mem://0", True)]
    assert shown["local"]["bytes"] == sum(file["bytes"] for file in shown["local"]["files"])
    assert (shown["local"]["capacity"], shown["shared"]["objects"]) == (10**9, 1)
    assert SIZE < shown["shared"]["bytes"] < SIZE + 2000  # and checksums
    assert (shown["served"]["bytes_read"], shown["served"]["bytes_origin"]) == (4 * SIZE, SIZE)
    assert shown["shares"] == {"cache": 0.75, "shared": 0.0, "origin": 0.25}
    text = command("show").stdout
    assert re.search(r"^local .* 1 +\d+ kB of 1 GB +900 kB +75.0%", text, re.MULTILINE)
    assert re.search(r"^origin .* 300 kB +25.0%", text, re.MULTILINE)
    assert re.search(r"^mem://0 +\d+ kB +20\d\d-", text, re.MULTILINE)
    fresh = BlockCache(CacheOptions(settled.folder.with_name("other"), 10**9, settled.shared))
    read(fresh, origin.infos()[0], [(0, SIZE)])
    fresh.take_counters()
    assert cache_statistics.shares(cache_statistics.read(fresh.options.folder))["shared"] == 1.0


def test_the_command_clears_the_tiers_while_readers_go_on(origin, settled):
    file = origin.infos()[0]
    reader = BlockCache(settled)
    assert read(reader, file, [(0, 100_000)]) == [content(0)[:100_000]]
    (Path(str(settled.shared)) / "notes.txt").write_text("not ours")
    cleared = json.loads(command("clear", "--shared", "--json").stdout)
    assert min(cleared["local_bytes"], cleared["shared_bytes"]) >= 100_000
    shown = json.loads(command("show", "--json").stdout)
    assert (shown["local"]["bytes"], shown["shared"]["objects"], shown["served"]["bytes_read"]) == (0, 0, 0)
    assert read(reader, file, [(50_000, 200_000)]) == [content(0)[50_000:250_000]]
    assert (Path(str(settled.shared)) / "notes.txt").exists()
    assert "Freed" in command("clear").stderr
    assert reader.take_counters()["shared_errors"] == 0


def test_clearing_again_and_again_under_eight_readers_gives_no_wrong_byte(origin, settled):
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    children = [context.Process(target=_read_all, args=(origin, settled, seed, queue)) for seed in range(8)]
    for child in children:
        child.start()
    while any(child.is_alive() for child in children):
        clear(settled.folder)
        clear_shared(str(settled.shared))
    assert all(queue.get() is not None for _ in children)


def test_no_shared_tier_to_clear_is_said(monkeypatch):
    monkeypatch.delenv("FACTORY_SHARED_CACHE", raising=False)
    assert "FACTORY_SHARED_CACHE" in command("clear", "--shared", code=1).stderr


def test_a_shared_bucket_is_cleared(s3: Bucket, tmp_path):  # noqa: F811
    tier = SharedTier(f"{s3.uri}/shared")
    file = FileInfo("mem://x", SIZE, "1")
    tier.read(file, 0, SIZE, lambda a, b: content(0)[a:b])
    s3.put("shared/other", b"not ours")
    assert shared_use(f"{s3.uri}/shared").objects == 1
    assert clear_shared(f"{s3.uri}/shared").objects == 1
    assert [file.uri for file in store().list(s3.uri)] == [f"{s3.uri}/shared/other"]
    assert tier.read(file, 5000 // PAGE * PAGE, SIZE, lambda a, b: content(0)[a:b]) == content(0)[PAGE:]
    assert tier.counters["shared_errors"] == 0
