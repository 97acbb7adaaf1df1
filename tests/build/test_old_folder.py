"""A data folder of an earlier release is read, reproduced and continued; `fixtures/make_folder.py` made it."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from factory_lib import DatasetQuery
from factory_lib.history.lineage import lineage
from factory_lib.history.reproducing import reproduce
from factory_lib.history.summaries import version_summaries
from factory_lib.signals.hashes import dhash, phash
from factory_lib.signals.image import image_header, quality
from factory_lib.signals.text import caption_stats
from factory_lib.signals.thumbnails import thumbnail
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.embedded import stop_engine
from factory_lib.warehouse.versions import latest, resolve
from tests.fixtures import make_folder
from tests.s3 import VARIABLES, connect_store

FIXTURES = Path(__file__).parents[1] / "fixtures"
FOLDERS = ("folder_1", "folder_2")
"""Of catalogs with the numbers 1 and 2."""
ROWS = {
    "raw.v1": 18,
    "raw.v2": 18,
    "embedded.v1": 18,
    "measured.v1": 18,
    "captioned.v1": 18,
    "duplicates.v1": 6,
    "unique.v1": 12,
    "kept.v1": 17,
    "kept.v2": 18,
    "nearest.v1": 5,
    "nearest.v2": 5,
    "near.v1": 10,
    "mutated.v1": 18,
    "joined.v1": 18,
    "united.v1": 36,
    "grouped.v1": 3,
    "sampled.v1": 7,
    "ranked.v1": 6,
    "looked_up.v1": 5,
}
"""Rows of each version: every third of 18 pictures is a copy; both sides of `united` have 18; and so on."""
NOT_TO_BE_MADE_AGAIN = {"embedded.v1", "duplicates.v1"}
"""Rows from memory; a table of near-duplicates in the form that they had before they were groups."""


@pytest.fixture(scope="module", autouse=True, params=FOLDERS)
def folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, s3_endpoint: str, s3_client: Any
) -> Iterator[None]:
    """The folder, and the bucket that its shards are read from."""
    made = tmp_path_factory.mktemp("folder")
    with tarfile.open(FIXTURES / f"{request.param}.tar.xz") as archive:
        archive.extractall(made, filter="data")
    make_folder.put_shards(s3_client)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**VARIABLES, "FACTORY_HOME": str(made / "home")}.items():
            patch.setenv(name, value)
        connect_store(s3_endpoint, patch)
        yield
        stop_engine(made / "home")


@pytest.mark.parametrize("name", ROWS)
def test_a_version_is_read(name: str) -> None:
    assert DatasetQuery(name).count() == ROWS[name]
    assert DatasetQuery(name).to_arrow().num_rows == ROWS[name]


@pytest.mark.parametrize("name", ROWS)
def test_a_version_is_reproduced(name: str) -> None:
    outcomes = reproduce(resolve(warehouse(), name)).shards
    verdicts = {outcome.verdict for outcome in outcomes}
    assert verdicts == ({"not reproducible"} if name in NOT_TO_BE_MADE_AGAIN else {"equal"})


LINKS = {
    ("embedded.v1", "looked_up.v1", "made of"),
    ("nearest.v2", "looked_up.v1", "made of"),
    ("embedded.v1", "nearest.v2", "made of"),
    ("raw.v1", "embedded.v1", "made of"),
    (make_folder.SOURCE, "raw.v1", "read from"),
}


def test_its_history_is_read() -> None:
    found = lineage(resolve(warehouse(), "looked_up.v1"))
    assert {(link.parent, link.child, link.kind) for link in found.links} == LINKS
    assert found.sources == {make_folder.SOURCE: "webdataset"}
    merged = lineage(resolve(warehouse(), "raw.v2"))
    assert {(link.parent, link.child, link.kind, link.shards) for link in merged.links} == {
        ("raw.v1", "raw.v2", "carried over", 2),
        (make_folder.SOURCE, "raw.v1", "read from", 2),
        (make_folder.SOURCE, "raw.v2", "read from", 1),
    }
    assert lineage(resolve(warehouse(), "captioned.v1")).versions["measured.v1"].signals == (
        "image_header",
        "quality",
        "phash",
        "dhash",
        "thumbnail",
    )
    (joined,) = version_summaries(warehouse(), "joined")
    assert (joined.parents, joined.storage) == (["embedded.v1", "measured.v1"], "copy")


def test_a_dataset_is_continued() -> None:
    """Shard 001 of `raw` was read again since: its rows are made anew, of values that are there."""
    measured = DatasetQuery("raw").add_signals(image_header, quality, phash, dhash, thumbnail)
    continued = measured.refresh("measured")
    assert str(continued) == "measured.v2"
    record = continued.provenance
    assert record is not None
    assert (record.computed, record.reused) == (0, 6 * 5)
    old = resolve(warehouse(), "measured.v1")
    carried = {shard for shard, known in continued.shards.items() if known.origin == old.uuid}
    assert carried == {"000", "002"}
    assert {known.made_by for known in continued.shards.values()} == {continued.shards["001"].made_by}
    assert str(measured.refresh("measured")) == "measured.v2"
    assert str(DatasetQuery("measured.v1").add_signals(caption_stats).refresh("captioned")) == "captioned.v1"
    assert latest(warehouse(), "captioned") == resolve(warehouse(), "captioned.v1")
