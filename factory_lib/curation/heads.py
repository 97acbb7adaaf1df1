"""Filters by the score of a head: a small model on CLIP's vectors that says how unsafe or beautiful a picture is."""

from __future__ import annotations

from dataclasses import dataclass

from factory_lib.curation.proof import MIN_SPREAD, Verdict, judge_head
from factory_lib.curation.rules import JudgedRules
from factory_lib.plan.expressions import C, fn
from factory_lib.plan.operators import Expr
from factory_lib.query import DatasetQuery


@dataclass(frozen=True)
class HeadFilter:
    """Keep samples whose score is within bounds, where the head shows on the pool at hand that scores mean something.

    A sample without a score is kept: it is not known to be out of bounds.

    Attributes:
        score: column of the scores.
        least, most: scores from here on, and up to here, are kept; None for no bound.
        vectors, width: column of the vectors that the scores were computed from, and the length that the head takes.
        made_for, made_by: the model whose vectors the head takes, and the one that made these.
        min_spread: standard deviation below which scores say nothing (see `proof.MIN_SPREAD`).
    """

    score: str
    least: float | None = None
    most: float | None = None
    vectors: str | None = None
    width: int | None = None
    made_for: str | None = None
    made_by: str | None = None
    min_spread: float = MIN_SPREAD

    def verdict(self, samples: DatasetQuery) -> Verdict:
        """Whether the head may judge this pool. Scores that hardly differ and are all within bounds are no fault."""
        found = judge_head(
            samples,
            self.score,
            vectors=self.vectors,
            width=self.width,
            made_for=self.made_for,
            made_by=self.made_by,
            min_spread=self.min_spread,
        )
        if found.may_judge or not found.samples:
            return found
        ends = samples.filter(fn.isFinite(C[self.score])).agg(low=fn.min(C[self.score]), high=fn.max(C[self.score]))
        row = ends.to_arrow().to_pylist()[0]
        within = (self.least is None or row["low"] >= self.least) and (self.most is None or row["high"] <= self.most)
        constant = row["low"] == row["high"] and found.samples > 1
        if constant or not within:
            return found
        return Verdict(True, f"{found.found} All are within bounds.", samples=found.samples)

    def judged(self, pool: DatasetQuery) -> JudgedRules:
        """Its rules; there are none where the head cannot judge the pool, or did not score it: then all are kept."""
        if self.score not in pool.columns:
            return JudgedRules({}, f"No column {self.score!r}: rules on it removed nothing.")
        return self.verdict(pool).judged(self.predicates)

    def predicates(self) -> dict[str, Expr]:
        """reason -> predicate, whatever the pool."""
        score = C[self.score]
        found = {}
        if self.least is not None:
            found[f"{self.score} below {self.least:g}"] = ((score >= self.least) | fn.isNaN(score)).fill_null(True)
        if self.most is not None:
            found[f"{self.score} above {self.most:g}"] = ((score <= self.most) | fn.isNaN(score)).fill_null(True)
        return found
