"""Quality of pictures: cleanvision's checks with its thresholds, as a filter."""

from __future__ import annotations

from dataclasses import dataclass

from factory_lib.curation.rules import MIN_KNOWN, JudgedRules, little_known
from factory_lib.plan.expressions import C, fn
from factory_lib.plan.operators import Expr
from factory_lib.query import DatasetQuery

SCORES = "cleanvision"
"""Column of the scores: the signal `factory_lib.signals.cleanvision.cleanvision`."""


@dataclass(frozen=True)
class QualityFilter:
    """Keep pictures without an issue; issues, scores and thresholds are those of the package cleanvision, 0.3.

    Two of its checks are off unless asked for, as they say nothing against a picture: `CLEANVISION` has them all. A
    picture without scores is kept: that it does not decode is for `BasicFilter` to say.

    Attributes:
        dark, light, odd_aspect_ratio, low_information, blurry: scores below are an issue (see
            `signals.cleanvision.CleanvisionScores`); None for no such check.
        grayscale: whether a picture without colours is an issue.
        odd_size: how many interquartile ranges beyond the quartiles the square root of the number of pixels may lie,
            over all of the pool; where all quartiles are equal, any other size is odd. None for no such check.
        min_known: share of the pool that has to have scores for any to be removed.
    """

    dark: float | None = 0.32
    light: float | None = 0.05
    odd_aspect_ratio: float | None = 0.35
    low_information: float | None = 0.3
    blurry: float | None = 0.29
    grayscale: bool = False
    odd_size: float | None = None
    min_known: float = MIN_KNOWN

    def judged(self, pool: DatasetQuery) -> JudgedRules:
        """One rule an issue, named as cleanvision names it."""
        if SCORES not in pool.columns:
            return JudgedRules({}, f"No column {SCORES!r}: no picture was judged. Add the signal of that name.")
        size = C[SCORES].size
        if few := little_known(pool, {"scores": size.not_null()}, self.min_known):
            return JudgedRules({}, f"{few['scores']} pictures have scores: none was removed for its quality.")
        rules = {name: C[SCORES][name] >= least for name in _BY_SCORE if (least := getattr(self, name)) is not None}
        if self.grayscale:
            rules["grayscale"] = ~C[SCORES].grayscale
        if self.odd_size is not None:
            rules["odd_size"] = _usual(size, *_quartiles(pool, size), self.odd_size)
        return JudgedRules({name: rule.fill_null(True) for name, rule in rules.items()})


CLEANVISION = QualityFilter(grayscale=True, odd_size=3.0)
"""All checks of the package, as it has them: what it would show somebody, who then decides."""

_BY_SCORE = ("dark", "light", "odd_aspect_ratio", "low_information", "blurry")


def _quartiles(pool: DatasetQuery, value: Expr) -> tuple[float, float]:
    """The first and the third quartile of what a pool has of a value."""
    first, third = (fn.quantileExactInclusive(value, parameters=[share]) for share in (0.25, 0.75))
    found = pool.agg(first=first, third=third).to_arrow()
    return found["first"][0].as_py(), found["third"][0].as_py()


def _usual(size: Expr, first: float, third: float, factor: float) -> Expr:
    """Whether cleanvision's score of a size, 1 in the middle of its bounds and falling on both sides, is high enough.

    Args:
        size: of a picture.
        first, third: quartiles of the pool.
        factor: interquartile ranges from there to the bounds.
    """
    low, high = first - factor * (third - first), third + factor * (third - first)
    middle, gap = (low + high) / 2, high - low
    return 1 - fn.abs(size - middle) / (gap or middle) >= (0.5 if gap else 1)
