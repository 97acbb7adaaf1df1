"""The rendered folder: laid out as img2dataset does, and its truth is the truth."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from factory_assets.demo.rendered import RenderedFolder, add_shard, truth_path, write_folder
from factory_assets.demo.rendered.draw import render
from factory_assets.demo.rendered.edits import DAMAGES, EDITS, damage, encode
from factory_assets.demo.rendered.plan import MIN_SIDE, RenderingRecipe, plan_shard
from factory_assets.demo.rendered.scene import (
    BACKGROUNDS,
    COLOURS,
    MEANINGS,
    SHAPES,
    SIZES,
    TEMPLATES,
    Scene,
    caption,
    contradicting_scene,
    random_scene,
)
from factory_lib.errors import SourceError

ROWS, SHARDS = 200, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RenderedFolder:
    return write_folder(tmp_path_factory.mktemp("rendered") / "laion", ROWS * SHARDS, SHARDS, seed=5)


@pytest.fixture(scope="module")
def truth(folder: RenderedFolder) -> dict[str, dict]:
    return {row["key"]: row for row in pq.read_table(folder.truth).to_pylist()}


def members(folder: Path, shard: str) -> dict[str, dict[str, bytes]]:
    """key -> extension -> bytes, in the order of the tar."""
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(folder / f"{shard}.tar") as tar:
        for member in tar:
            key, extension = member.name.split(".", 1)
            samples.setdefault(key, {})[extension] = tar.extractfile(member).read()
    return samples


def all_members(folder: RenderedFolder) -> dict[str, dict[str, bytes]]:
    return {key: sample for n in range(folder.shards) for key, sample in members(folder.path, f"{n:05d}").items()}


def test_layout_is_that_of_img2dataset(folder: RenderedFolder, truth: dict) -> None:
    expected = {f"{n:05d}{end}" for n in range(SHARDS) for end in (".tar", ".parquet", "_stats.json", ".npz")}
    assert {path.name for path in folder.path.iterdir()} == expected
    assert folder.truth == truth_path(folder.path)
    assert folder.truth.parent == folder.path.parent
    assert (folder.shards, folder.rows) == (SHARDS, ROWS * SHARDS)
    images = 0
    for n in range(SHARDS):
        shard = f"{n:05d}"
        samples = members(folder.path, shard)
        table = pq.read_table(folder.path / f"{shard}.parquet")
        stats = json.loads((folder.path / f"{shard}_stats.json").read_text())
        succeeded = [row for row in table.to_pylist() if row["status"] == "success"]
        images += len(samples)
        assert stats["count"] == len(table) == ROWS
        assert stats["successes"] == len(samples) == len(succeeded)
        assert sum(stats["status_dict"].values()) == ROWS
        # The key is the shard's number and the row's, three digits for 200 rows.
        assert set(table["key"].to_pylist()) == {f"{shard}{i:03d}" for i in range(ROWS)}
        assert [row["key"] for row in succeeded] != list(samples)
        assert {row["key"] for row in succeeded} == set(samples)
        for row in succeeded:
            sample = samples[row["key"]]
            assert set(sample) == {"jpg", "txt", "json"}
            assert sample["txt"].decode() == row["caption"]
            in_tar = json.loads(sample["json"])
            for name in ("similarity", "punsafe", "pwatermark"):
                assert in_tar.pop(name) == pytest.approx(row.pop(name), rel=1e-6)
            assert in_tar == row
        for row in table.to_pylist():
            assert (row["status"] == "success") == (row["error_message"] is None) == (row["width"] is not None)
    assert folder.images == images == sum(not row["failed"] for row in truth.values())


def test_vectors_are_paired_to_the_parquet_by_row(folder: RenderedFolder) -> None:
    for n in range(SHARDS):
        table = pq.read_table(folder.path / f"{n:05d}.parquet")
        with np.load(folder.path / f"{n:05d}.npz") as vectors:
            assert vectors["key"].tolist() == table["key"].to_pylist()
            image, text = vectors["img_emb"].astype(np.float32), vectors["txt_emb"].astype(np.float32)
        np.testing.assert_allclose(np.linalg.norm(image, axis=1), 1, atol=2e-3)
        np.testing.assert_allclose((image * text).sum(1), table["similarity"].to_numpy(), atol=4e-3)


def test_the_shares_of_faults_are_exact(truth: dict) -> None:
    counted = {
        fault: sum(row["fault"] == fault for row in truth.values()) for fault in ("copy", "mismatched", "unsafe")
    }
    assert counted == {"copy": 60, "mismatched": 132, "unsafe": 30}
    for row in truth.values():
        flags = [f for f in ("failed", "broken", "too_small", "uninformative", "unsafe", "mismatched") if row[f]]
        assert flags == ([row["fault"]] if row["fault"] not in ("", "copy") else [])


def test_pictures_decode_unless_the_truth_says_broken(folder: RenderedFolder, truth: dict) -> None:
    metadata = {
        row["key"]: row for n in range(SHARDS) for row in pq.read_table(folder.path / f"{n:05d}.parquet").to_pylist()
    }
    kinds = set()
    for key, sample in all_members(folder).items():
        row = truth[key]
        if row["broken"]:
            kinds.add(row["edit"])
            with pytest.raises((OSError, SyntaxError)):
                Image.open(io.BytesIO(sample["jpg"])).load()
            continue
        picture = Image.open(io.BytesIO(sample["jpg"]))
        picture.load()
        assert picture.size == (metadata[key]["width"], metadata[key]["height"])
        assert row["too_small"] == (min(picture.size) < MIN_SIDE)
        assert max(picture.size) <= 400
        assert metadata[key]["original_width"] >= picture.width
    assert kinds == set(DAMAGES)


def test_captions_say_what_the_truth_says(folder: RenderedFolder, truth: dict) -> None:
    for key, sample in all_members(folder).items():
        row, text = truth[key], sample["txt"].decode()
        said = set(text.replace(",", "").split())
        if row["uninformative"]:
            assert row["said_meaning"] is None
            assert not said & {*COLOURS, *SHAPES, *SIZES, *BACKGROUNDS}
            assert len(text.split()) <= 2
            continue
        right = row["colour"] in said and row["shape"] in said
        assert right != row["mismatched"]
        if row["mismatched"]:
            assert row["colour"] not in said
            assert row["shape"] not in said
        assert len(text.split()) > 2


def test_copies_show_the_picture_of_a_clean_row_of_their_own_or_an_earlier_shard(
    folder: RenderedFolder, truth: dict
) -> None:
    samples = all_members(folder)
    originals = {row["picture"]: row for row in truth.values() if row["fault"] != "copy"}
    copies = [row for row in truth.values() if row["fault"] == "copy"]
    assert {row["edit"] for row in copies} == set(EDITS)
    assert any(row["shard"] != originals[row["picture"]]["shard"] for row in copies)
    for row in copies:
        original = originals[row["picture"]]
        assert original["fault"] == ""
        assert original["shard"] <= row["shard"]
        assert original["meaning"] == row["meaning"]
        one, other = samples[original["key"]]["jpg"], samples[row["key"]]["jpg"]
        assert (one == other) == (row["edit"] == "exact")
        assert _likeness(one, other) > 0.8


def test_only_copies_look_alike(folder: RenderedFolder, truth: dict) -> None:
    """Pictures of one meaning differ: nearest neighbours at 8x8 grey pixels share a picture or are far apart."""
    samples = {k: s for k, s in all_members(folder).items() if not truth[k]["broken"] and not truth[k]["too_small"]}
    keys = list(samples)
    small = np.stack([_grey(samples[key]["jpg"], 8).ravel() for key in keys]).astype(np.float32)
    small -= small.mean(1, keepdims=True)
    small /= np.linalg.norm(small, axis=1, keepdims=True)
    alike = small @ small.T
    np.fill_diagonal(alike, -1)
    picture = np.array([truth[key]["picture"] for key in keys])
    same = picture[:, None] == picture[None, :]
    assert alike[~same].max() < 0.99
    np.fill_diagonal(same, False)
    assert np.quantile(alike[same], 0.05) > 0.95


def _grey(jpeg: bytes, side: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("L").resize((side, side), Image.Resampling.BOX), np.float32)


def _likeness(one: bytes, other: bytes) -> float:
    """Correlation of the grey levels at 12x12 pixels."""
    return float(np.corrcoef(_grey(one, 12).ravel(), _grey(other, 12).ravel())[0, 1])


def test_the_same_seed_writes_the_same_folder_and_another_seed_another(folder: RenderedFolder, tmp_path: Path) -> None:
    again = write_folder(tmp_path / "again", ROWS * 2, 2, seed=5)
    other = write_folder(tmp_path / "other", ROWS, 1, seed=6)
    assert _digests(again.path) == {k: v for k, v in _digests(folder.path).items() if k[:5] < "00002"}
    assert not set(_digests(other.path).values()) & set(_digests(folder.path).values())


def test_a_shard_that_is_added_later_is_the_one_written_at_once(folder: RenderedFolder, tmp_path: Path) -> None:
    write_folder(tmp_path / "growing", ROWS * 2, 2, seed=5)
    grown = add_shard(tmp_path / "growing")
    assert grown.shards == 3
    assert _digests(grown.path) == _digests(folder.path)
    assert pq.read_table(grown.truth).equals(pq.read_table(folder.truth))


def test_worker_processes_write_the_same(folder: RenderedFolder, tmp_path: Path) -> None:
    told: list[int] = []
    parallel = write_folder(tmp_path / "parallel", ROWS * 2, 2, seed=5, workers=2, progress=told.append)
    assert _digests(parallel.path).items() <= _digests(folder.path).items()
    assert told == [ROWS, ROWS]


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_shard_cannot_be_added_to_any_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has no strange\.truth\.parquet"):
        add_shard(tmp_path / "strange")
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "strange.truth.parquet")
    with pytest.raises(SourceError, match="which recipe"):
        add_shard(tmp_path / "strange")


def test_a_recipe_is_checked() -> None:
    with pytest.raises(ValueError, match="Unknown faults"):
        RenderingRecipe(10, shares={"ugly": 0.1})
    with pytest.raises(ValueError, match="90 %"):
        RenderingRecipe(10, shares={"copy": 0.5, "broken": 0.5})
    clean = RenderingRecipe(10, shares={})
    assert all(row.fault == "" and row.picture == row.index + 30 for row in plan_shard(clean, 3))


def test_meanings_are_numbered_without_gaps() -> None:
    assert MEANINGS == 8 * 8 * 3 * 5
    scenes = [Scene.from_meaning(i) for i in range(MEANINGS)]
    assert len(set(scenes)) == MEANINGS
    assert [scene.meaning for scene in scenes] == list(range(MEANINGS))


def test_every_wording_states_colour_and_shape_and_no_other() -> None:
    rng = Random(1)
    for template in range(len(TEMPLATES)):
        scene = random_scene(rng)
        wrong = contradicting_scene(scene, rng)
        said = set(caption(scene, template).replace(",", "").split())
        assert {scene.colour, scene.shape} == said & {*COLOURS, *SHAPES}
        assert said & {*SIZES} <= {scene.size}
        assert not {wrong.colour, wrong.shape} & said


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shape_has_the_colour_and_the_size_it_is_said_to_have(shape: str) -> None:
    """Count pixels near the pure colour: their share of the picture grows with the size; a ring has a hole."""
    shares = {}
    for size in SIZES:
        picture = np.asarray(render(Scene("blue", shape, size, "plain"), f"{shape}-{size}", (200, 200)), dtype=int)
        blue = (picture[..., 2] - picture[..., 0] > 80) & (picture[..., 2] - picture[..., 1] > 50)
        shares[size] = blue.mean()
        rows, columns = np.flatnonzero(blue.any(1)), np.flatnonzero(blue.any(0))
        extent = max(np.ptp(rows), np.ptp(columns)) / 200
        low, high = {"small": (0.2, 0.35), "medium": (0.35, 0.56), "large": (0.55, 0.86)}[size]
        assert low < extent < high
        middle = blue[rows[0] + np.ptp(rows) // 2, columns[0] + np.ptp(columns) // 2]
        assert middle == (shape != "ring")
    assert shares["small"] < shares["medium"] < shares["large"]


def test_pictures_are_the_same_on_every_run() -> None:
    scene = Scene("red", "star", "large", "dotted")
    one = render(scene, "7").tobytes()
    assert one == render(scene, "7").tobytes() != render(scene, "8").tobytes()


def test_damage_is_named_and_checked() -> None:
    jpeg = encode(Image.new("RGB", (120, 120), "red"))
    assert damage("empty", jpeg, Random(0)) == b""
    assert damage("html", jpeg, Random(0)).startswith(b"<!DOCTYPE html>")
    cut = damage("truncated", jpeg, Random(0))
    assert jpeg.startswith(cut)
    assert 0 < len(cut) < 0.71 * len(jpeg)
    with pytest.raises(ValueError, match="Unknown damage"):
        damage("burnt", jpeg, Random(0))


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_never_makes_a_picture_too_small(edit: str) -> None:
    for size in ((96, 96), (96, 144), (320, 214)):
        for seed in range(8):
            picture = Image.open(io.BytesIO(EDITS[edit](Image.new("RGB", size, "green"), Random(seed))))
            assert min(picture.size) >= MIN_SIDE
