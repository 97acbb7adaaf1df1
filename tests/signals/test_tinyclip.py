"""TinyCLIP: the bundled weights score what is written beside them, on pictures rendered anew."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from factory_assets.demo.rendered.scene import COLOURS, SHAPES, Scene
from factory_assets.demo.tinyclip import SCORES, RenderedPairs, measure, rendered_pairs
from factory_lib.signals.checkpoint import BUNDLED, TINY_DIMENSION
from factory_lib.signals.tinyclip import DIMENSION, TinyClip, load_weights, pixels, save_weights, vocabulary_of, words

PICTURES = 500


@pytest.fixture(scope="module")
def model() -> TinyClip:
    return load_weights(BUNDLED)


@pytest.fixture(scope="module")
def fresh() -> RenderedPairs:
    return rendered_pairs(PICTURES, "a-set-that-only-this-test-uses")


def test_the_scores_beside_the_weights_hold_on_fresh_pictures(model: TinyClip, fresh: RenderedPairs) -> None:
    facts = json.loads(SCORES.read_text())
    written = facts["scores"]
    measured = vars(measure(model, fresh))
    assert set(measured) == set(written)
    for name in ("meaning_recall", "colour_and_shape", "colour", "shape", "size", "background"):
        # Four standard deviations of a share counted on both samples.
        share = written[name]
        deviation = math.sqrt(max(share * (1 - share), 0.002) * (1 / PICTURES + 1 / facts["held_out"]))
        assert measured[name] == pytest.approx(share, abs=4 * deviation), name
    assert measured["auc"] == pytest.approx(written["auc"], abs=0.006)
    for name in ("right_50", "wrong_50", "right_5", "wrong_95"):
        assert measured[name] == pytest.approx(written[name], abs=0.1), name


def test_the_weights_know_what_they_see(model: TinyClip, fresh: RenderedPairs) -> None:
    """Bars well above chance: 1 in 960 meanings, 1 in 64 names, 0.5."""
    scores = measure(model, fresh)
    assert scores.meaning_recall > 0.5
    assert scores.colour_and_shape > 0.75
    assert scores.auc > 0.99
    assert scores.wrong_95 < scores.right_50


def test_measure_agrees_with_counting_one_by_one(model: TinyClip, fresh: RenderedPairs) -> None:
    few = RenderedPairs(fresh.pictures[:40], fresh.captions[:40], fresh.scenes[:40])
    with torch.inference_mode():
        seen = model.images(torch.from_numpy(few.pictures)).numpy()
        said = model.texts(list(few.captions)).numpy()
        named = {(c, s): model.texts([f"an image of a {c} {s}"])[0].numpy() for c in COLOURS for s in SHAPES}
    right = sum(
        max(named, key=lambda n: float(named[n] @ v)) == (s.colour, s.shape)
        for v, s in zip(seen, few.scenes, strict=True)
    )
    own = [float(seen[i] @ said[i]) for i in range(40)]
    shifted = [float(seen[i] @ said[i - 1]) for i in range(40)]
    wins = sum((a > b) + (a == b) / 2 for a in own for b in shifted)
    scores = measure(model, few)
    assert scores.colour_and_shape == pytest.approx(right / 40)
    assert scores.auc == pytest.approx(wins / 1600)
    wrong = [
        shifted[i]
        for i in range(40)
        if few.scenes[i].colour != few.scenes[i - 1].colour and few.scenes[i].shape != few.scenes[i - 1].shape
    ]
    assert scores.wrong_50 == pytest.approx(float(np.median(wrong)), abs=1e-5)


def test_both_towers_give_unit_vectors(model: TinyClip, fresh: RenderedPairs) -> None:
    assert DIMENSION == TINY_DIMENSION == 64
    with torch.inference_mode():
        for vectors in (model.images(torch.from_numpy(fresh.pictures[:5])), model.texts(["a red star", "", "zzz"])):
            np.testing.assert_allclose(vectors.norm(dim=1).numpy(), 1, atol=1e-5)
        nothing, unknown = model.texts(["", "zzz 2381"])
        assert torch.equal(nothing, unknown)


def test_word_order_and_unknown_words_do_not_count(model: TinyClip) -> None:
    with torch.inference_mode():
        one, other = model.texts(["a large red star", "STAR, red -- large xylophone a"])
    np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-6)


def test_the_vocabulary_holds_the_most_frequent_words() -> None:
    assert words("A photo, of_a 2nd Über-dog!") == ["a", "photo", "of", "a", "2nd", "über", "dog"]
    assert vocabulary_of(["b a", "a c", "a b d"], size=3) == ("a", "b", "c")


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1", "I;16"])
def test_any_picture_becomes_64_by_64_rgb(mode: str) -> None:
    made = pixels(Image.new(mode, (301, 97)))
    assert made.shape == (64, 64, 3)
    assert made.dtype == np.uint8


def test_weights_travel_with_their_vocabulary(model: TinyClip, tmp_path: object) -> None:
    path = f"{tmp_path}/copy.safetensors"
    save_weights(model, path, {"trained_on": "laion.v3"})
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        assert file.metadata()["trained_on"] == "laion.v3"
    again = load_weights(path)
    assert again.vocabulary == model.vocabulary
    batch = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(again.images(batch), model.images(batch))
        assert torch.equal(again.texts(["red star"]), model.texts(["red star"]))


def test_rendered_pairs_are_named_by_their_seed(fresh: RenderedPairs) -> None:
    again, other = rendered_pairs(3, "a-set-that-only-this-test-uses"), rendered_pairs(3, "another")
    assert np.array_equal(again.pictures, fresh.pictures[:3])
    assert again.captions == fresh.captions[:3]
    assert not np.array_equal(other.pictures, again.pictures)
    assert all(isinstance(scene, Scene) for scene in again.scenes)
    for text, scene in zip(fresh.captions, fresh.scenes, strict=True):
        assert scene.colour in text
        assert scene.shape in text
