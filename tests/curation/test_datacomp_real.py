"""DataComp's baselines on real rows: the same uids as its definitions give in pandas and numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from factory_lib import C, DatasetQuery
from factory_lib.curation import cluster_of
from factory_lib.curation.datacomp import (
    Baseline,
    CaptionAndSize,
    ClipScore,
    ImageBased,
    ImageBasedClipScore,
    Laion2B,
    NoFilter,
    TextBased,
)
from factory_lib.signals.entities import wordnet_entity
from tests.curation.datacomp_definitions import (
    B32,
    CLASSES,
    L14,
    WORDNET,
    Definition,
    basic,
    from_fraction,
    from_threshold,
    image_based,
    kept_by,
    laion2b,
    language,
    senses,
    text_based,
)


@pytest.fixture(scope="module")
def real(engine_for_all: None, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The pool of the test data, ingested, with the signals; as a frame, read by pandas."""
    folder, place = shared_data / "datacomp_like", tmp_path_factory.mktemp("datacomp")
    truth = pd.read_csv(folder / "groundtruth.csv", dtype={"uid": str}).set_index("uid")
    parts = []
    for path in sorted((folder / "metadata").glob("*.parquet")):
        part = pd.read_parquet(path)
        with np.load(path.with_suffix(".npz")) as arrays:
            part["l14_img"] = list(arrays["l14_img"])
        parts.append(part)
    frame = pd.concat(parts, ignore_index=True)
    frame = frame[frame.uid.map(truth.failed) == 0].reset_index(drop=True)
    frame["fasttext"] = frame.uid.map(truth.lang)
    frame["cld3"] = np.where(frame.uid.str[0] < "c", frame.fasttext, "nl")  # another model says something else

    random = np.random.default_rng(0)
    centroids = random.normal(size=(40, 768)).astype(np.float32) * random.uniform(0.5, 2, (40, 1)).astype(np.float32)
    target = random.normal(size=(12, 768)).astype(np.float16)
    np.save(place / "centroids.npy", centroids)
    (place / "classes.txt").write_text("".join(f"n{senses()[word]}\n" for word in CLASSES))

    languages = pa.table(
        {
            "uid": frame.uid,
            "lang_fasttext": language(list(frame.fasttext)),
            "lang_cld3": language(list(frame.cld3)),
        }
    )
    entity = wordnet_entity(str(place / "classes.txt"), wordnet=str(WORDNET))
    rows = DatasetQuery.from_source(str(place / "centroids.npy")).select(cluster=C.position, centroid="centroids")
    nearest = cluster_of(DatasetQuery(rows.save("centroids")), "l14_img", metric="inner_product")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACTORY_WORKERS", "1")
        samples = DatasetQuery.from_source(str(folder)).join(DatasetQuery.from_arrow(languages), on="uid")
        DatasetQuery(samples.save("joined")).add_signals(entity, nearest).save("pool")
        vectors = pa.array(list(target.astype(np.float32)), pa.list_(pa.float32()))
        DatasetQuery.from_arrow(pa.table({"l14_img": vectors})).add_signals(nearest).save("imagenet")
    return {"frame": frame, "centroids": centroids, "target": target}


@pytest.mark.parametrize(
    ("filter_", "definition"),
    [
        (NoFilter(), lambda pool: pool.uid != ""),
        (CaptionAndSize(), basic),
        (TextBased(), text_based),
        (ClipScore(threshold=0.3), from_threshold(L14, 0.3)),
        (ClipScore(threshold=0.3, score=B32), from_threshold(B32, 0.3)),
        (ClipScore(fraction=0.3), from_fraction(L14, 0.3)),
        (ClipScore(fraction=0.3, score=B32), from_fraction(B32, 0.3)),
        (Laion2B(), laion2b),
    ],
)
def test_real_rows(real: dict[str, Any], filter_: Baseline, definition: Definition) -> None:
    frame = real["frame"]
    expected = sorted(frame[definition(frame)].uid)
    assert kept_by(filter_) == expected
    assert len(expected) > 10
    assert isinstance(filter_, NoFilter) or len(expected) < len(frame)


def test_real_rows_by_their_pictures(real: dict[str, Any]) -> None:
    frame = real["frame"]
    chosen = image_based(frame, real["centroids"], real["target"])
    assert 20 < chosen.sum() < 440
    assert kept_by(ImageBased(DatasetQuery("imagenet"))) == sorted(frame[chosen].uid)
    best = from_fraction(L14, 0.3)(frame)  # of the whole pool, not of the pictures that were chosen
    assert kept_by(ImageBasedClipScore(DatasetQuery("imagenet"))) == sorted(frame[chosen & best].uid)
    assert len(frame[best]) == int(461 * 0.3) + 1
