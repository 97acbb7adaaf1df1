"""Near-duplicates by pixels: edits of known kind, groups, and the test data with its truth."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw, ImageOps

from factory_lib import C, DatasetQuery, fn
from factory_lib.curation.duplicates import near_duplicates
from factory_lib.curation.duplicates.alignments import alignments, resampling
from factory_lib.curation.duplicates.candidates import _cosines, candidates, hashes
from factory_lib.curation.duplicates.hamming import keys_for
from factory_lib.curation.rules import Without, keep
from factory_lib.errors import QueryError
from factory_lib.signals.image import image_header
from factory_lib.signals.thumbnails import SIDE, content_box, planes_of, thumbnail

HEADER = pa.struct([("width", pa.uint32()), ("height", pa.uint32()), ("decodes", pa.bool_())])


def scene(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """A picture of coarse and fine blotches, like no other seed's."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height), 3)
    fine = Image.fromarray(random.integers(0, 256, (18, 24, 3), dtype=np.uint8)).resize((width, height), 3)
    return Image.blend(coarse, fine, 0.35)


def table_of(pictures: Sequence[Image.Image], shards: Sequence[str] | None = None) -> DatasetQuery:
    table = pa.table(
        {
            "shard": shards or ["a"] * len(pictures),
            "key": [str(number) for number in range(len(pictures))],
            "image_header": pa.array(
                [{"width": p.width, "height": p.height, "decodes": True} for p in pictures], HEADER
            ),
            "thumbnail": pa.array([thumbnail.one(p) for p in pictures], pa.list_(pa.uint8())),
        }
    )
    DatasetQuery.from_arrow(table, shard="shard").save("pictures")
    return DatasetQuery("pictures")


def found_in(query: DatasetQuery, **options: Any) -> dict[str, tuple[str, str, float]]:
    """key -> key of what stays, alignment, score."""
    keys = {row["sample_id"]: row["key"] for row in query.select("sample_id", "key").to_arrow().to_pylist()}
    rows = near_duplicates(query, **options).filter(~C.kept).to_arrow().to_pylist()
    return {row["key"]: (keys[row["duplicate_of"]], row["alignment"], row["score"]) for row in rows}


def cropped(picture: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = picture.size
    return picture.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    stored = BytesIO()
    picture.save(stored, "JPEG", quality=quality)
    return Image.open(stored).convert("RGB")


EDITS = {
    "the same": lambda p: p.copy(),
    "darker": lambda p: p.point(lambda level: level * 0.6 + 10),
    "half": lambda p: p.resize((p.width // 2, p.height // 2)),
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "rotated by 90": lambda p: p.transpose(Image.Transpose.ROTATE_90),
    "rotated by 180": lambda p: p.transpose(Image.Transpose.ROTATE_180),
    "rotated by 270": lambda p: p.transpose(Image.Transpose.ROTATE_270),
    "transposed": lambda p: p.transpose(Image.Transpose.TRANSPOSE),
    "cropped": lambda p: cropped(p, 0.05, 0.04, 0.97, 0.94),
    "bordered": lambda p: ImageOps.expand(p, 14, (250, 250, 250)),
    "padded to a square": lambda p: ImageOps.pad(p, (160, 160), color=(0, 0, 0)),
    "padded and mirrored": lambda p: ImageOps.pad(ImageOps.mirror(p), (160, 160), color=(255, 255, 255)),
}


def test_every_edit_is_found_and_other_pictures_stay(engine: None) -> None:
    original = scene(0).resize((640, 480), 3)
    pictures = [original, *(edit(scene(0)) for edit in EDITS.values()), *(scene(n) for n in range(1, 40))]
    found = found_in(table_of(pictures))
    names = dict(enumerate(EDITS, start=1))
    assert {names[int(key)] for key in found} == set(EDITS)
    assert {kept for kept, _, _ in found.values()} == {"0"}
    assert all(0.85 <= score <= 1 for _, _, score in found.values())


def test_the_largest_stays_then_the_earliest_shard_and_copies_of_copies_are_one_group(engine: None) -> None:
    picture = scene(5)
    chain = [cropped(picture, 0.015 * n, 0, 1, 1).resize((160, 120)) for n in range(3)]
    query = table_of([picture.resize((80, 60)), picture, chain[1], chain[2], scene(6)], ["a", "c", "b", "d", "a"])
    # of the same size: the one in shard b
    assert {key: kept for key, (kept, _, _) in found_in(query).items()} == {"0": "2", "1": "2", "3": "2"}


def test_of_copies_the_one_without_margins_stays_unless_it_is_much_smaller(engine: None) -> None:
    plain, bordered, padded = scene(7), EDITS["bordered"](scene(7)), EDITS["padded to a square"](scene(7))
    assert bordered.width * bordered.height > plain.width * plain.height
    found = found_in(table_of([bordered, padded, plain, scene(8)]))
    assert {key: kept for key, (kept, _, _) in found.items()} == {"0": "2", "1": "2"}
    found = found_in(table_of([plain.resize((80, 60)), bordered]))
    assert {key: kept for key, (kept, _, _) in found.items()} == {"0": "1"}


def test_of_equal_pictures_the_first_in_row_order_is_told_in_whatever_order_they_are_read(engine: None) -> None:
    query = table_of([scene(5)] * 12, list("lfcibkeajdhg"))
    first = query.filter("shard = 'a'").select("sample_id").to_arrow()["sample_id"][0].as_py()
    found = near_duplicates(query).order_by("shard").to_arrow().to_pylist()
    assert [row["shard"] for row in found if row["kept"]] == ["a"]
    gone = [row for row in found if not row["kept"]]
    assert [row["shard"] for row in gone] == list("bcdefghijkl")
    assert {row["matched"] for row in gone} == {row["duplicate_of"] for row in gone} == {first}


def test_plain_and_missing_pictures_have_no_duplicates(engine: None) -> None:
    white = Image.new("RGB", (50, 50), "white")
    query = table_of([white, white.copy(), Image.new("RGB", (60, 60), "navy")])
    assert found_in(query) == {}
    assert near_duplicates(query.filter("key = 'none'")).count() == 0
    assert near_duplicates(query.mutate(thumbnail=fn.emptyArrayUInt8())).count() == 0


def ring(seed: int, at: int, size: int, light: int = 26) -> Image.Image:
    """A ring on plain ground, under uneven light of some grey levels that no other seed has."""
    random = np.random.default_rng(seed)
    picture = Image.new("L", (200, 150), 190)
    ImageDraw.Draw(picture).ellipse((at, 20, at + size, 20 + size), outline=int(random.integers(20, 90)), width=18)
    grid = random.integers(-light, light + 1, (6, 7)).astype(np.float32)
    shade = np.asarray(Image.fromarray(grid).resize(picture.size, Image.Resampling.BICUBIC))
    return Image.fromarray((np.asarray(picture) + shade).clip(0, 255).astype(np.uint8)).convert("RGB")


def test_pictures_that_share_an_outline_and_nothing_else_stay(engine: None) -> None:
    pictures = [ring(seed, 40 + seed % 5, 96 + seed % 7) for seed in range(40)]
    copies = {40: ImageOps.mirror(pictures[3]), 41: jpeg(pictures[17], 40), 42: cropped(pictures[30], 0.02, 0, 1, 0.97)}
    found = found_in(table_of([*pictures, *copies.values()]))
    assert {frozenset((key, kept)) for key, (kept, _, _) in found.items()} == {
        frozenset(("40", "3")),
        frozenset(("41", "17")),
        frozenset(("42", "30")),
    }


def test_of_drawings_without_shade_only_equal_ones_are_copies(engine: None) -> None:
    pictures = [ring(seed, 30 + 9 * (seed % 4), 80 + 10 * (seed % 3), light=0) for seed in range(12)]
    found = found_in(table_of([*pictures, jpeg(pictures[5], 80), pictures[7].resize((400, 300))]))
    assert {key: kept for key, (kept, _, _) in found.items()} == {"12": "5", "7": "13"}


def test_wrong_arguments_are_refused_with_what_is_right(engine: None) -> None:
    query = table_of([scene(1)])
    with pytest.raises(QueryError, match="by='hash'.*'hashes'"):
        near_duplicates(query, by="hash")  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="score=1.5"):
        near_duplicates(query, score=1.5)
    with pytest.raises(QueryError, match="thumbnail"):
        near_duplicates(query.drop("thumbnail"))


def test_near_duplicates_are_saved_with_their_parent_and_made_again(engine: None) -> None:
    query = table_of([scene(1), scene(1), scene(2)])
    version = near_duplicates(query).save("near")
    record = version.provenance
    assert record is not None
    assert [parent["name"] for parent in record.parents] == ["pictures.v1"]
    assert (record.rows_in, record.rows) == (3, 2)
    kept = keep(query, Without(DatasetQuery("near"), "copy")).samples.save("kept")
    assert kept.provenance is not None
    assert (kept.provenance.rows_in, kept.rows) == (3, 2)
    from factory_lib.history.reproducing import reproduce

    assert reproduce(version).is_equal


# --- the parts ---------------------------------------------------------------------------------------------------------


def test_margins_are_trimmed_and_nothing_else() -> None:
    pixels = np.asarray(scene(3))
    assert content_box(pixels) == (0, 0, 160, 120)
    framed = np.pad(pixels, ((7, 3), (0, 11), (0, 0)), constant_values=200)
    assert content_box(framed) == (0, 7, 160, 127)
    assert content_box(np.full((30, 40, 3), 9, np.uint8)) == (0, 0, 40, 30)
    assert content_box(np.zeros((1, 1, 3), np.uint8)) == (0, 0, 1, 1)


def test_a_thumbnail_is_the_box_mean_of_the_luma() -> None:
    picture = scene(4, 128, 96)
    planes, rows = planes_of(
        thumbnail.output.array([thumbnail.one(picture), None, thumbnail.one(ImageOps.expand(picture, 32))])
    )
    assert rows.tolist() == [0, 2, 2]
    luma = np.asarray(picture.convert("L")).astype(float)
    means = luma.reshape(SIDE, 3, SIDE, 4).mean(axis=(1, 3))
    assert np.abs(planes[0] - means).max() <= 1
    assert (planes[2] == planes[0]).all()


def test_the_map_of_an_alignment_is_what_pillow_does_to_the_picture() -> None:
    small = np.asarray(scene(7, SIDE, SIDE).convert("L"))
    turned = {
        "same": small,
        "mirrored": small[:, ::-1],
        "upside down": small[::-1],
        "rotated by 180": small[::-1, ::-1],
        "transposed": small.T,
        "transposed and rotated by 180": small[::-1, ::-1].T,
        "rotated by 90": np.rot90(small, -1),
        "rotated by 270": np.rot90(small, 1),
    }
    for name, expected in turned.items():
        made = (resampling(alignments()[name]) @ small.ravel().astype(np.float32)).reshape(SIDE, SIDE)
        assert np.abs(made - expected).max() < 0.01, name


def test_candidates_are_those_that_comparing_all_hashes_finds() -> None:
    random = np.random.default_rng(1)
    base = random.integers(0, 2**63, 30, dtype=np.uint64) << np.uint64(1)
    words = np.zeros((len(alignments()), 240), np.uint64)
    for row in range(len(words)):
        words[row] = base[random.integers(0, 30, 240)]
        for _ in range(6):
            words[row] ^= np.uint64(1) << random.integers(1, 64, 240, dtype=np.uint64)
    found = candidates(words, 10)
    distance = np.bitwise_count(words[:, :, None] ^ words[0][None, None, :])
    np.fill_diagonal(distance.min(axis=0), 64)
    nearest = np.minimum(distance.min(axis=0), distance.min(axis=0).T)
    np.fill_diagonal(nearest, 64)
    expected = {(i, j): nearest[i, j] for i, j in zip(*np.nonzero(np.triu(nearest <= 10, 1)), strict=True)}
    got = {
        (min(i, j), max(i, j)): d
        for i, j, d in zip(found.probe.tolist(), found.base.tolist(), found.distance.tolist(), strict=True)
    }
    assert got == expected
    for place in range(0, len(found), 97):
        i, j, which = found.probe[place], found.base[place], found.alignment[place]
        assert np.bitwise_count(words[which, i] ^ words[0, j]) == found.distance[place]


def test_a_hash_holds_the_signs_of_the_lowest_frequencies() -> None:
    from scipy.fft import dctn

    assert np.allclose(_cosines(8) @ _cosines(8).T, np.eye(8), atol=1e-6)
    small = np.asarray(scene(8, SIDE, SIDE).convert("L"))
    low = dctn(small.astype(float), norm="ortho")[:8, :8]
    signs = (low > 0).sum() - int(low[0, 0] > 0)
    assert int(np.bitwise_count(hashes(small[None])[0, 0])) == signs


# --- the test data -----------------------------------------------------------------------------------------------------


def test_copies_of_the_test_data_are_found_and_nothing_else(engine: None, shared_data: Path) -> None:
    with (shared_data / "near_dups" / "groundtruth.csv").open() as file:
        truth = list(csv.DictReader(file))
    from factory_lib.compute.run import compute
    from tests.signals.test_signals_bundled import rows_of

    paths = [shared_data / "near_dups" / "images" / row["file"] for row in truth]
    rows = pa.Table.from_batches(compute([image_header, thumbnail], [rows_of(paths)], workers=2, ordered=True))
    found_at_scale(truth, rows)
    rows = rows.append_column("key", pa.array([row["file"] for row in truth]))
    DatasetQuery.from_arrow(rows.drop_columns(["shard", "position", "sample_id"])).save("copies")
    found = found_in(DatasetQuery("copies"))
    group = {row["file"]: row["group"] or row["file"] for row in truth}
    leaders: dict[str, set[str]] = {}
    for row in truth:
        leaders.setdefault(group[row["file"]], set()).add(found.get(row["file"], (row["file"], "", 0.0))[0])
    assert not [(key, kept) for key, (kept, _, _) in found.items() if group[key] != group[kept]]
    # what the original is in one group with
    original = {
        row["group"]: found.get(row["file"], (row["file"], "", 0.0))[0] for row in truth if row["transform"] == "orig"
    }
    for kind, bar in (("exact_bytes", 0.995), ("near_easy", 0.995), ("geometric", 0.98), ("near_hard", 0.85)):
        rows_of_kind = [row for row in truth if row["class"] == kind]
        together = [found.get(row["file"], (row["file"], "", 0.0))[0] == original[row["group"]] for row in rows_of_kind]
        assert np.mean(together) >= bar, (kind, np.mean(together))


def found_at_scale(truth: list[dict[str, str]], rows: pa.Table) -> None:
    """Copies have one of the few keys in common by which hashes are looked up among ten million."""
    planes, owners = planes_of(rows.column("thumbnail").combine_chunks())
    words = hashes(planes)
    masks = [sum(255 << 8 * (7 - byte) for byte in key) for key in keys_for(27 * 10**7, 10**7)]
    group = np.array([row["group"] if row["class"] != "distractor" else row["file"] for row in truth])[owners]
    original = np.array([row["transform"] == "orig" for row in truth])[owners]
    found: dict[int, bool] = {}
    for place in np.flatnonzero(~original & np.isin(group, group[original])):
        leaders = np.flatnonzero(original & (group == group[place]))
        differ = np.concatenate([words[:, place, None] ^ words[0, leaders], words[:, leaders] ^ words[0, place]])
        near = differ[np.bitwise_count(differ) <= 10]
        sample = int(owners[place])  # one of its planes is enough
        found[sample] = found.get(sample, False) or any(((near & np.uint64(mask)) == 0).any() for mask in masks)
    for kind, bar in (("exact_bytes", 0.99), ("near_easy", 0.98), ("geometric", 0.98), ("near_hard", 0.85)):
        assert np.mean([hit for sample, hit in found.items() if truth[sample]["class"] == kind]) >= bar, kind
