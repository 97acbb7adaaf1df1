"""The shared tier of the cache: immutable objects of 8 MiB of a file, on any URL that several machines reach.

The first machine to need an object claims it, fetches it from the origin once and writes it; the others wait for it.
An object starts with the checksums of its pages, so that a part of it can be read and checked alone.
"""

from __future__ import annotations

import functools
import hashlib
import re
import struct
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from factory_lib.errors import FileMissing, StoreError
from factory_lib.storage.files import FileInfo
from factory_lib.storage.mirror import PAGE, Sums, page_sums
from factory_lib.storage.retry import impatient
from factory_lib.storage.store import store

OBJECT_BYTES = 8 << 20
WAIT_SECONDS = 30.0
OFF_SECONDS = 60.0
_MAGIC = b"DFSHARE2"
_HEAD = struct.Struct("<8sQ16s")  # magic, bytes of data, blake2b of the checksums
_HEADERS = 256  # kept in memory: 16 KiB each
CLAIM = ".claim"
_OURS = re.compile(r"/([0-9a-f]{2})/\1[0-9a-f]{38}/\d{6,}(\.claim)?$")

Origin = Callable[[int, int], bytes | memoryview]


@functools.lru_cache(1 << 16)
def content_key(file: FileInfo) -> str:
    """The identity of a file's content: of its uri, etag and size."""
    return hashlib.blake2b(f"{file.uri}\0{file.etag}\0{file.size}".encode(), digest_size=20).hexdigest()


class SharedTier:
    """Reads through a shared folder or bucket.

    Args:
        url: of the folder: a path that all machines mount, or what fsspec opens.
        wait_seconds: how long another machine's claim is waited for, before it is taken over.

    Attributes:
        counters: bytes_shared (read from here), bytes_origin (fetched to fill it or past it), shared_writes,
            shared_waits, shared_timeouts, corrupt_objects, shared_errors.
    """

    def __init__(self, url: str, wait_seconds: float = WAIT_SECONDS) -> None:
        self._url = url.rstrip("/")
        self._wait = wait_seconds
        self._headers: OrderedDict[str, Sums] = OrderedDict()
        self._lock = threading.Lock()
        self._off_until = 0.0
        self.counters: Counter[str] = Counter()

    def read(self, file: FileInfo, start: int, stop: int, origin: Origin) -> bytes | memoryview:
        """The bytes ``[start, stop)`` of a file; both are multiples of 4096, or `stop` is the file's end.

        Args:
            origin: reads a range of the file from where it lives.
        """
        parts = []
        for block in range(start // OBJECT_BYTES, -(-stop // OBJECT_BYTES)):
            first, last = block * OBJECT_BYTES, min((block + 1) * OBJECT_BYTES, file.size)
            parts.append(self._part(file, block, max(start, first), min(stop, last), origin))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _part(self, file: FileInfo, block: int, start: int, stop: int, origin: Origin) -> bytes | memoryview:
        if time.monotonic() >= self._off_until:
            try:
                found = self._from_object(file, block, start, stop, origin)
                if found is not None:
                    return found
            except StoreError as error:
                if origin_failed(error):
                    raise
                self._count("shared_errors", 1)
                self._off_until = time.monotonic() + OFF_SECONDS
        self._count("bytes_origin", stop - start)
        return origin(start, stop)

    def _from_object(
        self, file: FileInfo, block: int, start: int, stop: int, origin: Origin
    ) -> bytes | memoryview | None:
        """The bytes from the object, made here if nobody did; None when waiting for another machine took too long."""
        name = self._name(file, block)
        deadline, pause = time.monotonic() + 2 * self._wait, 0.02  # the clocks of machines may differ
        while True:
            sums = self._sums(name, file, block)
            if sums is not None:
                try:
                    data = self._checked(name, sums, file, block, start, stop)
                except FileMissing:  # cleared meanwhile: whoever claims it makes it anew
                    self._forget(name)
                    continue
                return data if data is not None else self._made(name, file, block, start, stop, origin)
            if self._claim(f"{name}{CLAIM}"):
                return self._made(name, file, block, start, stop, origin)
            self._count("shared_waits", 1)
            if time.monotonic() > deadline:
                self._count("shared_timeouts", 1)
                return None
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)

    def _claim(self, name: str) -> bool:
        """Whether this machine is the one to make an object: the first to ask, or a later one where the first died."""
        now = repr(time.time()).encode()
        with impatient():
            return self._claimed(name, now)

    def _claimed(self, name: str, now: bytes) -> bool:
        if store().create(name, now):
            return True
        try:
            made = float(store().read(name))
        except (FileMissing, ValueError):
            return False
        if time.time() - made <= self._wait:
            return False
        self._count("shared_timeouts", 1)
        store().write(name, now)
        return True

    def _made(self, name: str, file: FileInfo, block: int, start: int, stop: int, origin: Origin) -> bytes | memoryview:
        first, last = block * OBJECT_BYTES, min((block + 1) * OBJECT_BYTES, file.size)
        try:
            data = origin(first, last)
        except StoreError as error:
            raise _OriginError(error.message, error.hint) from error
        self._count("bytes_origin", len(data))
        sums = _sums_of(data, first)
        table = sums.tobytes()
        head = _HEAD.pack(_MAGIC, len(data), hashlib.blake2b(table, digest_size=16).digest())
        try:
            with impatient():
                store().write(name, b"".join((head, table, data)))
            self._count("shared_writes", 1)
            self._keep(name, sums)
        except StoreError:
            self._count("shared_errors", 1)
            self._off_until = time.monotonic() + OFF_SECONDS
        return data[start - first : stop - first]

    def _checked(self, name: str, sums: Sums, file: FileInfo, block: int, start: int, stop: int) -> memoryview | None:
        """A range of an object, or None where it does not match its checksums."""
        first = block * OBJECT_BYTES
        data_at = _HEAD.size + sums.nbytes
        with impatient():  # without it, the origin gives the bytes
            data = store().read_ranges(name, [(data_at + start - first, stop - start)])[0]
        pages = slice((start - first) // PAGE, -(-(stop - first) // PAGE))
        if np.array_equal(_sums_of(data, start), sums[pages]):
            self._count("bytes_shared", len(data))
            return data
        self._count("corrupt_objects", 1)
        return None

    def _sums(self, name: str, file: FileInfo, block: int) -> Sums | None:
        """The checksums of an object's pages; None where the object is absent, or is none."""
        with self._lock:
            if name in self._headers:
                self._headers.move_to_end(name)
                return self._headers[name]
        with impatient():
            return self._read_sums(name, file, block)

    def _read_sums(self, name: str, file: FileInfo, block: int) -> Sums | None:
        if not store().exists(name):
            return None
        length = min(OBJECT_BYTES, file.size - block * OBJECT_BYTES)
        pages = -(-length // PAGE)
        try:
            raw = bytes(store().read_ranges(name, [(0, _HEAD.size + pages * 8)])[0])
        except FileMissing:
            return None
        magic, size, digest = _HEAD.unpack(raw[: _HEAD.size])
        table = raw[_HEAD.size :]
        if magic != _MAGIC or size != length or hashlib.blake2b(table, digest_size=16).digest() != digest:
            return np.zeros(pages, np.uint64)  # matches nothing: the object is made anew
        sums: Sums = np.frombuffer(table, np.uint64)
        self._keep(name, sums)
        return sums

    def _keep(self, name: str, sums: Sums) -> None:
        with self._lock:
            self._headers[name] = sums
            if len(self._headers) > _HEADERS:
                self._headers.popitem(last=False)

    def _forget(self, name: str) -> None:
        with self._lock:
            self._headers.pop(name, None)

    def _name(self, file: FileInfo, block: int) -> str:
        key = content_key(file)
        return f"{self._url}/{key[:2]}/{key}/{block:06d}"

    def take_counters(self) -> Counter[str]:
        """The counters since the last call."""
        with self._lock:
            taken, self.counters = self.counters, Counter()
        return taken

    def _count(self, name: str, amount: int) -> None:
        with self._lock:
            self.counters[name] += amount


@dataclass(frozen=True)
class SharedUse:
    """What lies in a shared tier: objects, and their bytes."""

    objects: int
    bytes: int


def shared_use(url: str) -> SharedUse:
    """What lies in the shared tier at a URL.

    Raises:
        StoreError: it cannot be listed.
    """
    sizes = [file.size for file in _listed(url) if not file.uri.endswith(CLAIM)]
    return SharedUse(len(sizes), sum(sizes))


def clear_shared(url: str) -> SharedUse:
    """Remove everything from the shared tier at a URL; safe while jobs run: they fetch from the origin again.

    Raises:
        StoreError: it cannot be listed, or files in it not be removed.
    """
    files = _listed(url)
    # Claims last: an object that is gone and unclaimed is made anew.
    for file in sorted(files, key=lambda file: file.uri.endswith(CLAIM)):
        store().remove(file.uri)
    sizes = [file.size for file in files if not file.uri.endswith(CLAIM)]
    return SharedUse(len(sizes), sum(sizes))


def _listed(url: str) -> list[FileInfo]:
    """Objects and claims, and nothing else that may lie there."""
    try:
        return [file for file in store().list(url) if _OURS.search(file.uri)]
    except FileMissing:
        return []


class _OriginError(StoreError):
    """The origin failed while an object was made: not the shared tier's fault."""


def origin_failed(error: StoreError) -> bool:
    """Whether an error of `SharedTier` came from the origin."""
    return isinstance(error, _OriginError)


def _sums_of(data: bytes | memoryview, start: int) -> Sums:
    count = -(-len(data) // PAGE)
    pages = np.zeros((count, PAGE), np.uint8)
    pages.reshape(-1)[: len(data)] = np.frombuffer(data, np.uint8)
    return page_sums(pages, start // PAGE + np.arange(count))
