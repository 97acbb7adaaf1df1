"""Nothing of any layout is lost on the way: pictures and captions by their content. Some run through the graph;
all of them, to its end, with ALL_LAYOUTS=1, which takes minutes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from factory_lib import DatasetQuery, open_source
from factory_lib.curation.subset import in_subset, write_subset
from factory_lib.orchestration.code_location import load_definitions
from factory_lib.orchestration.runs.running import run_graph
from factory_lib.orchestration.source.shards import ShardSource
from factory_lib.sources.account import losses
from factory_lib.sources.mapping import from_words
from factory_lib.storage.store import store
from tests.layouts import COUNT, LAYOUTS, NUMBERS, PAIRS, Layout, caption, pool
from tests.samples import rows
from tests.web import Ranged, serve_http

STAGES = [
    "samples", "image_signals", "clip_embeddings", "photo_signals", "basic_filter", "quality_filter", "near_duplicates",
    "photo_centroids", "photo_clusters", "semantic_duplicates", "duplicates", "deduplicated", "clip_score_filter",
    "training_set",
]  # fmt: skip


_SOME = {
    "img2dataset files": "training_set",
    "datacomp metadata": "training_set",
    "zip, compressed": "quality_filter",
    ".input.jpg": "quality_filter",
}
THROUGH_THE_GRAPH = dict.fromkeys(LAYOUTS, STAGES[-1]) if os.environ.get("ALL_LAYOUTS") else _SOME
"""Layouts, and the stage that each goes to: behind filters on pictures and captions nothing tells one from another."""


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return load_definitions()


@pytest.fixture
def instance(engine: None) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def digest(pointer: dict[str, Any]) -> str:
    return hashlib.sha256(store().read(pointer["uri"], pointer["offset"], pointer["size"])).hexdigest()


@contextmanager
def written(layout: Layout, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The uri of a source in a layout, and what is said of it."""
    (folder / "in").mkdir()
    within = layout.write(folder / "in")
    with ExitStack() as stack:
        root = stack.enter_context(serve_http(folder / "in", Ranged)) if layout.http else str(folder / "in")
        said = {option: value.format(folder=folder / "in") for option, value in layout.mapping.items()}
        yield f"{root}/{within}".rstrip("/"), said


def contents(samples: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The digest of each picture, and its caption; empty for what there is none of."""
    return sorted((digest(one["image"]) if "image" in one else "", one.get("caption") or "") for one in samples)


def expected(layout: Layout) -> list[tuple[str, str]]:
    return sorted((picture if layout.pictures else "", text if layout.captions else "") for picture, text in PAIRS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_picture_and_caption_of_a_layout_is_read(name: str, tmp_path: Path, factory_home: Path) -> None:
    layout = LAYOUTS[name]
    with written(layout, tmp_path) as (uri, said):
        source = open_source(uri, unpack_to=str(tmp_path / "unpacked") if layout.unpack else None, **from_words(said))
        assert contents(rows(source)) == expected(layout)
        assert not losses(source.account.data())


@pytest.mark.parametrize(("name", "last"), THROUGH_THE_GRAPH.items())
def test_a_layout_through_the_graph(
    name: str,
    last: str,
    tmp_path: Path,
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layout = LAYOUTS[name]
    if layout.unpack:
        monkeypatch.setenv("FACTORY_UNPACK_TO", str(tmp_path / "unpacked"))
    with written(layout, tmp_path) as (uri, said):
        outcome = run_graph(
            instance, definitions, source=ShardSource.mapped(uri, 1, said), stages=STAGES[: STAGES.index(last) + 1]
        )
        assert (outcome.errors, outcome.behind) == ([], [])
        there = [column for column in ("image", "caption") if column in DatasetQuery(last).columns]
        kept = DatasetQuery(last).select(*there).to_arrow().to_pylist()
        assert contents(kept) == expected(layout)
    if layout.pictures:
        assert DatasetQuery("image_signals").filter("image_header.decodes").count() == COUNT


@pytest.mark.usefixtures("engine")
def test_a_subset_in_and_out(tmp_path: Path) -> None:
    """DataComp's npy, as numpy reads and writes it."""
    pool(tmp_path)
    records = np.array([(0, 4), (0, 1), (0, 1)], np.dtype("u8,u8"))
    np.save(tmp_path / "chosen.npy", np.sort(records))
    DatasetQuery.from_source(str(tmp_path / "metadata")).save("pool")
    chosen = in_subset(DatasetQuery("pool"), str(tmp_path / "chosen.npy"))
    assert sorted(chosen.to_arrow()["caption"].to_pylist()) == [caption(1), caption(4)]
    assert write_subset(DatasetQuery("pool"), str(tmp_path / "all.npy")) == COUNT
    written = np.load(tmp_path / "all.npy")
    assert written.dtype == np.dtype("u8,u8")
    assert written.tolist() == [(0, n) for n in NUMBERS]
