"""Filters by what models saw on photos: text that covers them, faces."""

from __future__ import annotations

from dataclasses import dataclass

from factory_lib.curation.rules import MIN_KNOWN, JudgedRules, little_known
from factory_lib.errors import QueryError
from factory_lib.plan.expressions import C
from factory_lib.plan.operators import Expr, lift
from factory_lib.query import DatasetQuery


@dataclass(frozen=True)
class TextFilter:
    """Keep photos that text does not cover: of others a model learns to read, not to see (T-MARS, Maini et al., 2023).

    A sample without a value is kept: nobody knows what is on it.

    Attributes:
        most: share of the picture that lines of text may cover, 0 to 1.
        min_known: share of a pool that has to have values.
    """

    most: float = 0.1
    min_known: float = MIN_KNOWN

    def judged(self, pool: DatasetQuery) -> JudgedRules:
        """Its rule, where the signal `text_area` was computed."""
        share = C.text_area.share
        rules = {f"text covers more than {self.most:g} of the picture": (share <= _number(self.most)).fill_null(True)}
        return _where_known(pool, "text_area", C.text_area.number, rules, self.min_known)


@dataclass(frozen=True)
class FaceFilter:
    """Keep photos with no more than some faces.

    A sample without a value is kept: nobody knows who is on it.

    Attributes:
        most: faces that a picture may have.
        sure: score from which on a box counts as a face; lower ones are often something else.
        min_known: share of a pool that has to have values.

    Raises:
        QueryError: no picture has so few faces.
    """

    most: int = 0
    sure: float = 0.95
    min_known: float = MIN_KNOWN

    def __post_init__(self) -> None:
        if self.most < 0:
            raise QueryError(f"FaceFilter(most={self.most}): a picture has 0 faces or more.", "0 keeps those without.")

    def judged(self, pool: DatasetQuery) -> JudgedRules:
        """Its rule, where the signal `faces` was computed."""
        next_score = C.faces.scores[self.most]  # the surest come first; 0 where there are no more
        rules = {f"more than {self.most} faces": (next_score < _number(self.sure)).fill_null(True)}
        return _where_known(pool, "faces", C.faces.number, rules, self.min_known)


def _number(value: float) -> Expr:
    """A bound as the values are stored: .1 is no more than .1."""
    return lift(value).cast("Float32")


def _where_known(pool: DatasetQuery, signal: str, value: Expr, rules: dict[str, Expr], min_known: float) -> JudgedRules:
    """Rules on a signal, unless nearly no sample of a pool has a value of it."""
    if signal not in pool.columns:
        return JudgedRules({}, f"No column {signal!r}: rules on it removed nothing.")
    if few := little_known(pool, {signal: value.not_null()}, min_known):
        said = f"{few[signal]} samples have a {signal!r}: rules on it removed nothing."
        return JudgedRules({}, f"{said} {signal}_error says why.")
    return JudgedRules(rules)
