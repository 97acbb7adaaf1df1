"""Tars of new samples that no version points into: listed, marked, and gone a week later; those in use never."""

from __future__ import annotations

import datetime as dt
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from factory_lib import DatasetQuery
from factory_lib.augmentation import CenterCrop, HorizontalFlip
from factory_lib.build import made_tars, unused_tars
from factory_lib.build.made_store import OWNERS
from factory_lib.build.unused_tars import find_unused_tars, remove_unused_tars
from factory_lib.curation.new_samples import make_samples
from factory_lib.errors import StoreError
from factory_lib.storage.store import Store
from factory_lib.warehouse.client import warehouse
from tests.command_line import data, run
from tests.samples import write_tar

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture
def made(engine: None, tmp_path: Path) -> Path:
    """A store with the tars of two shards, twice mirrored and cut; the cut ones are in no version."""
    into = BytesIO()
    Image.new("RGB", (8, 6), "red").save(into, "PNG")
    for name in ("a", "b"):
        write_tar(tmp_path / "source" / f"{name}.tar", [(f"{name}{i}.png", into.getvalue()) for i in range(3)])
    DatasetQuery.from_source(str(tmp_path / "source")).save("pool")
    store = tmp_path / "made"
    make_samples(DatasetQuery("pool"), HorizontalFlip(), into=str(store)).save("mirrored")
    make_samples(DatasetQuery("pool"), CenterCrop(4, 4), into=str(store)).to_arrow()
    return store


def folders(store: Path) -> set[str]:
    return {path.parent.parent.name.partition("-")[0] for path in store.rglob("*.tar")}


def later(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    now = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    monkeypatch.setattr(unused_tars, "_now", lambda: now)


def test_what_no_version_has_goes_after_a_week(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folders(made) == {"horizontal_flip", "center_crop"}
    shown = run("gc")
    assert "it goes when that is so for 7 days" in " ".join(shown.stdout.split())
    assert "2 folders" in shown.stderr
    assert not list(made.rglob("unused.json"))
    assert data("gc", "--yes")["tars"] == []
    later(monkeypatch, 6.9)
    assert data("gc", "--yes")["tars"] == []
    later(monkeypatch, 7.1)
    gone = data("gc", "--yes")["tars"]
    assert {Path(one["folder"]).parent.name.partition("-")[0] for one in gone} == {"center_crop"}
    assert folders(made) == {"horizontal_flip"}
    assert DatasetQuery("mirrored").count() == 6
    assert all(Path(row["uri"]).exists() for row in DatasetQuery("mirrored").to_arrow()["image"].to_pylist())


def test_who_takes_them_up_keeps_them(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data("gc", "--yes")
    assert len(list(made.rglob("unused.json"))) == 2
    later(monkeypatch, 30)
    version = make_samples(DatasetQuery("pool"), CenterCrop(4, 4), into=str(made)).save("parts")
    assert version.provenance is not None
    assert version.provenance.computed == 0
    assert data("gc", "--yes")["tars"] == []
    assert not list(made.rglob("unused.json"))


def test_any_column_of_any_version_keeps_them(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version that made them is gone; another one has some of them, under another name and in another shard."""
    DatasetQuery("mirrored").rename(seen="image").order_by("-position").limit(1).save("kept")
    warehouse().execute("DROP DATABASE mirrored SYNC")
    monkeypatch.setenv("FACTORY_DERIVED", str(made))
    data("gc", "--yes")
    later(monkeypatch, 8)
    assert len(data("gc", "--yes")["tars"]) == 3
    (left,) = made.rglob("*.tar")
    assert str(left) == DatasetQuery("kept").to_arrow()["seen"][0].as_py()["uri"]


def test_what_other_warehouses_may_use_is_listed_alone(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (made / OWNERS / "another.json").write_text(json.dumps({}))
    data("gc", "--yes")
    later(monkeypatch, 30)
    assert data("gc", "--yes")["tars"] == []
    assert "other warehouses" in " ".join(run("gc").stdout.split())
    assert folders(made) == {"horizontal_flip", "center_crop"}


def test_files_that_are_not_ours_stay(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that was never claimed, and beside and among tars of new samples in one that was."""
    (folder,) = made.glob("center_crop-*/a-*")
    digits = "0123456789abcdef"
    unclaimed = tmp_path / "foreign"
    foreign = [
        unclaimed / "a" / "b" / "photo.jpg",
        unclaimed / f"center_crop-{digits}" / f"a-{digits}" / "00000.tar",
        made / "a" / "b" / "photo.jpg",
        made / "laion" / "part" / "00000.tar",
        made / f"trip-{digits}" / f"paris-{digits}" / "notes.txt",
        folder / "cover.jpg",
    ]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    for place in (unclaimed, made):
        monkeypatch.setenv("FACTORY_DERIVED", str(place))
        data("gc", "--yes")
        later(monkeypatch, 8)
        data("gc", "--yes")
    assert all(path.read_text() == "mine" for path in foreign)
    assert {path.name for path in folder.iterdir()} == {"00000.tar", "00000.arrow", "made.json", "cover.jpg"}
    assert not list(made.glob("center_crop-*/b-*/*.tar"))
    assert not list(unclaimed.rglob("unused.json"))


def test_what_is_taken_up_while_it_is_decided_stays(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data("gc", "--yes")
    later(monkeypatch, 8)
    found = find_unused_tars(warehouse())
    assert [one.goes for one in found] == [True, True]
    (mark,) = made.glob("center_crop-*/a-*/unused.json")
    mark.unlink()  # by a run that is under way
    assert [one.folder for one in remove_unused_tars(warehouse(), found)] == [found[1].folder]
    assert folders(made) == {"horizontal_flip", "center_crop"}


def test_what_is_taken_up_while_it_goes_keeps_its_tars(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data("gc", "--yes")
    later(monkeypatch, 8)
    found = find_unused_tars(warehouse())
    (first, _) = (Path(one.folder) for one in found)
    remove = Store.remove

    def removed_while_it_is_taken_up(store: Store, uri: str) -> None:
        remove(store, uri)
        (first / "unused.json").unlink(missing_ok=True)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "remove", removed_while_it_is_taken_up)
        assert [one.folder for one in remove_unused_tars(warehouse(), found)] == [found[1].folder]
    assert {path.name for path in first.iterdir()} == {"00000.tar", "00000.arrow"}
    version = make_samples(DatasetQuery("pool"), CenterCrop(4, 4), into=str(made)).save("parts")
    assert version.provenance is not None
    assert (version.provenance.computed, version.provenance.reused) == (3, 3)


def test_what_went_while_a_run_was_under_way_is_made_again(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had seen which folders there are, and was not yet at those that went."""
    data("gc", "--yes")
    later(monkeypatch, 8)
    found = find_unused_tars(warehouse())
    listed, gone = made_tars._listed, []

    def removed_after_that(uri: str) -> Any:
        seen = listed(uri)
        gone.extend(remove_unused_tars(warehouse(), found))
        return seen

    monkeypatch.setattr(made_tars, "_listed", removed_after_that)
    version = make_samples(DatasetQuery("pool"), CenterCrop(4, 4), into=str(made)).save("parts")
    assert version.provenance is not None
    assert (version.provenance.computed, version.provenance.reused, len(gone)) == (6, 0, 2)
    assert all(Path(row["uri"]).exists() for row in DatasetQuery("parts").to_arrow()["image"].to_pylist())


def test_what_a_version_has_by_now_stays(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data("gc", "--yes")
    later(monkeypatch, 8)
    found = find_unused_tars(warehouse())
    marks = [*made.rglob("unused.json")]
    kept = [mark.read_text() for mark in marks]
    make_samples(DatasetQuery("pool"), CenterCrop(4, 4), into=str(made)).save("parts")
    for mark, text in zip(marks, kept, strict=True):
        mark.write_text(text)  # it was marked while the run went on
    assert remove_unused_tars(warehouse(), found) == []
    assert len(list(made.glob("center_crop-*/*/*.tar"))) == 2


def test_a_store_that_cannot_be_written_to_is_passed_by(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(store: Store, uri: str, data: bytes) -> None:
        raise StoreError(f"{uri} may not be written.")

    monkeypatch.setattr(Store, "write", refused)
    shown = run("gc", "--yes")
    assert f"Tars of new samples in {made} are passed by" in " ".join(shown.stderr.split())
    assert shown.exit_code == 0


def test_a_store_that_is_away_is_passed_by(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_DERIVED", "nonesuch://away/made")
    shown = run("gc")
    assert "nonesuch://away/made" in shown.stderr
    assert "2 folders" in shown.stderr
