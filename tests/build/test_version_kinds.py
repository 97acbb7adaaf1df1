"""Versions of all kinds: what is saved again is equal, and so is what is made again from what was recorded.

Some of the kinds, saved twice; all of them, saved five times, with ALL_KINDS=1, which takes minutes.
"""

from __future__ import annotations

import os

import pytest

from factory_assets.demo.rendered.folder import write_folder
from factory_lib import DatasetQuery
from factory_lib.history.reproducing import reproduce
from factory_lib.warehouse.versions import Version
from tests.version_kinds import KINDS, labels

ALL = bool(os.environ.get("ALL_KINDS"))
SAVES = 5 if ALL else 2


@pytest.fixture(scope="module")
def laion(engine_for_all: None, tmp_path_factory: pytest.TempPathFactory) -> Version:
    folder = write_folder(tmp_path_factory.mktemp("kinds"), samples=60, shards=3, seed=3).path
    made = DatasetQuery.from_source(str(folder)).save("laion")
    labels(DatasetQuery(made)).save("labels")
    return made


@pytest.mark.parametrize("name", KINDS if ALL else list(KINDS)[::8])
def test_a_version_is_the_same_when_it_is_made_again(name: str, laion: Version) -> None:
    query = KINDS[name](DatasetQuery(laion))
    made = [query.save("made") for _ in range(SAVES)]
    prints = [version.fingerprints() for version in made]
    assert prints == [prints[0]] * SAVES
    found = reproduce(made[0])
    assert found.is_equal, found
    assert found.unpinned == []
