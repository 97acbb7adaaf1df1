"""Pictures are opened in one place, for the formats that are meant, up to a budget of pixels."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from factory_lib.errors import SettingsError
from factory_lib.loading.decode import decoder
from factory_lib.orchestration.contact_sheet import _tile
from factory_lib.pictures import EXTENSIONS, FORMATS, open_picture
from factory_lib.signals.image import image_header
from factory_lib.signals.member import Member
from tests.test_house import modules

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(ran) print\nshowpage\n%%EOF\n"

SEES: dict[str, Callable[[bytes], Any]] = {
    "opening": lambda data: open_picture(data).load(),
    "signals": lambda data: Member(data).picture(),
    "header": lambda data: Member(data).header(),
    "loader": lambda data: decoder("pillow")(memoryview(data)),
    "loader, small": lambda data: decoder("pillow", 4)(memoryview(data)),
    "simplejpeg": lambda data: decoder("simplejpeg")(memoryview(data)),
}
"""Everything of the package that makes pixels of bytes."""


def encoded(kind: str, size: tuple[int, int] = (9, 7)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(out, kind)
    return out.getvalue()


def png(width: int, height: int) -> bytes:
    """A black 1-bit PNG of any size, in a few bytes a megapixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height, 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", FORMATS)
def test_the_formats_of_photos_are_read(kind: str) -> None:
    picture = open_picture(encoded(kind))
    assert (picture.format, picture.size) == (kind, (9, 7))
    red, green, blue = np.asarray(picture.convert("RGB")).reshape(-1, 3).mean(axis=0)
    assert red > 150
    assert green < 60
    assert blue < 60


def test_phones_write_mpo() -> None:
    out = io.BytesIO()
    Image.new("RGB", (9, 7)).save(out, "MPO", save_all=True, append_images=[Image.new("RGB", (9, 7))])
    assert open_picture(out.getvalue()).size == (9, 7)


@pytest.mark.parametrize("where", SEES)
def test_no_other_format_is_tried(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin

    started: list[Any] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given, **named: started.append(given))
    others = [encoded(kind) for kind in ("PPM", "ICO", "TGA", "PCX", "SGI", "EPS", "PDF", "ICNS", "DDS", "IM")]
    Image.init()  # all that Pillow has is loaded, as a script of the user may have done
    for data in (POSTSCRIPT, *others):
        with pytest.raises(UnidentifiedImageError):
            SEES[where](data)
    assert started == []
    assert _tile(POSTSCRIPT) is None


@pytest.mark.parametrize("where", SEES)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_more_pixels_than_the_budget_are_an_error(where: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(kind, (20, 15))
    monkeypatch.setenv("FACTORY_MAX_PIXELS", "300")
    SEES[where](data)
    monkeypatch.setenv("FACTORY_MAX_PIXELS", "299")
    with pytest.raises(Image.DecompressionBombError, match="20 x 15 pixels are more than 299.*FACTORY_MAX_PIXELS"):
        SEES[where](data)
    assert _tile(data) is None


def test_a_small_file_of_many_pixels_is_not_decoded() -> None:
    """169 million pixels in 22 KB: within Pillow's own limit, and gigabytes in some signals."""
    data = png(13_000, 13_000)
    assert len(data) < 100_000
    for see in SEES.values():
        with pytest.raises(Image.DecompressionBombError, match="13000 x 13000"):
            see(data)
    found = image_header.one(data)
    assert not found.decodes
    assert "13000 x 13000" in found.problem
    assert open_picture(png(8_192, 8_192)).size == (8_192, 8_192), "a photo of 64 megapixels is one"


def test_a_budget_that_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, said in (("many", "is not a number"), ("0", "below 1"), ("2e8", "the most that Pillow decodes")):
        monkeypatch.setenv("FACTORY_MAX_PIXELS", text)
        with pytest.raises(SettingsError, match=f"FACTORY_MAX_PIXELS=.*{said}"):
            open_picture(encoded("PNG"))


def test_nothing_else_opens_pictures() -> None:
    for name, path in modules().items():
        if name != "factory_lib.pictures":
            text = path.read_text()
            assert not re.search(r"Image\.open\(|Pillow\.open\(|ImagePlugin|ImageFile\.Parser", text), name
    assert "jpg" in EXTENSIONS
    assert all(extension.islower() for extension in EXTENSIONS)
