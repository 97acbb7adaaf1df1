"""What a rendered image shows, and the captions that say so.

A scene is one of 960 meanings: 8 colours x 8 shapes x 3 sizes x 5 backgrounds. A caption states some of these
attributes in one of several wordings, so that an image has many right captions and a caption fits many images, as on
the web.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

COLOURS: tuple[str, ...] = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "diamond", "star", "cross", "ring", "heart")
SIZES: tuple[str, ...] = ("small", "medium", "large")
BACKGROUNDS: tuple[str, ...] = ("plain", "striped", "dotted", "checkered", "gradient")

TEMPLATES: tuple[str, ...] = (
    "a photo of a {size} {colour} {shape} on a {background} background",
    "a {size} {colour} {shape}, {background} backdrop",
    "picture of a {colour} {shape} on a {background} background",
    "a {colour} {shape} on {background} paper",
    "a {size} {colour} {shape}",
    "an image of a {colour} {shape}",
    "one {shape} painted {colour}",
    "the {size} {shape} is {colour}",
)
"""Wordings: every one states colour and shape, half of them omit the size, half the background."""

UNINFORMATIVE: tuple[str, ...] = (
    "IMG_{n}.jpg",
    "DSC{n}",
    "image",
    "download",
    "untitled {n}",
    "{n}",
    "thumbnail",
    "photo {n}",
)
"""Wordings that say nothing of the image: file names and page furniture, at most two words."""


@dataclass(frozen=True)
class Scene:
    """What an image shows: one value of each of `COLOURS`, `SHAPES`, `SIZES` and `BACKGROUNDS`."""

    colour: str
    shape: str
    size: str
    background: str

    @property
    def meaning(self) -> int:
        """Index of the meaning, 0 … 959, in the order of the vocabularies (background runs fastest)."""
        index = COLOURS.index(self.colour)
        index = index * len(SHAPES) + SHAPES.index(self.shape)
        index = index * len(SIZES) + SIZES.index(self.size)
        return index * len(BACKGROUNDS) + BACKGROUNDS.index(self.background)

    @staticmethod
    def from_meaning(index: int) -> Scene:
        """The scene of a meaning's index (see `meaning`)."""
        index, background = divmod(index, len(BACKGROUNDS))
        index, size = divmod(index, len(SIZES))
        colour, shape = divmod(index, len(SHAPES))
        return Scene(COLOURS[colour], SHAPES[shape], SIZES[size], BACKGROUNDS[background])


MEANINGS = len(COLOURS) * len(SHAPES) * len(SIZES) * len(BACKGROUNDS)


def random_scene(rng: Random) -> Scene:
    """A scene, all 960 meanings being equally likely."""
    return Scene.from_meaning(rng.randrange(MEANINGS))


def contradicting_scene(scene: Scene, rng: Random) -> Scene:
    """Another scene whose colour and shape both differ, so that every caption of it is wrong for `scene`."""
    return Scene(
        rng.choice([colour for colour in COLOURS if colour != scene.colour]),
        rng.choice([shape for shape in SHAPES if shape != scene.shape]),
        rng.choice(SIZES),
        rng.choice(BACKGROUNDS),
    )


def caption(scene: Scene, template: int) -> str:
    """The caption of a scene in wording `TEMPLATES[template]`."""
    return TEMPLATES[template].format(
        colour=scene.colour, shape=scene.shape, size=scene.size, background=scene.background
    )


def uninformative_caption(rng: Random) -> str:
    """A caption that says nothing of any image (one of `UNINFORMATIVE`)."""
    return rng.choice(UNINFORMATIVE).format(n=rng.randrange(1000, 10000))
