"""How many small reads become few larger requests: pure arithmetic on byte ranges, no input or output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReadSpan:
    """One contiguous read that serves several ranges.

    Attributes:
        start: first byte.
        end: the byte after the last.
        ranges: indices, into the list that was planned, of the ranges that lie in it.
    """

    start: int
    end: int
    ranges: tuple[int, ...]


def plan_spans(
    ranges: Sequence[tuple[int, int]], *, max_gap: int, max_span: int, amplification: float = 2.0
) -> list[ReadSpan]:
    """Merge ranges that lie near each other, so that one request serves many of them.

    A range joins the span before it while the hole between them is at most `max_gap` bytes, the span stays within
    `max_span` bytes, and the span reads at most `amplification` times the bytes that were asked for. A single range
    larger than `max_span` is a span of its own: who reads it may split it.

    `[(0, 10), (12, 8), (900, 10)]` with `max_gap=4` -> bytes 0 to 20 for the first two, 900 to 910 for the third.

    Args:
        ranges: (offset, size) in bytes, in any order; they may overlap and repeat. Empty ranges are left out.
        max_gap: the largest hole in bytes worth reading over.
        max_span: the largest merged read in bytes.
        amplification: bytes read over bytes asked for, at most, in each span.

    Returns:
        Spans in ascending order; each non-empty range is in exactly one.
    """
    order = sorted((offset, size, index) for index, (offset, size) in enumerate(ranges) if size > 0)
    spans: list[ReadSpan] = []
    start = end = wanted = 0
    members: list[int] = []
    for offset, size, index in order:
        last = offset + size
        new = max(last - max(end, offset), 0)
        grown = max(end, last)
        fits = offset - end <= max_gap and grown - start <= max_span
        if members and (last <= end or (fits and grown - start <= amplification * (wanted + new))):
            end, wanted = grown, wanted + new
            members.append(index)
            continue
        if members:
            spans.append(ReadSpan(start, end, tuple(members)))
        start, end, wanted, members = offset, last, size, [index]
    if members:
        spans.append(ReadSpan(start, end, tuple(members)))
    return spans
