"""Whether a stage suddenly keeps far less, or far more, than in its last versions: the check `volume` of every stage.

What is compared is the share of its input that a stage keeps, over the whole dataset, with the median of its last
versions; a stage without an input that is a dataset is compared by its rows. A version that looks wrong is published,
and the check is red: what comes after it does not run, neither in the same run nor by itself, until the data changes
again or someone accepts it (`factory accept`, or a run with the tag `ACCEPT`).

The check remembers by itself: each evaluation carries the sizes that the next is compared with. Versions that were red
are not among them, and one that was accepted is the new measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

VOLUME = "volume"
"""Name of the check."""
ACCEPT = "factory/accept"
"""Tag of a run whose versions are accepted whatever their size; its value says why."""
VERSIONS = 5
"""How many versions a new one is compared with."""

if TYPE_CHECKING:
    from factory_lib.warehouse.versions import Version


@dataclass(frozen=True)
class Volume:
    """How far a version's size may be from that of those before.

    Attributes:
        yellow, red: from which change on the check warns, and stops. A loss is the part of what would have been kept
            (0.5: half of it is missing); a gain is counted in parts of the input (0.5: 20 % were kept, 70 % are).
        least: rows of the input below which nothing is judged but an empty result.
        may_be_empty: an empty result is nothing unusual.
    """

    yellow: float = 0.2
    red: float = 0.5
    least: int = 100
    may_be_empty: bool = False


USUAL = Volume()
"""Bounds for stages that name none."""


@dataclass(frozen=True)
class Size:
    """How large a version is.

    Attributes:
        version: its name.
        rows: its rows.
        rows_in: rows of the version that its rows come from; None where it has no such input.
    """

    version: str
    rows: int
    rows_in: int | None

    @property
    def kept(self) -> float | None:
        """Share of the input that is kept; more than 1 where rows are added."""
        return self.rows / self.rows_in if self.rows_in else None


@dataclass(frozen=True)
class Judgement:
    """What a size looks like beside others.

    Attributes:
        color: "green", "yellow" or "red".
        said: a sentence.
    """

    color: str
    said: str


def judge(now: Size, before: Sequence[Size], bounds: Volume) -> Judgement:
    """Compare a version's size with those before."""
    told = f"{now.version}: {now.rows:,} rows"
    if now.kept is not None:
        told += f", {now.kept:.1%} of {now.rows_in:,}"
    if not before:
        return Judgement("green", f"{told}. There is nothing to compare with yet.")
    usual_rows = median(one.rows for one in before)
    if not now.rows and usual_rows and not bounds.may_be_empty:
        return Judgement("red", f"{told}. Nothing is left; before it were {usual_rows:,.0f}.")
    shares = [one.kept for one in before if one.kept is not None]
    by_share = now.kept is not None and bool(shares)
    if (now.rows_in or 0 if by_share else usual_rows) < bounds.least:
        return Judgement("green", f"{told}. Fewer than {bounds.least:,} rows are not judged.")
    if by_share:
        assert now.kept is not None
        usual = median(shares)
        change = _change(now.kept, usual)
        usually = f"{usual:.1%} were kept"
    else:
        change = (
            max(0.0, 1 - now.rows / usual_rows) if usual_rows else 0.0
        )  # more rows than before is what is hoped for
        usually = f"it were {usual_rows:,.0f} rows"
    color = "red" if change > bounds.red else "yellow" if change > bounds.yellow else "green"
    return Judgement(color, f"{told}. In the {len(before)} versions before, {usually}.")


def _change(kept: float, usual: float) -> float:
    """How far a share is from the usual one: what is lost of it, or what is gained of the input."""
    if kept < usual:
        return 1 - kept / usual
    return (kept - usual) / max(usual, 1.0)


def size_of(version: Version, inputs: Sequence[str]) -> Size:
    """How large a version is beside the first of these datasets that it was made of."""
    from factory_lib.errors import NotFound
    from factory_lib.warehouse.client import warehouse
    from factory_lib.warehouse.versions import resolve

    parents = [parent["name"] for parent in version.provenance.parents] if version.provenance else []
    for dataset in inputs:
        for name in reversed(parents):
            if name.partition(".")[0] == dataset:
                try:
                    return Size(str(version), version.rows, resolve(warehouse(), name).rows)
                except NotFound:
                    return Size(str(version), version.rows, None)
    return Size(str(version), version.rows, None)


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of the check, as its metadata remember it.

    Attributes:
        size: of the version.
        content: what the version holds, as a digest.
        before: sizes that it was compared with.
        color: how it looked.
        accepted: why it was accepted; empty when it was not.
        said: what was said of it.
    """

    size: Size
    content: str
    before: tuple[Size, ...]
    color: str
    accepted: str = ""
    said: str = ""

    @property
    def stops(self) -> bool:
        """Whether what comes after has to wait."""
        return self.color == "red" and not self.accepted

    def next_before(self) -> tuple[Size, ...]:
        """What the next version is compared with."""
        if self.accepted:
            return (self.size,)
        return self.before if self.color == "red" else (*self.before, self.size)[-VERSIONS:]

    def state(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @staticmethod
    def of(state: Mapping[str, Any]) -> Evaluation:
        """From JSON."""
        before = tuple(Size(**one) for one in state["before"])
        return Evaluation(**{**state, "size": Size(**state["size"]), "before": before})


def evaluate(
    size: Size, content: str, last: Evaluation | None, earlier: Sequence[Size], bounds: Volume, accepted: str = ""
) -> Evaluation:
    """Judge a version.

    Args:
        size, content: of the version.
        last: the evaluation before.
        earlier: sizes of older versions, for where no evaluation tells of them.
        bounds: of the stage.
        accepted: why it is accepted; empty when nobody did.
    """
    same = last is not None and last.content == content
    before = tuple(earlier) if last is None else last.before if same else last.next_before()
    found = judge(size, before, bounds)
    reason = accepted or (last.accepted if last is not None and same else "")
    kept = reason if found.color == "red" else ""
    return Evaluation(size, content, before, found.color, kept, found.said)
