"""The local cache of remote files: read-through from local pages to the shared tier to the origin.

Any number of processes use one folder at once. Each file has a sparse mirror (`storage.mirror`) under the key of its
uri, etag and size, so a replaced file is another mirror and nothing is ever invalidated. The bytes allocated are
bounded; who knows the future (a loader does) says what is needed last, and that goes first. Trouble with the folder
(full, read-only, gone) switches the cache off for a while and is counted; it never fails a read.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from numpy.typing import NDArray

from factory_lib.errors import StoreError
from factory_lib.filelocks import exclusive
from factory_lib.home import private_folder
from factory_lib.owners import unfinished
from factory_lib.settings import settings
from factory_lib.storage import cache_statistics
from factory_lib.storage.files import FileInfo
from factory_lib.storage.mirror import PAGE, Mirror, Range
from factory_lib.storage.shared import SharedTier, content_key
from factory_lib.storage.spans import plan_spans
from factory_lib.storage.store import store

OPEN_MIRRORS = 128
MAX_GAP_BYTES = 32 << 10
MAX_SPAN_BYTES = 8 << 20
FETCHES, PREFETCHES = 8, 12  # requests in flight of one process
OFF_SECONDS = 60.0
FULL_SECONDS = 1.0  # between attempts to make room
IN_USE_SECONDS = 600.0  # a mirror used this recently belongs to a job that is running
EVICT_SHARE = 128  # at least this part of the capacity is freed at once
USABLE_SHARE = 0.985  # of the capacity: file systems need blocks of their own for files with many holes
FREE_SHARE = 0.9  # of the disk's free space, at most

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class CacheOptions:
    """Where and how large.

    Attributes:
        folder: of the mirrors.
        capacity: bytes on disk at most.
        shared: URL of the shared tier, or None.
    """

    folder: Path
    capacity: int
    shared: str | None = None


def cache_options() -> CacheOptions | None:
    """The cache that the settings describe; None where `FACTORY_CACHE_BYTES` is 0."""
    now = settings()
    return CacheOptions(now.cache, now.cache_bytes, now.shared_cache) if now.cache_bytes else None


@dataclass(frozen=True)
class CacheRequest:
    """Ranges of one file."""

    file: FileInfo
    ranges: Sequence[Range]


class EvictionPlan(Protocol):
    """Knows what will be read, and when."""

    def last_needed(self, cache: BlockCache) -> Iterator[tuple[FileInfo, int, int]]:
        """(file, first page, page after the last), what is needed furthest ahead or never first; nothing that is
        needed soon.
        """

    def span_around(self, file: FileInfo, start: int, stop: int) -> tuple[int, int] | None:
        """The range that is needed soon and contains ``[start, stop)``, or None."""

    def knows(self, key: str) -> bool:
        """Whether a mirror, by its key, is of a file it will read."""


class BlockCache:
    """One process's view of the cache; threads may share it.

    Args:
        options: where and how large.
        eviction_plan: what to evict; without one, the mirrors used longest ago.

    Attributes:
        counters: bytes_read (asked for and delivered), bytes_cache (of these, copied from pages, fetched ahead ones
            among them), bytes_shared and bytes_origin (fetched from there, to deliver or to keep), corrupt_pages,
            evicted_bytes, bypassed_bytes (read past a full cache), cache_errors, and those of `SharedTier`.
        fetches: requests to outer tiers so far.
    """

    def __init__(self, options: CacheOptions, eviction_plan: EvictionPlan | None = None) -> None:
        self.options = options
        self.eviction_plan = eviction_plan
        self.counters: Counter[str] = Counter()
        self._shared = SharedTier(options.shared) if options.shared else None
        self._mirrors: OrderedDict[str, Mirror] = OrderedDict()
        self._stamps: dict[str, float] = {}
        self._lock = threading.RLock()
        self._off_until = self._full_until = 0.0
        self.fetches = self._arriving = 0
        self._usage: IO[bytes] | None = None
        self._capacity = int(options.capacity * USABLE_SHARE)
        self._fetching = ThreadPoolExecutor(FETCHES, "fetch")
        self._prefetching = ThreadPoolExecutor(PREFETCHES, "prefetch")

    def read(self, requests: Sequence[CacheRequest]) -> None:
        """Fill the places of all requests.

        Raises:
            StoreError: the origin cannot be read, or a file is no longer what its etag says.
        """
        work: list[Future[None]] = []
        asked = missed = 0
        for request in requests:
            asked += _size(request.ranges)
            left = self._read_local(request.file, request.ranges)
            if left:
                missed += _size(left)
                for start, stop, ranges in self._spans(request.file, left):
                    work.append(self._fetching.submit(self._serve, request.file, start, stop, ranges))
        for done in work:
            done.result()
        self._count("bytes_read", asked)
        self._count("bytes_cache", asked - missed)

    def prefetch(self, file: FileInfo, start: int, stop: int) -> None:
        """Bring a range into the cache soon, in the background; trouble shows when it is read."""
        self._prefetching.submit(self._bring_quietly, file, start, stop)

    def keeps(self, file: FileInfo, start: int, stop: int) -> bool:
        """Whether all of a range is in the cache."""
        mirror = self._mirror(file)
        return mirror is not None and bool((mirror.sums[start // PAGE : -(-stop // PAGE)] != 0).all())

    def kept_pages(self, file: FileInfo, first: Ints, last: Ints) -> Ints:
        """How many pages are kept of each run ``[first, last)`` of a file; makes no mirror where there is none."""
        mirror = None
        if (self._folder(content_key(file)) / "sums").exists():
            mirror = self._mirror(file)
        if mirror is None:
            return np.zeros(len(first), np.int64)
        before = np.concatenate([[0], np.cumsum(mirror.sums != 0)])
        kept: Ints = before[np.minimum(last, mirror.pages)] - before[np.minimum(first, mirror.pages)]
        return kept

    def take_counters(self) -> Counter[str]:
        """The counters since the last call."""
        with self._lock:
            taken, self.counters = self.counters, Counter()
        if self._shared is not None:
            taken += self._shared.take_counters()
        cache_statistics.add(self.options.folder, taken)
        return taken

    def close(self) -> None:
        """Stop its threads and close its files."""
        self._prefetching.shutdown(cancel_futures=True)
        self._fetching.shutdown(cancel_futures=True)
        with self._lock:
            while self._mirrors:
                self._mirrors.popitem()
            if self._usage is not None:
                self._usage.close()
                self._usage = None

    # Reading

    def _read_local(self, file: FileInfo, ranges: Sequence[Range]) -> Sequence[Range]:
        """Copy what is kept to its places; returns the ranges that are not kept."""
        mirror = self._mirror(file)
        if mirror is None:
            return ranges
        try:
            left, corrupt = mirror.read(ranges)
        except OSError:
            self._switch_off()
            return ranges
        if corrupt:
            self._count("corrupt_pages", corrupt)
        return left

    def _spans(self, file: FileInfo, left: Sequence[Range]) -> Iterator[tuple[int, int, list[Range]]]:
        """What to fetch for the ranges that are left: (start, stop, the ranges in it).

        A range whose neighbours are needed soon is fetched with them; the rest with what lies near it.
        """
        known: dict[tuple[int, int], list[Range]] = {}
        alone: list[Range] = []
        for offset, place in left:
            span = None
            if self.eviction_plan is not None and not self._full:
                span = self.eviction_plan.span_around(file, offset, offset + len(place))
            if span is None:
                alone.append((offset, place))
            else:
                known.setdefault(span, []).append((offset, place))
        for (start, stop), ranges in known.items():
            yield start, stop, ranges
        bounds = [(offset, len(place)) for offset, place in alone]
        for near in plan_spans(bounds, max_gap=MAX_GAP_BYTES, max_span=MAX_SPAN_BYTES):
            yield near.start, near.end, [alone[i] for i in near.ranges]

    def _serve(self, file: FileInfo, start: int, stop: int, ranges: Sequence[Range]) -> None:
        """Bring a span and copy the ranges in it to their places."""
        data = self._bring(file, start, stop)
        if data is None:
            asked = _size(ranges)
            ranges = self._read_local(file, ranges)
            self._count("bytes_cache", asked - _size(ranges))
            if not ranges:
                return
            data = self._fetch(file, start, stop)
        for offset, place in ranges:
            place[:] = data[offset - start : offset - start + len(place)]

    def _bring_quietly(self, file: FileInfo, start: int, stop: int) -> None:
        try:
            mirror = self._mirror(file)
            if mirror is not None and not self._full and mirror.missing(start, min(stop, file.size)):
                self._bring(file, start, stop)
        except StoreError:
            self._count("failed_prefetches", 1)

    def _bring(self, file: FileInfo, start: int, stop: int) -> memoryview | None:
        """Fetch what is missing of ``[start, stop)`` and keep it where there is room; the bytes, or None where some of
        them were here already."""
        mirror = self._mirror(file)
        if mirror is None or stop > file.size:
            return self._fetch(file, start, stop)
        first, last = start // PAGE * PAGE, min(-(-stop // PAGE) * PAGE, file.size)
        with mirror.claimed(first, last):
            gaps = mirror.missing(first, last)
            if gaps and 2 * sum(b - a for a, b in gaps) >= gaps[-1][1] - gaps[0][0]:
                gaps = [(gaps[0][0], gaps[-1][1])]  # few holes: one request
            for a, b in gaps:
                data = self._fetch(file, a, b)
                self._keep(mirror, a, data)
                if a <= start and stop <= b:
                    return data[start - a : stop - a]
        return None

    def _fetch(self, file: FileInfo, start: int, stop: int) -> memoryview:
        self.fetches += 1

        def origin(a: int, b: int) -> memoryview:
            return store().read_ranges(file.uri, [(a, b - a)], etag=file.etag or None)[0]

        if self._shared is not None:
            first, last = start // PAGE * PAGE, min(-(-stop // PAGE) * PAGE, file.size)
            if stop <= file.size:
                return memoryview(self._shared.read(file, first, last, origin))[start - first : stop - first]
        self._count("bytes_origin", stop - start)
        return origin(start, stop)

    def _keep(self, mirror: Mirror, start: int, data: memoryview) -> None:
        new = sum(b - a for a, b in mirror.missing(start, start + len(data)))
        size = -(-new // PAGE) * PAGE
        try:
            if size and not self._reserve(size):
                self._count("bypassed_bytes", len(data))
                return
            try:
                mirror.write(start, data)
            finally:
                with self._lock:
                    self._arriving -= size
        except OSError:
            self._switch_off()

    def _mirror(self, file: FileInfo) -> Mirror | None:
        """The mirror of a file, opened; None while the cache is off."""
        if time.monotonic() < self._off_until:
            return None
        key = content_key(file)
        with self._lock:
            found = self._mirrors.get(key)
            try:
                if found is None:
                    folder = self._folder(key)
                    new = not (folder / "sums").exists()
                    found = self._mirrors[key] = Mirror(folder, file)
                    if new:
                        self._add((-(-found.pages * 8 // PAGE) + 1) * PAGE)  # its checksums and about.json
                    if len(self._mirrors) > OPEN_MIRRORS:
                        self._retire()
                if time.monotonic() - self._stamps.get(key, -IN_USE_SECONDS) > IN_USE_SECONDS / 10:
                    self._stamps[key] = time.monotonic()
                    if not found.stamp():  # removed meanwhile: its pages serve no longer
                        del self._mirrors[key]
                        return self._mirror(file)
            except OSError:
                self._mirrors.pop(key, None)
                self._switch_off()
                return None
            self._mirrors.move_to_end(key)
            return found

    def _retire(self) -> None:
        """Let go of the mirror used longest ago; a thread that still reads it keeps it open."""
        key, _ = self._mirrors.popitem(last=False)
        self._stamps.pop(key, None)

    def _folder(self, key: str) -> Path:
        return self.options.folder / key[:2] / key

    def _switch_off(self) -> None:
        with self._lock:
            self._off_until = time.monotonic() + OFF_SECONDS
            self._mirrors.clear()
            self._stamps.clear()
        self._count("cache_errors", 1)

    def _count(self, name: str, amount: int) -> None:
        with self._lock:
            self.counters[name] += amount

    # Room

    def _reserve(self, size: int) -> bool:
        """Take `size` bytes of the capacity, evicting for them; False when everything kept is needed sooner."""
        if self._take(size):
            return True
        if self._full:
            return False
        with _locked(self.options.folder / "evict.lock"):
            freed = 1
            while freed:  # others may take what was freed before we do
                if self._take(size):
                    return True
                self._recount()
                if self._take(size):
                    return True
                goal = max(size, self._capacity // EVICT_SHARE)
                freed = self._drop_unused(goal)
                if freed < goal:
                    freed += self._drop_last_needed(goal - freed)
                self._add(-freed)
        self._full_until = time.monotonic() + FULL_SECONDS
        return False

    @property
    def _full(self) -> bool:
        """Whether there was no room a moment ago: what is fetched now and not needed at once could not be kept."""
        return time.monotonic() < self._full_until

    def _drop_unused(self, goal: int) -> int:
        """Remove mirrors that no running job uses, the oldest first."""
        freed = 0
        for mirror in sorted(mirrors_of(self.options.folder), key=lambda kept: kept.used):
            known = self.eviction_plan is not None and self.eviction_plan.knows(mirror.folder.name)
            if freed >= goal or known or time.time() - mirror.used < IN_USE_SECONDS:
                continue
            _remove(self.options.folder, mirror.folder)
            freed += mirror.bytes
        return freed

    def _drop_last_needed(self, goal: int) -> int:
        freed = 0
        for file, first, last in self.eviction_plan.last_needed(self) if self.eviction_plan is not None else ():
            if freed >= goal:
                break
            mirror = self._mirror(file)
            try:
                freed += mirror.drop(first, last) if mirror is not None else 0
            except OSError:  # a file system without holes: what is kept stays
                break
        self._count("evicted_bytes", freed)
        return freed

    def _take(self, size: int) -> bool:
        with self._used() as used:
            if used[0] + size > self._capacity:
                return False
            used[0] += size
            self._arriving += size
        return True

    def _add(self, size: int) -> None:
        with self._used() as used:
            used[0] = max(0, used[0] + size)

    def _recount(self) -> None:
        """Make the books right: processes that were killed leave entries for bytes that they never wrote. What is about
        to be written counts, at least that of this process.
        """
        with self._used() as used:
            used[0] = sum(mirror.bytes for mirror in mirrors_of(self.options.folder)) + self._arriving

    @contextmanager
    def _used(self) -> Iterator[list[int]]:
        """The bytes in use, for all processes, to be read and changed."""
        with self._lock:
            if self._usage is None:
                private_folder(self.options.folder)
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                self._usage = os.fdopen(os.open(self.options.folder / "used", flags, 0o600), "r+b", buffering=0)
                free = shutil.disk_usage(self.options.folder).free
                kept = sum(mirror.bytes for mirror in mirrors_of(self.options.folder))
                self._capacity = min(self._capacity, int((free + kept) * FREE_SHARE))
            descriptor = self._usage.fileno()
            with exclusive(descriptor):
                raw = os.pread(descriptor, 8, 0)
                used = [struct.unpack("<q", raw)[0] if len(raw) == 8 else 0]
                before = used[0]
                yield used
                if used[0] != before:
                    os.pwrite(descriptor, struct.pack("<q", used[0]), 0)


def _size(ranges: Sequence[Range]) -> int:
    return sum([len(place) for _, place in ranges])


@dataclass(frozen=True)
class KeptMirror:
    """A mirror on disk: which file it is of, bytes allocated, and when it was last used (seconds since 1970)."""

    folder: Path
    uri: str
    bytes: int
    used: float


def mirrors_of(folder: Path) -> list[KeptMirror]:
    """All mirrors in a cache folder."""
    found = []
    for about in folder.glob("??/*/about.json"):
        try:
            size = sum(entry.stat().st_blocks * 512 for entry in about.parent.iterdir())
            uri = str(json.loads(about.read_text())["uri"])
            found.append(KeptMirror(about.parent, uri, size, about.stat().st_mtime))
        except (OSError, ValueError, KeyError):  # removed meanwhile, or damaged: then nobody can use it
            found.append(KeptMirror(about.parent, "", 0, 0.0))
    return found


def clear(folder: Path) -> int:
    """Remove everything that is kept in a cache folder; safe while jobs run. Returns bytes."""
    kept = mirrors_of(folder)
    for mirror in kept:
        _remove(folder, mirror.folder)
    shutil.rmtree(folder / "trash", ignore_errors=True)  # and what a killed process left there
    if (folder / "used").exists():
        (folder / "used").write_bytes(struct.pack("<q", 0))
    cache_statistics.reset(folder)
    return sum(mirror.bytes for mirror in kept)


def _remove(folder: Path, mirror: Path) -> None:
    """Take a mirror away: renamed first, so that nobody opens half of it; who has it open goes on reading."""
    trash = unfinished(private_folder(folder / "trash") / mirror.name)
    try:
        mirror.rename(trash)
    except FileNotFoundError:
        return
    shutil.rmtree(trash, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock, exclusive(lock):
        yield
