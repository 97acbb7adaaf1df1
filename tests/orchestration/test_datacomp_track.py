"""DataComp's track as a project in YAML: Dagster's tools take it, and its datasets are what the definitions keep."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import fasttext
import gcld3
import numpy as np
import pandas as pd
import pytest

from factory_lib import DatasetQuery
from factory_lib.orchestration.runs.running import GraphOutcome, run_graph
from factory_lib.orchestration.source.shards import ShardSource
from factory_lib.signals.language import LID_176
from tests.curation.datacomp_definitions import (
    CLASSES,
    L14,
    WORDNET,
    Definition,
    basic,
    from_fraction,
    image_based,
    laion2b,
    senses,
    text_based,
    uids,
)

TRACK = Path(__file__).parents[2] / "docs" / "datacomp_track"
OF_CAPTIONS_AND_SCORES: dict[str, Definition] = {
    "no_filter": lambda pool: pool.uid != "",
    "basic_filter": basic,
    "clip_score": from_fraction(L14, 0.3),
    "laion2b": laion2b,
}
FILES = ("DATACOMP_CLASSES", "DATACOMP_CENTROIDS", "DATACOMP_TARGET", "DATACOMP_WORDNET")


@pytest.fixture
def track(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the project; its package is not installed."""
    copy = shutil.copytree(TRACK, tmp_path / "datacomp_track", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(copy / "src")
    for name in FILES:
        monkeypatch.delenv(name, raising=False)
    yield copy
    for module in [one for one in sys.modules if one.partition(".")[0] == "datacomp_track"]:
        del sys.modules[module]


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """Centroids and target pictures; with a list of classes they are in files that the environment names."""
    random = np.random.default_rng(0)
    centroids = random.normal(size=(40, 768)).astype(np.float32) * random.uniform(0.5, 2, (40, 1)).astype(np.float32)
    target = random.normal(size=(12, 768)).astype(np.float16)
    np.save(tmp_path / "centroids.npy", centroids)
    np.save(tmp_path / "l14_img.npy", target)
    (tmp_path / "classes.txt").write_text("".join(f"n{senses()[word]}\n" for word in CLASSES))
    for name, path in zip(FILES, ("classes.txt", "centroids.npy", "l14_img.npy"), strict=False):
        monkeypatch.setenv(name, str(tmp_path / path))
    monkeypatch.setenv("DATACOMP_WORDNET", str(WORDNET))
    return centroids, target


@pytest.mark.parametrize("what", ["yaml", "defs"])
def test_dagsters_tools_take_it(track: Path, what: str) -> None:
    dg_command = shutil.which("dg", path=str(Path(sys.executable).parent))
    assert dg_command is not None
    environment = {**os.environ, "PYTHONPATH": str(track / "src")}
    done = subprocess.run(
        [dg_command, "check", what], cwd=track, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def loaded(track: Path) -> dg.Definitions:
    return dg.load_from_defs_folder(path_within_project=track / "src" / "datacomp_track")


def test_without_files_it_has_the_baselines_that_need_none(track: Path) -> None:
    assets = {key.to_user_string() for key in loaded(track).resolve_asset_graph().get_all_asset_keys()}
    assert assets == {"source_shards", "samples", "pool", *OF_CAPTIONS_AND_SCORES}


def ran(track: Path, source: Path, instance: dg.DagsterInstance) -> GraphOutcome:
    return run_graph(instance, loaded(track), source=ShardSource(uri=str(source)))


def test_each_baseline_keeps_what_its_definition_does(
    engine: None, track: Path, given: tuple[np.ndarray, np.ndarray], shared_data: Path
) -> None:
    folder = shared_data / "datacomp_like"
    with dg.DagsterInstance.ephemeral() as instance:
        outcome = ran(track, folder, instance)
        assert (outcome.errors, outcome.behind) == ([], [])
        assert ran(track, folder, instance).runs == []
    frame = pool(folder)
    assert uids(DatasetQuery("pool")) == sorted(frame.uid)
    centroids, target = given
    of_pictures = image_based(frame, centroids, target)
    expected = {name: definition(frame) for name, definition in OF_CAPTIONS_AND_SCORES.items()}
    expected |= {
        "text_based": text_based(frame),
        "image_based": of_pictures,
        "image_based_intersect_clip_score": of_pictures & from_fraction(L14, 0.3)(frame),
    }
    for name, kept in expected.items():
        assert uids(DatasetQuery(name)) == sorted(frame[kept].uid), name
        assert 3 < kept.sum() <= len(frame) - 10 * (name != "no_filter")


def pool(folder: Path) -> pd.DataFrame:
    """The pool by pandas, numpy, fastText and CLD3."""
    failed = pd.read_csv(folder / "groundtruth.csv", dtype={"uid": str}).set_index("uid").failed
    parts = []
    for path in sorted((folder / "metadata").glob("*.parquet")):
        part = pd.read_parquet(path)
        with np.load(path.with_suffix(".npz")) as arrays:
            part["l14_img"] = list(arrays["l14_img"])
        parts.append(part)
    frame = pd.concat(parts, ignore_index=True)
    frame = frame[frame.uid.map(failed) == 0].reset_index(drop=True)
    lid, cld3 = fasttext.load_model(str(LID_176.path())), gcld3.NNetLanguageIdentifier(0, 1000)
    frame["fasttext"] = [lid.predict(text.replace("\n", " "))[0][0].removeprefix("__label__") for text in frame.text]
    frame["cld3"] = [cld3.FindLanguage(text).language for text in frame.text]
    return frame
