"""Every layout runs through the whole graph, and nothing is lost on the way: pictures and captions by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from factory_lib import DatasetQuery
from factory_lib.curation.subset import in_subset, write_subset
from factory_lib.orchestration.running import load_definitions, run_graph
from factory_lib.orchestration.shards import ShardSource
from factory_lib.storage.store import store
from tests.layouts import COUNT, LAYOUTS, NUMBERS, PAIRS, caption, pool
from tests.web import Ranged, serve_http

STAGES = [
    "samples", "image_signals", "clip_embeddings", "basic_filter", "near_duplicates", "deduplicated",
    "clip_score_filter", "training_set",
]  # fmt: skip


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return load_definitions()


@pytest.fixture
def instance(engine: None) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def digest(pointer: dict[str, Any]) -> str:
    return hashlib.sha256(store().read(pointer["uri"], pointer["offset"], pointer["size"])).hexdigest()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_through_the_graph(
    name: str,
    tmp_path: Path,
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layout = LAYOUTS[name]
    (tmp_path / "in").mkdir()
    within = layout.write(tmp_path / "in")
    if layout.unpack:
        monkeypatch.setenv("FACTORY_UNPACK_TO", str(tmp_path / "unpacked"))
    with ExitStack() as stack:
        root = stack.enter_context(serve_http(tmp_path / "in", Ranged)) if layout.http else str(tmp_path / "in")
        mapping = {option: value.format(folder=tmp_path / "in") for option, value in layout.mapping.items()}
        source = ShardSource.mapped(f"{root}/{within}".rstrip("/"), 1, mapping)
        outcome = run_graph(instance, definitions, source=source, stages=STAGES)
        assert (outcome.errors, outcome.behind) == ([], [])
        there = [column for column in ("image", "caption") if column in DatasetQuery("training_set").columns]
        rows = DatasetQuery("training_set").select(*there).to_arrow().to_pylist()
        found = {(digest(row["image"]) if "image" in row else "", row.get("caption") or "") for row in rows}
    expected = {(picture if layout.pictures else "", text if layout.captions else "") for picture, text in PAIRS}
    assert found == expected
    assert len(rows) == COUNT
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
