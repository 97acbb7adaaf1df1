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
from os import preadv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from factory_lib.owners import write_whole
from factory_lib.storage.files import FileInfo

PAGE = 4096
SCRATCH_PAGES = 64  # for samples of up to 256 KiB; memory for larger ones is made as needed
LOCK_SECONDS = 30.0

Sums = NDArray[np.uint64]
Range = tuple[int, memoryview]  # where it begins, and where its bytes go: as many as fit


def page_sums(pages: NDArray[np.uint8], numbers: NDArray[np.int64]) -> Sums:
    """Checksums (n,) of pages (n, 4096) at page numbers (n,): XXH3, seeded with the number, so that a page in another's
    place is found, too. A page whose checksum happens to be 0 is never kept.
    """
    return np.fromiter(map(xxh3_64_intdigest, pages, numbers.tolist()), np.uint64, len(pages))


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
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder / "about.json"
        if not about.exists():
            write_whole(about, json.dumps({"uri": file.uri, "size": file.size, "etag": file.etag}).encode())
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._data = os.open(folder / "data", flags, 0o600)
        weakref.finalize(self, os.close, self._data)  # when the last thread that uses it lets go
        self.sums = self._open_sums(folder / "sums", flags)
        self._sums_view = memoryview(self.sums)  # type: ignore[arg-type]

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

    def read(self, ranges: Sequence[Range]) -> tuple[list[Range], int]:
        """Copy ranges to their places, those that are here and whole.

        Args:
            ranges: where each begins, and a writable buffer for as many bytes as fit.

        Returns:
            The ranges that were not copied, and how many pages did not match their checksum: they are absent from now
            on.
        """
        left: list[Range] = []
        corrupt, scratch = 0, _scratch()
        for offset, place in ranges:
            first, last = offset // PAGE, -(-(offset + len(place)) // PAGE)
            expected = self._sums_view[first:last].tolist()
            if last - first > len(scratch.pages):
                scratch = _Scratch(last - first)
            length = (last - first) * PAGE
            if 0 in expected or preadv(self._data, (scratch.whole[:length],), first * PAGE) != length:
                left.append((offset, place))
                continue
            found = list(map(xxh3_64_intdigest, scratch.pages, range(first, last)))
            if found == expected:
                skip = offset - first * PAGE
                place[:] = scratch.whole[skip : skip + len(place)]
            else:
                left.append((offset, place))
                wrong = [first + i for i, pair in enumerate(zip(found, expected, strict=False)) if len(set(pair)) > 1]
                self.sums[wrong] = 0
                corrupt += len(wrong)
        return left, corrupt

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
        if len(data) % PAGE:
            data = bytes(data).ljust(-(-len(data) // PAGE) * PAGE, b"\0")
        view, at = memoryview(data), 0
        while at < len(view):
            at += os.pwrite(self._data, view[at:], start + at)
        pages = np.frombuffer(data, np.uint8).reshape(-1, PAGE)
        numbers = start // PAGE + np.arange(len(pages))
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


class _Scratch:
    """Memory to read pages into: a view of all of it, and one of each page."""

    def __init__(self, pages: int) -> None:
        self.whole = memoryview(bytearray(pages * PAGE))
        self.pages = [self.whole[at : at + PAGE] for at in range(0, pages * PAGE, PAGE)]


_kept = threading.local()


def _scratch() -> _Scratch:
    """The same for each read of a thread: it stays in the processor's cache."""
    if not hasattr(_kept, "scratch"):
        _kept.scratch = _Scratch(SCRATCH_PAGES)
    found: _Scratch = _kept.scratch
    return found


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
