"""Quality of captions: length, digits, capitals, file names, repetition, and how many samples share one."""

from __future__ import annotations

from dataclasses import dataclass

from factory_lib.curation.rules import MIN_KNOWN, JudgedRules, little_known
from factory_lib.plan.expressions import C, case, fn
from factory_lib.plan.operators import Expr
from factory_lib.query import DatasetQuery

STATS = "caption_stats"
"""Column of the counts: the signal `factory_lib.signals.text.caption_stats`."""

HAS_WORDS = C[STATS].n_words > 0
"""Whether a sample has a caption; NULL where nothing was counted."""


@dataclass(frozen=True)
class CaptionFilter:
    """Keep samples whose caption is a text of its own.

    Attributes:
        min_words, min_characters: at least so many words between white space, and code points; DataComp's. None for
            any, such as where `BasicFilter` has looked at them before.
        max_words: at most so many; that of Conceptual 12M (Changpinyo et al., 2021).
        max_digits: share of the characters that may be digits.
        max_capitals: share of the letters that may be capitals; None for any: titles of products are often all in
            capitals, and say as much as others.
        file_names: whether a file name may stand for a caption.
        max_repetition: see `repetition`.
        max_samples: how many samples may share a caption, letter by letter; None for any, as captions of a catalogue
            or made of a template are shared, too. ALIGN (Jia et al., 2021) took 10 on the web's, where what more share
            is rarely about the picture (`1920x1080`, `alt_img`).
        max_shared: share of the pool that may have such captions; where more have, captions are labels, and sharing one
            says nothing against it.
        min_known: share of the pool that has to have a caption with a word for any sample to be removed.
        caption: column of the texts.
    """

    min_words: int | None = 3
    min_characters: int | None = 6
    max_words: int = 256
    max_digits: float = 0.5
    max_capitals: float | None = None
    file_names: bool = False
    max_repetition: float = 0.3
    max_samples: int | None = None
    max_shared: float = 0.1
    min_known: float = MIN_KNOWN
    caption: str = "caption"

    def judged(self, pool: DatasetQuery) -> JudgedRules:
        """Rules on captions; none where the pool has none."""
        lacking = next((name for name in (self.caption, STATS) if name not in pool.columns), "")
        if lacking:
            return JudgedRules({}, f"No column {lacking!r}: rules on captions removed nothing.")
        if few := little_known(pool, {"captions": HAS_WORDS}, self.min_known):
            return JudgedRules({}, f"{few['captions']} samples have a caption: rules on captions removed nothing.")
        rules = self._alone()
        if self.max_samples is None:
            return JudgedRules(rules)
        shared = self._shared(pool)
        number = int(shared.agg(samples=fn.sum(C.samples)).to_arrow()["samples"][0].as_py() or 0)
        rows = pool.count()
        if number > self.max_shared * rows:
            said = (
                f"{number:,} of {rows:,} samples have a caption that more than {self.max_samples} samples"
                " have: captions are labels here, and sharing one removed nothing."
            )
            return JudgedRules(rules, said)
        alone = ~C[self.caption].isin(shared.select(self.caption))
        return JudgedRules(rules | {f"more than {self.max_samples} samples have its caption": alone.fill_null(True)})

    def _alone(self) -> dict[str, Expr]:
        """Rules that look at one caption at a time."""
        stats = C[STATS]
        rules = {
            f"caption has more than {self.max_words} words": stats.n_words <= self.max_words,
            f"caption is more than {self.max_digits:.0%} digits": stats.digit_ratio <= self.max_digits,
            f"caption repeats more than {self.max_repetition:.0%} of its pairs of words": (
                repetition(self.caption) <= self.max_repetition
            ),
        }
        if self.max_capitals is not None:
            rules[f"caption is more than {self.max_capitals:.0%} capitals"] = stats.upper_ratio <= self.max_capitals
        known = {reason: rule.fill_null(False) for reason, rule in rules.items()}
        return said_at_all(self.min_words, self.min_characters, file_names=self.file_names) | known

    def _shared(self, pool: DatasetQuery) -> DatasetQuery:
        """The captions that too many samples have, and how many those are."""
        return pool.group_by(self.caption).agg(samples=fn.count()).filter(C.samples > self.max_samples)


def said_at_all(min_words: int | None, min_characters: int | None, *, file_names: bool) -> dict[str, Expr]:
    """Rules by which a caption says something at all: reason -> predicate, never NULL. See `CaptionFilter`."""
    stats = C[STATS]
    rules: dict[str, Expr] = {}
    if min_words is not None:
        rules[f"caption has fewer than {min_words} words"] = stats.n_words >= min_words
    if min_characters is not None:
        rules[f"caption has fewer than {min_characters} characters"] = stats.n_chars >= min_characters
    if not file_names:
        rules["caption is a file name"] = ~stats.is_file_name
    return {reason: rule.fill_null(False) for reason, rule in rules.items()}


def repetition(caption: str = "caption") -> Expr:
    """Share of the pairs of neighbouring words of a caption that stand in it before already, 0 to 1.

    `a cat and a cat` has four pairs, three different ones: .25. It is seq-rep-n of Welleck et al., "Neural text
    generation with unlikelihood training" (2020), for n = 2: 1 - |different n-grams| / |n-grams|, case ignored; 0 of
    fewer than two words. NULL where there is no caption.

    Args:
        caption: column of the texts.
    """
    words = fn.splitByWhitespace(fn.lowerUTF8(C[caption].fill_null("")))
    firsts, seconds = fn.arrayPopBack(words), fn.arrayPopFront(words)
    pairs = fn.length(firsts)
    share = (pairs - fn.arrayUniq(firsts, seconds)) / fn.greatest(pairs, 1)
    return case((C[caption].not_null(), share))
