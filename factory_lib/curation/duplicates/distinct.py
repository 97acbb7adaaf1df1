"""Thumbnails of samples, the distinct ones among them, and which of these show the same.

What a pair of thumbnails gives depends on these two alone: not on the samples that have them, nor on their order. So
distinct thumbnails are told, and ordered, by a number made of their levels.

This loads torch: what imports it does so when it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from factory_lib.curation.duplicates.alignments import alignments
from factory_lib.curation.duplicates.candidates import Candidates, candidates, hashes
from factory_lib.curation.duplicates.correlation import EVIDENCE, correlations, structure
from factory_lib.curation.duplicates.hamming import Key, keys_for
from factory_lib.signals.thumbnails import SIDE

DIGITS = 4
"""Decimals of a correlation: further ones differ with the pairs that are compared together."""

_BLOCK = 1 << 14


@dataclass(frozen=True)
class Thumbnails:
    """Thumbnails of samples.

    Attributes:
        planes: uint8 (planes, 32, 32), one or two of each sample.
        owners: the sample that each is of, int64 (planes,), rising.
    """

    planes: NDArray[np.uint8]
    owners: NDArray[np.int64]

    def numbers(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """The samples that have a thumbnail, rising, and a number of each that equal thumbnails share."""
        weights = np.random.default_rng(0).integers(0, 2**63, (2, SIDE * SIDE // 8), dtype=np.uint64) | np.uint64(1)
        samples, first = np.unique(self.owners, return_index=True)
        second = np.ones(len(self.owners), np.int64)
        second[first] = 0
        numbers = np.empty(len(self.owners), np.uint64)
        for start in range(0, len(numbers), _BLOCK):
            rows = slice(start, start + _BLOCK)
            block = np.ascontiguousarray(self.planes[rows]).reshape(-1, SIDE * SIDE // 8, 8).view(np.uint64)[..., 0]
            numbers[rows] = (block * weights[second[rows]]).sum(axis=1)
        return samples, np.add.reduceat(numbers, first) if len(first) else np.zeros(0, np.uint64)


@dataclass(frozen=True)
class Pairs:
    """Pairs that show the same.

    Attributes:
        one, other: rows of samples, or places of thumbnails, int64 (pairs,).
        score: correlation of their gradients, float32 (pairs,).
        alignment: index of the alignment, in the order of `alignments()`, uint8 (pairs,).
    """

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    score: NDArray[np.float32]
    alignment: NDArray[np.uint8]

    @classmethod
    def equal(cls, one: NDArray[np.int64], other: NDArray[np.int64]) -> Pairs:
        """Pairs of what is equal."""
        return cls(one, other, np.ones(len(one), np.float32), np.zeros(len(one), np.uint8))

    def where(self, kept: NDArray[np.bool_]) -> Pairs:
        """Some of them: bool (pairs,)."""
        return Pairs(self.one[kept], self.other[kept], self.score[kept], self.alignment[kept])

    def between(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> Pairs:
        """The same, of other ends."""
        return Pairs(one, other, self.score, self.alignment)

    def joined(self, more: Pairs) -> Pairs:
        """These and more."""
        return Pairs(
            np.concatenate([self.one, more.one]),
            np.concatenate([self.other, more.other]),
            np.concatenate([self.score, more.score]),
            np.concatenate([self.alignment, more.alignment]),
        )

    def strongest(self) -> Pairs:
        """Each pair once, the smaller end first, with the highest score, then the first alignment."""
        small, large = np.minimum(self.one, self.other), np.maximum(self.one, self.other)
        order = np.lexsort((self.alignment, -self.score, large, small))
        small, large = small[order], large[order]
        first = np.ones(len(order), np.bool_)
        first[1:] = (small[1:] != small[:-1]) | (large[1:] != large[:-1])
        return Pairs(small[first], large[first], self.score[order][first], self.alignment[order][first])


@dataclass(frozen=True)
class Distinct:
    """The thumbnails that can be compared, each once.

    Attributes:
        numbers: of each, rising; where one of them stands is its place.
        first: the first sample that has it.
        samples, places: the samples that have one, rising, and its place.
        planes: of all of them, in their order; those of one colour are left out, and trimmed outlines, which fill the
            square as any other does.
        place_of: of each plane, the place of the thumbnail that it belongs to.
        outlines: of each plane, whether it is little but an outline.
        keys: by which candidates are looked up.
    """

    numbers: NDArray[np.uint64]
    first: NDArray[np.int64]
    samples: NDArray[np.int64]
    places: NDArray[np.int64]
    planes: NDArray[np.uint8]
    place_of: NDArray[np.int64]
    outlines: NDArray[np.bool_]
    keys: Sequence[Key]

    @classmethod
    def of(cls, given: Thumbnails) -> Distinct:
        """Those of some samples."""
        samples, numbers = given.numbers()
        keys = keys_among(numbers)
        outlines = structure(given.planes) < EVIDENCE
        usable = np.flatnonzero(_uneven(given.planes) & ~(outlines & _trimmed(given.owners)))
        has_some = np.isin(samples, given.owners[usable])
        samples, numbers = samples[has_some], numbers[has_some]
        distinct, first, places = np.unique(numbers, return_index=True, return_inverse=True)
        rank = np.full(int(given.owners[-1]) + 1 if len(given.owners) else 0, -1)
        rank[samples[first]] = np.arange(len(first))
        rows = usable[rank[given.owners[usable]] >= 0]
        rows = rows[np.argsort(rank[given.owners[rows]], kind="stable")]
        return cls(
            distinct,
            samples[first],
            samples,
            places,
            given.planes[rows],
            rank[given.owners[rows]],
            outlines[rows],
            keys,
        )

    def pairs(self, some: NDArray[np.bool_], others: NDArray[np.bool_], score: float, distance: int) -> Pairs:
        """Pairs of places, of which the one is among some and the other among others.

        Args:
            some, others: bool, of each place.
            score: correlation from which on two thumbnails show the same, see `pixels.SCORE`.
            distance: bits in which hashes of candidates differ at most.
        """
        one, other = some[self.place_of], others[self.place_of]
        if not one.any() or not other.any():
            none = np.zeros(0, np.int64)
            return Pairs.equal(none, none)
        among = [(np.flatnonzero(one), np.flatnonzero(other)), (np.flatnonzero(other & ~one), np.flatnonzero(one))]
        near = candidates(hashes(self.planes), distance, self.keys, among)
        near = near.where(self.place_of[near.probe] != self.place_of[near.base])
        near = near.where((near.alignment == 0) | ~(self.outlines[near.probe] | self.outlines[near.base]))
        return self._compared(near, score)

    def _compared(self, near: Candidates, score: float) -> Pairs:
        scores = correlations(self.planes, self.outlines, near, score).round(DIGITS)
        found = Pairs(self.place_of[near.probe], self.place_of[near.base], scores.clip(max=1), near.alignment)
        return found.where(scores >= np.float32(score)).strongest()


def keys_among(numbers: NDArray[np.uint64]) -> list[Key]:
    """The keys by which candidates are looked up among thumbnails with these numbers."""
    count = len(np.unique(numbers))
    return keys_for(len(alignments()) * count, count)


def _trimmed(owners: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which planes are the second ones of their samples: without margins."""
    found = np.zeros(len(owners), np.bool_)
    found[1:] = owners[1:] == owners[:-1]
    return found


def _uneven(planes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which planes are not of one colour: with a standard deviation above one grey level."""
    found = np.zeros(len(planes), np.bool_)
    for start in range(0, len(planes), _BLOCK):
        found[start : start + _BLOCK] = planes[start : start + _BLOCK].std(axis=(1, 2), dtype=np.float32) > 1
    return found
