"""DataComp's baselines as filters: which samples of a pool each keeps is decided by its columns, in SQL.

`keep(pool, ClipScore(fraction=0.3)).samples` are the samples that DataComp's `clip_score` keeps; `write_subset` writes
their uids as its code does. A sample that lacks what a rule reads is not kept, as there; a rule that can be judged of
no sample at all removes none, and the remark says so.

Definitions: https://github.com/mlfoundations/datacomp, `baselines/apply_filter.py`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from factory_lib.curation.rules import JudgedRules, little_known
from factory_lib.curation.tokens import fasttext_tokens, split_words
from factory_lib.errors import ColumnNotFound, QueryError, nearest
from factory_lib.plan.expressions import C, case, fn
from factory_lib.plan.operators import Expr, InQuery
from factory_lib.query import DatasetQuery

ENGLISH = "en"
_MADE_BY = {
    "lang_fasttext": "add_signals(language.lang_fasttext) computes it.",
    "lang_cld3": "add_signals(language.lang_cld3) computes it.",
    "wordnet_entity": "add_signals(entities.wordnet_entity(classes)) computes it.",
    "l14_img_cluster": "add_signals(cluster_of(centroids, 'l14_img', metric='inner_product')) computes it.",
}
"""Column -> what makes it, of those that no source brings."""


@dataclass(frozen=True)
class Baseline(ABC):
    """A baseline of DataComp; what it is to keep is the same for the same pool, in whatever order that came."""

    @abstractmethod
    def predicates(self, pool: DatasetQuery) -> Mapping[str, Expr]:
        """What a sample has to meet: reason -> predicate, NULL where a sample lacks what it reads.

        Args:
            pool: the whole of it: fractions are of all its samples.

        Raises:
            ColumnNotFound: the pool lacks a column.
        """

    def judged(self, pool: DatasetQuery) -> JudgedRules:
        """The rules that can be judged of some sample of the pool."""
        predicates = self.predicates(pool)
        if not predicates:
            return JudgedRules({})
        unknown = little_known(pool, {reason: rule.not_null() for reason, rule in predicates.items()}, 0)
        rules = {reason: rule.fill_null(False) for reason, rule in predicates.items() if reason not in unknown}
        said = [f"Of no sample it is known whether it is {reason!r}: removed nothing for it." for reason in unknown]
        return JudgedRules(rules, " ".join(said))


@dataclass(frozen=True)
class NoFilter(Baseline):
    """DataComp's `no_filter`: all samples."""

    def predicates(self, pool: DatasetQuery) -> dict[str, Expr]:
        """None."""
        return {}


@dataclass(frozen=True)
class CaptionAndSize(Baseline):
    """DataComp's `basic_filter`: English captions of some length, pictures of some size and no odd shape.

    Attributes:
        min_words: words of the caption, as `str.split` has them.
        min_characters: code points of the caption.
        min_side: shorter side of the picture as it was downloaded, pixels.
        max_aspect: longer side / shorter side.
        language: the column with the caption's language by fastText, or an element of a column.
        caption, width, height: columns.
    """

    min_words: int = 3
    min_characters: int = 6
    min_side: int = 200
    max_aspect: float = 3.0
    language: str = "lang_fasttext.language"
    caption: str = "caption"
    width: str = "original_width"
    height: str = "original_height"

    def predicates(self, pool: DatasetQuery) -> dict[str, Expr]:
        """On language, caption and sides."""
        width, height = column_in(pool, self.width), column_in(pool, self.height)
        words = split_words(self.caption)
        return {
            **_english(pool, self.language),
            f"caption of fewer than {self.min_words} words": words >= self.min_words,
            **_long_enough(pool, self.caption, self.min_characters),
            f"shorter side below {self.min_side} px": (width >= self.min_side) & (height >= self.min_side),
            f"aspect ratio above {self.max_aspect:g}": (width / height <= self.max_aspect)
            & (height / width <= self.max_aspect),
        }


@dataclass(frozen=True)
class TextBased(Baseline):
    """DataComp's `text_based`: English captions with a word that names a class.

    Attributes:
        language: the column with the caption's language by fastText, or an element of a column.
        entity: the column with the word (see `signals.entities.wordnet_entity`).
    """

    language: str = "lang_fasttext.language"
    entity: str = "wordnet_entity"

    def predicates(self, pool: DatasetQuery) -> dict[str, Expr]:
        """On language and caption."""
        return {**_english(pool, self.language), "caption names no class": column_in(pool, self.entity) != ""}


@dataclass(frozen=True)
class ClipScore(Baseline):
    """DataComp's `clip_score`: a CLIP score from a threshold on, or from that of the pool's best fraction on.

    A fraction keeps `int(n * fraction) + 1` of n samples, and those whose score equals that of the last of them; where
    fewer have a score, all that have one. Scores are compared in float32; NaN is none.

    Attributes:
        threshold: the smallest score that is kept; or
        fraction: of the samples, from 0 to below 1.
        score: column of the scores: that of CLIP's L/14, or `clip_b32_similarity_score`.

    Raises:
        QueryError: neither or both of threshold and fraction are given, or one is out of range.
    """

    threshold: float | None = None
    fraction: float | None = None
    score: str = "clip_l14_similarity_score"

    def __post_init__(self) -> None:
        if (self.threshold is None) == (self.fraction is None):
            raise QueryError("A filter by CLIP score takes a threshold, or a fraction of the pool: one of them.")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise QueryError(f"threshold={self.threshold}: scores are compared with a finite number.")
        if self.fraction is not None and not 0 <= self.fraction < 1:
            raise QueryError(f"fraction={self.fraction} is not from 0 to below 1.", "NoFilter() keeps all samples.")

    def predicates(self, pool: DatasetQuery) -> dict[str, Expr]:
        """On the score."""
        score = fn.toFloat32(column_in(pool, self.score))
        scored = ~fn.isNaN(score)
        known = case((scored, score))
        if self.fraction is None:
            return {f"{self.score} below {self.threshold:g}": known >= fn.toFloat32(self.threshold)}
        least = _best(pool, known, self.fraction)
        if least is None:
            return {f"no {self.score}, which fewer than the best {self.fraction:g} have": case((scored, True))}
        return {f"{self.score} not in the best {self.fraction:g}": known >= fn.toFloat32(least)}


@dataclass(frozen=True)
class Laion2B(Baseline):
    """DataComp's `laion2b`: English captions by CLD3, and a CLIP score as LAION-2B asked for.

    Attributes:
        threshold: the smallest score that is kept, compared in float32.
        score: column of the scores of CLIP's B/32.
        language: the column with the caption's language by CLD3, or an element of a column.
    """

    threshold: float = 0.28
    score: str = "clip_b32_similarity_score"
    language: str = "lang_cld3.language"

    def predicates(self, pool: DatasetQuery) -> dict[str, Expr]:
        """On language and score."""
        return {**_english(pool, self.language), **ClipScore(self.threshold, score=self.score).predicates(pool)}


@dataclass(frozen=True)
class ImageBased(Baseline):
    """DataComp's `image_based`: pictures whose nearest centroid is that of some target picture, English captions.

    Attributes:
        target: the target pictures, such as ImageNet's: with the column `cluster`, of the same centroids.
        min_words: words of the caption as fastText counts them.
        min_characters: code points of the caption.
        cluster: the column with the number of the nearest centroid (see `cluster_of`), or an element of a column.
        language: the column with the caption's language by fastText, or an element of a column.
        caption: column.
    """

    target: DatasetQuery
    min_words: int = 2
    min_characters: int = 6
    cluster: str = "l14_img_cluster.cluster"
    language: str = "lang_fasttext.language"
    caption: str = "caption"

    def predicates(self, pool: DatasetQuery) -> dict[str, Expr]:
        """On language, caption and cluster.

        Raises:
            QueryError: no target picture has a centroid.
        """
        wanted = (
            self.target.select(cluster=column_in(self.target, self.cluster)).filter(C.cluster.not_null()).distinct()
        )
        if not wanted.count():
            raise QueryError(
                f"No sample of {self.target.plan.label} has a value of {self.cluster}: there is nothing to be near to.",
                "The column of errors beside it says why, where a signal made it.",
            )
        words = fasttext_tokens(self.caption)
        return {
            **_english(pool, self.language),
            f"caption of fewer than {self.min_words} words by fastText": words >= self.min_words,
            **_long_enough(pool, self.caption, self.min_characters),
            "nearest to no centroid of the target": InQuery(column_in(pool, self.cluster), wanted.distinct().plan),
        }


@dataclass(frozen=True)
class ImageBasedClipScore(ImageBased):
    """DataComp's `image_based_intersect_clip_score`: both filters; the best fraction is that of the whole pool. Of its
    largest pool this is DataComp-1B.

    Attributes:
        threshold, fraction, score: as of `ClipScore`; a threshold where there is no fraction.
    """

    fraction: float | None = 0.3
    threshold: float | None = None
    score: str = "clip_l14_similarity_score"

    def __post_init__(self) -> None:
        self._clip_score()

    def predicates(self, pool: DatasetQuery) -> dict[str, Expr]:
        """On score, language, caption and cluster."""
        return {**self._clip_score().predicates(pool), **super().predicates(pool)}

    def _clip_score(self) -> ClipScore:
        return ClipScore(self.threshold, self.fraction, self.score)


BASELINES: Mapping[str, type[Baseline]] = MappingProxyType(
    {
        "no_filter": NoFilter,
        "basic_filter": CaptionAndSize,
        "text_based": TextBased,
        "clip_score": ClipScore,
        "laion2b": Laion2B,
        "image_based": ImageBased,
        "image_based_intersect_clip_score": ImageBasedClipScore,
    }
)
"""DataComp's name of each baseline."""


def baseline(name: str, **parameters: Any) -> Baseline:
    """A baseline by DataComp's name of it.

    Args:
        name: one of `BASELINES`.
        parameters: fields of its class: numbers, texts, and the dataset `target`.

    Raises:
        QueryError: there is no such baseline or parameter, one is missing, or out of range.
    """
    if name not in BASELINES:
        raise QueryError(f"DataComp has no baseline {name!r}.", nearest(name, BASELINES))
    kind = BASELINES[name]
    known = [field.name for field in fields(kind)]
    for parameter in parameters:
        if parameter not in known:
            raise QueryError(f"The baseline {name!r} has no parameter {parameter!r}.", nearest(parameter, known))
    try:
        return kind(**parameters)
    except TypeError as error:
        raise QueryError(f"The baseline {name!r} cannot be made: {error}.", f"It takes {', '.join(known)}.") from error


def column_in(pool: DatasetQuery, path: str) -> Expr:
    """A column of a pool, or an element of one: `lang_fasttext.language`.

    Raises:
        ColumnNotFound: there is no such column; the hint says what makes it.
    """
    name, _, element = path.partition(".")
    if name not in pool.columns:
        there = f"There is no column {name!r} in {pool.plan.label}."
        raise ColumnNotFound(there, _MADE_BY.get(name) or nearest(name, pool.columns))
    return C[name][element] if element else C[name]


def _english(pool: DatasetQuery, language: str) -> dict[str, Expr]:
    return {f"not English by {language}": column_in(pool, language) == ENGLISH}


def _long_enough(pool: DatasetQuery, caption: str, least: int) -> dict[str, Expr]:
    return {f"caption of fewer than {least} characters": fn.lengthUTF8(column_in(pool, caption)) >= least}


def _best(pool: DatasetQuery, score: Expr, fraction: float) -> float | None:
    """The score at place `int(n * fraction)` of all n samples, the best first; None where so many have no score."""
    known = pool.select(score=score).filter(C.score.not_null())
    scores = known.count()
    place = scores - 1 - int(pool.count() * fraction)  # from the smallest score on
    if place < 0:
        return None
    # The engine takes the element at the level times their number, rounded down: half a place is no matter of rounding.
    best = fn.quantileExactHigh(C.score, parameters=[(place + 0.5) / scores])
    return float(known.agg(best=best).to_arrow()["best"][0].as_py())
