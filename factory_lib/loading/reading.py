"""Sample bytes into one buffer: local files by `pread` straight into their place, all others through the cache."""

from __future__ import annotations

import os
import weakref
from collections import Counter, OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from os import preadv

import numpy as np
from numpy.typing import NDArray

from factory_lib.errors import FileChanged, FileDamaged
from factory_lib.loading.index import Pointers
from factory_lib.storage import retry
from factory_lib.storage.cache import FETCHES, BlockCache, CacheRequest
from factory_lib.storage.files import is_state
from factory_lib.storage.local import etag_of
from factory_lib.storage.mirror import Range
from factory_lib.storage.store import FileInfo, is_local, store

OPEN_FILES = 128

Bytes = NDArray[np.uint8]


class SampleReader:
    """Reads samples of the files that an index numbers.

    Args:
        files: with the etags that reads are pinned to.
        cache: of remote files; None reads them from where they live each time.

    Attributes:
        counters: bytes by where they came from, for the loader's statistics.
    """

    def __init__(self, files: Sequence[FileInfo], cache: BlockCache | None = None) -> None:
        self._files = files
        self._cache = cache
        self._remote = np.array([not is_local(file.uri) for file in files])
        self._open: OrderedDict[int, int] = OrderedDict()
        weakref.finalize(self, _close_all, self._open)
        self.counters: Counter[str] = Counter()

    def read(self, pointers: Pointers, out: Bytes, starts: NDArray[np.int64]) -> None:
        """Read the samples that `pointers` names; sample i to ``out[starts[i] : starts[i] + size[i]]``.

        Raises:
            FileMissing, FileChanged, FileDamaged: a shard is gone, was replaced since it was indexed, or ends too
                early; it is named.
            StoreError: the storage cannot be read.
        """
        order = np.lexsort((pointers.offset, pointers.file))
        edges = np.flatnonzero(np.diff(pointers.file[order].astype(np.int64), prepend=-1, append=-1)).tolist()
        view, begins, ends = out.data, starts[order].tolist(), (starts + pointers.size)[order].tolist()
        places = [view[begin:end] for begin, end in zip(begins, ends, strict=True)]
        ranges = list(zip(pointers.offset[order].tolist(), places, strict=True))
        remote: list[CacheRequest] = []
        for (first, last), number in zip(pairwise(edges), pointers.file[order[edges[:-1]]].tolist(), strict=True):
            if self._remote[number]:
                remote.append(CacheRequest(self._files[number], ranges[first:last]))
            else:
                self._read_local(number, ranges[first:last])
        if remote and self._cache is not None:
            self._cache.read(remote)
        elif remote:
            with ThreadPoolExecutor(FETCHES) as pool:
                list(pool.map(self._read_remote, remote))

    def take_counters(self) -> Counter[str]:
        """Bytes by the tier they came from, the cache's other counters and retries of storage, since the last call."""
        taken, self.counters = self.counters + retry.take_counters(), Counter()
        return taken + self._cache.take_counters() if self._cache is not None else taken

    def close(self) -> None:
        """Close the files that are kept open; they are also closed with the reader."""
        _close_all(self._open)

    def _read_local(self, number: int, ranges: Sequence[Range]) -> None:
        descriptor = self._descriptor(number)
        for offset, place in ranges:
            try:
                found = preadv(descriptor, (place,), offset)
            except OSError as error:
                raise FileDamaged(
                    f"{self._files[number].uri} cannot be read at byte {offset}: {error.strerror}.",
                    "Does its disk give errors? Restore the file, and ingest the shard again where it changed.",
                ) from error
            if found != len(place):
                raise FileDamaged(
                    f"{self._files[number].uri} ends before byte {offset + len(place)}.",
                    "The file was truncated since it was ingested; ingest the shard again.",
                )
        self.counters["bytes_local"] += sum([len(place) for _, place in ranges])

    def _read_remote(self, request: CacheRequest) -> None:
        bounds = [(offset, len(place)) for offset, place in request.ranges]
        parts = store().read_ranges(request.file.uri, bounds, etag=request.file.etag or None)
        for (_, place), part in zip(request.ranges, parts, strict=True):
            place[:] = part
        self.counters["bytes_origin"] += sum(size for _, size in bounds)

    def _descriptor(self, number: int) -> int:
        """An open file, checked to be the one indexed: a replaced file has another inode, an overwritten one another
        time.
        """
        file = self._files[number]
        descriptor = self._open.pop(number, None)
        if descriptor is None:
            try:
                descriptor = os.open(file.uri, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                store().info(file.uri)  # raises the error that explains
                raise
            if len(self._open) >= OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
        self._open[number] = descriptor
        found = os.fstat(descriptor)
        if file.etag and not is_state(etag_of(found), file.etag):
            raise FileChanged(
                f"{file.uri} was overwritten since it was indexed for loading.",
                "Ingest the shard again and load the new version; pointers of the older version are void.",
            )
        return descriptor


def _close_all(descriptors: OrderedDict[int, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])
