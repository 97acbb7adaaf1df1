"""How well captions fit their images: CLIP scores, and what to keep by them."""

from __future__ import annotations

from dataclasses import dataclass

from factory_lib.expressions import C, cosine_distance
from factory_lib.operators import Expr


def clip_score(image: str = "clip", text: str = "clip_text") -> Expr:
    """Cosine similarity of the vectors of an image and of its caption, -1 to 1.

    Args:
        image, text: columns that the signals of `factory_lib.signals.clip` made.
    """
    return 1 - cosine_distance(C[image], C[text])


@dataclass(frozen=True)
class AlignmentFilter:
    """Keep samples whose caption fits.

    Attributes:
        min_score: smallest CLIP score that is kept. Scores depend on the model: LAION used 0.28 with ViT-B/32.
    """

    min_score: float = 0.28

    def rules(self, score: str = "clip_score") -> dict[str, Expr]:
        """reason -> predicate over a column with the scores; a sample without a score is not kept."""
        return {f"CLIP score below {self.min_score:g}": (C[score] >= self.min_score).fill_null(False)}
