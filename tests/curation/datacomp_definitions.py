"""DataComp's baselines as its code defines them, in pandas and numpy, and pools to try them on."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from factory_lib import DatasetQuery
from factory_lib.curation import keep
from factory_lib.curation.datacomp import Baseline

B32, L14 = "clip_b32_similarity_score", "clip_l14_similarity_score"
WORDNET = Path(__file__).parents[1] / "fixtures" / "wordnet"
CLASSES = ("dog", "dress", "wine")
Definition = Callable[[pd.DataFrame], pd.Series]


def basic(pool: pd.DataFrame) -> pd.Series:
    words, characters = pool.text.apply(lambda text: len(text.split())), pool.text.apply(len)
    shorter = np.minimum(pool.original_width, pool.original_height)
    longer = np.maximum(pool.original_width, pool.original_height)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (pool.fasttext == "en") & (words > 2) & (characters > 5) & (shorter >= 200) & (longer / shorter <= 3.0)


def senses() -> dict[str, str]:
    with open(WORDNET / "nltk.csv") as lines:
        return {row["word"]: row["first_synset"] for row in csv.DictReader(lines)}


def text_based(pool: pd.DataFrame) -> pd.Series:
    known, classes = senses(), {senses()[word] for word in CLASSES}
    names_one = pool.text.apply(lambda text: any(known.get(word, "") in classes for word in text.split()))
    return (pool.fasttext == "en") & names_one


def from_threshold(column: str, threshold: float) -> Definition:
    return lambda pool: pool[column] >= np.float32(threshold)


def from_fraction(column: str, fraction: float) -> Definition:
    def kept(pool: pd.DataFrame) -> pd.Series:
        n = int(len(pool) * fraction)
        return pool[column] >= -np.sort(-pool[column].to_numpy())[n]

    return kept


def laion2b(pool: pd.DataFrame) -> pd.Series:
    return (pool.cld3 == "en") & (pool[B32] >= np.float32(0.28))


def near(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return np.argmax(vectors.astype(np.float32) @ centroids.T, axis=1)


def image_based(pool: pd.DataFrame, centroids: np.ndarray, target: np.ndarray) -> pd.Series:
    # fastText's words end at blanks, which are all the white space that these captions have
    caption = (
        (pool.fasttext == "en") & (pool.text.apply(lambda text: len(text.split(" "))) > 1) & (pool.text.str.len() > 5)
    )
    found = np.isin(near(np.stack(pool.l14_img), centroids), np.unique(near(target, centroids)))
    return caption & found


# Pools ------------------------------------------------------------------------------------------------------------


def uids(samples: DatasetQuery) -> list[str]:
    found: list[str] = sorted(samples.select("uid").to_arrow()["uid"].to_pylist())
    return found


def kept_by(filter_: Baseline, pool: str = "pool") -> list[str]:
    kept = keep(DatasetQuery(pool), filter_)
    assert kept.judged.remark == ""
    return uids(kept.samples)


def language(codes: list[str | None]) -> pa.Array:
    """As the signals make it: a struct, whose language is null where there is none."""
    return pa.StructArray.from_arrays([pa.array(codes, pa.string(), from_pandas=True)], ["language"])


def saved(frame: pd.DataFrame) -> None:
    columns: dict[str, Any] = {
        name: pa.array(frame[name].to_numpy(), from_pandas=name not in (B32, L14)) for name in frame.columns
    }
    columns["lang_fasttext"] = language(list(frame["fasttext"]))
    columns["lang_cld3"] = language(list(frame["cld3"]))
    table = pa.table(columns).drop_columns(["fasttext", "cld3"]).rename_columns({"text": "caption"})
    DatasetQuery.from_arrow(table).save("pool")
