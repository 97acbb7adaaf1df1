"""Scores and embeddings as published beside the captions of a crawl, made up from the known truth plus noise.

They stand for what another team computed with models that are not here: they test how stored scores and vectors
travel. A picture's vector is the sum of one random direction for each attribute, one common to all pictures, and noise;
a caption's has the attributes of the scene it speaks of. Real ones are what the CLIP signal computes from pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from factory_assets.demo.rendered.plan import RenderingRecipe, Row
from factory_assets.demo.rendered.scene import BACKGROUNDS, COLOURS, SHAPES, SIZES, Scene

DIMENSION = 64
"""Length of the stored vectors."""

_WORDS = (*COLOURS, *SHAPES, *SIZES, *BACKGROUNDS)


@dataclass(frozen=True)
class CrawlScores:
    """Columns of a shard, one value or vector a row.

    Attributes:
        image: unit vectors of the pictures, float16 (rows, `DIMENSION`).
        text: unit vectors of the captions, float16 (rows, `DIMENSION`).
        similarity: their cosine, float32.
        punsafe: probability that the picture is unsafe, float32: above 0.5 for most unsafe and few other pictures.
        pwatermark: probability of a watermark, float32, noise.
    """

    image: NDArray[np.float16]
    text: NDArray[np.float16]
    similarity: NDArray[np.float32]
    punsafe: NDArray[np.float32]
    pwatermark: NDArray[np.float32]


def score(recipe: RenderingRecipe, shard: int, rows: Sequence[Row]) -> CrawlScores:
    """Made-up scores of a shard's rows."""
    rng = np.random.default_rng([recipe.seed, shard, 1])
    words = np.random.default_rng(64).normal(0, 1, (len(_WORDS), DIMENSION))
    # Pictures and captions of CLIP live in two cones: that is why similarities are low even where all is right.
    of_images, of_texts = np.random.default_rng(65).normal(0, 2.5, (2, DIMENSION))
    image = _attributes([row.scene for row in rows]) @ words + of_images
    text = _attributes([row.said for row in rows]) @ words + of_texts
    image = _unit(image + rng.normal(0, 1.0, image.shape))
    text = _unit(text + rng.normal(0, 1.0, text.shape))
    unsafe = np.array([row.fault == "unsafe" for row in rows])
    punsafe = np.where(unsafe, rng.beta(6, 2.4, len(rows)), rng.beta(1.2, 7, len(rows)))
    return CrawlScores(
        image.astype(np.float16),
        text.astype(np.float16),
        np.einsum("ij,ij->i", image, text).astype(np.float32),
        punsafe.astype(np.float32),
        rng.beta(1.2, 6, len(rows)).astype(np.float32),
    )


def _attributes(scenes: Sequence[Scene | None]) -> NDArray[np.float64]:
    """One row a scene, 1 where it has the attribute; all zero for None."""
    has = np.zeros((len(scenes), len(_WORDS)))
    for number, scene in enumerate(scenes):
        for word in (scene.colour, scene.shape, scene.size, scene.background) if scene else ():
            has[number, _WORDS.index(word)] = 1
    return has


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
