"""What the UI shows of a version: pictures, column descriptions, lineage, readable queries."""

from __future__ import annotations

import base64
import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from factory_lib import C, DatasetQuery, signal
from factory_lib.orchestration.events.column_docs import column_docs
from factory_lib.orchestration.events.contact_sheet import SHEET_BYTES, STRIP_CHARACTERS, picture_samples
from factory_lib.orchestration.events.readable import readable
from factory_lib.plan.lineage import column_lineage
from factory_lib.signals.image import image_header
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import resolve


@signal
def n_letters(caption: str) -> int:
    """Letters of the caption. Only for these tests."""
    return len(caption)


def _write_images(folder: Path, count: int, side: int = 200) -> None:
    """Noisy pictures, which compress badly, each with a colour of its own; the last one is no picture."""
    with tarfile.open(folder / "a.tar", "w") as tar:
        for index in range(count):
            noise = Image.effect_noise((side, side // 2), 60).convert("RGB")
            picture = Image.blend(noise, Image.new("RGB", noise.size, (255 * index // count, 80, 120)), 0.5)
            out = io.BytesIO()
            picture.save(out, "JPEG", quality=90)
            data = out.getvalue() if index < count - 1 else b"no picture"
            for extension, content in (("jpg", data), ("txt", b"a caption")):
                member = tarfile.TarInfo(f"{index:04d}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def _picture(markdown: str) -> Image.Image:
    assert markdown.startswith("![samples](data:image/")
    return Image.open(io.BytesIO(base64.b64decode(markdown.partition("base64,")[2].removesuffix(")"))))


def test_samples_are_shown_as_a_sheet_and_as_a_strip_small_enough_to_be_shown_at_once(
    engine: None, tmp_path: Path
) -> None:
    _write_images(tmp_path, 30)
    version = DatasetQuery.from_source(str(tmp_path)).save("pictures")
    shown = picture_samples(version)
    assert shown is not None
    sheet = _picture(shown.sheet)
    assert sheet.format == "JPEG"
    assert sheet.size == (8 * 76 + 4, 3 * 76 + 4)  # 24 of the 30
    assert len(base64.b64decode(shown.sheet.partition("base64,")[2][:-1])) <= SHEET_BYTES
    assert 0 < len(shown.strip) <= STRIP_CHARACTERS
    assert _picture(shown.strip).width > _picture(shown.strip).height
    assert picture_samples(version) == shown  # the same ones each time


def test_a_sample_that_is_no_picture_is_grey_and_harms_nothing(engine: None, tmp_path: Path) -> None:
    _write_images(tmp_path, 1)
    shown = picture_samples(DatasetQuery.from_source(str(tmp_path)).save("pictures"))
    assert shown is not None
    assert _picture(shown.sheet).convert("RGB").getpixel((40, 40)) == pytest.approx((200, 200, 200), abs=4)
    assert shown.strip == ""


def test_a_version_without_pictures_has_no_samples(engine: None, tmp_path: Path) -> None:
    import pyarrow as pa

    for column in ("a", "image"):  # a text may be called so, too
        assert picture_samples(DatasetQuery.from_arrow(pa.table({column: ["x.jpg"]})).save("texts")) is None


def test_columns_say_what_they_are(engine: None, tmp_path: Path) -> None:
    _write_images(tmp_path, 2)
    DatasetQuery.from_source(str(tmp_path)).save("pictures")
    query = DatasetQuery("pictures").add_signals(image_header, n_letters)
    docs = column_docs(query.columns, query.plan)
    assert docs["shard"].startswith("The unit of work")
    assert docs["image"] == "Where the bytes of the image are: uri, offset and size in bytes."
    assert docs["n_letters"] == "Letters of the caption."
    assert docs["n_letters_error"] == "Why n_letters could not be computed; NULL where it was."
    assert docs["image_header"].startswith("Width, height, format")
    assert "caption" not in docs
    # a later stage knows the bundled signals by name
    query.save("measured")
    later = DatasetQuery("measured").filter(C.n_letters > 1)
    assert "image_header" in column_docs(later.columns, later.plan)


def test_lineage_names_the_columns_that_each_column_is_computed_from(engine: None, tmp_path: Path) -> None:
    _write_images(tmp_path, 3)
    source = DatasetQuery.from_source(str(tmp_path))
    assert column_lineage(source.plan)["caption"] == set()
    source.save("pictures")
    pictures = DatasetQuery("pictures")
    measured = pictures.add_signals(image_header, n_letters).mutate(half=C.n_letters / 2)
    lineage = column_lineage(measured.plan)
    assert lineage["image_header"] == {("pictures.v1", "image")}
    assert lineage["half"] == lineage["n_letters"] == lineage["n_letters_error"] == {("pictures.v1", "caption")}
    assert lineage["key"] == {("pictures.v1", "key")}
    measured.save("measured")
    joined = pictures.join(DatasetQuery("measured").select("key", "half"), on="key").mutate(text=C.caption)
    lineage = column_lineage(joined.plan)
    assert lineage["half"] == {("measured.v1", "half")}
    assert lineage["text"] == {("pictures.v1", "caption")}
    both = pictures.select("key").union(DatasetQuery("measured").select("key"))
    assert column_lineage(both.plan)["key"] == {("pictures.v1", "key"), ("measured.v1", "key")}
    assert resolve(warehouse(), "measured").rows == 3


def test_a_long_query_is_broken_where_a_person_would() -> None:
    conditions = " & ".join(f"fn.ifNull((C.a_rather_long_column_name_{n} >= {n}), False)" for n in range(4))
    code = f"DatasetQuery('a.v1', shards=['x.filter(y)']).filter(({conditions})).select('a', 'b').limit(5)"
    text = readable(code)
    assert "".join(line.strip() + " " for line in text.splitlines()).replace(" ", "") == code.replace(" ", "")
    lines = text.splitlines()
    assert lines[0] == "DatasetQuery('a.v1', shards=['x.filter(y)'])"
    assert lines[1].startswith("    .filter((fn.ifNull((C.a_rather_long_column_name_0")
    assert lines[2].strip().startswith("& fn.ifNull(")
    assert [line.strip() for line in lines[-2:]] == [".select('a', 'b')", ".limit(5)"]
    assert max(map(len, lines)) <= 130
