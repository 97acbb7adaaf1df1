"""An export is cut into parts: files that are made on their own, in any order, and not again once they are whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

NAMED = 1_000
"""Samples of a part that are named where they could not be read; all are counted."""


@dataclass(frozen=True)
class ExportPart:
    """Neighbours in the order of an export.

    Attributes:
        name: of what is made of them, without an extension.
        start, stop: their positions in the order.
    """

    name: str
    start: int
    stop: int


@dataclass
class PartReport:
    """What became of a part.

    Attributes:
        samples: that were written.
        files: name below the target -> bytes.
        unreadable: samples that were left out, as storage did not give their bytes.
        named: key -> why, of the first of them.
        without: member -> samples that do not have it, and were written without.
        left: positions, in the order, of samples that were left out.
        left_out: what else could not be written, such as boxes -> how many.
    """

    samples: int = 0
    files: dict[str, int] = field(default_factory=dict)
    unreadable: int = 0
    named: dict[str, str] = field(default_factory=dict)
    without: dict[str, int] = field(default_factory=dict)
    left: list[int] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    def add(self, other: PartReport) -> None:
        """Add what became of another part."""
        self.samples += other.samples
        self.files |= other.files
        self.unreadable += other.unreadable
        self.named |= dict(list(other.named.items())[: max(0, NAMED - len(self.named))])
        for member, samples in other.without.items():
            self.lacks(member, samples)
        self.left += other.left
        for what, count in other.left_out.items():
            self.leaves_out(what, count)

    def lacks(self, member: str, samples: int) -> None:
        """Count samples that do not have a member."""
        if samples:
            self.without[member] = self.without.get(member, 0) + samples

    def leaves_out(self, what: str, count: int) -> None:
        """Count what is no sample and could not be written."""
        if count:
            self.left_out[what] = self.left_out.get(what, 0) + count


def cuts(sizes: NDArray[np.int64] | range, most_bytes: int | None, most_rows: int) -> list[int]:
    """Where runs of rows begin that have at most so many bytes and rows, and the end; a larger row is one by itself.

    `[5, 5, 5, 20, 5]` with 10 bytes and 3 rows -> 0, 2, 3, 4, 5

    Args:
        sizes: bytes of the rows; without a limit of bytes, anything of their number.
    """
    if most_bytes is None:
        return [*range(0, len(sizes), most_rows), len(sizes)]
    ends = np.cumsum(sizes)
    edges = [0]
    while (start := edges[-1]) < len(sizes):
        before = int(ends[start - 1]) if start else 0
        fits = int(np.searchsorted(ends, before + most_bytes, "right"))
        edges.append(min(max(fits, start + 1), start + most_rows, len(sizes)))
    return edges


def parts_of(edges: Sequence[int], name: str = "{:05d}") -> list[ExportPart]:
    """Parts between edges.

    Args:
        name: format of their names, given the number.
    """
    return [ExportPart(name.format(n), start, stop) for n, (start, stop) in enumerate(pairwise(edges)) if stop > start]
