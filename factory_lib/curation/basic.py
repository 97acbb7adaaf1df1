"""Rules on one sample at a time: what DataComp calls the basic filter, with a reason for every rejection."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from factory_lib.curation.heads import HeadFilter
from factory_lib.curation.rules import MIN_KNOWN, JudgedRules, little_known
from factory_lib.curation.text_quality import HAS_WORDS, STATS, said_at_all
from factory_lib.plan.expressions import C, fn
from factory_lib.plan.operators import Expr
from factory_lib.query import DatasetQuery

UNSAFE = "punsafe"
"""Column with the probability that a picture is unsafe, of the source or of a signal."""


@dataclass(frozen=True)
class BasicFilter:
    """Thresholds of the basic filter; the defaults are DataComp's but for the side, which it sets to 200 pixels.

    Attributes:
        min_side: shorter side of the image as it was downloaded, pixels.
        max_aspect: longer side / shorter side.
        min_words: words of the caption, separated by white space.
        min_characters: code points of the caption.
        max_unsafe: probability that the image is unsafe, where the source or a signal says one. .5 is LAION's bar for
            its heads; open_nsfw's authors are sure from .8 on.
        min_known: share of a pool that has to have captions for rules on captions to remove anything; in the same way
            pictures that decode, and sides. Where nearly none has, it is more likely that something went wrong before.
    """

    min_side: int = 80
    max_aspect: float = 3.0
    min_words: int = 3
    min_characters: int = 6
    max_unsafe: float = 0.5
    min_known: float = MIN_KNOWN

    def remark(self, columns: Iterable[str]) -> str:
        """What cannot be judged for want of columns, as a sentence; empty where all can be."""
        there = _known(set(columns))
        missing = " and ".join(name for name in ("pictures", "captions") if name not in there)
        return f"No {missing}: rules on them removed nothing." if missing else ""

    def rules(self, columns: Iterable[str]) -> dict[str, Expr]:
        """What a sample has to meet, by name; a rule on columns that the dataset does not have is left out.

        Args:
            columns: names of the columns of the dataset; `image_header` and `caption_stats` are the bundled signals.

        Returns:
            reason -> predicate, in the order in which a rejection is blamed on them. None of them is ever NULL.
        """
        there = set(columns)
        inputs = {*_known(there), *({UNSAFE} & there)}
        return {reason: rule for reason, (reads, rule) in self._rules(there).items() if reads in inputs}

    def judged(self, pool: DatasetQuery) -> JudgedRules:
        """What can be judged on a pool: rules whose input nearly all its samples lack are left out, and so is the one
        on unsafe pictures where their scores say nothing.

        Args:
            pool: all of the dataset: a shard that alone has no captions is no pool without captions.
        """
        there = set(pool.columns)
        few = little_known(pool, _known(there), self.min_known)
        said = [self.remark(there), *(_lack(name, number) for name, number in few.items())]
        lacking = set(few)
        if UNSAFE in there:
            head = self._head.judged(pool)
            if head.remark:
                lacking.add(UNSAFE)
                said.append(head.remark)
        every = self._rules(there)
        rules = {reason: rule for reason, rule in self.rules(there).items() if every[reason][0] not in lacking}
        return JudgedRules(rules, " ".join(filter(None, said)))

    @property
    def _head(self) -> HeadFilter:
        return HeadFilter(UNSAFE, most=self.max_unsafe)

    def _rules(self, there: set[str]) -> dict[str, tuple[str, Expr]]:
        """reason -> what it reads, and the predicate."""
        width, height = _sides(there)
        captions = said_at_all(self.min_words, self.min_characters, file_names=False)
        rules = {
            "image does not decode": ("pictures", C.image_header.decodes),
            f"shorter side below {self.min_side} px": ("sides", (width >= self.min_side) & (height >= self.min_side)),
            f"aspect ratio above {self.max_aspect:g}": (
                "sides",
                (width <= height * self.max_aspect) & (height <= width * self.max_aspect),
            ),
            **{reason: ("captions", rule) for reason, rule in captions.items()},
            "unsafe": (UNSAFE, next(iter(self._head.predicates().values()))),
        }
        return {reason: (reads, rule.fill_null(False)) for reason, (reads, rule) in rules.items()}


def _known(there: set[str]) -> dict[str, Expr]:
    """What rules read -> whether a sample has it; without what no column says."""
    found = {}
    if "image_header" in there:
        found["pictures"] = C.image_header.decodes
    if "image_header" in there or {"original_width", "original_height"} <= there:
        width, height = _sides(there)
        found["sides"] = (width > 0) & (height > 0)
    if STATS in there:
        found["captions"] = HAS_WORDS
    return found


def _lack(name: str, number: str) -> str:
    said = {
        "pictures": ("pictures decode", "image_signals says why the others do not."),
        "sides": ("samples have a width and a height", ""),
        "captions": ("samples have a caption", "Where captions have another name: --caption (make demo CAPTION=…)."),
    }
    what, hint = said[name]
    return f"{number} {what}: rules on {name} removed nothing. {hint}".rstrip()


def _sides(columns: set[str]) -> tuple[Expr, Expr]:
    """Width and height before any rescaling where the source says them (0 says nothing), else those of the stored
    image."""
    names = ("width", "height")
    if not {"original_width", "original_height"} <= columns:
        return C.image_header.width, C.image_header.height
    said = [fn.nullIf(C[f"original_{name}"], 0) for name in names]
    if "image_header" not in columns:
        return said[0], said[1]
    return said[0].fill_null(C.image_header.width), said[1].fill_null(C.image_header.height)
