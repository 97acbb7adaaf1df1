"""A model proves itself before it may remove: on the pool at hand, without any labels.

A CLIP has to score pictures with their own captions above pictures with captions of other samples; a head (unsafe,
aesthetic) has to read the vectors of the model that it was made for, and its scores have to spread. What cannot tell
right from wrong has no say: the stage keeps everything, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from factory_lib.curation.rules import JudgedRules
from factory_lib.plan.expressions import C, fn
from factory_lib.plan.operators import Expr
from factory_lib.query import DatasetQuery

PAIRS = 2000
"""Samples that a CLIP is tried on: their own captions, and each with the captions of all others."""

MIN_AUC = 0.6
"""Below this a CLIP has no say. TinyCLIP reaches .998 on rendered pictures, which it was made for, and .503 on photos
of clothes."""

MIN_SPREAD = 0.01
"""Standard deviation of a head's scores below which they say nothing."""

WIDE = 1.96
"""Standard errors to each side of a 95 % interval."""


@dataclass(frozen=True)
class Verdict:
    """Whether a model may judge a pool.

    Attributes:
        may_judge: whether its scores may remove samples.
        found: what was found, with figures, as a sentence.
        hint: what to do where it may not; empty where it may.
        auc, low, high: area under the ROC curve with its 95 % interval; NaN where there is none.
        samples: how many it was tried on.
    """

    may_judge: bool
    found: str
    hint: str = ""
    auc: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    samples: int = 0

    def judged(self, rules: Callable[[], Mapping[str, Expr]]) -> JudgedRules:
        """The rules of a model that may judge, and none of one that may not, which has that to say."""
        if not self.may_judge:
            return JudgedRules({}, remark=" ".join(filter(None, (self.found, self.hint))))
        auc = {"auc": self.auc, "auc_low": self.low, "auc_high": self.high}
        return JudgedRules(rules(), found=self.found, figures=auc if math.isfinite(self.auc) else {})


def judge_clip(
    samples: DatasetQuery,
    image: str = "clip",
    text: str = "clip_text",
    caption: str = "caption",
    *,
    min_auc: float = MIN_AUC,
    pairs: int = PAIRS,
) -> Verdict:
    """Try a CLIP on a pool: own captions against captions of other samples.

    It may judge when the whole 95 % interval of its AUC is at or above the bar: what a small pool does not show is not
    shown.

    Args:
        samples: with the vectors of the pictures and the captions.
        image, text, caption: their columns; without the captions' text, equal ones cannot be told from others.
        min_auc: the bar, 0.5 (chance) to 1.
        pairs: samples that are tried, chosen by their hash.
    """
    names = [image, text, *([caption] if caption in samples.columns else [])]
    there = samples.filter(fn.length(C[image]) > 0, fn.length(C[text]) > 0)
    rows = there.select("sample_id", *names).order_by(C.sample_id).limit(pairs).to_arrow()
    pictures, captions = (_matrix(rows.column(name)) for name in (image, text))
    labels = _labels(rows.column(caption)) if caption in names else np.arange(len(pictures))
    auc, error = caption_auc(pictures, captions, labels)
    hint = (
        "Nothing was removed by it. Set FACTORY_CLIP (make demo CLIP=…) to a model that knows such pictures, for"
        " instance openai/clip-vit-base-patch32 or the folder of a checkpoint."
    )
    if not np.isfinite(auc):
        return Verdict(False, f"CLIP cannot be tried on {len(rows):,} samples with different captions.", hint)
    low, high = max(0.0, auc - WIDE * error), min(1.0, auc + WIDE * error)
    said = (
        f"AUC {auc:.3f} ({low:.3f} to {high:.3f}) of own captions against captions of other samples,"
        f" {len(rows):,} samples"
    )
    able = low >= min_auc
    found = (
        f"CLIP tells captions apart: {said}."
        if able
        else f"CLIP cannot tell captions apart: {said}; {min_auc:g} is the least."
    )
    return Verdict(able, found, "" if able else hint, auc, low, high, len(rows))


def caption_auc(
    pictures: NDArray[np.float32], captions: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[float, float]:
    """How often a picture scores its own caption above another's, and the standard error of that.

    The error is that of a U-statistic over two samples, pictures and captions (DeLong, 1988): the variance of the means
    over each, by their number.

    Args:
        pictures, captions: vectors, (n, dimension); row i of both is one sample.
        labels: equal numbers for equal captions, which are not compared.

    Returns:
        AUC 0 to 1, ties as halves, and its standard error; NaN where there are no two different captions.
    """
    count = len(pictures)
    if count < 2 or (labels == labels[0]).all():
        return float("nan"), float("nan")
    scores = _unit(pictures) @ _unit(captions).T
    own = scores.diagonal()[:, None]
    wins = (own > scores) + 0.5 * (own == scores)
    other = labels[:, None] != labels[None, :]
    wins = np.where(other, wins, 0.0)
    auc = float(wins.sum() / other.sum())
    by_picture = wins.sum(1) / np.maximum(other.sum(1), 1)
    by_caption = wins.sum(0) / np.maximum(other.sum(0), 1)
    # no pool shows more than 1 in n to be right
    least = 1 / count**2
    return auc, float(np.sqrt(max((by_picture.var(ddof=1) + by_caption.var(ddof=1)) / count, least)))


def judge_head(
    samples: DatasetQuery,
    score: str,
    *,
    vectors: str | None = None,
    width: int | None = None,
    made_for: str | None = None,
    made_by: str | None = None,
    min_spread: float = MIN_SPREAD,
) -> Verdict:
    """Try a head on a pool: the right input, and scores that differ.

    Args:
        samples: with the scores, and the vectors that they were computed from.
        score: column of the scores; samples without one are not looked at.
        vectors, width: column of the vectors, and the length that the head takes.
        made_for, made_by: the model whose vectors the head takes, and the one that made these; compared where both are
            given.
        min_spread: see `MIN_SPREAD`.
    """
    hint = f"Nothing was removed by {score}: give the head the vectors of its own model, or another head."
    if made_for and made_by and made_for != made_by:
        return Verdict(False, f"{score} was made for vectors of {made_for}, these are of {made_by}.", hint)
    if vectors is not None and width is not None:
        wrong = samples.filter(fn.length(C[vectors]) > 0, fn.length(C[vectors]) != width).count()
        if wrong:
            return Verdict(False, f"{score} takes vectors of {width} numbers, {wrong:,} of {vectors} differ.", hint)
    known = samples.filter(fn.isFinite(C[score]))
    row = known.agg(rows=fn.count(), spread=fn.stddevPop(C[score])).to_arrow().to_pylist()[0]
    rows, spread = int(row["rows"]), float(row["spread"] or 0.0)
    if rows < 2 or not spread >= min_spread:
        said = (
            f"{score} does not spread: standard deviation {spread:.3g} over {rows:,} samples; least is {min_spread:g}."
        )
        return Verdict(False, said, hint, samples=rows)
    return Verdict(True, f"{score} spreads: standard deviation {spread:.3g} over {rows:,} samples.", samples=rows)


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    lists = column.combine_chunks()
    flat = np.asarray(lists.flatten().to_numpy(zero_copy_only=False), np.float32)
    return flat.reshape(len(lists), -1) if len(lists) else flat.reshape(0, 1)


def _labels(column: pa.ChunkedArray) -> NDArray[np.int64]:
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    found: NDArray[np.int64] = encoded.indices.to_numpy().astype(np.int64)
    return found


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: NDArray[np.float32] = vectors / np.maximum(lengths, 1e-12)
    return found
