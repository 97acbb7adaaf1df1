"""Fresh rendered pictures with right captions, as TinyCLIP's training and every test of a model see them."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from factory_lib.pictures import open_picture
from factory_lib.rendered.draw import render
from factory_lib.rendered.edits import EDITS
from factory_lib.rendered.scene import TEMPLATES, Scene, caption, random_scene
from factory_lib.signals.tinyclip import SIDE, pixels


@dataclass(frozen=True)
class RenderedPairs:
    """Pictures, uint8 (n, 64, 64, 3), with the scene and one caption of each."""

    pictures: NDArray[np.uint8]
    captions: tuple[str, ...]
    scenes: tuple[Scene, ...]


def rendered_pairs(count: int, seed: str) -> RenderedPairs:
    """Render `count` pictures: as stored in a crawl (any size, JPEG, edited) and then squeezed to 64x64.

    Args:
        count: how many.
        seed: names the set; a set never shares a picture with a rendered folder or with a set of another name.
    """
    pictures = np.empty((count, SIDE, SIDE, 3), dtype=np.uint8)
    captions, scenes = [], []
    for number in range(count):
        rng = Random(f"pair-{seed}/{number}")
        scene = random_scene(rng)
        size = (rng.randint(24, 72), rng.randint(24, 72)) if rng.random() < 0.06 else None
        picture = render(scene, f"pair-{seed}/{number}", size)
        jpeg = EDITS[rng.choice(list(EDITS))](picture, rng)
        pictures[number] = pixels(open_picture(jpeg))
        captions.append(caption(scene, rng.randrange(len(TEMPLATES))))
        scenes.append(scene)
    return RenderedPairs(pictures, tuple(captions), tuple(scenes))
