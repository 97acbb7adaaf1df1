"""The order of samples: deterministic, elastic, with constant-time seeks.

The rows of a version, in storage order, are cut into *units* (runs of neighbours, so that a unit is one or a few
large reads). The units are permuted and laid end to end; that stream is dealt into `lanes` (96: divisible by most
world sizes) of equal length, give or take one row; each lane is shuffled in *windows* of whole units, so that a unit is
needed for one short time (two where lanes cut it). Position ``g`` of the global sequence is row ``g // lanes`` of lane
``g % lanes``, so the sequence is a permutation of the rows, any position is
found without looking at those before it, and a global batch is a slice of the sequence whatever the number of ranks.
A rank takes the part of each batch that comes from its own lanes, so that each byte range is read by one rank (a few
by two where the lanes don't divide the batch).

Nothing but `OrderKey`, the cuts and the epoch enters. Random words are raw Philox4x64-10 output (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011), sorted stably: numpy promises a stable stream for bit
generators, not for `Generator.permutation`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from factory_lib.errors import LoaderError

LANES = 96
UNIT_BYTES = 2 << 20
MAX_UNITS = 400_000  # keeps the plan of any version below 10 MB: 20 bytes a unit
MIN_WINDOW, MAX_WINDOW = 32, 1024  # rows of a lane; times 96 lanes for the whole window
LANE_ROWS = 16  # of a lane, at least
LANE_ATTEMPTS = 12  # to find a whole sample in other windows of a lane, before any is taken
LANE_WINDOWS = 10  # in a lane, at least: all current ones are a tenth of the version, and a cache can be small

Tail = Literal["repeat", "drop", "mask"]
Rows = NDArray[np.int64]

_UNITS, _WINDOW, _SUBSTITUTE, _SAMPLE = range(4)


@dataclass(frozen=True)
class OrderKey:
    """What the order depends on, besides the epoch and where shards end.

    Attributes:
        identity: of the rows; a table's UUID and the query's fingerprint.
        rows: how many there are.
        seed: any integer.
        unit_rows: rows of a unit at most.
        window_rows: every so many rows of a lane, a window begins with the next unit.
        lanes: streams that the sequence is woven from.
        shuffle: False gives storage order.
    """

    identity: str
    rows: int
    seed: int = 0
    unit_rows: int = 256
    window_rows: int = 256
    lanes: int = LANES
    shuffle: bool = True

    def __post_init__(self) -> None:
        for name in ("rows", "unit_rows", "window_rows", "lanes"):
            if getattr(self, name) < 1:
                raise LoaderError(f"{name}={getattr(self, name)} of the order of {self.identity!r} is below 1.")


def default_lanes(rows: int) -> int:
    """96, or fewer for a small version: a broken sample is replaced by another one of its lane's window, and among a
    handful there may be none that is whole.
    """
    return next((lanes for lanes in (LANES, 48, 24, 12) if rows >= lanes * LANE_ROWS), 6)


def default_units(rows: int, mean_bytes: float, lanes: int = LANES) -> tuple[int, int]:
    """Unit and window, in rows, for samples of a mean size in bytes.

    A unit is about 2 MiB; smaller where the version is small (a tenth of a lane, down to single rows), larger where
    there would be more than 400,000 units. Windows are as large as units, but at least 32 rows.
    """
    most = max(1, min(int(UNIT_BYTES // max(1.0, mean_bytes)), rows // (lanes * LANE_WINDOWS)))
    return max(most, -(-rows // MAX_UNITS)), max(min(most, MAX_WINDOW), MIN_WINDOW)


@dataclass(frozen=True)
class Pieces:
    """Runs of rows of one epoch, all int64: unit, lane, first position in the lane, window of the lane, first row,
    number of rows.
    """

    unit: Rows
    lane: Rows
    first: Rows
    window: Rows
    row: Rows
    rows: Rows


class Order:
    """The global sequence of one epoch.

    Args:
        key: what the order depends on.
        epoch: 0, 1, …
        cuts: int64, ascending row numbers at which a shard starts (0 and `key.rows` may be left out). No unit crosses
            a cut.

    Attributes:
        window: `key.window_rows`, or fewer where a lane is shorter.
    """

    def __init__(self, key: OrderKey, epoch: int = 0, cuts: Rows | None = None) -> None:
        self.key = key
        self.epoch = epoch
        material = f"{key.identity}\0{key.seed}\0{epoch}".encode()
        self._generator = np.random.Philox(key=np.frombuffer(hashlib.blake2b(material, digest_size=16).digest(), "<u8"))
        self._fresh = self._generator.state  # nothing drawn: its counter is where the next words start
        if not key.shuffle:
            return
        lanes = np.arange(key.lanes, dtype=np.int64)
        short, longer = divmod(key.rows, key.lanes)
        self._lane_start = lanes * short + np.minimum(lanes, longer)
        self._lane_rows = short + (lanes < longer).astype(np.int64)
        window = min(key.window_rows, short + 1)
        self.window = window
        self._shift = lanes * window // key.lanes  # lanes enter their next window one after the other, not all at once
        self._starts = _units(key, cuts)
        unit_rows = np.diff(self._starts)
        self._loaded = np.full(key.lanes, -1, np.int64)
        self._table = np.zeros((key.lanes, min(window + int(unit_rows.max()), short + 1)), np.int64)
        self._units = _stable_order(self._words(len(unit_rows), _UNITS)).astype(np.uint32)
        self._ends = np.cumsum(unit_rows[self._units])

    @property
    def nbytes(self) -> int:
        """Bytes held: units, plus one window a lane."""
        if not self.key.shuffle:
            return 0
        return sum(a.nbytes for a in (self._starts, self._units, self._ends, self._table))

    def rows(self, positions: Rows) -> Rows:
        """The row numbers (int64) at positions of the sequence (int64, any order; past the end it starts over)."""
        position = positions % self.key.rows
        if not self.key.shuffle:
            return position
        lane, at = position % self.key.lanes, position // self.key.lanes
        window = self.windows(lane, at)
        offset = at - self._window_start(lane, window)
        result = np.empty(len(position), np.int64)
        waiting = np.arange(len(position))
        while True:
            ready = self._loaded[lane[waiting]] == window[waiting]
            now = waiting[ready]
            result[now] = self._table[lane[now], offset[now]]
            waiting = waiting[~ready]
            if not len(waiting):
                return result
            lanes, first = np.unique(lane[waiting], return_index=True)
            numbers = window[waiting[first]]
            for index, rows in zip(lanes.tolist(), self.window_rows(lanes, numbers), strict=True):
                self._table[index, : len(rows)] = rows
            self._loaded[lanes] = numbers

    def window_rows(self, lane: Rows, window: Rows) -> list[Rows]:
        """The rows (int64) of windows of one or more lanes, each in the order they come; empty past a lane's end."""
        both = self._window_start(np.concatenate([lane, lane]), np.concatenate([window, window + 1]))
        starts, stops = both[: len(lane)], both[len(lane) :]
        edges = np.cumsum(stops - starts)
        at = np.arange(edges[-1]) + np.repeat(self._lane_start[lane] + stops - edges, stops - starts)
        unit = np.searchsorted(self._ends, at, side="right")
        first = self._starts[self._units[unit]]
        length = self._starts[self._units[unit] + 1] - first
        parts = np.split(first + at - (self._ends[unit] - length), edges[:-1])
        places = zip(parts, lane.tolist(), window.tolist(), strict=True)
        return [rows[_stable_order(self._words(len(rows), _WINDOW, *place))] for rows, *place in places]

    def windows(self, lane: Rows, at: Rows) -> Rows:
        """The numbers of the windows that positions `at` of lanes belong to; past a lane's end, of its last one."""
        place = self._lane_start[lane] + np.minimum(at, self._lane_rows[lane] - 1)
        unit = np.searchsorted(self._ends, place, side="right")
        begin = np.where(unit > 0, self._ends[unit - 1], 0)
        return self._window_of(lane, np.maximum(begin - self._lane_start[lane], 0))

    def _window_of(self, lane: Rows, begin: Rows) -> Rows:
        """The numbers of the windows of units that begin at positions `begin` of lanes."""
        numbers: Rows = (begin + self._shift[lane]) // self.window
        return numbers

    def _window_start(self, lane: Rows, window: Rows) -> Rows:
        """The position in its lane at which a window starts: where the first unit begins that may belong to it."""
        least = window * self.window - self._shift[lane]
        length = self._lane_rows[lane]
        place = self._lane_start[lane] + np.minimum(np.maximum(least, 0), length)
        begin = self._ends[self._ends.searchsorted(place)] - self._lane_start[lane]
        starts: Rows = np.where(least <= 0, 0, np.minimum(begin, length))
        return starts

    def pieces(self) -> Pieces:
        """Runs of rows that stay together until windows are shuffled: units, cut where a lane ends."""
        first = np.unique(np.concatenate([[0], self._ends[:-1], self._lane_start[self._lane_rows > 0]]))
        last = np.append(first[1:], self.key.rows)
        at = np.searchsorted(self._ends, first, side="right")
        unit = self._units[at].astype(np.int64)
        row = self._starts[unit + 1] - (self._ends[at] - first)
        lane = np.searchsorted(self._lane_start, first, side="right") - 1
        begin = first - self._lane_start[lane]
        return Pieces(unit, lane, begin, self._window_of(lane, begin), row, last - first)

    def substitute(self, position: int, attempt: int) -> int:
        """The row that takes the place of a broken one: another one of the same window of the same lane, so it is
        close in storage.

        Attempts 0, 1, 2, … give different rows until the window is exhausted.
        """
        position %= self.key.rows
        word = int(self._words(1, _SUBSTITUTE, position)[0])
        if self.key.shuffle:
            lane, at = np.array([position % self.key.lanes]), np.array([position // self.key.lanes])
            window = self.windows(lane, at)
            others = self.window_rows(lane, window)[0]
            mine = int((at - self._window_start(lane, window))[0])
            if len(others) > 1:
                return int(others[_another(mine, len(others), word + attempt)])
        return _another(position, self.key.rows, word + attempt)

    def distant(self, position: int, attempt: int) -> int:
        """The row that takes the place of a broken one whose window is broken, too, as where a shard is damaged: one of
        another window of the lane, any row of all from attempt 12 on.
        """
        position %= self.key.rows
        word = int(self._words(1, _SUBSTITUTE, position, attempt + 1)[0])
        if not self.key.shuffle or attempt >= LANE_ATTEMPTS:
            return word % self.key.rows
        lane, at = np.array([position % self.key.lanes]), np.array([position // self.key.lanes])
        count = int(self.windows(lane, self._lane_rows[lane] - 1)[0]) + 1
        other = _another(int(self.windows(lane, at)[0]), count, word)
        others = self.window_rows(lane, np.array([other]))[0]
        return int(others[word // count % len(others)]) if len(others) else word % self.key.rows

    def sample_seed(self, position: int) -> int:
        """A 64-bit seed for augmenting the sample at a position: the same on any rank, and after a resume."""
        return int(self._words(1, _SAMPLE, position)[0])

    def _words(self, count: int, purpose: int, *place: int) -> NDArray[np.uint64]:
        # Setting the counter takes a fifth of the time of another generator.
        self._fresh["state"]["counter"][:] = [0, purpose, *place, 0, 0][:4]
        self._generator.state = self._fresh
        words: NDArray[np.uint64] = self._generator.random_raw(count)
        return words


def batch_count(rows: int, global_batch: int, tail: Tail, start: int = 0) -> int:
    """Global batches of an epoch from position `start` on: the last, incomplete one is dropped or filled up."""
    left = max(0, rows - start)
    return left // global_batch if tail == "drop" else -(-left // global_batch)


def rank_positions(key: OrderKey, start: int, global_batch: int, rank: int, world: int) -> Rows:
    """The positions (int64) that a rank takes of the global batch at ``[start, start + global_batch)``.

    Each rank has lanes of its own. Where `world` divides the lanes and the lanes divide the batch, it takes what comes
    from them and nothing else; with any other numbers, what its lanes have too much goes to ranks whose lanes have too
    little. Parts differ by at most one row between ranks.
    """
    positions = np.arange(start, start + global_batch, dtype=np.int64)
    edges = global_batch * np.arange(world + 1) // world
    if not key.shuffle or world == 1:
        return positions[edges[rank] : edges[rank + 1]]
    lane = positions % key.rows % key.lanes
    order = _stable_order(lane)
    owner = lane[order] * world // key.lanes
    first = np.searchsorted(owner, np.arange(world + 1))
    share, has = np.diff(edges), np.diff(first)
    rank_of_own = np.arange(global_batch) - first[owner]
    left = order[rank_of_own >= share[owner]]
    taken = np.concatenate([[0], np.cumsum(np.maximum(share - has, 0))])
    own = order[first[rank] : first[rank] + min(share[rank], has[rank])]
    mine: Rows = positions[np.concatenate([own, left[taken[rank] : taken[rank + 1]]])]
    return mine


def own_lanes(key: OrderKey, rank: int, world: int) -> Rows:
    """The lanes (int64) that are a rank's own; none for some where there are more ranks than lanes."""
    lanes = np.arange(key.lanes, dtype=np.int64)
    own: Rows = lanes[lanes * world // key.lanes == rank]
    return own


def _units(key: OrderKey, cuts: Rows | None) -> Rows:
    """First rows of all units, and `key.rows` at the end: shards cut into equal parts of at most `unit_rows`."""
    inner = np.asarray([] if cuts is None else cuts, np.int64)
    edges = np.unique(np.concatenate([[0], inner, [key.rows]]))
    if edges[0] < 0 or edges[-1] != key.rows:
        raise LoaderError(f"Cuts {edges[0]}…{edges[-1]} of {key.identity!r} leave its {key.rows} rows.")
    length = np.diff(edges)
    parts = -(-length // key.unit_rows)
    shard = np.repeat(np.arange(len(length)), parts)
    part = np.arange(len(shard)) - np.repeat(np.cumsum(parts) - parts, parts)
    starts = edges[shard] + part * length[shard] // parts[shard]
    return np.append(starts, key.rows).astype(np.int64)


def _stable_order(keys: NDArray[np.uint64] | Rows) -> Rows:
    return np.argsort(keys, kind="stable")


def _another(index: int, count: int, step: int) -> int:
    return index if count < 2 else (index + 1 + step % (count - 1)) % count
