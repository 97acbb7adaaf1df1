"""Quality of pictures: the verdicts are those of the package cleanvision, which runs beside ours."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from factory_lib import DatasetQuery
from factory_lib.curation import QualityFilter, keep
from factory_lib.curation.quality import CLEANVISION
from factory_lib.signals.cleanvision import cleanvision

ISSUES = ("dark", "light", "odd_aspect_ratio", "low_information", "blurry", "grayscale", "odd_size")


def peer(paths: list[Path]) -> Any:
    """A row a file, `is_<issue>_issue` and `<issue>_score`."""
    from cleanvision import Imagelab

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        lab = Imagelab(filepaths=[str(path) for path in paths], verbose=False)
        lab.find_issues({name: {} for name in ISSUES}, n_jobs=1, verbose=False)
    return lab.issues


def pool_of(paths: list[Path]) -> DatasetQuery:
    pointers = [{"uri": str(path), "offset": 0, "size": path.stat().st_size} for path in paths]
    kind = pa.struct([("uri", pa.string()), ("offset", pa.uint64()), ("size", pa.uint64())])
    table = pa.table({"path": [str(path) for path in paths], "image": pa.array(pointers, kind)})
    return DatasetQuery(DatasetQuery.from_arrow(table).add_signals(cleanvision).save("pool"))


def verdicts(pool: DatasetQuery, quality: QualityFilter) -> dict[str, dict[str, bool]]:
    """Issue -> path -> whether ours has it."""
    rules = quality.judged(pool).rules
    rows = pool.select("path", **{name: ~rule for name, rule in rules.items()}).to_arrow().to_pylist()
    return {name: {row["path"]: row[name] for row in rows} for name in rules}


def edited(photo: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """A picture of each kind of issue, and of each mode that a file may have."""
    width, height = photo.size
    yield "dark.png", photo.point(lambda level: level // 5)
    yield "light.png", photo.point(lambda level: 245 + level // 26)
    yield "narrow.png", photo.crop((0, 0, width // 5, height))
    yield "plain.png", Image.new("RGB", (90, 80), (200, 30, 30))
    yield "blurred.png", photo.resize((8, 8)).resize((width, height))
    yield "large.png", photo.resize((900, 700))
    yield "tiny.png", photo.resize((3, 2))
    for mode in ("L", "P", "1", "RGBA", "CMYK", "I;16"):
        values = photo.convert("L" if mode == "I;16" else mode)
        made = Image.fromarray(np.asarray(values).astype(np.uint16) * 257) if mode == "I;16" else values
        yield f"mode {mode.replace(';', '')}.{'tiff' if mode == 'CMYK' else 'png'}", made


@pytest.mark.usefixtures("engine")
def test_verdicts_and_scores_are_those_of_the_package(shared_data: Path, tmp_path: Path) -> None:
    for shard in sorted((shared_data / "datacomp_like" / "shards").glob("*.tar"))[:2]:
        with tarfile.open(shard) as tar:
            for member in [one for one in tar if one.name.endswith(".jpg")][:30]:
                (tmp_path / f"{shard.stem}-{member.name}").write_bytes(tar.extractfile(member).read())  # type: ignore[union-attr]
    photos = sorted(tmp_path.iterdir())
    for name, picture in edited(Image.open(photos[0])):
        picture.save(tmp_path / name)
    rotated = Image.Exif()
    rotated[0x0112] = 6
    Image.open(photos[1]).save(tmp_path / "turned.jpg", exif=rotated)
    paths = sorted([*tmp_path.iterdir(), *openable(shared_data / "corrupt")])
    expected = peer(paths)
    pool = pool_of(paths)
    found = verdicts(pool, CLEANVISION)
    for issue in ISSUES:
        theirs = expected[f"is_{issue}_issue"].to_dict()
        assert {path for path, is_issue in found[issue].items() if is_issue != theirs[path]} == set(), issue
        assert any(theirs.values()), issue
        assert not all(theirs.values()), issue
    rows = pool.select("path", "cleanvision").to_arrow().to_pylist()
    for issue in ("dark", "light", "odd_aspect_ratio", "low_information", "blurry"):
        assert {row["path"]: row["cleanvision"][issue] for row in rows} == expected[f"{issue}_score"].to_dict()


def openable(folder: Path) -> list[Path]:
    """The broken files that cleanvision survives, of formats that are read here, by Pillow itself."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix not in {".jpg", ".png", ".gif", ".webp", ".tiff", ".bmp"}:
            continue
        with contextlib.suppress(Exception):
            picture = Image.open(path)
            if picture.width * picture.height < 10**7 and picture.mode not in {"LA", "PA"}:
                picture.load()
                picture.entropy()
                found.append(path)
    assert len(found) > 10
    return found


def test_an_odd_picture_with_its_transparency_in_a_second_band() -> None:
    # cleanvision has no answer: it looks for a second and third band of colours
    grey = np.tile(np.arange(0, 250, 10, dtype=np.uint8), (25, 1))
    found = cleanvision.one(Image.merge("LA", [Image.fromarray(grey), Image.new("L", (25, 25), 7)]))
    assert found.dark == np.percentile(grey / 255, 99)
    assert found.light == 1 - np.percentile(grey / 255, 5)


def scores(sizes: list[float | None], **others: list[Any]) -> DatasetQuery:
    """A pool with scores of pictures that have no other issue."""
    fine = {"dark": 0.9, "light": 0.9, "odd_aspect_ratio": 0.9, "low_information": 0.9, "blurry": 0.9}
    rows = [
        {
            **(dict.fromkeys((*fine, "grayscale")) if size is None else fine | {"grayscale": False}),
            "size": size,
        }
        for size in sizes
    ]
    for name, values in others.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    kind = [(name, pa.float64()) for name in fine] + [("grayscale", pa.bool_()), ("size", pa.float64())]
    table = pa.table(
        {"path": [str(place) for place in range(len(sizes))], "cleanvision": pa.array(rows, pa.struct(kind))}
    )
    return DatasetQuery.from_arrow(table)


def gone(pool: DatasetQuery, quality: QualityFilter) -> set[int]:
    kept = keep(pool, quality).samples.to_arrow()["path"].to_pylist()
    return set(range(pool.count())) - {int(path) for path in kept}


@pytest.mark.usefixtures("engine")
def test_sizes_that_are_odd_for_the_pool() -> None:
    # quartiles 102 and 106: bounds 90 and 118
    usual = [100.0, 101.0, 102.0, 103.0, 104.0, 105.0, 106.0, 107.0]
    quartiles = np.percentile([*usual, 90.0, 118.5], [25, 75])
    low, high = quartiles[0] - 3 * np.ptp(quartiles), quartiles[1] + 3 * np.ptp(quartiles)
    odd = {place for place, size in enumerate([*usual, 90.0, 118.5]) if not low <= size <= high}
    assert gone(scores([*usual, 90.0, 118.5]), CLEANVISION) == odd
    assert gone(scores([*usual, 60.0]), CLEANVISION) == {8}
    assert gone(scores([*usual, 60.0]), QualityFilter()) == set()
    # all quartiles equal: any other size is odd
    assert gone(scores([100.0] * 8 + [100.5]), CLEANVISION) == {8}
    assert gone(scores([100.0] * 8), CLEANVISION) == set()


@pytest.mark.usefixtures("engine")
def test_thresholds_are_fields_and_samples_without_scores_stay() -> None:
    pool = scores([100.0, 100.0, 100.0, None], dark=[0.32, 0.3199, 0.9, None], grayscale=[False, False, True, None])
    kept = keep(pool, CLEANVISION)
    assert {name: number for name, number in kept.removed().items() if number} == {"dark": 1, "grayscale": 1}
    assert gone(pool, CLEANVISION) == {1, 2}
    assert gone(pool, QualityFilter(dark=0.2)) == set()
    only = QualityFilter(**dict.fromkeys(("dark", "light", "odd_aspect_ratio", "low_information", "blurry")))  # type: ignore[arg-type]
    assert list(replace(only, grayscale=True).judged(pool).rules) == ["grayscale"]


@pytest.mark.usefixtures("engine")
def test_a_pool_without_scores_is_kept() -> None:
    bare = DatasetQuery.from_arrow(pa.table({"key": ["a", "b"]}))
    judged = QualityFilter().judged(bare)
    assert (judged.rules, judged.remark) == (
        {},
        "No column 'cleanvision': no picture was judged. Add the signal of that name.",
    )
    judged = QualityFilter().judged(scores([100.0, *[None] * 20]))
    assert judged.rules == {}
    assert judged.remark == "1 of 21 pictures have scores: none was removed for its quality."
    assert QualityFilter().judged(scores([])).remark.startswith("0 of 0 pictures have scores")
