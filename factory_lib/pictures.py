"""Opening pictures: the one place where foreign bytes meet Pillow.

Pillow knows some forty formats and tries them all on any bytes, whatever a file's name says; among them are some that
start another program (PostScript runs Ghostscript) and many that nobody attacks because nobody uses them. Only those
that hold photos in datasets are read here, and only up to a budget of pixels: a file of half a megabyte may claim, and
give, 169 million of them.
"""

from __future__ import annotations

import functools
import importlib
from io import BytesIO
from typing import TYPE_CHECKING

from factory_lib.settings import max_pixels

if TYPE_CHECKING:
    from PIL import Image

_FORMATS = {
    "JPEG": ("jpg", "jpeg"),
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
