"""What notebooks show of queries, versions and reports: pictures, escaped text, nothing written, nothing waited for long."""

from __future__ import annotations

import base64
import io
import re
import sys
import types
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

import factory_lib as factory
from factory_lib import C, DatasetQuery, FactoryError, lit, progress, signal
from factory_lib.errors import DatasetNotFound
from factory_lib.view.thumbnails import SIDE, thumbnails
from factory_lib.warehouse.client import warehouse

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>&\"'"
SIZES = {"wide": (400, 100), "tall": (50, 200), "small": (8, 8)}


class _Read(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def photos(engine: None, tmp_path: Path) -> None:
    """photos.v1: three pictures, one that is cut, one whose file is gone."""
    file, rows = tmp_path / "pictures", []
    with open(file, "wb") as out:
        for name, size in SIZES.items():
            made = io.BytesIO()
            Image.new("RGB", size, (200, 30, 30)).save(made, "PNG")
            rows.append((name, str(file), out.tell(), len(made.getvalue())))
            out.write(made.getvalue())
        rows.append(("cut", str(file), 0, 40))
        rows.append(("gone", str(tmp_path / "nowhere"), 0, 40))
    pointer = pa.struct([("uri", pa.string()), ("offset", pa.uint64()), ("size", pa.uint64())])
    pictures = pa.array([{"uri": uri, "offset": at, "size": size} for _, uri, at, size in rows], pointer)
    keys = [name for name, *_ in rows]
    table = pa.table({"key": keys, "image": pictures, "caption": [EVIL] * 5, "n": pa.array(range(5), pa.int32())})
    DatasetQuery.from_arrow(table).save("photos")


def tables() -> list[dict[str, Any]]:
    return warehouse().rows("SELECT database, name FROM system.tables WHERE database != 'system' ORDER BY ALL")


@pytest.mark.usefixtures("photos")
def test_a_version_shows_its_pictures_and_what_is_wrong_with_others() -> None:
    factory.tag("photos", "icml")
    page = factory.version("photos")._repr_html_()
    read = _Read(page)
    sources = [about["src"] or "" for tag, about in read.tags if tag == "img"]
    shown = [Image.open(io.BytesIO(base64.b64decode(one.partition(",")[2]))) for one in sources]
    assert [one.size for one in shown] == [(SIDE, 24), (24, SIDE), (8, 8)]
    text = " ".join(read.texts)
    assert "photos.v1  @icml" in text
    assert "5 rows in 1 shard" in text
    assert "no picture (UnidentifiedImageError): pictures@0+40" in text or "no picture (OSError)" in text
    assert "cannot be read: " in text
    assert len(page) < 30_000


@pytest.mark.usefixtures("photos")
def test_text_is_text_and_nothing_runs() -> None:
    query = DatasetQuery("photos").select("key", "caption", made=lit(EVIL))
    for page in (query._repr_html_(), factory.version("photos")._repr_html_(), query.explain()._repr_html_()):
        read = _Read(page)
        assert {tag for tag, _ in read.tags} & {"script", "iframe", "link", "object"} == set()
        assert not any(name.startswith("on") for _, about in read.tags for name in about)
        assert all(
            (about.get("src") or "data:").startswith("data:image/jpeg;base64,") for t, about in read.tags if t == "img"
        )
    assert "".join(_Read(query._repr_html_()).texts).count(EVIL[:40]) >= 5


@pytest.mark.usefixtures("photos")
def test_a_query_shows_rows_and_types_and_how_many_there_are() -> None:
    read = _Read(DatasetQuery("photos").filter(C.n >= 1).select("key", "n")._repr_html_())
    assert {"key", "String", "n", "Int32?", "tall", "gone"} <= set(read.texts)
    assert "wide" not in read.texts
    assert read.texts[-1] == "4 rows"
    many = pa.table({"key": [f"k{i}" for i in range(1200)]})
    DatasetQuery.from_arrow(many).save("many")
    assert _Read(DatasetQuery("many")._repr_html_()).texts[-1] == "the first 5 of 1,200 rows"


@pytest.mark.usefixtures("photos")
def test_what_is_not_there_yet_is_not_made_to_be_shown(tmp_path: Path) -> None:
    calls = tmp_path / "calls"

    @signal(output=int)
    def length(caption: str) -> int:
        calls.touch()
        return len(caption)

    query = DatasetQuery("photos").add_signals(length)
    before = tables()
    text = " ".join(_Read(query._repr_html_()).texts)
    assert "Not run yet: it needs signals length." in text
    assert "computes: up to 5 values" in query.explain()
    assert "reads: up to 5 rows of photos.v1" in query.explain()
    assert (tables(), calls.exists()) == (before, False)


@pytest.mark.usefixtures("photos")
def test_a_query_that_is_wrong_shows_why() -> None:
    page = DatasetQuery("photos").filter("nn > 1")._repr_html_()
    text = " ".join(_Read(page).texts)
    assert "no column 'nn'" in text


@pytest.mark.usefixtures("photos")
def test_reports() -> None:
    DatasetQuery("photos").filter(C.n >= 2).save("some")
    DatasetQuery("photos").filter(C.n >= 3).save("some")
    difference = " ".join(_Read(factory.diff("some.v1", "some.v2")._repr_html_()).texts)
    assert "1 removed" in difference
    assert "C.n >= 3" in difference
    lineage = _Read(factory.lineage("some")._repr_html_()).texts
    assert [one for one in lineage if one.startswith(("some.v2", "photos.v1"))] == [
        "some.v2 (2 rows; mask)",
        "photos.v1 (5 rows; insert)",
    ]
    trace = " ".join(_Read(factory.trace("some", "wide")._repr_html_()).texts)
    assert "dropped" in trace
    assert "does not meet" in trace
    assert "1 shard made again, 0 not equal" in " ".join(_Read(factory.reproduce("some")._repr_html_()).texts)


@pytest.mark.usefixtures("photos")
def test_a_version_made_like_the_one_before_says_so() -> None:
    query = DatasetQuery("photos").filter(C.n >= 2)
    assert "Made like" not in query.save("some")._repr_html_()
    assert "Made like some.v1: refresh()" in query.save("some")._repr_html_()
    assert query.refresh("fresh") == query.refresh("fresh")


def test_pointers_that_are_no_pictures_are_shown_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a caption")
    pointer = {"uri": str(tmp_path / "a.txt"), "offset": 0, "size": 9}
    assert thumbnails([pointer, None]) == ["a.txt@0+9", "–"]
    assert thumbnails([]) == []


def test_pictures_are_not_waited_for(tmp_path: Path) -> None:
    pointer = {"uri": str(tmp_path / "x"), "offset": 0, "size": 9}
    assert thumbnails([pointer], seconds=-1) == ["x@0+9"]


def test_errors_are_short_and_name_the_line() -> None:
    def of_the_user() -> None:
        raise DatasetNotFound("There is no dataset 'phots'.", "Did you mean 'photos'?")

    with pytest.raises(FactoryError) as caught:
        of_the_user()
    shown = caught.value._render_traceback_()
    assert shown[:2] == ["DatasetNotFound: There is no dataset 'phots'.", "Did you mean 'photos'?"]
    assert re.fullmatch(r"  in line \d+: raise DatasetNotFound\(.*", shown[2])
    assert len(shown) <= 5


class _Handle:
    """What a notebook gives to change what it displays."""

    def __init__(self, shown: list[str]) -> None:
        self.shown = shown

    def update(self, what: object) -> None:
        self.shown.append(repr(what))


def test_progress_in_a_notebook_is_one_line_that_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    def display(what: object, display_id: bool) -> _Handle:
        assert not shown
        assert display_id
        shown.append(repr(what))
        return _Handle(shown)

    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    displaying = types.ModuleType("IPython.display")
    displaying.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", displaying)
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    with progress.track("computing", 1200) as tracked:
        tracked.advance(600)
        tracked.advance(600)
    assert shown == ["computing: 600 of 1,200 (50%)", "computing: 1,200 of 1,200 (100%)", ""]
    shown.clear()
    monkeypatch.setattr(progress, "QUIET_SECONDS", 60.0)
    with progress.track("what is quick", 1) as tracked:
        tracked.advance()
    assert shown == []
