"""Rules on one sample at a time: what DataComp calls the basic filter, with a reason for every rejection."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from factory_lib.expressions import C, fn
from factory_lib.operators import Expr, lift


@dataclass(frozen=True)
class BasicFilter:
    """Thresholds of the basic filter; the defaults are DataComp's but for the side, which it sets to 200 pixels.

    Attributes:
        min_side: shorter side of the image as it was downloaded, pixels.
        max_aspect: longer side / shorter side.
        min_words: words of the caption, separated by white space.
        min_characters: code points of the caption.
        max_unsafe: probability that the image is unsafe, where the source brings one.
    """

    min_side: int = 80
    max_aspect: float = 3.0
    min_words: int = 3
    min_characters: int = 6
    max_unsafe: float = 0.5

    def remark(self, columns: Iterable[str]) -> str:
        """What cannot be judged for want of columns, as a sentence; empty where all can be."""
        missing = " and ".join(_missing(columns))
        return f"No {missing}: rules on them removed nothing." if missing else ""

    def rules(self, columns: Iterable[str]) -> dict[str, Expr]:
        """What a sample has to meet, by name; a rule on columns that the dataset does not have is left out.

        Args:
            columns: names of the columns of the dataset; `image_header` and `caption_stats` are the bundled signals.

        Returns:
            reason -> predicate, in the order in which a rejection is blamed on them. None of them is ever NULL.
        """
        there = set(columns)
        width, height = _sides(there)
        shorter, longer = fn.least(width, height), fn.greatest(width, height)
        rules: dict[str, tuple[set[str], Expr]] = {
            "image does not decode": ({"image_header"}, C.image_header.decodes),
            f"shorter side below {self.min_side} px": ({"image_header"}, shorter >= self.min_side),
            f"aspect ratio above {self.max_aspect:g}": ({"image_header"}, longer <= shorter * self.max_aspect),
            f"caption has fewer than {self.min_words} words": (
                {"caption_stats"},
                C.caption_stats.n_words >= self.min_words,
            ),
            f"caption has fewer than {self.min_characters} characters": (
                {"caption_stats"},
                C.caption_stats.n_chars >= self.min_characters,
            ),
            "caption is a file name": ({"caption_stats"}, ~C.caption_stats.is_file_name),
            # a sample without a score is not known to be unsafe
            "unsafe": ({"punsafe"}, C.punsafe.fill_null(0) <= self.max_unsafe),
        }
        return {reason: rule.fill_null(False) for reason, (needs, rule) in rules.items() if needs <= there}


def _missing(columns: Iterable[str]) -> list[str]:
    there = set(columns)
    return [what for name, what in (("image_header", "pictures"), ("caption_stats", "captions")) if name not in there]


def _sides(columns: set[str]) -> tuple[Expr, Expr]:
    """Width and height before any rescaling where the source says them, else those of the stored image."""
    stored = C.image_header.width, C.image_header.height
    if {"original_width", "original_height"} <= columns:
        return C.original_width.fill_null(stored[0]), C.original_height.fill_null(stored[1])
    return stored


def all_of(rules: Mapping[str, Expr]) -> Expr:
    """The predicate that all rules together make; without rules everything meets it."""
    return functools.reduce(operator.and_, rules.values()) if rules else lift(True)
