"""What a loader knows of the future: the next windows, to fetch them early, and each unit's next use, to evict the last
one first.

Evicting what is used furthest ahead is optimal (Belady 1966); the order of this epoch and of the next one are both
known.
"""

from __future__ import annotations

import bisect
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from factory_lib.loading.index import Index, Pointers
from factory_lib.loading.order import Order, Rows
from factory_lib.storage.cache import MAX_GAP_BYTES, MAX_SPAN_BYTES, BlockCache
from factory_lib.storage.mirror import PAGE
from factory_lib.storage.shared import content_key
from factory_lib.storage.spans import plan_spans
from factory_lib.storage.store import FileInfo, is_local

Orders = Callable[[int], Order]


class Ahead:
    """Fetches ahead for one process, and tells its cache what is needed last.

    Args:
        index: of the rows.
        members: that are read.
        orders: makes the order of an epoch.
        share: (number of this worker, workers of the rank); they divide the lanes among themselves.
    """

    def __init__(self, index: Index, members: Sequence[str], orders: Orders, share: tuple[int, int]) -> None:
        self._index, self._members = index, members
        self._orders, self._share = orders, share
        self._remote = np.array([not is_local(file.uri) for file in index.files])
        self._keys = {content_key(file) for file in index.files}
        self._windows: dict[int, dict[int, list[tuple[int, int, int]]]] = {}  # lane, window: spans
        self._sorted: dict[str, list[tuple[int, int]]] = {}
        self._epoch = -1
        self._at = 0
        self._lanes: Rows = np.arange(0)
        self._uses: dict[int, tuple[Rows, Rows, Rows]] = {}
        self._extents: tuple[Rows, Rows, Rows, Rows] | None = None

    @property
    def useful(self) -> bool:
        """Whether any file is remote."""
        return bool(self._remote.any())

    def advance(self, cache: BlockCache, epoch: int, start: int, positions: Rows) -> None:
        """Ask for the windows that the batch at `start` and those after it take from this worker's lanes."""
        order = self._orders(epoch)
        if not order.key.shuffle:
            return
        if epoch != self._epoch:
            self._epoch, self._windows = epoch, {}
            self._uses = {e: uses for e, uses in self._uses.items() if e >= epoch}
        self._at = start // order.key.lanes
        self._lanes = np.unique(positions % order.key.rows % order.key.lanes)
        for lane in self._lanes.tolist():
            now, ahead = order.window_of(lane, self._at), order.window_of(lane, self._at + order.window)
            windows = self._windows.setdefault(lane, {})
            for old in [window for window in windows if window < now]:
                del windows[old]
                self._sorted.clear()
            for window in range(now, ahead + 1):
                if window not in windows:
                    windows[window] = self._spans(order.window_rows(lane, window))
                    self._sorted.clear()
                    if lane % self._share[1] == self._share[0]:
                        for number, first, last in windows[window]:
                            cache.prefetch(self._index.files[number], first, last)

    def span_around(self, file: FileInfo, start: int, stop: int) -> tuple[int, int] | None:
        """The part of a file, of one of the current or next windows, that contains ``[start, stop)``; None where there
        is none.
        """
        if not self._sorted:
            everything = (span for windows in self._windows.values() for spans in windows.values() for span in spans)
            for number, first, last in sorted(everything):
                self._sorted.setdefault(self._index.files[number].uri, []).append((first, last))
        spans = self._sorted.get(file.uri, [])
        # Spans of two windows may overlap where a unit is cut in two: look back a little.
        at = bisect.bisect_right(spans, (start, sys.maxsize))
        return next((span for span in reversed(spans[max(0, at - 4) : at]) if span[1] >= stop), None)

    def knows(self, key: str) -> bool:
        """Whether a mirror, by its key, is of a file of this version."""
        return key in self._keys

    def last_needed(self, cache: BlockCache) -> Iterator[tuple[FileInfo, int, int]]:
        """Units kept on disk, that of the most distant use first; none that is used within the next two windows."""
        if self._epoch < 0:
            return
        unit, number, first, last = self._unit_extents()
        need = self._next_use()[unit]
        soon = self._at + 2 * self._orders(self._epoch).window
        candidates = np.flatnonzero((need > soon) & (first < last))
        kept = np.zeros(len(unit), np.bool_)
        for file in np.unique(number[candidates]).tolist():
            mine = candidates[number[candidates] == file]
            kept[mine] = cache.present(self._index.files[file], first[mine])
        candidates = candidates[kept[candidates]]
        for entry in candidates[np.argsort(-need[candidates], kind="stable")].tolist():
            yield self._index.files[int(number[entry])], int(first[entry]), int(last[entry])

    def _spans(self, rows: Rows) -> list[tuple[int, int, int]]:
        """(file, start, stop) of the remote bytes of some rows, merged into few large reads."""
        found = []
        for member in self._members:
            for number, starts, ends in _runs(self._index.pointers(member, np.sort(rows))):
                if self._remote[number]:
                    ranges = list(zip(starts.tolist(), (ends - starts).tolist(), strict=True))
                    spans = plan_spans(ranges, max_gap=MAX_GAP_BYTES, max_span=MAX_SPAN_BYTES)
                    found += [(number, span.start, span.end) for span in spans]
        return found

    def _next_use(self) -> NDArray[np.int64]:
        """For each unit, when this rank uses it next, in positions of a lane from the start of this epoch."""
        length = -(-self._index.rows // self._orders(self._epoch).key.lanes)
        lane, start, stop = self._uses_of(self._epoch)
        later_lane, later_start, _ = self._uses_of(self._epoch + 1)
        mine, later_mine = np.isin(lane, self._lanes), np.isin(later_lane, self._lanes)
        later = np.where(later_mine, length + later_start, 3 * length)
        use: NDArray[np.int64] = np.where(mine & (stop > self._at), np.maximum(start, self._at), later)
        return use

    def _uses_of(self, epoch: int) -> tuple[Rows, Rows, Rows]:
        if epoch not in self._uses:
            self._uses[epoch] = self._orders(epoch).unit_uses()
        return self._uses[epoch]

    def _unit_extents(self) -> tuple[Rows, Rows, Rows, Rows]:
        """(unit, file, first page, page after the last) of all units and members. Pages that neighbours share are left
        out.
        """
        if self._extents is None:
            bounds = self._orders(self._epoch).unit_bounds()
            units = np.arange(len(bounds) - 1)
            parts: list[tuple[Rows, Rows, Rows, Rows]] = []
            for member in self._members:
                head = self._index.pointers(member, bounds[:-1])
                tail = self._index.pointers(member, bounds[1:] - 1)
                one = (head.file == tail.file) & ~head.missing
                one[one] = self._remote[head.file[one]]
                first = -(-head.offset[one] // PAGE)
                last = (tail.offset[one] + tail.size[one]) // PAGE
                parts.append((units[one], head.file[one].astype(np.int64), first, last))
            unit, number, first, last = (np.concatenate([part[i] for part in parts]) for i in range(4))
            self._extents = (unit, number, first, last)
        return self._extents


def _runs(pointers: Pointers) -> Iterator[tuple[int, Rows, Rows]]:
    """(file, starts, ends) of runs of neighbours, at most a page apart, in each file."""
    there = pointers.at(np.flatnonzero(~pointers.missing))
    order = np.lexsort((there.offset, there.file))
    file, start = there.file[order], there.offset[order]
    end = start + there.size[order]
    for number in np.unique(file).tolist():
        mine = file == number
        starts, ends = start[mine], np.maximum.accumulate(end[mine])
        head = np.concatenate([[True], starts[1:] - ends[:-1] > PAGE])
        yield number, starts[head], ends[np.append(np.flatnonzero(head)[1:] - 1, len(ends) - 1)]
