"""Candidates for near-duplicates: pairs of thumbnails whose hashes differ in few bits, among any number of them.

A hash has 63 bits: the signs of the lowest frequencies of a thumbnail's DCT but the constant. Each thumbnail has one
for each alignment, and a pair is a candidate when the hash of one, aligned, is near the plain hash of the other.

They are found as neighbours in sorted order: plain hashes are sorted, and each aligned hash is compared with those
that stand next to where it would. Near hashes need not stand near each other, so that is done eight times, with the
hash rotated by one more byte each time; every byte holds coarse and fine frequencies, coarse ones first. Work is bound:
thumbnails x alignments x 8 x neighbours, however much alike the pictures are, and for few thumbnails all are looked at.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from factory_lib.curation.alignments import alignments, resampling
from factory_lib.progress import track
from factory_lib.signals.thumbnails import SIDE

DISTANCE = 10
"""Bits in which hashes of candidates differ at most."""

NEIGHBOURS = 4
"""Plain hashes in sorted order that an aligned hash is compared with, each way; more where there are few."""

LOOKS = 1 << 17
"""Comparisons that are always made for one alignment and rotation: up to 256 thumbnails, all with all."""

BLOCK = 1 << 12
PROBES = 1 << 20
_FREQUENCIES = 16

T = TypeVar("T")
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Candidates:
    """Pairs of thumbnails that may show the same: of each two thumbnails at most one, with the nearest hashes.

    Attributes:
        probe, base: places of the thumbnails, int64 (pairs,); `probe`, aligned, resembles `base`.
        alignment: index of the alignment, in the order of `alignments()`, uint8 (pairs,).
        distance: bits in which the hashes differ, uint8 (pairs,).
    """

    probe: NDArray[np.int64]
    base: NDArray[np.int64]
    alignment: NDArray[np.uint8]
    distance: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.probe)

    def where(self, kept: NDArray[np.bool_]) -> Candidates:
        """Some of them: bool (pairs,)."""
        return Candidates(self.probe[kept], self.base[kept], self.alignment[kept], self.distance[kept])


def hashes(thumbnails: NDArray[np.uint8]) -> Words:
    """Hashes of thumbnails in all alignments.

    Args:
        thumbnails: uint8 (n, 32, 32).

    Returns:
        uint64 (alignments, n); the first row is of the thumbnails as they are.
    """
    low, aligned = _transforms()
    found = np.empty((len(alignments()), len(thumbnails)), np.uint64)

    def block(start: int) -> None:
        flat = thumbnails[start : start + BLOCK].reshape(-1, SIDE * SIDE).astype(np.float32)
        signs = (flat @ low @ aligned > 0).reshape(len(flat), len(found), 64)
        packed = np.ascontiguousarray(np.packbits(signs, axis=2)).view(">u8")[..., 0]
        found[:, start : start + BLOCK] = packed.T

    in_threads(block, range(0, len(thumbnails), BLOCK), "hashing thumbnails")
    return found


def candidates(words: Words, distance: int = DISTANCE, neighbours: int | None = None) -> Candidates:
    """Pairs of thumbnails whose hashes are near each other in some alignment.

    Args:
        words: what `hashes` gave.
        distance: bits that may differ.
        neighbours: how many are compared each way in sorted order; by default `NEIGHBOURS`, or more where `LOOKS`
            comparisons allow it.
    """
    count = words.shape[1]
    if count < 2:
        return _joined([])
    reach = neighbours or max(NEIGHBOURS, min(count, LOOKS // count))
    found = [_by_rotation(words, rotation, distance, reach) for rotation in range(8)]
    return _joined([_reduced(found)])


_Found = tuple[NDArray[np.uint64], NDArray[np.uint16]]
"""A pair as one number (the smaller place in the high half), and what speaks for it: distance, direction, alignment."""


def _by_rotation(words: Words, rotation: int, distance: int, reach: int) -> _Found:
    """Pairs that stand next to each other when the hashes are sorted from one of their bytes on."""
    plain = _rotated(words[0], rotation)
    places = np.argsort(plain)
    plain = plain[places]
    flat = words.reshape(-1)
    found: list[_Found] = []

    def look(start: int) -> None:
        probes = _rotated(flat[start : start + PROBES], rotation)
        found.append(_near(probes, start, plain, places, distance, reach))

    in_threads(look, range(0, len(flat), PROBES), f"looking for near-duplicates, {rotation + 1} of 8")
    return _reduced(found)


def _near(
    probes: Words,
    start: int,
    plain: Words,
    places: NDArray[np.int64],
    distance: int,
    reach: int,
) -> _Found:
    """Pairs of probes, the first of them at `start` among all, with plain hashes next to them in sorted order."""
    at = np.searchsorted(plain, probes)
    pairs, reasons = [], []
    for step in range(-reach, reach):
        beside = at + step
        np.clip(beside, 0, len(plain) - 1, out=beside)
        differ = np.bitwise_count(plain[beside] ^ probes)
        rows = np.flatnonzero(differ <= distance)
        which, own = np.divmod(rows + start, len(plain))
        probe, base = own.astype(np.uint64), places[beside[rows]].astype(np.uint64)
        other = probe != base
        rows, which, probe, base = rows[other], which[other], probe[other], base[other]
        swapped = probe > base
        pairs.append(np.where(swapped, base << np.uint64(32) | probe, probe << np.uint64(32) | base))
        reasons.append(
            (differ[rows].astype(np.uint16) << 8) + (swapped.astype(np.uint16) << 7) + which.astype(np.uint16)
        )
    return _reduced([(np.concatenate(pairs), np.concatenate(reasons))])


def _reduced(found: list[_Found]) -> _Found:
    """Each pair once, with the smallest distance, then the first alignment."""
    pairs = np.concatenate([one[0] for one in found])
    reasons = np.concatenate([one[1] for one in found])
    order = np.lexsort((reasons, pairs))
    pairs, reasons = pairs[order], reasons[order]
    first = np.ones(len(pairs), bool)
    first[1:] = pairs[1:] != pairs[:-1]
    return pairs[first], reasons[first]


def _joined(found: list[_Found]) -> Candidates:
    pairs, reasons = found[0] if found else (np.zeros(0, np.uint64), np.zeros(0, np.uint16))
    small, large = (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
    swapped = (reasons >> 7 & 1).astype(bool)
    return Candidates(
        probe=np.where(swapped, large, small),
        base=np.where(swapped, small, large),
        alignment=(reasons & 127).astype(np.uint8),
        distance=(reasons >> 8).astype(np.uint8),
    )


def _rotated(words: Words, by: int) -> Words:
    """The words, rotated to the left by some bytes."""
    if not by:
        return words
    return words << np.uint64(8 * by) | words >> np.uint64(64 - 8 * by)


@functools.cache
def _transforms() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Thumbnail -> its 256 lowest frequencies -> the 64 numbers of each alignment whose signs are its hash.

    Aligning only what those frequencies hold costs a third of aligning all pixels, and finer ones hardly matter.
    """
    inverse = _cosines(_FREQUENCIES)
    low = np.kron(inverse, inverse).T
    eight = _cosines(8)
    taken = sorted(((u, v) for u in range(8) for v in range(8) if u or v), key=lambda at: (at[0] ** 2 + at[1] ** 2, at))
    # The hash's byte b has frequencies b, b + 8, …: each begins with a coarse one. The last bit of all is always 0.
    columns = [taken[byte + 8 * bit] if byte + 8 * bit < 63 else None for byte in range(8) for bit in range(8)]
    basis = np.zeros((64, SIDE * SIDE), np.float32)
    for place, at in enumerate(columns):
        if at is not None:
            basis[place] = np.kron(eight[at[0]], eight[at[1]])
    aligned = [low.T @ (basis @ resampling(matrix)).T for matrix in alignments().values()]
    return np.ascontiguousarray(low), np.ascontiguousarray(np.concatenate(aligned, axis=1))


def _cosines(count: int) -> NDArray[np.float32]:
    """The first rows of the orthonormal DCT-II of 32 numbers, float32 (count, 32)."""
    places = np.arange(SIDE)
    rows = np.cos(np.pi * np.arange(count)[:, None] * (2 * places + 1) / (2 * SIDE)) * np.sqrt(2 / SIDE)
    rows[0] /= np.sqrt(2)
    found: NDArray[np.float32] = rows.astype(np.float32)
    return found


def in_threads(work: Callable[[T], None], tasks: Sequence[T], what: str) -> None:
    """Do work on every task, a thread a core (numpy and torch let go of the interpreter), with progress."""
    with track(what, len(tasks)) as progress, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for _ in pool.map(work, tasks):
            progress.advance()
