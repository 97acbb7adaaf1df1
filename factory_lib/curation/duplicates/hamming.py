"""Hashes that differ in few bits, among any number of them.

Of up to `ALL` hashes all are compared. Of more, those are compared that have some of their 8 bytes in common, their
key: hashes that differ in d bits have at least 8 - d bytes in common, more often more than that. How many bytes a key
has and how many keys there are depends on how many hashes there are, so that work grows with their number and not with
its square:

| hashes | keys | compared at the latest when they differ in at most |
|---|---|---|
| 8,192 | none | any number of bits |
| 262,144 | all 28 pairs and 56 triples of bytes | 6 bits |
| 1.4 million | all 56 triples | 5 bits |
| 2.4 million | 32 triples | 3 bits |
| 10 million | 8 triples, those within either half | 3 bits |

Of hashes that share a key with very many, those are compared that stand next to them in the order of the other bytes:
pictures that look alike cost no more than others do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from factory_lib.curation.threads import in_threads

ALL = 1 << 13
"""Hashes that are all compared with all."""

FEW = 1 << 18
"""Hashes up to which pairs of bytes are keys: two random hashes share one of 65,536."""

LOOKS = 1 << 31
"""Keys that are looked up, all in all, where there are more hashes than that allows with every key."""

COMPARISONS = 1 << 33
"""Hashes that are compared, all in all, where very many share a key."""

LEAST, MOST = 4, 64
"""Hashes of one key that a hash is compared with: as many as `COMPARISONS` allow, within this."""

_TABLES = 2
_SPARSE = 8
_PLACE = np.uint64(40)
_PLACES = np.uint64((1 << 40) - 1)
_PROBES = 1 << 20
_BLOCK = 1 << 17
"""Hashes that are looked up at once: with fewer, most of the time goes to calls."""

Words: TypeAlias = NDArray[np.uint64]
Places: TypeAlias = NDArray[np.int64]
Found: TypeAlias = tuple[Words, NDArray[np.uint16]]
Near: TypeAlias = tuple[Places, Places, NDArray[np.uint8]]
"""Rows of some probes, places of the plain hashes that are near them, and in how many bits they differ."""

Key: TypeAlias = tuple[int, ...]
Search: TypeAlias = tuple[Places, Places]
"""Places of hashes that are looked up, in all rows, and of those that they are compared with, in the first row."""


def nearby(words: Words, distance: int, keys: Sequence[Key] | None = None, among: Sequence[Search] = ()) -> Found:
    """Pairs of which a hash of the one, in some row, is near the hash of the other in the first row.

    Whether a pair is found depends on its two hashes and on the keys alone, but where very many hashes share a key:
    what some searches find, one after the other, is what one search for all finds.

    Args:
        words: uint64 (rows, n), at most 128 rows; the lowest bit of each is 0.
        distance: bits that may differ.
        keys: see `keys_for`, which chooses them by the number of hashes where they are not given.
        among: pairs of places, each rising: all rows of the first ones are compared with the first row of the second
            ones. Empty: all with all.

    Returns:
        The pairs, each once, as one number: uint64, the smaller place in the high half. And what speaks for each,
        uint16: the smallest distance (high byte), whether the larger place has the row (bit 7), the first such row.
    """
    count = words.shape[1]
    keys = keys_for(words.size, count) if keys is None else keys
    most = max(LEAST, min(MOST, COMPARISONS // max(1, words.size * len(keys))))
    everything = np.arange(count)
    return _reduced(
        [
            found
            for probes, bases in among or [(everything, everything)]
            if len(probes) and len(bases)
            for found in _searched(words, (probes, bases), distance, keys, most)
        ]
    )


def _searched(words: Words, search: Search, distance: int, keys: Sequence[Key], most: int) -> Iterator[Found]:
    """What the keys find of one search, one after the other."""
    probes, bases = search
    probing = words if len(probes) == words.shape[1] else words[:, probes]
    plain = words[0] if len(bases) == words.shape[1] else words[0, bases]
    if not keys:
        block = max(1, _BLOCK // len(plain))
        yield _probed(probing, search, lambda some: _compared(some, plain, distance), block, "")
        return
    found: Found = (np.zeros(0, np.uint64), np.zeros(0, np.uint16))
    # The next key is sorted by one thread while the others look up this one.
    with ThreadPoolExecutor(1) as ahead:
        waiting = ahead.submit(Buckets, plain, keys[0], most)
        for number, following in enumerate([*keys[1:], None]):
            buckets = waiting.result()
            if following is not None:
                waiting = ahead.submit(Buckets, plain, following, most)
            of = f", {number + 1} of {len(keys)}"
            near = partial(buckets.near, distance=distance)
            found = _reduced([found, _probed(probing, search, near, _BLOCK, of)])
    yield found


def keys_for(probes: int, count: int) -> list[Key]:
    """The keys of so many hashes, of which so many are compared with: numbers of bytes, 0 the most significant.

    Triples come in seven groups of eight, those within either half of the bytes for seven ways to halve them (the
    planes of the affine space of 8 points): already the first group has a key for whatever differs in at most 3 bits.
    One, two, four or all seven groups are taken, so that some more hashes are seldom a reason for other keys.

    Returns:
        The keys; none where all are compared with all.
    """
    if count <= ALL:
        return []
    halves = (4, 2, 1, 6, 5, 3, 7)
    triples: list[Key] = [
        triple
        for plane in halves
        for triple in combinations(range(8), 3)
        if len({(byte & plane).bit_count() % 2 for byte in triple}) == 1
    ]
    groups = max(number for number in (1, 2, 4, 7) if number == 1 or 8 * number <= LOOKS // probes)
    taken = triples[: 8 * groups]
    return [*combinations(range(8), 2), *taken] if count <= FEW else taken


class Buckets:
    """Plain hashes by the bytes that are a key.

    Args:
        plain: uint64 (n,).
        key: numbers of these bytes, 0 the most significant.
        most: of how many with the same key a hash is compared.
    """

    def __init__(self, plain: Words, key: Key, most: int) -> None:
        self._key, self._most = key, most
        self._order = (*key, *(byte for byte in range(8) if byte not in key))
        by_key = _bytes(plain, key)
        by_key <<= _PLACE
        by_key |= np.arange(len(plain), dtype=np.uint64)
        by_key.sort()  # a third of the time of argsort
        keys = (by_key >> _PLACE).view(np.int64)
        self._places = (by_key & _PLACES).view(np.int64)
        del by_key
        changes = np.ones(len(keys), np.bool_)
        np.not_equal(keys[1:], keys[:-1], out=changes[1:])
        first = np.flatnonzero(changes)
        sizes = np.diff(first, append=len(keys))
        kinds, count = keys[first], 1 << 8 * len(key)
        self._kinds: Places | None = None
        if len(kinds) * _SPARSE < count:
            # tables of all keys would be next to empty, and cost more than the look-ups in them
            self._kinds, self._exists = kinds, np.zeros(count, np.bool_)
            self._exists[kinds] = True
            kinds, count = np.arange(len(kinds)), len(kinds)
        self._starts = np.zeros(count + 1, np.uint32)
        self._starts[kinds + 1] = sizes
        np.cumsum(self._starts, out=self._starts)
        self._order_crowded(plain, first[sizes > most], sizes[sizes > most])
        self._plain = plain[self._places]
        # Most keys have none, one or two hashes: these stand in tables, their lowest bit saying whether there are more.
        self._tables = []
        for _ in range(_TABLES):
            table = np.zeros(count, np.uint64)
            table[kinds] = self._plain[first] | (sizes > 1)
            self._tables.append(table)
            more = np.flatnonzero(sizes > 1)
            kinds, first, sizes = kinds[more], first[more] + 1, sizes[more] - 1

    def near(self, probes: Words, distance: int) -> Near:
        """The hashes near some others, of those with the same key."""
        keys = _bytes(probes, self._key).view(np.int64)
        rows: Places | None = None
        if self._kinds is not None:
            rows = np.flatnonzero(self._exists.take(keys, mode="clip"))
            keys, probes = np.searchsorted(self._kinds, keys[rows]), probes[rows]
        found = []
        for place, table in enumerate(self._tables):
            seen = table.take(keys, mode="clip")  # which looks for no key outside: there is none
            seen ^= probes
            more = np.flatnonzero((seen.astype(np.uint8) & 1).view(np.bool_))
            seen >>= np.uint64(1)
            differ = np.bitwise_count(seen)
            hits = np.flatnonzero(differ <= distance)
            at = self._starts[keys[hits]] + np.int64(place)
            there = at < self._starts[keys[hits] + 1]  # where no hash is, a table has 0
            hits, at = hits[there], at[there]
            found.append((hits if rows is None else rows[hits], self._places[at], differ[hits]))
            rows, keys, probes = more if rows is None else rows[more], keys[more], probes[more]
        assert rows is not None
        found += self._others(probes, keys, rows, distance)
        first, base, bits = (np.concatenate(column) for column in zip(*found, strict=True))
        return first, base, bits

    def _others(self, probes: Words, keys: Places, rows: Places, distance: int) -> list[Near]:
        """Of keys with still more hashes: those that are in no table, or of too many those that are next in order."""
        begin = self._starts[keys].astype(np.int64)
        left = self._starts[keys + 1] - begin
        many = np.flatnonzero(left > self._most)
        if len(many):
            next_to = np.searchsorted(self._ordered, _bytes(probes[many], self._order))
            at = self._crowded[np.minimum(next_to, len(self._crowded) - 1)] - begin[many]
            begin[many] += np.clip(at - self._most // 2, 0, left[many] - self._most)
        few = left <= self._most
        begin += few * _TABLES
        left = np.where(few, left - _TABLES, self._most)
        found = []
        step = 0
        while len(rows):
            differ = np.bitwise_count(self._plain[begin + step] ^ probes)
            hits = np.flatnonzero(differ <= distance)
            found.append((rows[hits], self._places[begin[hits] + step], differ[hits]))
            step += 1
            stay = np.flatnonzero(left > step)
            rows, probes, begin, left = rows[stay], probes[stay], begin[stay], left[stay]
        return found

    def _order_crowded(self, plain: Words, first: Places, sizes: Places) -> None:
        """Put the hashes of keys that have too many in the order of their other bytes."""
        before = np.cumsum(sizes) - sizes
        self._crowded = np.arange(sizes.sum()) + np.repeat(first - before, sizes)
        places = self._places[self._crowded]
        words = _bytes(plain[places], self._order)
        order = np.argsort(words)
        self._places[self._crowded], self._ordered = places[order], words[order]


def _compared(probes: Words, plain: Words, distance: int) -> Near:
    """All with all."""
    differ = np.bitwise_count(probes[:, None] ^ plain).ravel()
    hits = np.flatnonzero(differ <= distance)
    rows, places = np.divmod(hits, len(plain))
    return rows, places, differ[hits]


def _probed(words: Words, search: Search, near: Callable[[Words], Near], block: int, what: str) -> Found:
    """What is near any of the words, in threads."""
    flat = words.reshape(-1)
    found: list[Found] = []

    def look(start: int) -> None:
        end = min(start + _PROBES, len(flat))
        mine = [_pairs(near(flat[at : min(at + block, end)]), at, search) for at in range(start, end, block)]
        found.append(_reduced(mine))

    in_threads(look, range(0, len(flat), _PROBES), f"looking for near-duplicates{what}")
    return _reduced(found)


def _pairs(near: Near, start: int, search: Search) -> Found:
    """Hits as pairs, of probes whose first is at `start` among all."""
    rows, base, differ = near
    which, probe = np.divmod(rows + start, len(search[0]))
    probe, base = search[0][probe], search[1][base]
    other = probe != base
    which, probe, base, differ = which[other], probe[other], base[other], differ[other]
    small, large = np.minimum(probe, base).astype(np.uint64), np.maximum(probe, base).astype(np.uint64)
    reasons = differ.astype(np.uint16) << 8 | (probe > base).astype(np.uint16) << 7 | which.astype(np.uint16)
    return small << np.uint64(32) | large, reasons


def _reduced(found: Sequence[Found]) -> Found:
    """Each pair once, with the smallest distance, then the first alignment."""
    if not found:
        return np.zeros(0, np.uint64), np.zeros(0, np.uint16)
    pairs, reasons = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((reasons, pairs))
    pairs, reasons = pairs[order], reasons[order]
    first = np.ones(len(pairs), bool)
    first[1:] = pairs[1:] != pairs[:-1]
    return pairs[first], reasons[first]


def _bytes(words: Words, which: Key) -> Words:
    """Some bytes of words, one after the other: neighbours are moved together."""
    found: Words | None = None
    at = 0
    while at < len(which):
        width = 1
        while at + width < len(which) and which[at + width] == which[at] + width:
            width += 1
        piece = words >> np.uint64(64 - 8 * (which[at] + width))
        if which[at]:
            piece &= np.uint64((1 << 8 * width) - 1)
        at += width
        if at < len(which):
            piece <<= np.uint64(8 * (len(which) - at))
        found = piece if found is None else np.bitwise_or(found, piece, out=found)
    assert found is not None
    return found
