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
from factory_lib.orchestration.events.contact_sheet import _tile
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


def saved(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def quarters(size: int = 32) -> Image.Image:
    """Four quarters of grey, each of another level: 30, 90 above, 150, 240 below."""
    return Image.fromarray(np.array([[30, 90], [150, 240]], np.uint8)).resize((size * 3 // 2, size), 0).convert("RGB")


def turned(number: int, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = number
    return saved(quarters(), kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))


def corners(seen: Any) -> list[int]:
    """Levels of the four quarters, row by row, to the nearest ten, and then width and height."""
    pixels = np.asarray(seen).astype(int)
    height, width = pixels.shape[:2]
    at = ((1, 1), (1, 3), (3, 1), (3, 3))
    levels = [pixels[height * y // 4, width * x // 4].mean() for y, x in at]
    return [round(float(level) / 10) * 10 for level in levels]


SEEING = {name: SEES[name] for name in ("signals", "loader", "loader, small", "simplejpeg")} | {"sheet": _tile}

ORIENTED = {
    1: [30, 90, 150, 240],
    2: [90, 30, 240, 150],
    3: [240, 150, 90, 30],
    4: [150, 240, 30, 90],
    5: [30, 150, 90, 240],
    6: [150, 30, 240, 90],
    7: [240, 90, 150, 30],
    8: [90, 240, 30, 150],
}
"""EXIF 2.3, 4.6.4 A: what of the stored picture's quarters is seen where."""


@pytest.mark.parametrize("where", SEEING)
@pytest.mark.parametrize("number", ORIENTED)
def test_all_turn_a_picture_as_its_exif_says(where: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("JPEG", "PNG", "TIFF"):
        seen = np.asarray(SEEING[where](turned(number, kind)))
        assert corners(seen) == ORIENTED[number]
        assert (seen.shape[0] < seen.shape[1]) == (number < 5)
        monkeypatch.setenv("FACTORY_AS_STORED", "orientation")
        assert corners(SEEING[where](turned(number, kind))) == ORIENTED[1]
        monkeypatch.delenv("FACTORY_AS_STORED")


def half_transparent(mode: str) -> bytes:
    rgba = Image.new("RGBA", (16, 16), (200, 0, 0, 0))
    rgba.paste((40, 80, 120, 255), (8, 0, 16, 16))
    if mode == "P":
        paletted = Image.new("P", (16, 16), 0)
        paletted.putpalette([200, 0, 0, 40, 80, 120])
        paletted.paste(1, (8, 0, 16, 16))
        return saved(paletted, transparency=0)
    if mode == "RGB":
        return saved(rgba.convert("RGB"), transparency=(200, 0, 0))
    return saved(rgba.convert(mode))


@pytest.mark.parametrize("where", SEEING)
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_all_lay_transparency_on_white(where: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = np.asarray(SEEING[where](half_transparent(mode)))
    assert (seen[4, 2] == 255).all(), seen[4, 2]
    assert (seen[4, 12] < 130).all(), "what is opaque stays"
    monkeypatch.setenv("FACTORY_AS_STORED", "alpha,depth")
    assert not (np.asarray(SEEING[where](half_transparent(mode)))[4, 2] == 255).all()


@pytest.mark.parametrize("where", SEEING)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_all_scale_sixteen_bits(where: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = Image.fromarray(np.full((16, 16), 127 * 257, np.uint16))
    assert deep.mode.startswith("I;16")
    assert (np.asarray(SEEING[where](saved(deep, kind))) == 127).all()
    monkeypatch.setenv("FACTORY_AS_STORED", "depth")
    assert (np.asarray(SEEING[where](saved(deep, kind))) == 255).all(), "as Pillow clips it"


def with_transparent_level(png: bytes, level: int) -> bytes:
    """A PNG with a chunk tRNS (PNG 3rd edition, 11.3.1.1) before its pixels."""
    at, chunk = png.index(b"IDAT") - 4, b"tRNS" + struct.pack(">H", level)
    return png[:at] + struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[at:]


@pytest.mark.parametrize("where", SEEING)
def test_all_see_deep_levels_as_they_are_meant(where: str) -> None:
    grey = np.tile(np.arange(0, 256, 17, dtype=np.uint8), (16, 1))
    deep = with_transparent_level(saved(Image.fromarray(grey.astype(np.uint16) * 257)), 34 * 257)
    shown = np.asarray(SEEING[where](deep))[..., 0].astype(int)
    assert (np.abs(shown - np.where(grey == 34, 255, grey)) <= 4).all() or where == "loader, small"
    for scale in (1, 1 / 255):  # floats of 0 to 255, and of 0 to 1
        shown = np.asarray(SEEING[where](saved(Image.fromarray(np.full((16, 16), 119 * scale, np.float32)), "TIFF")))
        assert (np.abs(shown.astype(int) - 119) <= 1).all()


@pytest.mark.parametrize("where", SEEING)
def test_all_take_the_first_frame(where: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("white", "black")]
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        assert (np.asarray(SEEING[where](saved(frames[0], kind, save_all=True, append_images=frames[1:]))) > 250).all()


def test_what_is_taken_as_stored_is_part_of_fingerprints_and_known_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from factory_lib.signals.hashes import phash, sha256

    before = phash.fingerprint, sha256.fingerprint, image_header.fingerprint
    monkeypatch.setenv("FACTORY_AS_STORED", "alpha")
    assert phash.fingerprint != before[0]
    assert sha256.fingerprint == before[1]
    assert image_header.fingerprint != before[2]
    monkeypatch.setenv("FACTORY_AS_STORED", "orientations")
    with pytest.raises(SettingsError, match="'orientations'.*Did you mean 'orientation'"):
        open_picture(turned(1)) and Member(turned(1)).picture()


def test_nothing_else_opens_pictures() -> None:
    for name, path in modules().items():
        if name != "factory_lib.pictures":
            text = path.read_text()
            assert not re.search(r"Image\.open\(|Pillow\.open\(|ImagePlugin|ImageFile\.Parser", text), name
    assert "jpg" in EXTENSIONS
    assert all(extension.islower() for extension in EXTENSIONS)
