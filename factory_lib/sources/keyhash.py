"""A 64-bit hash of strings, for whole Arrow columns at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.errors import SourceError

MAX_KEY_BYTES = 1_024
_PRIMES = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)
_ROWS_AT_ONCE = 100_000


def key_texts(column: pa.Array) -> pa.StringArray:
    """Keys as text; floats as the whole numbers that they are: pandas writes integers so, where one is missing."""
    if pa.types.is_floating(column.type):
        whole = pc.equal(pc.floor(column), column)
        column = pc.if_else(whole, column, pa.scalar(None, column.type)).cast(pa.int64())
    return column.cast(pa.string())


def hash_strings(keys: pa.StringArray) -> npt.NDArray[np.uint64]:
    """Hash each string; equal strings have equal hashes in every process and version. Nulls hash like an empty string.

    Multiplies and rotates 8 bytes at a time (the scheme of xxHash's long keys, simplified), then mixes as splitmix64
    does. Callers compare the strings themselves where hashes are equal.

    Raises:
        SourceError: a string is longer than `MAX_KEY_BYTES`.
    """
    parts = [_hash(keys[at : at + _ROWS_AT_ONCE]) for at in range(0, len(keys), _ROWS_AT_ONCE)]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def _hash(keys: pa.StringArray) -> npt.NDArray[np.uint64]:
    binary = pc.fill_null(keys, "").cast(pa.binary())
    sizes = pc.binary_length(binary).to_numpy().astype(np.uint64)
    longest = int(sizes.max()) if len(sizes) else 0
    if longest > MAX_KEY_BYTES:
        raise SourceError(
            f"A key has {longest} bytes; at most {MAX_KEY_BYTES} are joined by.", "Join by a shorter column."
        )
    width = max(-(-longest // 8) * 8, 8)
    words = _padded(binary, sizes, width).view(np.uint64)
    first, second, third = (np.uint64(prime) for prime in _PRIMES)
    found = sizes * first
    for column in range(words.shape[1]):
        # Words behind a string's end are left out, so that the hash does not depend on its neighbours' lengths.
        mixed = found ^ (words[:, column] * second)
        mixed = ((mixed << np.uint64(31)) | (mixed >> np.uint64(33))) * first + third
        found = np.where(sizes > np.uint64(8 * column), mixed, found)
    for shift, prime in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        found = (found ^ (found >> np.uint64(shift))) * np.uint64(prime)
    return np.asarray(found, np.uint64)


def _padded(binary: pa.BinaryArray, sizes: npt.NDArray[np.uint64], width: int) -> npt.NDArray[np.uint8]:
    """Strings as rows of one width, zeros behind them."""
    offsets = np.frombuffer(binary.buffers()[1], np.int32, len(binary) + 1, binary.offset * 4).astype(np.int64)
    data = np.frombuffer(binary.buffers()[2] or b"", np.uint8)
    rows = np.zeros((len(binary), width), np.uint8)
    if len(binary) and (sizes == sizes[0]).all():
        size = int(sizes[0])
        rows[:, :size] = data[offsets[0] : offsets[-1]].reshape(len(binary), size)
        return rows
    places = np.arange(int(sizes.sum())) - np.repeat(offsets[:-1] - offsets[0], sizes.astype(np.int64))
    rows[np.repeat(np.arange(len(binary)), sizes.astype(np.int64)), places] = data[offsets[0] : offsets[-1]]
    return rows
