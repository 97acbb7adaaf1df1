"""Trains the TinyCLIP that comes with the package: ``python -m factory_assets.demo.tinyclip``.

It learns from rendered pictures that no rendered folder shares, takes some CPU-minutes, and writes the weights and the
scores measured on pictures it has not seen beside `factory_lib/signals/tinyclip.py`.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from factory_assets.demo.rendered.draw import render
from factory_assets.demo.rendered.edits import EDITS
from factory_assets.demo.rendered.scene import (
    BACKGROUNDS,
    COLOURS,
    MEANINGS,
    SHAPES,
    SIZES,
    TEMPLATES,
    Scene,
    caption,
    random_scene,
)
from factory_assets.training.contrastive import BATCH, fit
from factory_assets.training.evaluate import image_vectors, roc_auc, text_vectors
from factory_lib.pictures import open_picture
from factory_lib.signals.checkpoint import BUNDLED
from factory_lib.signals.tinyclip import SIDE, TinyClip, pixels, save_weights

IMAGES, STEPS, HELD_OUT = 16_000, 600, 2_000

SCORES = BUNDLED.with_suffix(".json")
"""What was measured of the bundled weights."""


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


@dataclass(frozen=True)
class TinyClipScores:
    """Scores of a TinyCLIP on held-out rendered pictures, all of them shares of 1.

    Attributes:
        meaning_recall: pictures whose nearest caption, of those of all 960 meanings, is that of their own meaning.
        colour_and_shape: pictures whose nearest text, of the 64 "an image of a COLOUR SHAPE", is right.
        colour, shape, size, background: pictures whose nearest caption of the 960 has this attribute right.
        auc: probability that a right caption scores above the caption of a random other picture.
        right_5, right_50: 5th and 50th percentile of the score of right captions.
        wrong_50, wrong_95: 50th and 95th percentile of the score of captions with another colour and shape.
    """

    meaning_recall: float
    colour_and_shape: float
    colour: float
    shape: float
    size: float
    background: float
    auc: float
    right_5: float
    right_50: float
    wrong_50: float
    wrong_95: float


def measure(model: TinyClip, pairs: RenderedPairs) -> TinyClipScores:
    """Score a model on rendered pairs."""
    pictures = image_vectors(model, pairs.pictures)
    meaning = np.array([scene.meaning for scene in pairs.scenes])
    found = (pictures @ text_vectors(model, [caption(Scene.from_meaning(i), 0) for i in range(MEANINGS)]).T).argmax(1)
    names = [f"an image of a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
    named = (pictures @ text_vectors(model, names).T).argmax(1)
    per_name = len(SIZES) * len(BACKGROUNDS)
    captions = text_vectors(model, pairs.captions)
    right = (pictures * captions).sum(1)
    shifted = (pictures * np.roll(captions, 1, axis=0)).sum(1)
    wrong = shifted[_contradicts(meaning, np.roll(meaning, 1))]
    return TinyClipScores(
        meaning_recall=float((found == meaning).mean()),
        colour_and_shape=float((named == meaning // per_name).mean()),
        colour=float((found // (per_name * len(SHAPES)) == meaning // (per_name * len(SHAPES))).mean()),
        shape=float((found // per_name % len(SHAPES) == meaning // per_name % len(SHAPES)).mean()),
        size=float((found // len(BACKGROUNDS) % len(SIZES) == meaning // len(BACKGROUNDS) % len(SIZES)).mean()),
        background=float((found % len(BACKGROUNDS) == meaning % len(BACKGROUNDS)).mean()),
        auc=roc_auc(right, shifted),
        right_5=float(np.quantile(right, 0.05)),
        right_50=float(np.quantile(right, 0.5)),
        wrong_50=float(np.quantile(wrong, 0.5)),
        wrong_95=float(np.quantile(wrong, 0.95)),
    )


def _contradicts(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where two meanings differ both in colour and in shape."""
    per_name = len(SIZES) * len(BACKGROUNDS)
    one, other = one // per_name, other // per_name
    different: NDArray[np.bool_] = (one // len(SHAPES) != other // len(SHAPES)) & (
        one % len(SHAPES) != other % len(SHAPES)
    )
    return different


def train_tinyclip(path: Path, *, images: int = IMAGES, steps: int = STEPS, seed: int = 0) -> TinyClipScores:
    """Render pictures, train, measure, and write the weights to `path` and the scores to `path` with the suffix .json.

    Returns:
        the scores on `HELD_OUT` pictures that were not trained on.
    """
    started = time.process_time()
    print(f"rendering {images:,} pictures")
    pairs = rendered_pairs(images, f"tinyclip-{seed}")
    rendered = time.process_time()
    model = fit(pairs.pictures, pairs.captions, steps=steps, seed=seed, progress=_tell)
    trained = time.process_time()
    scores = measure(model, rendered_pairs(HELD_OUT, "tinyclip-held-out"))
    facts = {
        "command": f"python -m factory_assets.demo.tinyclip --images {images} --steps {steps} --seed {seed}",
        "images": images,
        "steps": steps,
        "batch": BATCH,
        "seed": seed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "meanings": MEANINGS,
        "wordings": len(TEMPLATES),
        "held_out": HELD_OUT,
        "cpu_seconds_rendering": round(rendered - started),
        "cpu_seconds_training": round(trained - rendered),
    }
    save_weights(model, path, {name: str(value) for name, value in facts.items() if not name.startswith("cpu")})
    measured = {name: round(value, 4) for name, value in vars(scores).items()}
    path.with_suffix(".json").write_text(json.dumps({**facts, "scores": measured}, indent=2) + "\n")
    return scores


def _tell(step: int, loss: float) -> None:
    if step % 25 == 0:
        print(f"step {step:4d}  loss {loss:.3f}", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train TinyCLIP on rendered pictures and measure it.")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", type=Path, default=BUNDLED, help="the safetensors file to write")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)  # two threads wait for each other more than they help with a model this small
    for name, value in vars(train_tinyclip(given.to, images=given.images, steps=given.steps, seed=given.seed)).items():
        print(f"{name:18s}{value:.3f}")


if __name__ == "__main__":
    main()
