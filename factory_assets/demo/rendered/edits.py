"""What happens to a picture between two copies of it, and how a download breaks.

Edits keep what a picture shows: a near-duplicate filter should find all of them. Damage makes bytes that no longer
decode.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from random import Random

from PIL import Image, ImageEnhance

QUALITY = 88
"""JPEG quality of an original."""

SMALLEST_COPY = 96
"""No edit makes a side shorter than this, in pixels, so that a copy is never also too small."""


def encode(picture: Image.Image, quality: int = QUALITY) -> bytes:
    """The picture as JPEG."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


def _recompress(picture: Image.Image, rng: Random) -> bytes:
    return encode(picture, quality=rng.randint(35, 75))


def _scale(picture: Image.Image, rng: Random) -> bytes:
    factor = max(rng.choice((0.6, 0.7, 0.8, 1.25)), SMALLEST_COPY / min(picture.size))
    size = (max(SMALLEST_COPY, round(picture.width * factor)), max(SMALLEST_COPY, round(picture.height * factor)))
    return encode(picture.resize(size, Image.Resampling.LANCZOS))


def _crop(picture: Image.Image, rng: Random) -> bytes:
    """Cut 0.5 … 2 % off each side."""
    width, height = picture.size
    left, top, right, bottom = (rng.uniform(0.005, 0.02) for _ in range(4))
    box = (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    cut = picture.crop(box)
    if min(cut.size) < SMALLEST_COPY:
        cut = cut.resize(picture.size, Image.Resampling.LANCZOS)
    return encode(cut)


def _brightness(picture: Image.Image, rng: Random) -> bytes:
    return encode(ImageEnhance.Brightness(picture).enhance(rng.choice((0.85, 0.9, 1.1, 1.15))))


EDITS: dict[str, Callable[[Image.Image, Random], bytes]] = {
    "exact": lambda picture, _: encode(picture),
    "recompressed": _recompress,
    "scaled": _scale,
    "cropped": _crop,
    "brightness": _brightness,
}
"""What may be done to a copy: each takes the original picture and a random generator, and gives a JPEG."""


DAMAGES: tuple[str, ...] = ("truncated", "html", "empty")
"""How a download breaks; see `damage`."""


def damage(kind: str, jpeg: bytes, rng: Random) -> bytes:
    """Bytes that stand where a JPEG should be and do not decode.

    Args:
        kind: one of `DAMAGES`: the first 10 … 70 % of the bytes, an error page, or nothing at all.
        jpeg: the whole picture.
    """
    if kind == "truncated":
        return jpeg[: int(len(jpeg) * rng.uniform(0.1, 0.7))]
    if kind == "html":
        return b"<!DOCTYPE html><html><head><title>403 Forbidden</title></head><body>No hotlinking.</body></html>"
    if kind == "empty":
        return b""
    raise ValueError(f"Unknown damage {kind!r}, expected one of {', '.join(DAMAGES)}.")
