"""Opening and decoding pictures: the one place where foreign bytes meet Pillow, and become the pixels that all see.

Signals, hashes, CLIP, the loader and contact sheets see one and the same picture: the first frame as RGB, turned as its
EXIF says, transparency laid on white, 16 bits (and floats up to 1) scaled to 8. `FACTORY_AS_STORED` turns each of these
off for all of them, and what it says is part of the fingerprints of signals and of the state of a loader.

Pillow knows some forty formats and tries them all on any bytes, whatever a file's name says; among them are some that
start another program (PostScript runs Ghostscript) and many that nobody attacks because nobody uses them. Only those
that hold photos in datasets are read here, and only up to a budget of pixels: a file of half a megabyte may claim, and
give, 169 million of them.
"""

from __future__ import annotations

import functools
import importlib
from io import BytesIO
from math import ceil
from typing import TYPE_CHECKING

from factory_lib.settings import as_stored, max_pixels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

ORIENTATION_TAG = 0x0112
_BACK = {6: 8, 8: 6}
"""Orientations whose turn is undone by another one than their own."""
_HEAD = 1 << 17
"""Bytes of a JPEG within which its EXIF stands: a segment has 64 KB, and few stand before it."""
_TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")

_FORMATS = {
    "JPEG": ("jpg", "jpeg", "jfif", "jpe"),
    "PNG": ("png",),
    "WEBP": ("webp",),
    "GIF": ("gif",),
    "BMP": ("bmp",),
    "TIFF": ("tif", "tiff"),
    "AVIF": ("avif",),
    "JPEG2000": ("jp2",),
}
_PLUGINS = ("Jpeg", "Png", "WebP", "Gif", "Bmp", "Tiff", "Avif", "Jpeg2K")

FORMATS = tuple(_FORMATS)
"""What is read, by Pillow's names; JPEG includes the MPO of phones, whose first picture is one."""

EXTENSIONS = tuple(extension for extensions in _FORMATS.values() for extension in extensions)
"""Extensions of files of these formats: lower-case, without the dot."""


def open_picture(data: bytes | memoryview) -> Image.Image:
    """The picture that some bytes hold, its header read and its pixels not yet decoded.

    Raises:
        PIL.UnidentifiedImageError: no picture of one of `FORMATS`.
        PIL.Image.DecompressionBombError: more pixels than `FACTORY_MAX_PIXELS`.
        Exception: whatever Pillow raises on a broken header.
    """
    from PIL import Image

    _load_plugins()
    picture = Image.open(BytesIO(data), formats=FORMATS)
    check_pixels(*picture.size)
    return picture


def decode(picture: Image.Image, size: int | None = None) -> Image.Image:
    """The pixels of a picture as everything here sees them: RGB, as above.

    Args:
        picture: opened, its pixels not yet decoded.
        size: pixels that the shorter side must keep: a JPEG may be decoded at a fraction of its size, still at least
            this large.

    Raises:
        Exception: whatever Pillow raises on broken pixels.
    """
    stored = as_stored()
    said = orientation(picture)
    if size is not None and picture.format == "JPEG":
        width, height = picture.size
        scale = size / min(width, height)
        picture.draft("RGB", (ceil(width * scale), ceil(height * scale)))
    picture.load()
    left = orientation(picture)  # Pillow turns a TIFF itself when it decodes it, and then says that it is upright
    turn = left
    if "orientation" in stored:
        turn = 1 if left == said else _BACK.get(said, said)
    found = _rgb(picture, stored)
    return found if turn == 1 else found.transpose(_turns()[turn])


def array_of(picture: Image.Image) -> NDArray[np.uint8]:
    """The pixels of a picture, not to be written to.

    Args:
        picture: of mode L or RGB.

    Returns:
        uint8, (height, width) of L, (height, width, 3) of RGB.
    """
    import numpy as np
    import pyarrow as pa

    width, height = picture.size
    try:
        levels = pa.array(picture)  # the memory of the picture itself
    except ValueError:  # a large picture has its memory in several pieces
        return np.asarray(picture)
    if picture.mode == "L":
        return np.asarray(levels).reshape(height, width)
    import cv2

    found: NDArray[np.uint8] = np.empty((height, width, 3), np.uint8)
    cv2.cvtColor(np.asarray(levels.flatten()).reshape(height, width, 4), cv2.COLOR_RGBA2RGB, found)
    return found


def orientation(picture: Image.Image) -> int:
    """The EXIF orientation of a picture, 1 to 8; 1 where it says none."""
    try:
        value = picture.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # a broken EXIF block leaves the picture itself readable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def jpeg_orientation(data: bytes | memoryview) -> int:
    """The orientation to apply to a JPEG that something else than Pillow decodes; 1 where it is taken as stored."""
    if "orientation" in as_stored():
        return 1
    head = bytes(data[:_HEAD])
    if not any(mark in head for mark in (b"Exif\0\0", b"tiff:Orientation")):
        return 1
    return orientation(open_picture(data))


def _rgb(picture: Image.Image, stored: frozenset[str]) -> Image.Image:
    if picture.mode.startswith(("I", "F")) and "depth" not in stored:
        return _eight_bit(picture, "alpha" not in stored)
    transparent = picture.mode in _TRANSPARENT or "transparency" in picture.info
    if transparent and "alpha" not in stored:
        from PIL import Image

        seen = picture.convert("RGBA")
        white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, seen).convert("RGB")
    if picture.mode == "RGB":
        return picture
    return picture.convert("RGB")


def _eight_bit(picture: Image.Image, on_white: bool) -> Image.Image:
    """Grey levels of other numbers scaled to 8 bits: Pillow's own conversion clips at 255 and gives white, or black.

    Whole numbers of 16 bits (32 where one is above 255) lose their lower 8; floats that are all at most 1 are shares.

    Args:
        on_white: whether the level that a file calls transparent becomes white.
    """
    import numpy as np
    from PIL import Image

    levels = np.asarray(picture)
    if picture.mode == "F":
        scaled = np.nan_to_num(levels) * (255 if np.nanmax(levels, initial=0) <= 1 else 1)
        return Image.fromarray(scaled.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    transparent = picture.info.get("transparency") if on_white else None
    seen = levels.astype(np.int64)
    if picture.mode.startswith("I;16") or seen.max(initial=0) > 255:
        seen >>= 8
    if isinstance(transparent, int):
        seen[levels == transparent] = 255
    return Image.fromarray(seen.clip(0, 255).astype(np.uint8)).convert("RGB")


@functools.cache
def _turns() -> dict[int, Image.Transpose]:
    """What to do to a picture of each EXIF orientation."""
    from PIL.Image import Transpose as Turn

    turns = (Turn.FLIP_LEFT_RIGHT, Turn.ROTATE_180, Turn.FLIP_TOP_BOTTOM, Turn.TRANSPOSE, Turn.ROTATE_270)
    return dict(enumerate((*turns, Turn.TRANSVERSE, Turn.ROTATE_90), start=2))


def check_pixels(width: int, height: int) -> None:
    """Refuse a picture that is too large to be decoded.

    Args:
        width: pixels, as the header says.
        height: pixels, as the header says.

    Raises:
        PIL.Image.DecompressionBombError: more pixels than `FACTORY_MAX_PIXELS`.
    """
    if width * height > max_pixels():
        from PIL import Image

        raise Image.DecompressionBombError(
            f"{width} x {height} pixels are more than {max_pixels()}, the limit that FACTORY_MAX_PIXELS sets"
        )


@functools.cache
def _load_plugins() -> None:
    """Load the readers of these formats: asked for one that is not loaded yet, Pillow loads all that it has."""
    for name in _PLUGINS:
        importlib.import_module(f"PIL.{name}ImagePlugin")
