"""Operations on single samples, against Pillow, numpy and the reference of img2dataset."""

from __future__ import annotations

import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from factory_lib.augmentation import (
    BlurFaces,
    CenterCrop,
    CropToBox,
    Encoding,
    HorizontalFlip,
    Operation,
    RandomCrop,
    Recaption,
    Resize,
    StripExif,
)
from factory_lib.augmentation.applying import Augmentation, MadeSample
from factory_lib.augmentation.blurring import blurred
from factory_lib.augmentation.boxes import boxes_of
from factory_lib.augmentation.metadata import without_chunks, without_riff_chunks, without_segments
from factory_lib.errors import ColumnNotFound, QueryError
from factory_lib.signals import signal
from factory_lib.signals.member import Member
from factory_lib.sources.entries import picture_format

COLUMNS = ("image", "caption", "key", "boxes", "face_bboxes", "label")


def picture(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    """Smooth noise, which a lossy format keeps well."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "PNG", **how: Any) -> bytes:
    into = BytesIO()
    image.save(into, format, **how)
    return into.getvalue()


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))


def made(data: bytes, *operations: Operation, encoding: Encoding | None = None, **values: Any) -> MadeSample:
    augmentation = Augmentation.over(operations, encoding or Encoding(), COLUMNS)
    caption = values.pop("caption", "a caption")
    return augmentation.apply(Member(data), caption, {n: values.get(n) for n in augmentation.columns})


# Faces -----------------------------------------------------------------------------------------------------------


def test_faces_are_blurred_as_img2dataset_blurs_them(shared_data: Path) -> None:
    folder = shared_data / "face_blur"
    original, expected = (decoded((folder / f"{name}.png").read_bytes()) for name in ("original", "blurred"))
    boxes = np.load(folder / "bbox.npy")
    np.testing.assert_array_equal(blurred(original, boxes), expected)
    # As they come out of a column they are numbers of 64 bits: one corner of this box is cut to another pixel.
    data = (folder / "original.png").read_bytes()
    found = decoded(made(data, BlurFaces(), face_bboxes=boxes.tolist()).data)
    assert np.abs(found.astype(int) - expected).mean() <= 0.05
    assert np.abs(found.astype(int) - original).mean() > 1


def test_a_picture_without_faces_keeps_its_bytes() -> None:
    data = encoded(picture(), "JPEG")
    for none in ([], None):
        assert made(data, BlurFaces(), face_bboxes=none).data == data


def test_a_stronger_blur_leaves_less_detail() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (100, 100, 3), np.uint8)
    box = np.array([[0.2, 0.2, 0.8, 0.8]])
    spread = [blurred(noise, box, strength)[40:60, 40:60].std() for strength in (1, 3)]
    assert spread[1] < spread[0] < noise[40:60, 40:60].std()
    for wrong in (0, -1, 11, float("nan")):
        with pytest.raises(QueryError, match="strength"):
            BlurFaces(strength=wrong)
    assert str(BlurFaces(strength=3)) == str(BlurFaces(strength=3.0))


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        ([[0.1, 0.1, float("nan"), 0.5]], "not finite"),
        ([[0.1, 0.1, float("inf"), 0.5]], "not finite"),
        ([[0.1, 0.1, None, 0.5]], "not finite"),
        ([[34.0, 20.0, 80.0, 70.0]], "outside of the picture"),
        ([[1.2, 0.1, 1.5, 0.5]], "outside of the picture"),
        ([[-0.4, 0.1, -0.1, 0.5]], "outside of the picture"),
        ([[0.5, 0.1, 0.2, 0.5]], "comes before"),
        ([[0.0, 0.0, 30.0, 20.0]], "outside of the picture"),
        ([[0.0, 0.0, 0.9, 2.0]], "outside of the picture"),
        ([[-20.0, 0.1, 0.5, 0.9]], "outside of the picture"),
        ([[0.5, 0.5, 0.5, 0.5]], "empty box"),
        ([[0.1, 0.1, 0.4, 0.4], [0.5, 0.2, 0.8, 0.2]], "empty box"),
        ([[0.1, 0.1, 0.4, 0.4], [0.501, 0.502, 0.502, 0.503]], "without a pixel of the 60 x 40"),
        ([[0.1, 0.2, 0.3]], "3 numbers"),
        ({"number": None, "boxes": []}, "no answer"),
    ],
)
def test_boxes_that_are_none_make_no_sample(boxes: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        made(encoded(picture()), BlurFaces(), face_bboxes=boxes)


def test_a_detector_that_failed_makes_no_sample() -> None:
    augmentation = Augmentation.over([BlurFaces("faces")], Encoding(), ["image", "faces", "faces_error"])
    with pytest.raises(ValueError, match="broken model"):
        augmentation.apply(Member(encoded(picture())), None, {"faces": [], "faces_error": "broken model"})


@pytest.mark.parametrize(
    "value",
    [
        [[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.9, 0.9]],
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.9, 0.9],
        [{"x0": 0.1, "y0": 0.2, "x1": 0.3, "y1": 0.4}, {"x0": 0.5, "y0": 0.5, "x1": 0.9, "y1": 0.9}],
        {"number": 2, "boxes": [[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.9, 0.9]], "scores": [0.9, 0.8]},
    ],
)
def test_boxes_are_read_in_the_forms_that_columns_have(value: Any) -> None:
    np.testing.assert_allclose(boxes_of(value, "b"), [[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.9, 0.9]])


_SHARE = st.floats(-0.5, 1.5, allow_nan=False)
_BOX = st.tuples(_SHARE, _SHARE, _SHARE, _SHARE)


@given(st.lists(_BOX, min_size=1, max_size=4), st.integers(1, 70), st.integers(1, 70))
@settings(max_examples=200)
def test_any_boxes_are_refused_or_blur_what_is_in_reach_alone(boxes: list[Any], width: int, height: int) -> None:
    pixels = np.random.default_rng(2).integers(0, 255, (height, width, 3), np.uint8)
    outside = any(x0 >= x1 or y0 >= y1 or x0 >= 1 or y0 >= 1 or x1 <= 0 or y1 <= 0 for x0, y0, x1, y1 in boxes)
    if outside:
        with pytest.raises(ValueError, match="box"):
            boxes_of([list(box) for box in boxes], "b")
        return
    found = blurred(pixels, boxes_of([list(box) for box in boxes], "b"))
    assert (found.shape, found.dtype) == (pixels.shape, np.uint8)
    # By the definition: a tenth of the longer side that a box grows by, a tenth of the longest that the filter reaches.
    reach = np.zeros((height, width), bool)
    longest = max(
        max(int(x1 * width) - int(x0 * width), int(y1 * height) - int(y0 * height)) for x0, y0, x1, y1 in boxes
    )
    for x0, y0, x1, y1 in boxes:
        more = 0.2 * longest + 3
        left, top = max(int(x0 * width - more), 0), max(int(y0 * height - more), 0)
        reach[top : max(int(y1 * height + more), 0), left : max(int(x1 * width + more), 0)] = True
    np.testing.assert_array_equal(found[~reach], pixels[~reach])


# Shapes ----------------------------------------------------------------------------------------------------------


def test_a_picture_is_mirrored() -> None:
    image = picture()
    found = made(encoded(image), HorizontalFlip())
    np.testing.assert_array_equal(decoded(found.data), np.asarray(image)[:, ::-1])
    assert (found.extension, int(found.width), int(found.height)) == ("png", 60, 40)


def test_a_turned_picture_is_mirrored_as_it_is_seen() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(picture(), "PNG", exif=exif)
    found = made(data, HorizontalFlip())
    np.testing.assert_array_equal(decoded(found.data), np.asarray(ImageOps.exif_transpose(picture_of(data)))[:, ::-1])
    assert (int(found.width), int(found.height)) == (40, 60)


def picture_of(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data))


def test_parts_of_pictures() -> None:
    image = picture(61, 40)
    pixels = np.asarray(image)
    data = encoded(image)
    np.testing.assert_array_equal(decoded(made(data, CenterCrop(20, 10)).data), pixels[15:25, 20:40])
    np.testing.assert_array_equal(
        decoded(made(data, CropToBox("boxes"), boxes=[[0.5, 0.25, 1.2, 0.75], [0, 0, 0.1, 0.1]]).data),
        pixels[10:30, 30:61],
    )
    one, again, other, key = (
        decoded(made(data, RandomCrop(20, 10, seed=seed), key=key).data)
        for seed, key in ((1, "a"), (1, "a"), (2, "a"), (1, "b"))
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, key)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (10, 20, 3))[..., 0, :, :, :]
    assert (windows == one).all(axis=(2, 3, 4)).any()


def test_random_parts_lie_everywhere() -> None:
    ramp = np.tile(np.arange(30, dtype=np.uint8)[None, :, None], (1, 1, 3))
    lefts = {
        int(decoded(made(encoded(Image.fromarray(ramp)), RandomCrop(21, 1), key=str(i)).data)[0, 0, 0])
        for i in range(200)
    }
    assert lefts == set(range(10))


@pytest.mark.parametrize(
    ("operation", "values", "reason"),
    [
        (CenterCrop(61, 10), {}, "60 x 40 pixels are less"),
        (RandomCrop(10, 41), {"key": "a"}, "60 x 40 pixels are less"),
        (CropToBox("boxes"), {"boxes": []}, "no box"),
        (CropToBox("boxes"), {"boxes": [[0.5, 0.5, 0.501, 0.9]]}, "without a pixel"),
    ],
)
def test_a_part_that_is_not_there_makes_no_sample(operation: Operation, values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        made(encoded(picture()), operation, **values)


@pytest.mark.parametrize(
    ("operation", "size"),
    [
        (Resize(30), (30, 20)),
        (Resize(20, "keep_ratio"), (30, 20)),
        (Resize(20, "center_crop"), (20, 20)),
        (Resize(30, "border"), (30, 30)),
        (Resize(30, "fixed"), (30, 30)),
        (Resize(120), (120, 80)),
        (Resize(120, only_if_bigger=True), (60, 40)),
        (Resize(50, "keep_ratio", only_if_bigger=True), (60, 40)),
    ],
)
def test_sizes_are_those_of_img2dataset(operation: Resize, size: tuple[int, int]) -> None:
    found = made(encoded(picture()), operation)
    assert (int(found.width), int(found.height)) == size
    assert Image.open(BytesIO(found.data)).size == size


def test_pictures_shrink_by_areas_and_borders_are_white() -> None:
    pixels = np.random.default_rng(3).integers(0, 255, (40, 60, 3), np.uint8)
    mean = pixels.reshape(20, 2, 30, 2, 3).mean(axis=(1, 3))
    bordered = decoded(made(encoded(Image.fromarray(pixels)), Resize(30, "border")).data)
    assert np.abs(bordered[5:25] - mean).max() <= 0.5
    assert (bordered[:5] == 255).all()
    assert (bordered[25:] == 255).all()
    squared = decoded(made(encoded(Image.fromarray(pixels)), Resize(20, "center_crop")).data)
    assert np.abs(squared - mean[:, 5:25]).max() <= 0.5


def test_what_cannot_be_declared_says_why() -> None:
    with pytest.raises(QueryError, match=r"there is no such mode.*border"):
        Resize(20, "borders")  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="a pixel at least"):
        CenterCrop(0, 3)
    with pytest.raises(QueryError, match=r"there is no such format.*jpg"):
        Encoding("jpeg")  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="1 to 100"):
        Encoding(quality=0)
    with pytest.raises(QueryError, match="No operation"):
        made(b"")
    with pytest.raises(QueryError, match="no operation"):
        made(b"", len)  # type: ignore[arg-type]
    with pytest.raises(ColumnNotFound, match=r"face_boxes.*face_bboxes"):
        made(b"", BlurFaces("face_boxes"))


# Metadata --------------------------------------------------------------------------------------------------------


def with_metadata(format: str, orientation: int = 1, **how: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "SECRET camera"
    exif.get_ifd(0x8825)[1] = "N"
    more: dict[str, Any] = {"comment": b"SECRET comment"} if format == "JPEG" else {}
    if format != "PNG":
        more["xmp"] = b"<x:xmpmeta>SECRET xmp</x:xmpmeta>"
    else:
        from PIL.PngImagePlugin import PngInfo

        more["pnginfo"] = PngInfo()
        more["pnginfo"].add_text("Author", "SECRET author")
    return encoded(picture(), format, exif=exif, icc_profile=b"a colour profile" * 9, **more, **how)


@pytest.mark.parametrize("orientation", [1, 6, 8])
@pytest.mark.parametrize(
    ("format", "how"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True})],
)
def test_metadata_is_cut_out_and_pixels_stay(format: str, how: dict[str, Any], orientation: int) -> None:
    data = with_metadata(format, orientation, **how)
    assert data.count(b"SECRET") >= 2
    found = made(data + b"SECRET behind the end", StripExif())
    assert b"SECRET" not in found.data
    before, after = Image.open(BytesIO(data)), Image.open(BytesIO(found.data))
    np.testing.assert_array_equal(np.asarray(before), np.asarray(after))
    assert dict(after.getexif()) == ({} if orientation == 1 else {0x0112: orientation})
    assert after.info.get("icc_profile") == before.info["icc_profile"]
    assert (after.format, after.size) == (before.format, before.size)
    assert made(found.data, StripExif()).data == found.data


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return len(body).to_bytes(4) + name + body + zlib.crc32(name + body).to_bytes(4)


def riff_chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a WebP."""
    return name + len(body).to_bytes(4, "little") + body + b"\0" * (len(body) % 2)


def same_pixels(one: bytes, other: bytes) -> None:
    np.testing.assert_array_equal(decoded(one), decoded(other))


@pytest.mark.parametrize("name", [b"caBX", b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"tIME", b"sPLT", b"hIST", b"prVt"])
def test_chunks_of_a_png_that_are_no_picture_go(name: bytes) -> None:
    clean = encoded(picture(), "PNG")
    gamma = chunk(b"gAMA", (45455).to_bytes(4))
    found = made(clean[:33] + gamma + chunk(name, b"SECRET") + clean[33:], StripExif())
    assert found.data == clean[:33] + gamma + clean[33:]


@pytest.mark.parametrize("marker", [0xE0, 0xE1, 0xE2, 0xE3, 0xEB, 0xED, 0xEE, 0xEF, 0xFE, 0xF0, 0xC8, 0x02])
def test_segments_of_a_jpeg_that_are_no_picture_go(marker: int) -> None:
    clean = encoded(picture(), "JPEG")
    for begins in (b"", b"JFXX\0", b"MPF\0", b"JP\0\1", b"Photoshop 3.0\0", b"http://ns.adobe.com/xap/1.0/\0"):
        body = begins + b"SECRET"
        segment = bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2) + body
        assert without_segments(clean[:20] + segment + clean[20:], b"") == clean


def test_the_thumbnail_of_a_jpeg_s_jfif_goes() -> None:
    clean = encoded(picture(), "JPEG")
    assert (clean[4:6], clean[6:11], clean[18:20]) == (b"\0\x10", b"JFIF\0", b"\0\0")
    thumbnail = b"SECRET" * 2
    data = clean[:4] + (16 + len(thumbnail)).to_bytes(2) + clean[6:18] + b"\2\2" + thumbnail + clean[20:]
    same_pixels(data, clean)
    assert made(data, StripExif()).data == clean


def test_what_is_more_than_a_jpeg_s_colour_space_goes() -> None:
    cmyk = encoded(picture().convert("CMYK"), "JPEG")
    at = cmyk.index(b"\xff\xee\0\x0eAdobe")
    data = cmyk[: at + 3] + b"\x14" + cmyk[at + 4 : at + 16] + b"SECRET" + cmyk[at + 16 :]
    found = made(data, StripExif()).data
    assert found == cmyk
    same_pixels(found, data)


@pytest.mark.parametrize("name", [b"C2PA", b"EXIF", b"XMP ", b"JUNK", b"LIST"])
def test_chunks_of_a_webp_that_are_no_picture_go(name: bytes) -> None:
    frames = [picture(seed=seed) for seed in (1, 2)]
    clean = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=100)
    secret = riff_chunk(name, b"SECRET!")
    at = clean.index(b"ANMF")
    size = int.from_bytes(clean[at + 4 : at + 8], "little")
    frame = riff_chunk(b"ANMF", clean[at + 8 : at + 8 + size] + secret)
    body = clean[8:at] + secret + frame + clean[at + 8 + size :] + secret
    data = b"RIFF" + len(body).to_bytes(4, "little") + body
    assert made(data, StripExif()).data == clean


def test_pictures_of_phones_lose_what_stands_behind_the_first() -> None:
    frames = [picture(seed=seed) for seed in (1, 2)]
    data = encoded(frames[0], "MPO", save_all=True, append_images=[frames[1]])
    assert getattr(Image.open(BytesIO(data)), "n_frames", 1) == 2
    found = made(data, StripExif())
    assert Image.open(BytesIO(found.data)).format == "JPEG"
    assert len(found.data) < 0.7 * len(data)
    np.testing.assert_array_equal(decoded(found.data), decoded(data))


def test_other_formats_are_encoded_anew() -> None:
    found = made(encoded(picture(), "BMP"), StripExif(), encoding=Encoding("png"))
    assert found.extension == "png"
    np.testing.assert_array_equal(decoded(found.data), np.asarray(picture()))


def test_bytes_that_changed_have_no_metadata_either() -> None:
    for format in ("JPEG", "PNG", "WEBP"):
        found = made(with_metadata(format, 6), StripExif(), HorizontalFlip(), StripExif())
        assert b"SECRET" not in found.data
        assert not dict(Image.open(BytesIO(found.data)).getexif())


@given(st.binary(max_size=200), st.integers(0, 3000), st.integers(0, 255))
@settings(max_examples=150)
def test_damaged_pictures_are_an_error_or_keep_their_pixels(junk: bytes, at: int, value: int) -> None:
    for format, strip in (("JPEG", without_segments), ("PNG", without_chunks), ("WEBP", without_riff_chunks)):
        whole = _WHOLE[format]
        damaged = bytearray(whole + junk)
        damaged[at % len(whole)] = value
        try:
            found = strip(bytes(damaged), b"")
        except (ValueError, IndexError):
            continue
        assert len(found) <= len(damaged)


_WHOLE = {format: with_metadata(format) for format in ("JPEG", "PNG", "WEBP")}


# Captions, and everything ----------------------------------------------------------------------------------------


def longer(caption: str, label: str | None) -> str:
    return f"{caption}, {label}"


@signal
def seen(image: Image.Image) -> str:
    return f"{image.width} by {image.height}"


def test_captions_are_what_a_function_returns() -> None:
    data = encoded(picture())
    assert made(data, Recaption(longer), label="red", caption="a dress").caption == "a dress, red"
    assert made(data, Recaption(seen), caption=None).caption == "60 by 40"
    found = made(data, Resize(30), Recaption(seen), Recaption(longer), label=None)
    assert found.caption == "30 by 20, None"
    with pytest.raises(ValueError, match="no caption"):
        made(data, Recaption(longer), caption=None)


def test_functions_that_give_no_text_are_refused() -> None:
    def number(caption: str) -> int:
        return 1

    def nothing(caption: str) -> str:
        return None  # type: ignore[return-value]

    with pytest.raises(QueryError, match=r"Int64.*text of one sample"):
        Recaption(number)
    with pytest.raises(ValueError, match="gave None"):
        made(encoded(picture()), Recaption(nothing))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000"])
def test_bytes_that_stay_are_called_as_what_they_begin_with(format: str) -> None:
    data = encoded(picture(), format)
    assert made(data, BlurFaces(), face_bboxes=None).extension == picture_format(data[:64])


def test_the_same_sample_makes_the_same_bytes() -> None:
    data = encoded(picture(), "JPEG")
    for encoding in (Encoding(), Encoding("png"), Encoding("webp", quality=80)):
        found = [made(data, HorizontalFlip(), encoding=encoding) for _ in range(2)]
        assert found[0].data == found[1].data
        assert found[0].extension == (encoding.format or "jpg")


def test_a_picture_that_does_not_decode_is_no_sample() -> None:
    data = encoded(picture(200, 200), "JPEG")[:1500]
    for operation in (StripExif(), BlurFaces(), HorizontalFlip(), Recaption(longer)):
        with pytest.raises(OSError, match="truncated|image"):
            made(data, operation)
