"""How sure a score is: the interval of a share, and of the difference of two shares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEVIATIONS = 2.0
"""Standard errors to each side of an interval: chance alone goes beyond in about one of twenty."""


def interval(share: float, count: int) -> tuple[float, float]:
    """The interval of a share that was seen in `count` trials, 0 to 1: Wilson's (1927), which holds for few trials and
    for shares near 0 and 1, too."""
    if not count:
        return 0.0, 1.0
    square = DEVIATIONS**2
    middle = share + square / (2 * count)
    half = DEVIATIONS * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    return max(0.0, (middle - half) / (1 + square / count)), min(1.0, (middle + half) / (1 + square / count))


@dataclass(frozen=True)
class AccuracyDifference:
    """By how much an accuracy is above another.

    Attributes:
        value: the one minus the other.
        tolerance: up to which a difference may be noise.
    """

    value: float
    tolerance: float

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.value - self.tolerance

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + self.tolerance

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `no difference`, which is what is within noise."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "no difference"

    def __str__(self) -> str:
        said = f"{100 * self.value:+.1f} points ({100 * self.low:+.1f} to {100 * self.high:+.1f})"
        return f"{said}: {self.verdict}" + (" beyond noise" if self.verdict == "no difference" else "")


def compare(one: Mapping[str, Any], other: Mapping[str, Any]) -> AccuracyDifference:
    """How two models compare.

    Where both say which of the same pictures they got right, only those count that one got right and the other did not:
    the standard error is that of a difference of paired shares, with one more of each kind (Bonett and Price, 2012).
    Else it is that of two independent shares, sqrt(p1 (1 - p1) / n1 + p2 (1 - p2) / n2), which is larger.

    Args:
        one, other: `evaluate.Metrics` as mappings; `right` may be lacking.
    """
    value = one["accuracy"] - other["accuracy"]
    rights = one.get("right") or "", other.get("right") or ""
    if rights[0] and len(rights[0]) == len(rights[1]):
        count = len(rights[0]) + 2
        gained = (sum(a > b for a, b in zip(*rights, strict=True)) + 1) / count
        lost = (sum(a < b for a, b in zip(*rights, strict=True)) + 1) / count
        variance = (gained + lost - (gained - lost) ** 2) / count
    else:
        variance = sum(m["accuracy"] * (1 - m["accuracy"]) / max(m["pairs"], 1) for m in (one, other))
    return AccuracyDifference(value, DEVIATIONS * math.sqrt(variance))


def accuracy_said(metrics: Mapping[str, Any]) -> str:
    """An accuracy with its interval, for readers."""
    low, high = interval(metrics["accuracy"], metrics["pairs"])
    return f"{metrics['accuracy']:.1%} ({low:.1%} to {high:.1%})"
