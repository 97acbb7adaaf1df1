"""Which source each position of a mix is of: shares that are exact in the long run, and nearly so in the short.

The sources are the leaves of a binary tree. Of the n first positions of a branch, its left half gets
``floor(n p + phase)``, with p the share of its weight, so each branch is off by less than one row wherever the sequence
is cut: a low-discrepancy order (Sturmian sequences, Morse and Hedlund 1940). Counts are exact fractions of whole
numbers, and any position is found without looking at those before it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from factory_lib.errors import LoaderError


@dataclass(frozen=True)
class _Branch:
    """The left half's share of the rows, as a fraction of whole numbers, and its phase as another over the same."""

    left: _Branch | int
    right: _Branch | int
    share: int
    phase: int
    whole: int

    def counts(self, rows: int, counts: list[int]) -> None:
        taken = (rows * self.share + self.phase) // self.whole
        for half, part in ((self.left, taken), (self.right, rows - taken)):
            if isinstance(half, int):
                counts[half] = part
            else:
                half.counts(part, counts)


class Shares:
    """How a sequence is dealt to sources.

    Args:
        weights: of the sources, in any unit.
        seed: of where in their sequences the sources begin.

    Raises:
        LoaderError: a weight is not a positive number.
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        if not weights or not all(math.isfinite(weight) and weight > 0 for weight in weights):
            raise LoaderError(f"Weights {list(weights)} cannot be: each is a positive number.")
        self.sources = len(weights)
        # Decimal numbers are what was meant: 0.1 and 0.2 are one to two, their binary neighbours are not.
        exact = [Fraction(str(weight)) for weight in weights]
        self._root = _tree(list(range(len(exact))), exact, seed)

    def before(self, position: int) -> list[int]:
        """How many of the positions before one are of each source."""
        counts = [0] * self.sources
        if isinstance(self._root, int):
            counts[self._root] = position
        else:
            self._root.counts(position, counts)
        return counts

    def spans(self, start: int, stop: int) -> list[tuple[int, int]]:
        """For each source, the positions of it that ``[start, stop)`` of the sequence takes."""
        return list(zip(self.before(start), self.before(stop), strict=True))


def _tree(sources: list[int], weights: list[Fraction], seed: int) -> _Branch | int:
    if len(sources) == 1:
        return sources[0]
    middle = len(sources) // 2
    left, right = sources[:middle], sources[middle:]
    share = sum((weights[i] for i in left), Fraction(0)) / sum((weights[i] for i in sources), Fraction(0))
    digest = hashlib.blake2b(f"mix\0{seed}\0{sources}".encode(), digest_size=8).digest()
    whole = share.denominator
    phase = int.from_bytes(digest, "little") * whole >> 64
    return _Branch(_tree(left, weights, seed), _tree(right, weights, seed), share.numerator, phase, whole)
