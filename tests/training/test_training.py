"""The trainer learns, scores what it says it scores, and shows what curation is for."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy.stats import mannwhitneyu

from factory_assets.demo.rendered import RenderedFolder, write_folder
from factory_assets.training.contrastive import SHIFT, fit, vary
from factory_assets.training.evaluate import evaluate, roc_auc
from factory_assets.training.pairs import CaptionedPictures, captioned, exam_batches, read_pairs, training_batches
from factory_lib.errors import LoaderError
from factory_lib.plan.expressions import C
from factory_lib.query import DatasetQuery
from factory_lib.signals.tinyclip import TinyClip, pixels
from factory_lib.warehouse.versions import Version

TONES = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "white": (240, 240, 240)}


def flat_pairs(count: int, seed: int = 0) -> CaptionedPictures:
    """Pictures of one colour and a caption that names it."""
    rng = np.random.default_rng(seed)
    names = rng.choice(list(TONES), count)
    pictures = np.array([TONES[name] for name in names])[:, None, None, :] + rng.integers(-9, 10, (count, 64, 64, 3))
    return CaptionedPictures(pictures.clip(0, 255).astype(np.uint8), tuple(f"all {name}" for name in names))


class Oracle(TinyClip):
    """A model with given vectors: picture i, marked by its first pixel, has row i of `image`; caption "i" row i of `text`."""

    def __init__(self, image: np.ndarray, text: np.ndarray) -> None:
        super().__init__(["a"])
        self.image, self.text = torch.from_numpy(image).float(), torch.from_numpy(text).float()

    def images(self, batch: torch.Tensor) -> torch.Tensor:
        return self.image[batch[:, 0, 0, 0].long()]

    def texts(self, captions: list[str]) -> torch.Tensor:
        return self.text[[int(caption) for caption in captions]]


def marked(captions: list[int]) -> CaptionedPictures:
    pictures = np.zeros((len(captions), 64, 64, 3), dtype=np.uint8)
    pictures[:, 0, 0, 0] = np.arange(len(captions))
    return CaptionedPictures(pictures, tuple(map(str, captions)))


def test_a_model_learns_to_name_colours() -> None:
    losses: list[float] = []
    seen = flat_pairs(256)
    model = fit(seen.pictures, seen.captions, steps=20, batch=32, progress=lambda _, loss: losses.append(loss))
    scores = evaluate(model, flat_pairs(100, seed=1))
    assert (scores.choices, scores.chance, scores.pairs) == (4, 0.25, 100)
    assert scores.accuracy > 0.95
    assert scores.auc > 0.95
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_the_same_seed_trains_the_same_weights_whatever_was_drawn_before() -> None:
    seen = flat_pairs(64)
    states = []
    for seed in (3, 3, 4):
        torch.rand(seed * 7 + len(states))
        states.append(fit(seen.pictures, seen.captions, steps=3, batch=32, seed=seed).state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not torch.equal(states[0]["project.weight"], states[2]["project.weight"])


def test_fewer_samples_than_a_batch_are_enough() -> None:
    seen = flat_pairs(5)
    assert isinstance(fit(seen.pictures, seen.captions, steps=2), TinyClip)
    with pytest.raises(ValueError, match="as many pictures as captions"):
        fit(seen.pictures, seen.captions[:4], steps=1)


def test_pictures_vary_by_a_move_and_a_mirror() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (60, 64, 64, 3), dtype=np.uint8)
    varied = vary(pictures, np.random.default_rng(1))
    assert varied.shape == pictures.shape
    mirrored = 0
    for picture, made in zip(pictures, varied, strict=True):
        # The inner part of the result is a piece of the picture, or of its mirror image.
        piece = made[SHIFT:-SHIFT, SHIFT:-SHIFT]
        places = [
            (flip, y, x)
            for flip, whole in enumerate((picture, picture[:, ::-1]))
            for y in range(2 * SHIFT + 1)
            for x in range(2 * SHIFT + 1)
            if np.array_equal(whole[y : y + 56, x : x + 56], piece)
        ]
        assert len(places) == 1
        mirrored += places[0][0]
    assert 15 < mirrored < 45


def test_auc_is_mann_whitneys() -> None:
    rng = np.random.default_rng(0)
    positive, negative = rng.integers(0, 9, 70).astype(np.float32), rng.integers(0, 7, 50).astype(np.float32)
    expected = mannwhitneyu(positive, negative).statistic / (70 * 50)
    assert roc_auc(positive, negative) == pytest.approx(expected)


def test_a_perfect_model_scores_one_a_blind_one_chance() -> None:
    captions = [i % 12 for i in range(240)]
    text = np.eye(12, 64)
    perfect = evaluate(Oracle(text[captions], text), marked(captions))
    assert (perfect.accuracy, perfect.auc, perfect.choices, perfect.chance) == (1, 1, 10, 0.1)
    rng = np.random.default_rng(0)
    blind = evaluate(Oracle(rng.normal(size=(240, 64)), rng.normal(size=(12, 64))), marked(captions))
    assert blind.accuracy == pytest.approx(0.1, abs=0.08)
    assert blind.auc == pytest.approx(0.5, abs=0.1)


def test_a_picture_never_chooses_between_its_caption_and_the_same_text() -> None:
    """Every picture prefers caption 0 to 1 to 2 …: a picture is right only if no better caption is among its choices."""
    captions = list(range(30))
    image, text = np.zeros((30, 64)), np.zeros((30, 64))
    image[:, 0], text[:, 0] = 1, np.arange(30)[::-1]
    scores = evaluate(Oracle(image, text), marked(captions))
    # Caption 0 always wins, caption 29 and every other with a better one among nine never.
    assert 1 / 30 <= scores.accuracy < 0.3
    two = evaluate(Oracle(image, text), marked([0, 1] * 15))
    assert (two.choices, two.accuracy, two.auc) == (2, 0.5, 0.5)


def test_one_caption_cannot_be_chosen() -> None:
    with pytest.raises(ValueError, match="only be chosen among different ones"):
        evaluate(TinyClip(["a"]), marked([7, 7, 7]))


@pytest.fixture(scope="module")
def laion(tmp_path_factory: pytest.TempPathFactory) -> RenderedFolder:
    return write_folder(tmp_path_factory.mktemp("rendered") / "laion", 400, 2, seed=9)


@pytest.fixture(scope="module")
def truth(laion: RenderedFolder) -> dict[str, dict]:
    return {row["key"]: row for row in pq.read_table(laion.truth).to_pylist()}


@pytest.fixture
def samples(engine: None, laion: RenderedFolder) -> Version:
    """A rendered folder of two shards, ingested."""
    return DatasetQuery.from_source(str(laion.path)).save("samples")


def test_pairs_are_read_as_they_are_in_the_tars(samples: Version, laion: RenderedFolder, truth: dict) -> None:
    expected = []
    for shard in ("00000", "00001"):
        with tarfile.open(laion.path / f"{shard}.tar") as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}
        for name, data in members.items():
            key, extension = name.split(".")
            if extension == "jpg" and not truth[key]["broken"]:
                shown = pixels(Image.open(io.BytesIO(data)))
                expected.append((members[f"{key}.txt"].decode(), shown.tobytes()))
    pairs = read_pairs(exam_batches(DatasetQuery(samples), "caption"))
    assert sorted(zip(pairs.captions, (p.tobytes() for p in pairs.pictures), strict=True)) == sorted(expected)


def test_pictures_vary_from_epoch_to_epoch_and_alike_for_any_number_of_processes(samples: Version) -> None:
    query = captioned(DatasetQuery(samples), "caption")

    def epochs(world: int) -> list[set[tuple[int, bytes]]]:
        loaders = [
            training_batches(query, "caption", sample_ids=True, global_batch_size=32, rank=rank, world_size=world)
            for rank in range(world)
        ]
        return [
            {
                (sample, picture.numpy().tobytes())
                for loader in loaders
                for batch in loader
                for sample, picture in zip(batch["sample_id"].tolist(), batch["image"], strict=True)
            }
            for _ in range(2)
        ]

    first, second = epochs(1)
    assert epochs(2) == [first, second]
    assert len({sample for sample, _ in first}) > 300
    assert len(first & second) < 0.1 * len(first)


def test_what_cannot_be_trained_on_is_named(samples: Version) -> None:
    with pytest.raises(LoaderError, match=r"no column 'captoin' to train on\. Did you mean 'caption'"):
        captioned(DatasetQuery(samples), "captoin")
    with pytest.raises(LoaderError, match="has no rows with a 'caption'"):
        captioned(DatasetQuery(samples).filter(C.width > 5000), "caption")
