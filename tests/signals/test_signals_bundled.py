"""The bundled signals against independent definitions: Pillow, hashlib, scipy, imagehash's published algorithm, hand counts."""

from __future__ import annotations

import csv
import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from factory_lib.compute.run import compute
from factory_lib.signals.hashes import dhash, phash, pixel_md5, sha256
from factory_lib.signals.image import image_header, quality
from factory_lib.signals.text import caption_stats


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photos(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in {".jpg", ".png", ".webp", ".gif"})


def rows_of(paths: list[Path]) -> pa.RecordBatch:
    pointers = [{"uri": str(path), "offset": 0, "size": path.stat().st_size} for path in paths]
    count = len(paths)
    return pa.record_batch(
        {
            "shard": ["files"] * count,
            "position": pa.array(range(count), pa.uint32()),
            "sample_id": pa.array(range(count), pa.uint64()),
            "key": [path.name for path in paths],
            "image": pa.array(
                pointers, pa.struct([("uri", pa.string()), ("offset", pa.uint64()), ("size", pa.uint64())])
            ),
        }
    )


# --- every broken file -------------------------------------------------------------------------------------------------


def test_every_broken_file_is_what_pillow_makes_of_it(shared_data: Path) -> None:
    with (shared_data / "corrupt" / "expected_pillow.csv").open() as file:
        expected = {row["file"]: row for row in csv.DictReader(file)}
    paths = [shared_data / "corrupt" / name for name in expected]
    found = pa.Table.from_batches(compute([image_header, phash, quality], [rows_of(paths)], workers=1, ordered=True))
    broken = 0
    for path, row in zip(paths, found.to_pylist(), strict=True):
        truth, header = expected[path.name], row["image_header"]
        assert row["image_header_error"] is None
        assert header["bytes"] == int(truth["bytes"])
        if truth["open"] == "ok":
            stored = (header["format"], header["mode"], header["width"], header["height"], header["frames"])
            assert stored == (truth["format"], truth["mode"], int(truth["w"]), int(truth["h"]), int(truth["frames"]))
        else:
            assert header["width"] is header["format"] is None
        fails = truth["open"] if truth["open"] != "ok" else truth["load"] if truth["load"] != "ok" else None
        assert header["decodes"] is (fails is None), path.name
        for problem in (header["problem"], row["phash_error"], row["quality_error"]):
            assert (problem is None) == (fails is None)
            if fails is not None:
                assert problem.startswith(f"{fails}: ")
                assert truth["err"].split(" '")[0][:60] in problem
        assert (row["phash"] is None) == (fails is not None)
        broken += fails is not None
    assert (len(paths), broken) == (39, 16)


def test_header_of_rotated_and_grey_files(shared_data: Path) -> None:
    corrupt = shared_data / "corrupt"
    assert image_header.one(corrupt / "exif_rot6.jpg").orientation == 6
    assert image_header.one(corrupt / "gray.jpg").orientation == 1
    # 16 bits are scaled to 8, where Pillow's own conversion to RGB clips at 255.
    levels = np.asarray(Image.open(corrupt / "gray16.png")).astype(np.int64)
    brightest = float(np.percentile(levels >> 8, 99)) / 255
    assert quality.one(corrupt / "gray16.png").dark == pytest.approx(brightest, abs=0.005)


# --- hashes ------------------------------------------------------------------------------------------------------------


def defined_phash(path: Path) -> int:
    """imagehash.phash as published: scipy's DCT-II, unnormalised, columns then rows; bits row by row."""
    from scipy.fftpack import dct

    pixels = np.asarray(Image.open(path).convert("L").resize((32, 32), Image.Resampling.LANCZOS))
    low = dct(dct(pixels, axis=0), axis=1)[:8, :8]
    return int("".join("1" if bit else "0" for bit in (low > np.median(low)).flatten()), 2)


def defined_dhash(path: Path) -> int:
    pixels = np.asarray(Image.open(path).convert("L").resize((9, 8), Image.Resampling.LANCZOS))
    return int("".join("1" if bit else "0" for bit in (pixels[:, 1:] > pixels[:, :-1]).flatten()), 2)


def test_perceptual_hashes_are_those_of_imagehash(shared_data: Path) -> None:
    paths = photos(shared_data / "near_dups" / "images")[::7] + photos(shared_data / "coco_mini" / "val2017")
    assert len(paths) > 90
    found = pa.Table.from_batches(compute([phash, dhash], [rows_of(paths)], workers=1, ordered=True))
    assert found.column("phash").to_pylist() == [defined_phash(path) for path in paths]
    assert found.column("dhash").to_pylist() == [defined_dhash(path) for path in paths]


def test_perceptual_hashes_of_known_pictures() -> None:
    # str(imagehash.phash(noise)) and str(imagehash.dhash(noise)) of imagehash 4.3.2.
    ramp = Image.fromarray(np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8))
    noise = Image.fromarray(np.random.default_rng(7).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    assert f"{phash.one(noise):016x} {dhash.one(noise):016x}" == "90f5282e3316f6f8 2bd2946c2b35b9d9"
    assert dhash.one(ramp) == 2**64 - 1
    for level, high in ((0, 0), (255, 1 << 63)):
        assert phash.one(Image.new("RGB", (40, 40), (level,) * 3)) == high
        assert dhash.one(Image.new("RGB", (40, 40), (level,) * 3)) == 0


def test_near_duplicates_are_found_and_nothing_else(shared_data: Path) -> None:
    with (shared_data / "near_dups" / "groundtruth.csv").open() as file:
        truth = list(csv.DictReader(file))
    paths = [shared_data / "near_dups" / "images" / row["file"] for row in truth]
    batches = list(compute([phash, dhash], [rows_of(paths)], workers=1))
    codes = np.array([[row["phash"], row["dhash"]] for batch in batches for row in batch.to_pylist()], dtype=np.uint64)
    distances = np.bitwise_count(codes[:, None, :] ^ codes[None, :, :])
    near = (distances <= 6).any(axis=2)
    groups = np.array([row["group"] or row["file"] for row in truth])
    same = groups[:, None] == groups[None, :]
    original = {row["group"]: place for place, row in enumerate(truth) if row["class"] == "orig"}
    easy = [place for place, row in enumerate(truth) if row["class"] == "near_easy"]
    copies = [place for place, row in enumerate(truth) if row["class"] == "exact_bytes"]
    assert len(easy) >= 200
    found = [near[place, original[str(groups[place])]] for place in easy]
    assert np.mean(found) >= 0.995
    assert all(near[place, original[str(groups[place])]] for place in copies)
    distractors = np.array([row["class"] == "distractor" for row in truth])
    different = ~same | (distractors[:, None] & distractors[None, :] & ~np.eye(len(truth), dtype=bool))
    assert different.sum() > 300_000
    assert not (near & different).any()


def test_digests_are_those_of_hashlib(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    data = encoded(image)
    assert sha256.one(data) == hashlib.sha256(data).hexdigest()
    expected = hashlib.md5(b"30x20:" + np.asarray(image).tobytes()).hexdigest()
    assert pixel_md5.one(data) == pixel_md5.one(encoded(image, "BMP")) == expected
    assert pixel_md5.one(encoded(image.rotate(90, expand=True))) != expected


# --- quality -----------------------------------------------------------------------------------------------------------


def defined_quality(path: Path) -> dict[str, float]:
    """The definitions, written plainly in double precision."""
    from PIL import ImageFilter
    from scipy.ndimage import convolve

    opened = Image.open(path)
    image = opened.convert("RGB")
    red, green, blue = np.moveaxis(np.asarray(image).astype(float), 2, 0)
    bright = np.sqrt(0.241 * red**2 + 0.691 * green**2 + 0.068 * blue**2) / 255
    luma = image.convert("L")
    laplacian = convolve(np.asarray(luma).astype(float), [[0, 1, 0], [1, -4, 1], [0, 1, 0]], mode="mirror")
    counted = opened if opened.mode == "L" else image
    shares = np.array([count for count in counted.histogram() if count], dtype=float)
    shares /= shares.sum()
    ratio = max(luma.size) / 64
    small = luma.resize((max(1, round(luma.width / ratio)), max(1, round(luma.height / ratio)))) if ratio > 1 else luma
    spread = 1 - np.exp(-0.01 * np.std(small.histogram()))
    edges = 1 - np.exp(-0.01 * np.std(np.asarray(small.filter(ImageFilter.FIND_EDGES)).astype(float)))
    return {
        "brightness": bright.mean(),
        "dark": np.percentile(bright, 99),
        "light": 1 - np.percentile(bright, 5),
        "contrast": np.asarray(luma).std() / 255,
        "sharpness": laplacian.var(),
        "blurry": min(1.0, edges + (spread if spread > 0.18 else 0)),
        "entropy": -(shares * np.log2(shares)).sum(),
        "aspect": min(image.width / image.height, image.height / image.width),
    }


def test_quality_is_as_defined(shared_data: Path) -> None:
    corrupt = shared_data / "corrupt"
    paths = photos(shared_data / "coco_mini" / "val2017")[:6] + [
        corrupt / name for name in ("gray.jpg", "solid_white.jpg", "wide_4000x1.png", "one_pixel.png", "rgba.png")
    ]
    (found,) = compute([quality], [rows_of(paths)], workers=1)
    for path, value in zip(paths, found.column("quality").to_pylist(), strict=True):
        assert value == pytest.approx(defined_quality(path), rel=1e-4, abs=1e-5), path.name


def test_quality_tells_good_from_bad_pictures() -> None:
    random = np.random.default_rng(3)
    sharp = Image.fromarray(random.integers(0, 256, (128, 128, 3), dtype=np.uint8))
    flat = Image.new("RGB", (200, 40), (12, 12, 12))
    good, bad = quality.one(sharp), quality.one(flat)
    assert good.dark > 0.9
    assert bad.dark < 0.32
    assert good.sharpness > 100 > bad.sharpness == 0
    assert good.entropy > 3 > bad.entropy
    assert (good.aspect, bad.aspect) == (1.0, pytest.approx(0.2))
    assert good.contrast > bad.contrast == 0


# --- captions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A red dress", {"n_chars": 11, "n_words": 3, "upper_ratio": 1 / 9, "digit_ratio": 0, "longest_word": 5}),
        ("", {"n_chars": 0, "n_words": 0, "digit_ratio": 0, "upper_ratio": 0, "unique_ratio": 1, "longest_word": 0}),
        # no-break space and ideographic space separate words; a family emoji is several code points
        ("très\u00a0jolie\u3000robe", {"n_chars": 15, "n_words": 3}),
        ("👨‍👩‍👧", {"n_chars": 5, "n_words": 1, "letter_ratio": 0}),
        ("IMG_1234.JPG", {"is_file_name": True, "digit_ratio": 4 / 12, "upper_ratio": 1}),
        ("DSC01234", {"is_file_name": True}),
        ("  photo.final.webp ", {"is_file_name": True, "n_words": 1}),
        ("a photo of image.jpg", {"is_file_name": False, "has_url": False}),
        ("image 12", {"is_file_name": True}),
        ("see https://example.com/a?b=1 now", {"has_url": True, "is_file_name": False}),
        ("WWW.SHOP.COM sale", {"has_url": True}),
        ("the The THE cat", {"n_words": 4, "unique_ratio": 0.5}),
        ("2024", {"digit_ratio": 1, "letter_ratio": 0}),
    ],
)
def test_caption_statistics_by_hand(caption: str, expected: dict[str, Any]) -> None:
    found = caption_stats.one(caption)._asdict()
    assert {name: found[name] for name in expected} == pytest.approx(expected)
