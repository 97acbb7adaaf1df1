"""What a filter is: rules with reasons, of which those that can be judged on a pool decide what is kept."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from factory_lib.curation.funnel import rejections
from factory_lib.plan.expressions import C, fn, sql_text
from factory_lib.plan.operators import Column, Expr, InQuery, lift
from factory_lib.query import DatasetQuery

MIN_KNOWN = 0.1
"""Share of a pool that has to have what a rule reads, a caption or a picture that decodes: with less, the rule would
say more about how the pool was ingested than about its samples."""


@dataclass(frozen=True)
class JudgedRules:
    """What of a filter can be judged on a pool.

    Attributes:
        rules: reason -> predicate that a sample has to meet, never NULL, in the order in which a rejection is blamed
            on them.
        remark: what cannot be judged and so removes nothing, in sentences; empty where all can be.
        found: what the pool showed of the model behind the rules, where it may judge, in sentences.
        figures: the numbers behind that.
    """

    rules: Mapping[str, Expr]
    remark: str = ""
    found: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Filter(Protocol):
    """Keeps samples one by one. Whether it can judge is a matter of the pool: what cannot judge keeps everything."""

    def judged(self, pool: DatasetQuery) -> JudgedRules:
        """Its rules, as far as they can be judged on a pool.

        Args:
            pool: all of the dataset: a shard that alone has no captions is no pool without captions.
        """
        ...


@dataclass(frozen=True)
class Kept:
    """The samples of a pool that filters keep, and why the others go.

    Attributes:
        pool: the samples before.
        judged: the rules of all filters.
    """

    pool: DatasetQuery
    judged: JudgedRules

    @property
    def samples(self) -> DatasetQuery:
        """Those that are kept."""
        return self.pool.filter(all_of(self.judged.rules))

    def removed(self) -> dict[str, int]:
        """Reason -> samples that go for it; one that breaks several rules counts for the first of them."""
        return rejections(self.pool, self.judged.rules)


@dataclass(frozen=True)
class Where:
    """Keeps the samples that meet a condition; one of which it cannot be told (NULL) does not.

    Attributes:
        condition: what a sample has to meet, as SQL.
        reason: why the others go.
    """

    condition: str
    reason: str

    def judged(self, pool: DatasetQuery) -> JudgedRules:
        """The one rule: a condition needs no proof."""
        return JudgedRules({self.reason: sql_text(self.condition).fill_null(False)})


@dataclass(frozen=True)
class Without:
    """Keeps the samples that a finding does not name, such as duplicates that some finder found.

    A group of duplicates keeps one sample of those that it was found among. Where a pool lacks that one, the others go
    all the same: `duplicate_groups(pool, finding)` has the groups keep one of the pool.

    Attributes:
        finding: the samples that go; where it has a column `kept`, as groups of duplicates have, those that are not.
        reason: why they go.
        by: the column that it was found by: where no sample of a pool has a value in it, nothing was looked for, and
            that is said.
        on: the column that both have; a sample without a value in it is named by nothing, and stays.
    """

    finding: DatasetQuery
    reason: str
    by: str | None = None
    on: str = "sample_id"

    def judged(self, pool: DatasetQuery) -> JudgedRules:
        """One rule, which can be judged on any pool."""
        gone = self.finding.filter(~C.kept) if "kept" in self.finding.columns else self.finding
        named = InQuery(Column(self.on), gone.select(self.on).plan, negated=True)
        # nothing is known of a NULL: no finding names it
        return JudgedRules({self.reason: named.fill_null(True)}, remark=self._nothing_to_find_by(pool))

    def _nothing_to_find_by(self, pool: DatasetQuery) -> str:
        if self.by is None:
            return ""
        if has_values(pool, self.by):
            return ""
        return f"No sample has a {self.by!r} to be found by: nothing was removed."


def has_values(pool: DatasetQuery, column: str) -> bool:
    """Whether some sample of a pool has a value in a column: it is there, and not NULL or an empty array."""
    kind = pool.columns.get(column, "")
    known = fn.notEmpty(C[column]) if kind.startswith("Array") else C[column].not_null()
    return bool(kind and pool.filter(known).limit(1).count())


def little_known(pool: DatasetQuery, known: Mapping[str, Expr], min_known: float = MIN_KNOWN) -> dict[str, str]:
    """Of what so few samples of a pool have that rules on it must not judge, how many have it: "9 of 100".

    Args:
        known: by name, whether a sample has it; NULL where it does not.
        min_known: share of the pool that has to have it; what no sample has is little known in any case.
    """
    counts = {f"known_{place}": fn.countIf(has) for place, has in enumerate(known.values())}
    rows, *numbers = pool.agg(rows=fn.count(), **counts).to_arrow().to_pylist()[0].values()
    found = dict(zip(known, numbers, strict=True))
    return {name: f"{n:,} of {rows:,}" for name, n in found.items() if not n or n < min_known * rows}


def keep(pool: DatasetQuery, *filters: Filter) -> Kept:
    """Filter samples: a sample stays that meets every rule that can be judged on the pool.

    Args:
        pool: all of a dataset. It is looked at now, once for each filter that has to show that it can judge.
    """
    return Kept(pool, merged([one.judged(pool) for one in filters]))


def merged(judged: list[JudgedRules]) -> JudgedRules:
    """The rules of several filters as those of one; of two with the same reason both have to be met."""
    rules: dict[str, Expr] = {}
    for one in judged:
        for reason, rule in one.rules.items():
            rules[reason] = rules[reason] & rule if reason in rules else rule
    return JudgedRules(
        rules,
        remark=" ".join(one.remark for one in judged if one.remark),
        found=" ".join(one.found for one in judged if one.found),
        figures={name: value for one in judged for name, value in one.figures.items()},
    )


def all_of(rules: Mapping[str, Expr]) -> Expr:
    """The predicate that all rules together make; without rules everything meets it."""
    return functools.reduce(operator.and_, rules.values()) if rules else lift(True)
