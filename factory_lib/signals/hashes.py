"""Hashes: of the bytes, of the pixels, and two perceptual ones that near-duplicates share."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from factory_lib.signals.member import Member
from factory_lib.signals.resampling import resized
from factory_lib.signals.signal import signal


@signal
def phash(image: Member) -> np.uint64:
    """Perceptual hash, 64 bits, as the imagehash library defines it.

    Luma, 32 x 32 by Lanczos, DCT-II over columns then rows, the 8 x 8 lowest frequencies, a bit where the coefficient
    is above the median of all 64; row by row, most significant bit first. Near-duplicates differ in few bits: compare
    with `bitHammingDistance`, at most 6.
    """
    from scipy.fft import dct

    levels = resized(image, 32, 32, "LANCZOS").astype(np.float64)
    low = dct(dct(levels, axis=0), axis=1)[:8, :8]
    middle = np.sort(low, axis=None)[31:33]
    return _bits(low > (middle[0] + middle[1]) / 2)


@signal
def dhash(image: Member) -> np.uint64:
    """Difference hash, 64 bits, as the imagehash library defines it.

    Luma, 9 x 8 by Lanczos, a bit where a pixel is brighter than its left neighbour; row by row, most significant bit
    first.
    """
    levels = resized(image, 9, 8, "LANCZOS")
    return _bits(levels[:, 1:] > levels[:, :-1])


@signal
def sha256(image: bytes) -> str:
    """SHA-256 of the bytes of the member as stored, 64 hexadecimal digits: equal for exact copies of the file."""
    return hashlib.sha256(image).hexdigest()


@signal
def pixel_md5(image: Member) -> str:
    """MD5 of the decoded RGB pixels and their size, 32 hexadecimal digits: equal for lossless copies in any format."""
    pixels = image.pixels()
    digest = hashlib.md5(f"{pixels.shape[1]}x{pixels.shape[0]}:".encode(), usedforsecurity=False)
    digest.update(pixels.data)
    return digest.hexdigest()


def _bits(bits: np.ndarray[Any, np.dtype[np.bool_]]) -> np.uint64:
    return np.uint64(int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big"))
