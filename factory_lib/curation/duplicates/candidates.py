"""Candidates for near-duplicates: pairs of thumbnails whose hashes differ in few bits, among any number of them.

A hash has 63 bits: the signs of the lowest frequencies of a thumbnail's DCT but the constant. Each thumbnail has one
for each alignment, and a pair is a candidate when the hash of one, aligned, is near the plain hash of the other.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from factory_lib.curation.duplicates.alignments import alignments, resampling
from factory_lib.curation.duplicates.hamming import Key, Search, Words, nearby
from factory_lib.curation.threads import in_threads
from factory_lib.signals.thumbnails import SIDE

DISTANCE = 10
"""Bits in which hashes of candidates differ at most."""

NOISE = 0.05
"""What a frequency must exceed to count as positive: those that a symmetric picture lacks are zero but for rounding,
which differs with the pictures that are hashed together."""

BLOCK = 1 << 12
_FREQUENCIES = 16


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
        signs = (flat @ low @ aligned > NOISE).reshape(len(flat), len(found), 64)
        packed = np.ascontiguousarray(np.packbits(signs, axis=2)).view(">u8")[..., 0]
        found[:, start : start + BLOCK] = packed.T

    in_threads(block, range(0, len(thumbnails), BLOCK), "hashing thumbnails")
    return found


def candidates(
    words: Words, distance: int = DISTANCE, keys: Sequence[Key] | None = None, among: Sequence[Search] = ()
) -> Candidates:
    """Pairs of thumbnails whose hashes are near each other in some alignment; see `nearby` for which are found.

    Args:
        words: what `hashes` gave.
        distance: bits that may differ.
        keys, among: see `nearby`.
    """
    pairs, reasons = nearby(words, distance, keys, among)
    small, large = (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
    swapped = (reasons >> 7 & 1).astype(bool)
    return Candidates(
        probe=np.where(swapped, large, small),
        base=np.where(swapped, small, large),
        alignment=(reasons & 127).astype(np.uint8),
        distance=(reasons >> 8).astype(np.uint8),
    )


@functools.cache
def _transforms() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Thumbnail -> its 256 lowest frequencies -> the 64 numbers of each alignment whose signs are its hash.

    Aligning only what those frequencies hold costs a third of aligning all pixels, and finer ones hardly matter.
    """
    inverse = _cosines(_FREQUENCIES)
    low = np.kron(inverse, inverse).T
    eight = _cosines(8)
    taken = sorted(((u, v) for u in range(8) for v in range(8) if u or v), key=lambda at: (at[0] ** 2 + at[1] ** 2, at))
    # The first half of the hash has the coarser frequencies, of which fewer differ between copies, so that more copies
    # have bytes in common; within a half all bytes are alike. The last bit of all is always 0.
    order = [32 * (byte // 4) + byte % 4 + 4 * bit for byte in range(8) for bit in range(8)]
    columns = [taken[rank] if rank < 63 else None for rank in order]
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
