"""The local copy of one remote file: sparse, filled page by page, every page checked whenever it is read.

Two files: `data`, as large as the original and with holes where nothing was kept, and `sums`, one 64-bit checksum a
page, 0 for a page that is absent. A page is written first and its checksum set last; nothing else says that a page is
there. So no crash, race or flipped bit can pass for content: what doesn't match its checksum is absent.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import struct
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory_lib.storage.files import FileInfo

PAGE = 4096
READ_PAGES = 256  # pages read and checked at once: 1 MiB, small enough for the processor's cache
LOCK_SECONDS = 30.0

Sums = NDArray[np.uint64]
Mask = NDArray[np.bool_]

_WORDS = PAGE // 8
_WEIGHTS = np.random.Philox(key=0x5EED).random_raw(2 * _WORDS).reshape(2, _WORDS) | np.uint64(1)


def page_sums(pages: NDArray[np.uint8], numbers: NDArray[np.int64]) -> Sums:
    """Checksums (n,) of pages (n, 4096) at page numbers (n,); never 0.

    Two multilinear sums modulo 2**64 with odd random weights (Carter & Wegman 1979): one over the words, one over
    their upper halves, where a low bit of the first sum would hide changes. A change of one word is always found,
    others all but 2**-32 of the time.
    """
    low: Sums = np.einsum("ij,j->i", pages.view(np.uint64), _WEIGHTS[0])
    upper = pages.view("<u4")[:, 1::2]
    high: Sums = np.einsum("ij,j->i", upper, _WEIGHTS[1], dtype=np.uint64, casting="safe")
    sums = low ^ high ^ (numbers.astype(np.uint64) + np.uint64(1)) * _WEIGHTS[0, 0]
    return np.where(sums == 0, np.uint64(1), sums)


class Mirror:
    """One file's mirror; for any number of processes at once.

    Args:
        folder: of the mirror; made where it is absent.
        file: that is mirrored.

    Raises:
        OSError: the folder cannot be read or written, or the disk is full.
    """

    def __init__(self, folder: Path, file: FileInfo) -> None:
        self.folder, self.file = folder, file
        self.pages = -(-file.size // PAGE)
        folder.mkdir(parents=True, exist_ok=True)
        about = folder / "about.json"
        if not about.exists():
            _write_whole(about, json.dumps({"uri": file.uri, "size": file.size, "etag": file.etag}).encode())
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._data = os.open(folder / "data", flags, 0o600)
        weakref.finalize(self, os.close, self._data)  # when the last thread that uses it lets go
        self.sums = self._open_sums(folder / "sums", flags)

    def _open_sums(self, path: Path, flags: int) -> Sums:
        # Real blocks, or a full disk would end the process with SIGBUS when a checksum is set.
        descriptor = os.open(path, flags, 0o600)
        try:
            length = max(self.pages, 1) * 8
            if os.fstat(descriptor).st_size < length:
                os.posix_fallocate(descriptor, 0, length)
            if os.fstat(self._data).st_size < self.pages * PAGE:
                os.ftruncate(self._data, self.pages * PAGE)
            return np.frombuffer(mmap.mmap(descriptor, length), np.uint64)[: self.pages]
        finally:
            os.close(descriptor)

    def read(
        self, offsets: NDArray[np.int64], sizes: NDArray[np.int64], places: Sequence[memoryview]
    ) -> tuple[Mask, int]:
        """Copy ranges to their places, those that are here and whole.

        Args:
            offsets, sizes: bytes (n,).
            places: n writable buffers of these sizes.

        Returns:
            Which ranges were copied (n,), and how many pages did not match their checksum: they are absent from now
            on.
        """
        first = offsets // PAGE
        counts = np.where(sizes > 0, (offsets + sizes - 1) // PAGE - first + 1, 0)
        done = np.zeros(len(offsets), np.bool_)
        corrupt = 0
        group = np.cumsum(counts) // READ_PAGES
        edges = np.flatnonzero(np.diff(group, prepend=-1, append=-1))
        for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            part = slice(start, stop)
            done[part], bad = self._read_part(offsets[part], sizes[part], first[part], counts[part], places[part])
            corrupt += bad
        return done, corrupt

    def _read_part(
        self,
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        first: NDArray[np.int64],
        counts: NDArray[np.int64],
        places: Sequence[memoryview],
    ) -> tuple[Mask, int]:
        ends = np.cumsum(counts)
        starts = ends - counts
        total = int(ends[-1])
        numbers = np.repeat(first - starts, counts) + np.arange(total)
        if total and int(numbers[-1]) >= self.pages and int(numbers.max()) >= self.pages:
            inside = numbers < self.pages
            expected = np.where(inside, self.sums[np.minimum(numbers, self.pages - 1)], np.uint64(0))
        else:
            expected = self.sums[numbers]
        absent = np.concatenate([[0], np.cumsum(expected == 0)])
        here = absent[ends] == absent[starts]
        if not here.any():
            return here, 0
        scratch = _scratch(total)
        view = scratch.reshape(-1).data
        for index in np.flatnonzero(here).tolist():
            at, length = int(starts[index]) * PAGE, int(counts[index]) * PAGE
            if os.preadv(self._data, [view[at : at + length]], int(first[index]) * PAGE) != length:
                here[index] = False
        chosen = np.repeat(here, counts)
        wrong = np.zeros(total, np.bool_)
        wrong[chosen] = page_sums(scratch[chosen] if not chosen.all() else scratch, numbers[chosen]) != expected[chosen]
        if wrong.any():
            self.sums[numbers[wrong]] = 0
            bad = np.concatenate([[0], np.cumsum(wrong)])
            here &= bad[ends] == bad[starts]
        skip = (starts * PAGE + offsets - first * PAGE).tolist()
        for index, (at, size) in enumerate(zip(skip, sizes.tolist(), strict=True)):
            if here[index]:
                places[index][:] = view[at : at + size]
        return here, int(wrong.sum())

    def missing(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The byte ranges, of whole pages, that ``[start, stop)`` needs and that are not here."""
        first, last = start // PAGE, min(-(-stop // PAGE), self.pages)
        absent = np.concatenate([[False], self.sums[first:last] == 0, [False]])
        edges = np.flatnonzero(np.diff(absent)) + first
        return [
            (a * PAGE, min(b * PAGE, self.file.size))
            for a, b in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
        ]

    def write(self, start: int, data: bytes | memoryview) -> None:
        """Keep the bytes at `start`, the beginning of a page; they end with a page or with the file.

        Raises:
            OSError: the disk is full, or other trouble; nothing counts as written then.
        """
        count = -(-len(data) // PAGE)
        pages = np.zeros((count, PAGE), np.uint8)
        pages.reshape(-1)[: len(data)] = np.frombuffer(data, np.uint8)
        view, at = pages.reshape(-1).data, 0
        while at < len(view):
            at += os.pwrite(self._data, view[at:], start + at)
        numbers = start // PAGE + np.arange(count)
        self.sums[numbers] = page_sums(pages, numbers)

    def drop(self, first: int, last: int) -> int:
        """Give the pages ``[first, last)`` back to the disk; returns bytes that were kept there.

        Raises:
            OSError: the file system cannot do that; everything is as it was.
        """
        before = self.sums[first:last].copy()
        self.sums[first:last] = 0
        try:
            _punch_hole(self._data, first * PAGE, (last - first) * PAGE)
        except OSError:
            self.sums[first:last] = before
            raise
        return int(np.count_nonzero(before)) * PAGE

    def stamp(self) -> bool:
        """Note that it is in use; False where it has been removed."""
        try:
            os.utime(self.folder / "about.json")
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def claimed(self, start: int, stop: int) -> Iterator[None]:
        """Be the only one on this machine to fetch ``[start, stop)``, as far as 30 seconds of waiting go."""
        command = getattr(fcntl, "F_OFD_SETLK", None)
        if command is None or not sys.platform.startswith("linux"):
            yield
            return
        try:  # a description of its own for each claim, so that threads exclude each other, too
            descriptor = os.open(self.folder / "data", os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # removed meanwhile
            yield
            return
        try:
            wait, deadline = 0.001, time.monotonic() + LOCK_SECONDS
            request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, start, stop - start, 0)
            while time.monotonic() < deadline:
                try:
                    fcntl.fcntl(descriptor, command, request)
                    break
                except OSError as error:
                    if error.errno not in {errno.EAGAIN, errno.EACCES}:
                        break  # no locks on this file system: at worst something is fetched twice
                time.sleep(wait)
                wait = min(wait * 2, 0.02)
            yield
        finally:
            os.close(descriptor)


_kept = threading.local()


def _scratch(pages: int) -> NDArray[np.uint8]:
    """Pages (n, 4096) to read into, the same memory again for each read of a thread."""
    if pages > 2 * READ_PAGES:
        return np.empty((pages, PAGE), np.uint8)
    if not hasattr(_kept, "pages"):
        _kept.pages = np.empty((2 * READ_PAGES, PAGE), np.uint8)
    found: NDArray[np.uint8] = _kept.pages[:pages]
    return found


def _write_whole(path: Path, data: bytes) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    beside.write_bytes(data)
    beside.replace(path)


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _punch_hole(descriptor: int, offset: int, length: int) -> None:
    """Free the blocks of a range and keep the file's size (Linux: fallocate with PUNCH_HOLE | KEEP_SIZE)."""
    if not sys.platform.startswith("linux"):
        raise OSError(errno.EOPNOTSUPP, "no holes can be punched on this system")
    call = _libc().fallocate
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if call(descriptor, 3, offset, length):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
