"""Draws a scene: one anti-aliased shape on a background, with a light and a grain that differ in every picture.

The same (scene, seed) always gives the same pixels. A picture costs about a millisecond: masks of the shapes are
drawn once, and everything of full size happens in numpy or Pillow. Patterns are computed from their formula with an
edge of one pixel.
"""

from __future__ import annotations

import math
from functools import lru_cache
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from factory_assets.demo.rendered.scene import Scene

RGB = tuple[int, int, int]

_RGB_OF: dict[str, RGB] = {
    "red": (214, 34, 40),
    "orange": (246, 136, 24),
    "yellow": (244, 220, 40),
    "green": (40, 158, 70),
    "blue": (38, 88, 210),
    "purple": (126, 46, 168),
    "pink": (246, 138, 190),
    "brown": (116, 70, 38),
}
_DIAMETER_OF = {"small": (0.27, 0.34), "medium": (0.45, 0.54), "large": (0.70, 0.84)}
_MASK = 512
_LIGHT, _GRAIN = 26, 4
_GRAIN_SHEET = 1024
_SMALLEST, _LARGEST = 96, 320


def picture_size(rng: Random) -> tuple[int, int]:
    """Width and height in pixels: both within 96 … 320, the aspect ratio within 2:3 … 3:2."""
    long = rng.randint(112, _LARGEST)
    short = max(_SMALLEST, round(long * rng.uniform(0.67, 1.0)))
    return (long, short) if rng.random() < 0.6 else (short, long)


def render(scene: Scene, seed: str, size: tuple[int, int] | None = None) -> Image.Image:
    """Draw a scene.

    Args:
        scene: what to show.
        seed: names the picture; place, angle, light, tones and noise follow from it.
        size: width and height in pixels; drawn from the seed (see `picture_size`) when not given.

    Returns:
        an RGB image.
    """
    rng = Random(f"picture/{seed}")
    drawn_size = picture_size(rng)
    width, height = size or drawn_size
    picture = _background(scene.background, width, height, rng)
    _paste_shape(picture, scene, rng)
    levels = np.asarray(picture, dtype=np.int16) + _grain(width, height, rng)
    levels += _light(width, height, rng)[:, :, None]
    return Image.fromarray(np.clip(levels, 0, 255, out=levels).astype(np.uint8))


def _background(kind: str, width: int, height: int, rng: Random) -> Image.Image:
    """Two muted tones mixed by a pattern; muted, so that the shape alone has a colour to speak of."""
    bright = rng.random() < 0.6
    one = _muted_tone(rng, (190, 235) if bright else (40, 80))
    if kind == "plain":
        return Image.new("RGB", (width, height), one)
    other = _muted_tone(rng, (120, 155) if bright else (115, 150))
    share = Image.fromarray(_pattern(kind, width, height, rng))
    size = (width, height)
    return Image.composite(Image.new("RGB", size, other), Image.new("RGB", size, one), share)


def _muted_tone(rng: Random, brightness: tuple[int, int]) -> RGB:
    level = rng.uniform(*brightness)
    red, green, blue = (int(level + rng.uniform(-14, 14)) for _ in range(3))
    return red, green, blue


def _pattern(kind: str, width: int, height: int, rng: Random) -> NDArray[np.uint8]:
    """Share of the second tone, 0 … 255, as an array (height, width)."""
    angle = rng.uniform(0, math.pi)
    across, along = _turned_axes(width, height, angle)
    if kind == "gradient":
        ramp = (across - across.min()) / max(1e-6, float(np.ptp(across)))
        return _as_bytes(ramp)
    period = min(width, height) / rng.uniform(5.0, 8.0)
    across = across / period + rng.random()
    along = along / period + rng.random()
    if kind == "striped":
        share = _bands(across, period)
    elif kind == "checkered":
        one, other = _bands(across / 1.6, period * 1.6), _bands(along / 1.6, period * 1.6)
        share = one + other - 2 * one * other
    else:
        radius = np.hypot(across - np.floor(across) - 0.5, along - np.floor(along) - 0.5)
        share = np.clip((0.28 - radius) * period + 0.5, 0, 1)
    return _as_bytes(share)


def _as_bytes(share: NDArray[np.float32]) -> NDArray[np.uint8]:
    levels: NDArray[np.uint8] = (share * 255).astype(np.uint8)
    return levels


def _turned_axes(width: int, height: int, angle: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Coordinates of every pixel in a frame turned by `angle`, in pixels, as two arrays (height, width)."""
    x = np.arange(width, dtype=np.float32)[None, :]
    y = np.arange(height, dtype=np.float32)[:, None]
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def _bands(coordinate: NDArray[np.float32], period: float) -> NDArray[np.float32]:
    """1 in one half of every unit of the coordinate, 0 in the other, with an edge one pixel wide."""
    fold = np.abs(coordinate - np.floor(coordinate) - 0.5) - 0.25
    share: NDArray[np.float32] = np.clip(fold * np.float32(period) + 0.5, 0, 1)
    return share


def _paste_shape(picture: Image.Image, scene: Scene, rng: Random) -> None:
    width, height = picture.size
    diameter = max(8, round(min(width, height) * rng.uniform(*_DIAMETER_OF[scene.size])))
    mask = _turned_mask(scene.shape, diameter, rng.uniform(-0.2, 0.2))
    colour = tuple(max(0, min(255, level + rng.randint(-12, 12))) for level in _RGB_OF[scene.colour])
    left, top = (round(rng.uniform(0.1, 0.9) * (side - diameter)) for side in (width, height))
    picture.paste(colour, (left, top), mask)


def _turned_mask(shape: str, diameter: int, angle: float) -> Image.Image:
    """The shape's mask, `diameter` pixels square, turned by `angle` radians."""
    drawn = _mask(shape, _level(diameter))
    scale = drawn.width / diameter
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    centre, target = drawn.width / 2, diameter / 2
    move_x = centre - cos * target - sin * target
    move_y = centre + sin * target - cos * target
    return drawn.transform(
        (diameter, diameter),
        Image.Transform.AFFINE,
        (cos, sin, move_x, -sin, cos, move_y),
        Image.Resampling.BILINEAR,
    )


def _level(diameter: int) -> int:
    """Side of the drawn mask to start from: the next power of two, so that scaling never skips pixels."""
    return max(16, min(_MASK, 1 << (diameter - 1).bit_length()))


@lru_cache(maxsize=64)
def _mask(shape: str, side: int) -> Image.Image:
    if side < _MASK:
        return _mask(shape, side * 2).reduce(2)
    big = Image.new("L", (_MASK * 2, _MASK * 2), 0)
    _draw_shape(ImageDraw.Draw(big), shape, float(_MASK))
    return big.reduce(2)


def _draw_shape(draw: ImageDraw.ImageDraw, shape: str, middle: float) -> None:
    """Draw one shape around (middle, middle), with room to be turned by 0.2 radians."""

    def at(x: float, y: float) -> tuple[float, float]:
        return middle * (1 + x), middle * (1 + y)

    def corners(angles_and_radii: list[tuple[float, float]]) -> list[tuple[float, float]]:
        turned = ((math.radians(angle), radius) for angle, radius in angles_and_radii)
        return [at(math.sin(angle) * radius, -math.cos(angle) * radius) for angle, radius in turned]

    def disc(x: float, y: float, radius: float, fill: int = 255) -> None:
        draw.ellipse([at(x - radius, y - radius), at(x + radius, y + radius)], fill=fill)

    if shape == "circle":
        disc(0, 0, 0.9)
    elif shape == "ring":
        disc(0, 0, 0.94)
        disc(0, 0, 0.55, fill=0)
    elif shape == "square":
        draw.polygon(corners([(45, 1.16), (135, 1.16), (225, 1.16), (315, 1.16)]), fill=255)
    elif shape == "triangle":
        draw.polygon(corners([(0, 0.96), (120, 0.96), (240, 0.96)]), fill=255)
    elif shape == "diamond":
        draw.polygon(corners([(0, 0.96), (90, 0.56), (180, 0.96), (270, 0.56)]), fill=255)
    elif shape == "star":
        draw.polygon(corners([(36 * i, 0.96 if i % 2 == 0 else 0.4) for i in range(10)]), fill=255)
    elif shape == "cross":
        arm, reach = 0.27 * middle, 0.9 * middle
        draw.rectangle([middle - arm, middle - reach, middle + arm, middle + reach], fill=255)
        draw.rectangle([middle - reach, middle - arm, middle + reach, middle + arm], fill=255)
    elif shape == "heart":
        disc(-0.4, -0.25, 0.44)
        disc(0.4, -0.25, 0.44)
        draw.polygon([at(x, y) for x, y in _HEART_TIP], fill=255)
    else:
        raise ValueError(f"No drawing for shape {shape!r}.")


_HEART_TIP = ((-0.785, -0.045), (-0.4, -0.3), (0, -0.4), (0.4, -0.3), (0.785, -0.045), (0, 0.9))


def _light(width: int, height: int, rng: Random) -> NDArray[np.int16]:
    """Uneven light as an array (height, width) to add: a coarse random grid, scaled up smoothly.

    It is what tells apart two pictures of one meaning, for people and for perceptual hashes.
    """
    columns, rows = rng.randint(5, 7), rng.randint(5, 7)
    grid = Image.frombytes("L", (columns, rows), rng.randbytes(columns * rows)).point(_LIGHT_LEVELS)
    smooth = grid.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.int16) - 128


_LIGHT_LEVELS = [round(128 + (level - 127.5) / 127.5 * _LIGHT) for level in range(256)]


def _grain(width: int, height: int, rng: Random) -> NDArray[np.int16]:
    """Sensor noise as an array (height, width, 3) to add, cut at a random place from one sheet of noise."""
    sheet = _grain_sheet()
    left, top = rng.randrange(_GRAIN_SHEET - width), rng.randrange(_GRAIN_SHEET - height)
    return sheet[top : top + height, left : left + width]


@lru_cache(maxsize=1)
def _grain_sheet() -> NDArray[np.int16]:
    levels = np.random.default_rng(7).normal(0, _GRAIN, (_GRAIN_SHEET, _GRAIN_SHEET, 3))
    return np.rint(levels).astype(np.int16)
