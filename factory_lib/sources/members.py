"""From members of a tar to samples: keys and extensions, and which members belong together.

The rule is WebDataset's (https://github.com/webdataset/webdataset): a sample is a run of consecutive members with the
same key; the key is the path up to the first dot of the file name; the rest, in lower case, is the extension. Names
without a dot, and hidden ones, belong to no sample. Where a member comes again within a run, which WebDataset refuses,
another sample of that key begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.errors import SourceError
from factory_lib.sources.tar import TarBlock

LAST_DOT = r"(?P<key>.*[^/])\.(?P<extension>[^./]+)"
KEY_PATTERN_HINT = (
    "It needs the groups key and extension, such as '(?P<key>.+)[.](?P<extension>jpg|txt)'; last-dot is short for the "
    "last dot of the name."
)
_MEMBERS_AT_ONCE = 30_000
_TEXT_BYTES_AT_ONCE = 64 * 2**20
_BITS = 32
"""Few enough that a sum of as many as a tar has members does not overflow."""


@dataclass(frozen=True)
class Members:
    """Members that belong to samples, in their order.

    Attributes:
        keys: string array, without nulls.
        codes: int32, the index of each member's extension in the list that it was read with; -1 where it is not in it.
        offsets, sizes: uint64, where the bytes are.
        texts: contents of the members that were asked for; None for all others, and for those too large to be read.
        uris: file of each member; None where all are in one file.
        in_sequence: they stand as they were written, so that one that comes again is of another sample.
    """

    keys: pa.StringArray
    codes: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.uint64]
    texts: list[bytes | None]
    uris: pa.StringArray | None = None
    in_sequence: bool = False

    def __len__(self) -> int:
        return len(self.codes)

    def rows(self, start: int, stop: int | None = None) -> Members:
        """A range of members."""
        part = slice(start, stop)
        return replace(
            self,
            keys=self.keys[part],
            codes=self.codes[part],
            offsets=self.offsets[part],
            sizes=self.sizes[part],
            texts=self.texts[part],
            uris=None if self.uris is None else self.uris[part],
        )

    def group_starts(self) -> npt.NDArray[np.int64]:
        """The first member of each sample."""
        if not len(self):
            return np.zeros(0, np.int64)
        changed = pc.not_equal(self.keys[1:], self.keys[:-1]).to_numpy(zero_copy_only=False)
        runs = np.concatenate([np.zeros(1, np.int64), np.flatnonzero(changed) + 1])
        return _starts_within(runs, self.codes) if self.in_sequence else runs


def _starts_within(runs: npt.NDArray[np.int64], codes: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """The first member of each sample where one run of a key may hold several: each has an extension once.

    Args:
        runs: the first member of each run, sorted.
        codes: extension of each member; one that is not known, -1, begins none.
    """
    bits = np.where(codes >= 0, np.uint64(1) << (np.maximum(codes, 0) % _BITS).astype(np.uint64), np.uint64(0))
    again = np.add.reduceat(bits, runs) != np.bitwise_or.reduceat(bits, runs)  # two extensions may share a bit
    if not again.any():
        return runs
    ends = np.append(runs[1:], len(codes))
    starts: list[int] = []
    for start, end in zip(runs[again].tolist(), ends[again].tolist(), strict=True):
        seen: set[int] = set()
        for place, code in enumerate(codes[start:end].tolist(), start):
            if code in seen:
                starts.append(place)
                seen = set()
            if code >= 0:
                seen.add(code)
    return np.sort(np.concatenate([runs, np.array(starts, np.int64)]))


def split_names(names: pa.StringArray, pattern: str | None = None) -> tuple[pa.StringArray, pa.DictionaryArray]:
    """Keys and lower-case extensions of member names; both null where a name belongs to no sample.

    Args:
        pattern: of `Mapping.key_pattern`; None for the first dot of the file name.

    Works on the bytes of all names at once, which is several times faster than a regular expression for each.
    """
    if pc.any(pc.starts_with(names, "./")).as_py():
        names = pc.replace_substring_regex(names, r"^(\./+)+", "")
    if pattern is not None:
        return _split_by(names, pattern)
    offsets = np.frombuffer(names.buffers()[1], np.int32, len(names) + 1, names.offset * 4).astype(np.int64)
    data = np.frombuffer(names.buffers()[2] or b"", np.uint8)
    starts, ends = offsets[:-1], offsets[1:]
    # The file name begins behind the last slash, the extension behind the first dot of the file name.
    bases = np.maximum(_last_before(np.flatnonzero(data == ord("/")), ends) + 1, starts)
    dots = _first_from(np.flatnonzero(data == ord(".")), bases)
    valid = (dots > bases) & (dots + 1 < ends)
    dots = np.where(valid, dots, starts)
    keys = _cut(data, starts, dots, valid)
    extensions = pc.dictionary_encode(
        _cut(data, np.where(valid, dots + 1, starts), np.where(valid, ends, starts), valid)
    )
    return keys, pa.DictionaryArray.from_arrays(extensions.indices, pc.utf8_lower(extensions.dictionary))


def _split_by(names: pa.StringArray, pattern: str) -> tuple[pa.StringArray, pa.DictionaryArray]:
    found = pc.extract_regex(names, full_pattern(pattern))
    keys = pc.if_else(found.is_valid(), found.field("key"), pa.scalar(None, pa.string()))
    extensions = pc.if_else(found.is_valid(), pc.utf8_lower(found.field("extension")), pa.scalar(None, pa.string()))
    return keys, pc.dictionary_encode(extensions)


def full_pattern(pattern: str) -> str:
    """A `Mapping.key_pattern` as the regular expression of a whole name.

    Raises:
        SourceError: it is none, or lacks one of the groups `key` and `extension`.
    """
    whole = f"^(?:{LAST_DOT if pattern == 'last-dot' else pattern})$"
    try:
        groups = [field.name for field in pc.extract_regex(pa.array(["a"]), whole).type]
    except pa.ArrowInvalid as error:
        raise SourceError(f"key_pattern {pattern!r} is no regular expression: {error}", KEY_PATTERN_HINT) from None
    if set(groups) != {"key", "extension"}:
        raise SourceError(f"key_pattern {pattern!r} has the groups {groups}.", KEY_PATTERN_HINT)
    return whole


def _last_before(places: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The last of the sorted places below each end, -1 for none."""
    return np.concatenate([np.full(1, -1), places])[np.searchsorted(places, ends)]


def _first_from(places: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The first of the sorted places at or behind each start, a huge number for none."""
    return np.append(places, np.iinfo(np.int32).max)[np.searchsorted(places, starts)]


def _cut(
    data: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    valid: npt.NDArray[np.bool_],
) -> pa.StringArray:
    """Strings from ranges of bytes, null where not valid."""
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(ends - starts)])
    places = np.repeat(starts - offsets[:-1], ends - starts) + np.arange(int(offsets[-1]))
    buffers = [pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data[places])]
    mask = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.StringArray.from_buffers(len(starts), *buffers, mask)


def members_of(
    block: TarBlock, extensions: Sequence[str], textual: frozenset[str], pattern: str | None = None
) -> Members:
    """Members of one block.

    Args:
        extensions: what `codes` index.
        textual: extensions whose contents are taken along.
        pattern: how names are split, as for `split_names`.
    """
    keys, encoded = split_names(block.names, pattern)
    known = {extension: code for code, extension in enumerate(extensions)}
    named = encoded.dictionary.to_pylist()
    rows = np.flatnonzero(keys.is_valid().to_numpy(zero_copy_only=False))
    complete = len(rows) == len(keys)
    indices = (encoded.indices if complete else encoded.indices.take(pa.array(rows))).to_numpy()
    codes = np.array([known.get(name, -1) for name in named] or [-1], np.int32)[indices]
    texts: list[bytes | None] = [None] * len(rows)
    wanted = np.flatnonzero(np.array([name in textual for name in named] or [False])[indices])
    for row, text in zip(wanted.tolist(), block.payloads(rows[wanted]), strict=True):
        texts[row] = text
    if complete:
        return Members(keys, codes, block.offsets, block.sizes, texts, in_sequence=True)
    offsets, sizes = block.offsets[rows], block.sizes[rows]
    return Members(keys.take(pa.array(rows)), codes, offsets, sizes, texts, in_sequence=True)


def whole_samples(parts: Iterable[Members]) -> Iterator[Members]:
    """Gather members until there are many, cut where a sample ends: no sample is in two of the yielded pieces."""
    held: list[Members] = []
    members = text_bytes = 0
    for part in parts:
        held.append(part)
        members += len(part)
        text_bytes += sum(map(len, filter(None, part.texts)))
        if members < _MEMBERS_AT_ONCE and text_bytes < _TEXT_BYTES_AT_ONCE:
            continue
        gathered = _concatenated(held)
        last = int(gathered.group_starts()[-1])
        if last:
            yield gathered.rows(0, last)
        held = [gathered.rows(last)]
        members = text_bytes = 0
    if held:
        gathered = _concatenated(held)
        if len(gathered):
            yield gathered


def _concatenated(parts: list[Members]) -> Members:
    if len(parts) == 1:
        return parts[0]
    return Members(
        pa.concat_arrays([part.keys for part in parts]),
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.offsets for part in parts]),
        np.concatenate([part.sizes for part in parts]),
        [text for part in parts for text in part.texts],
        in_sequence=parts[0].in_sequence,
    )
