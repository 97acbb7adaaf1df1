"""Which samples show the same as others: equal thumbnails, and pairs of different ones that correlate.

This loads torch: what imports it does so when it is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from factory_lib.curation.duplicates.distinct import Distinct, Pairs, Thumbnails, keys_among


@dataclass(frozen=True)
class Compared:
    """What was found among thumbnails that were all compared with each other.

    Attributes:
        numbers: of the distinct thumbnails, see `Thumbnails.numbers`, rising.
        pairs: `one` and `other` are places in `numbers`.
    """

    numbers: NDArray[np.uint64]
    pairs: Pairs

    def among(self, numbers: NDArray[np.uint64]) -> Pairs:
        """The pairs whose thumbnails are both among others, as places there."""
        if not len(numbers):
            return self.pairs.where(np.zeros(len(self.pairs.one), np.bool_))
        ends = [self.numbers[of] for of in (self.pairs.one, self.pairs.other)]
        places = [np.minimum(np.searchsorted(numbers, end), len(numbers) - 1) for end in ends]
        both = (numbers[places[0]] == ends[0]) & (numbers[places[1]] == ends[1])
        return self.pairs.between(*places).where(both)


def copies(given: Thumbnails, score: float, distance: int, before: Compared | None = None) -> Pairs:
    """Pairs of samples whose thumbnails show the same, each pair once.

    Of equal thumbnails the first is paired with each of the others, and stands for them in pairs with different ones.

    Args:
        score: correlation from which on two thumbnails show the same, see `pixels.SCORE`.
        distance: bits in which hashes of candidates differ at most.
        before: what the same search found among others, some of which are here again: they are not compared again.
    """
    there = Distinct.of(given)
    everything = np.ones(len(there.numbers), np.bool_)
    # where others would be looked up by other keys, nothing of before holds
    if before is None or keys_among(before.numbers) != there.keys:
        found = there.pairs(everything, everything, score, distance)
    else:
        new = ~np.isin(there.numbers, before.numbers)
        found = there.pairs(new, everything, score, distance).joined(before.among(there.numbers))
    found = found.between(there.first[found.one], there.first[found.other])
    first = there.first[there.places]
    follows = first != there.samples
    return Pairs.equal(first[follows], there.samples[follows]).joined(found).strongest()


def copies_in(reference: Thumbnails, given: Thumbnails, score: float, distance: int) -> Pairs:
    """Samples whose thumbnails show the same as any of a reference: `one` is the sample, rising, `other` that of the
    reference that it is most like, of several the first.

    Args:
        score, distance: as `copies` takes them.
    """
    start = int(given.owners[-1]) + 1 if len(given.owners) else 0
    both = Thumbnails(
        np.concatenate([given.planes, reference.planes]), np.concatenate([given.owners, reference.owners + start])
    )
    there = Distinct.of(both)
    of_reference = there.samples >= start
    in_reference = np.zeros(len(there.numbers), np.bool_)
    in_reference[there.places[of_reference]] = True
    first = np.zeros(len(there.numbers), np.int64)
    first[there.places[of_reference][::-1]] = there.samples[of_reference][::-1] - start
    equal = np.flatnonzero(in_reference)
    found = there.pairs(~in_reference, in_reference, score, distance)
    swapped = in_reference[found.one]
    sample, partner = np.where(swapped, found.other, found.one), np.where(swapped, found.one, found.other)
    best = Pairs.equal(equal, first[equal]).joined(found.between(sample, first[partner]))
    order = np.lexsort((best.other, -best.score, best.one))
    _, at = np.unique(best.one[order], return_index=True)
    chosen = order[at]
    match = np.full(len(there.numbers), -1)
    match[best.one[chosen]] = chosen
    mine = match[there.places]
    wanted = (mine >= 0) & ~of_reference
    rows = mine[wanted]
    return Pairs(there.samples[wanted], best.other[rows], best.score[rows], best.alignment[rows])
