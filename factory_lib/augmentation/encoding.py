"""Pixels as the bytes of a file, the same bytes each time."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Literal, get_args

from factory_lib.errors import QueryError, nearest
from factory_lib.pictures import FORMATS

if TYPE_CHECKING:
    from PIL import Image

Format = Literal["jpg", "png", "webp"]
_OF_FORMATS = ("jpg", "png", "webp", "gif", "bmp", "tif", "avif", "jp2")
USUAL_EXTENSION = dict(zip(FORMATS, _OF_FORMATS, strict=True)) | {"MPO": "jpg"}
"""Pillow's name of a format -> extension of its files, as they are named here."""


@dataclass(frozen=True)
class Encoding:
    """How pixels that changed are written. No metadata and no colour profile is.

    Attributes:
        format: None for that of the picture they were made of, JPEG where that is none of these.
        quality: of JPEG and WebP, 1 to 100; img2dataset takes 95. PNG loses nothing.
    """

    format: Format | None = None
    quality: int = 95

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in get_args(Format):
            hint = nearest(self.format, get_args(Format))
            raise QueryError(f"Encoding(format={self.format!r}): there is no such format.", hint)
        if not 1 <= self.quality <= 100:
            raise QueryError(f"Encoding(quality={self.quality}): a quality is from 1 to 100.")

    def encode(self, picture: Image.Image, of: str) -> tuple[bytes, str]:
        """The bytes of a picture, and the extension of such a file.

        Args:
            picture: RGB.
            of: Pillow's name of the format of the picture that it was made of.
        """
        of_parent = USUAL_EXTENSION.get(of, "")
        extension = self.format or (of_parent if of_parent in get_args(Format) else "jpg")
        plain = picture.copy()
        plain.info = {}  # what a file said of itself would be written again
        into = BytesIO()
        match extension:
            case "jpg":
                plain.save(into, "JPEG", quality=self.quality, subsampling="4:2:0")
            case "png":
                plain.save(into, "PNG", compress_level=6)
            case _:
                plain.save(into, "WEBP", quality=self.quality, method=4)
        return into.getvalue(), extension
