"""Hashes, thumbnails and quality of odd pictures against their definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.Image import Resampling

from factory_lib.pictures import array_of
from factory_lib.signals.hashes import dhash, phash, pixel_md5
from factory_lib.signals.image import quality
from factory_lib.signals.member import Member
from factory_lib.signals.resampling import Filter, resized
from factory_lib.signals.thumbnails import thumbnail

sides = st.integers(1, 130)


def levels_of(seed: int, width: int, height: int, kind: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    random = np.random.default_rng(seed)
    shape = (height, width)
    if kind == "noise":
        return random.integers(0, 256, shape, dtype=np.uint8)
    if kind == "two neighbours":
        return random.integers(127, 129, shape, dtype=np.uint8)
    if kind == "black and white":
        return (random.integers(0, 2, shape) * 255).astype(np.uint8)
    return np.full(shape, {"black": 0, "white": 255}[kind], np.uint8)


kinds = st.sampled_from(["noise", "two neighbours", "black and white", "black", "white"])


PICTURES = st.sampled_from(["RGB", "L", "CMYK", "I;16"])


def picture_of(seed: int, width: int, height: int, kind: str, mode: str) -> Image.Image:
    levels = levels_of(seed, width, height, kind)
    if mode == "L":
        return Image.fromarray(levels)
    if mode == "I;16":
        return Image.fromarray(levels.astype(np.uint16) << 8)
    bands = [Image.fromarray(levels_of(seed + band, width, height, kind)) for band in range(4)]
    return Image.merge(mode, bands[: len(mode)])


def as_rgb(picture: Image.Image) -> Image.Image:
    """What is to be seen of it: 16 bits scaled to 8."""
    if picture.mode == "I;16":
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return picture.convert("RGB")


def bits(values: Any) -> int:
    return int("".join("1" if value else "0" for value in values.flatten()), 2)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31), width=sides, height=sides, kind=kinds, mode=PICTURES)
@example(seed=0, width=1, height=1, kind="white", mode="RGB")
@example(seed=0, width=1, height=9, kind="noise", mode="L")
@example(seed=0, width=2, height=2, kind="noise", mode="CMYK")
@example(seed=0, width=65, height=3, kind="noise", mode="RGB")
@example(seed=0, width=3, height=130, kind="black and white", mode="I;16")
def test_signals_of_odd_pictures_are_as_defined(seed: int, width: int, height: int, kind: str, mode: str) -> None:
    import hashlib

    from scipy.fftpack import dct

    picture = picture_of(seed, width, height, kind, mode)
    seen = as_rgb(picture)
    luma = seen.convert("L")
    hashes = (phash.one(picture), dhash.one(picture))
    value, plane = quality.one(picture), thumbnail.one(picture)
    low = dct(dct(np.asarray(luma.resize((32, 32), Resampling.LANCZOS)), axis=0), axis=1)[:8, :8]
    nine = np.asarray(luma.resize((9, 8), Resampling.LANCZOS))
    assert hashes == (bits(low > np.median(low)), bits(nine[:, 1:] > nine[:, :-1]))
    assert (plane[:1024] == np.asarray(luma.resize((32, 32), Resampling.BOX)).ravel()).all()
    digest = hashlib.md5(f"{width}x{height}:".encode() + seen.tobytes()).hexdigest()
    assert pixel_md5.one(picture) == digest
    # cleanvision's brightness, with numpy's percentiles: equal, not only near
    red, green, blue = np.moveaxis(np.asarray(seen).astype(int), 2, 0)
    bright = np.sqrt(0.241 * (red * red) + 0.691 * (green * green) + 0.068 * (blue * blue)) / 255
    assert (value.dark, value.light) == (np.percentile(bright, 99), 1 - np.percentile(bright, 5))
    assert math.isclose(value.brightness, bright.mean(), rel_tol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), level=st.integers(0, 255), share=st.floats(0, 0.3))
@example(seed=0, level=255, share=0.2)
@example(seed=0, level=255, share=0.999)
@example(seed=0, level=0, share=0.2)
@example(seed=0, level=0, share=0.949)
def test_percentiles_are_those_of_numpy_where_few_pixels_differ(seed: int, level: int, share: float) -> None:
    random = np.random.default_rng(seed)
    pixels = np.full((90, 120, 3), level, np.uint8)
    some = random.random((90, 120)) < share
    pixels[some] = random.integers(0, 256, (int(some.sum()), 3))
    value = quality.one(Image.fromarray(pixels))
    red, green, blue = np.moveaxis(pixels.astype(int), 2, 0)
    bright = np.sqrt(0.241 * (red * red) + 0.691 * (green * green) + 0.068 * (blue * blue)) / 255
    assert (value.dark, value.light) == (np.percentile(bright, 99), 1 - np.percentile(bright, 5))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    kind=kinds,
    wanted=st.sampled_from([(32, 32), (9, 8), (64, 48), (1, 64)]),
    name=st.sampled_from(["LANCZOS", "BICUBIC", "BOX"]),
)
@example(seed=0, width=3000, height=520, kind="noise", wanted=(9, 8), name="LANCZOS")
def test_small_versions_are_those_of_pillow(
    seed: int, width: int, height: int, kind: str, wanted: tuple[int, int], name: Filter
) -> None:
    luma = Image.fromarray(levels_of(seed, width, height, kind))
    expected = np.asarray(luma.resize(wanted, Resampling[name]))
    image = Member(b"", picture=luma)
    for _ in range(2):  # sizes that recur are scaled in another way than those that were not seen before
        assert (resized(image, *wanted, name) == expected).all()


def test_arrays_are_the_pixels_of_large_and_small_pictures() -> None:
    small = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    for tiles in (1, 400):  # Pillow keeps a picture of more than 16 MB in several pieces of memory
        pixels = np.tile(small, (tiles, tiles, 1))
        picture = Image.fromarray(pixels)
        assert (array_of(picture) == pixels).all()
        assert (array_of(picture.convert("L")) == np.asarray(picture.convert("L"))).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), width=st.integers(1, 40), height=st.integers(1, 40), kind=kinds)
@example(seed=0, width=40, height=1, kind="noise")
@example(seed=0, width=1, height=40, kind="noise")
@example(seed=0, width=1, height=1, kind="noise")
@example(seed=0, width=400, height=300, kind="white")
def test_sharpness_and_contrast_are_as_defined(seed: int, width: int, height: int, kind: str) -> None:
    from scipy.ndimage import convolve

    levels = levels_of(seed, width, height, kind)
    value = quality.one(Image.fromarray(levels))
    kernel = [[0, 1, 0], [1, -4, 1], [0, 1, 0]]
    assert math.isclose(value.sharpness, convolve(levels.astype(float), kernel, mode="mirror").var(), rel_tol=1e-12)
    assert math.isclose(value.contrast, levels.std() / 255, rel_tol=1e-12)


def test_packages_that_compute_count_as_what_signals_depend_on() -> None:
    for one, wanted in ((quality, {"opencv-python-headless", "pillow", "scipy"}), (phash, {"pillow", "scipy"})):
        assert wanted <= {name.removeprefix("package:") for name in one.components}, one.name
