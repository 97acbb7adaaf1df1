"""The bytes of one member of a sample, decoded at most once however many signals look at them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from factory_lib.pictures import array_of, decode, open_picture, orientation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(frozen=True)
class Header:
    """What an image says of itself before its pixels are decoded.

    Attributes:
        width: pixels, as stored (EXIF orientation not applied).
        height: pixels, as stored.
        format: Pillow's name of the format, such as `JPEG`.
        mode: Pillow's pixel mode as stored, such as `RGB`, `L`, `CMYK`, `P`, `I;16`.
        frames: pictures in the file; more than 1 for animations and multi-page files.
        orientation: EXIF orientation, 1 to 8; 1 where there is none.
    """

    width: int
    height: int
    format: str
    mode: str
    frames: int
    orientation: int


class Member:
    """Bytes of one member, with its header and its picture made on first use and kept.

    Args:
        data: the bytes of the member.
        picture: the picture, for a member made from a picture that has no bytes.
    """

    __slots__ = ("_bytes", "_data", "_failure", "_levels", "_luma", "_opened", "_picture", "_pixels", "_truncated")

    def __init__(self, data: bytes | memoryview, picture: Image.Image | None = None) -> None:
        self._data = data
        self._bytes: bytes | None = data if isinstance(data, bytes) else None
        self._opened = picture
        self._picture = decode(picture) if picture is not None else None
        self._failure: Exception | None = None
        self._truncated: Image.Image | None = None
        self._luma: Image.Image | None = None
        self._levels: NDArray[np.uint8] | None = None
        self._pixels: NDArray[np.uint8] | None = None

    @property
    def data(self) -> bytes:
        """The bytes as stored."""
        if self._bytes is None:
            self._bytes = bytes(self._data)
        return self._bytes

    @property
    def mode(self) -> str:
        """Pillow's pixel mode as stored; raises as `header` does."""
        return str(self._open().mode)

    def header(self) -> Header:
        """Size, format, mode, frames and orientation; no pixel is decoded.

        Raises:
            PIL.UnidentifiedImageError: not an image of a format that is read.
            PIL.Image.DecompressionBombError: more pixels than `FACTORY_MAX_PIXELS`.
        """
        opened = self._open()
        if getattr(opened, "n_frames", None) is not None and self._data:
            # Counting frames seeks: done on a fresh handle, as the picture may already be loaded from this one.
            opened = open_picture(self._data)
        frames = int(getattr(opened, "n_frames", 1))
        return Header(*opened.size, opened.format or "", opened.mode, frames, orientation(opened))

    def picture(self, truncated: bool = False) -> Image.Image:
        """The decoded first frame as RGB, as `pictures` says: turned as EXIF says, alpha on white, 16 bits scaled to 8.

        All signals share it: don't write to it.

        Args:
            truncated: accept a file that ends early; what is missing is grey.

        Raises:
            OSError: the file is not an image, or broken.
            PIL.Image.DecompressionBombError: more pixels than `FACTORY_MAX_PIXELS`.
        """
        if self._picture is not None:
            return self._picture
        if truncated:
            if self._truncated is None:
                with _truncated_allowed():
                    self._truncated = decode(open_picture(self._data))
            return self._truncated
        if self._failure is None:
            try:
                self._picture = decode(self._open())
            except Exception as error:
                self._failure = error.with_traceback(None)
            else:
                return self._picture
        raise self._failure

    def luma(self) -> Image.Image:
        """The picture's luma as Pillow computes it (mode L); raises as `picture` does."""
        if self._luma is None:
            self._luma = self.picture().convert("L")
        return self._luma

    def levels(self) -> NDArray[np.uint8]:
        """The luma as an array, (height, width), not to be written to; raises as `picture` does."""
        if self._levels is None:
            self._levels = array_of(self.luma())
        return self._levels

    def pixels(self) -> NDArray[np.uint8]:
        """The picture as an array, (height, width, 3), not to be written to; raises as `picture` does."""
        if self._pixels is None:
            self._pixels = array_of(self.picture())
        return self._pixels

    def _open(self) -> Image.Image:
        if self._opened is None:
            self._opened = open_picture(self._data)
        return self._opened


@contextmanager
def silent_decoding() -> Iterator[None]:
    """Keep Pillow's remarks on odd files (corrupt EXIF, many pixels) out of the log: errors are values here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.filterwarnings("ignore", message=r"Image size .* exceeds limit")
        yield


@contextmanager
def _truncated_allowed() -> Iterator[None]:
    from PIL import ImageFile

    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
