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

from factory_lib.loading.index import Index, Pointers
from factory_lib.loading.order import Order, Pieces, Rows
from factory_lib.storage.cache import MAX_GAP_BYTES, MAX_SPAN_BYTES, BlockCache
from factory_lib.storage.mirror import PAGE
from factory_lib.storage.shared import content_key
from factory_lib.storage.spans import plan_spans
from factory_lib.storage.store import FileInfo, is_local

AHEAD = 4  # a window is asked for this part of a window before the batch that needs its first row
BEHIND = 2  # batches that each other worker of the rank may be behind
QUIET = 24  # windows in a row of which nothing was missing, after which none are looked at until something is

Orders = Callable[[int], Order]
Extents = tuple[Rows, Rows, Rows]


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
        self._at = self._asked = self._needed = self._quiet = self._fetches = 0
        self._lanes: Rows = np.arange(0)
        self._pieces: tuple[int, Pieces, Extents] | None = None
        self._later: tuple[int, Rows] | None = None

    @property
    def useful(self) -> bool:
        """Whether any file is remote."""
        return bool(self._remote.any())

    def advance(self, cache: BlockCache, epoch: int, batch: range, lanes: Rows) -> None:
        """Ask for the windows that a global batch, positions of an epoch, and those after it take from this rank's
        lanes.
        """
        order = self._orders(epoch)
        if not order.key.shuffle:
            return
        if epoch != self._epoch:
            self._epoch, self._windows = epoch, {}
        self._at = batch.start // order.key.lanes
        self._asked = -(-batch.stop // order.key.lanes) + order.window // AHEAD
        others = (self._share[1] - 1) * BEHIND * len(batch)
        self._needed = max(0, batch.start - others) // order.key.lanes
        self._lanes = lanes
        if cache.fetches != self._fetches:
            self._fetches, self._quiet = cache.fetches, 0
        if self._quiet >= QUIET:
            self._windows.clear()
            self._sorted.clear()
            return
        now, asked = self._current(order, lanes)
        for lane, opened, ahead in zip(lanes.tolist(), now.tolist(), asked.tolist(), strict=True):
            if self._quiet >= QUIET:
                return
            windows = self._windows.setdefault(lane, {})
            for old in [window for window in windows if window < opened]:
                del windows[old]
                self._sorted.clear()
            for window in range(opened, ahead + 1):
                if window not in windows:
                    windows[window] = self._spans(order.window_rows(np.array([lane]), np.array([window]))[0])
                    self._sorted.clear()
                    if lane % self._share[1] == self._share[0]:
                        self._bring(cache, windows[window])

    def _bring(self, cache: BlockCache, spans: list[tuple[int, int, int]]) -> None:
        missing = [span for span in spans if not cache.keeps(self._index.files[span[0]], span[1], span[2])]
        self._quiet = 0 if missing else self._quiet + 1
        for number, first, last in missing:
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
        # Spans of two windows may overlap where lanes cut a unit in two: look back a little.
        at = bisect.bisect_right(spans, (start, sys.maxsize))
        return next((span for span in reversed(spans[max(0, at - 4) : at]) if span[1] >= stop), None)

    def knows(self, key: str) -> bool:
        """Whether a mirror, by its key, is of a file of this version."""
        return key in self._keys

    def last_needed(self, cache: BlockCache) -> Iterator[tuple[FileInfo, int, int]]:
        """What is kept, that of the most distant use first; nothing of windows that any worker of this rank is at, and
        nothing that is fetched ahead.
        """
        if self._epoch < 0:
            return
        order = self._orders(self._epoch)
        pieces, (number, first, last) = self._now(order)
        now, asked = self._current(order, pieces.lane)
        mine = np.isin(pieces.lane, self._lanes)
        need = np.where(mine & (pieces.window >= now), pieces.first, self._later_use(order)[pieces.unit])
        needed = order.windows(pieces.lane, np.full(len(mine), self._needed))
        chosen = np.flatnonzero(~(mine & (pieces.window >= needed) & (pieces.window <= asked)))
        need, number, first, last = (values[chosen] for values in (need, number, first, last))
        kept = first < last
        for file in np.unique(number[kept]).tolist():
            here = np.flatnonzero(kept & (number == file))
            kept[here] = cache.kept_pages(self._index.files[file], first[here], last[here]) > 0
        entries = np.flatnonzero(kept)
        for entry in entries[np.argsort(-need[entries], kind="stable")].tolist():
            yield self._index.files[int(number[entry])], int(first[entry]), int(last[entry])

    def _current(self, order: Order, lanes: Rows) -> tuple[Rows, Rows]:
        """Of each lane, the window that is being delivered and the last one that is asked for."""
        at = np.full(len(lanes), self._at)
        return order.windows(lanes, at), order.windows(lanes, at - self._at + self._asked)

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

    def _now(self, order: Order) -> tuple[Pieces, Extents]:
        """The pieces of this epoch and where they lie."""
        if self._pieces is None or self._pieces[0] != self._epoch:
            pieces = order.pieces()
            # Of several members, each piece has several extents.
            many = Pieces(*(np.tile(values, len(self._members)) for values in vars(pieces).values()))
            self._pieces = (self._epoch, many, self._extents(pieces.row, pieces.rows))
        return self._pieces[1], self._pieces[2]

    def _later_use(self, order: Order) -> Rows:
        """For each unit, its first use by this rank in the next epoch, in positions of a lane from the start of this
        one.
        """
        if self._later is None or self._later[0] != self._epoch:
            length = -(-self._index.rows // order.key.lanes)
            pieces = self._orders(self._epoch + 1).pieces()
            use = np.full(int(pieces.unit.max()) + 1, 3 * length)
            mine = np.isin(pieces.lane, self._lanes)
            np.minimum.at(use, pieces.unit[mine], length + pieces.first[mine])
            self._later = (self._epoch, use)
        return self._later[1]

    def _extents(self, row: Rows, rows: Rows) -> Extents:
        """(file, first page, page after the last) of runs of rows, for one member after the other. Pages that
        neighbours share are left out; a run over several files has no extent.
        """
        parts: list[Extents] = []
        for member in self._members:
            head, tail = self._index.pointers(member, row), self._index.pointers(member, row + rows - 1)
            one = (head.file == tail.file) & ~head.missing & ~tail.missing
            one[one] = self._remote[head.file[one]]
            first = np.where(one, -(-head.offset // PAGE), 0)
            last = np.where(one, (tail.offset + tail.size) // PAGE, 0)
            parts.append((np.where(one, head.file, 0).astype(np.int64), first, last))
        number, first, last = (np.concatenate([part[i] for part in parts]) for i in range(3))
        return number, first, last


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
