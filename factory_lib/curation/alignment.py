"""How well captions fit their images: CLIP scores, and what to keep by them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from factory_lib.curation.proof import MIN_AUC, Verdict, judge_clip
from factory_lib.curation.rules import MIN_KNOWN, JudgedRules, little_known
from factory_lib.plan.expressions import C, cosine_distance, fn
from factory_lib.plan.operators import Expr
from factory_lib.query import DatasetQuery

NO_PICTURES = "Nothing was removed by it. Where pictures are in another column: --image (make demo IMAGE=…)."
NO_CAPTIONS = "Nothing was removed by it. Where captions have another name: --caption (make demo CAPTION=…)."


def clip_score(image: str = "clip", text: str = "clip_text") -> Expr:
    """Cosine similarity of the vectors of an image and of its caption, -1 to 1.

    Args:
        image, text: columns that the signals of `factory_lib.signals.clip` made.
    """
    return 1 - cosine_distance(C[image], C[text])


def with_score(samples: DatasetQuery, image: str = "clip", text: str = "clip_text") -> DatasetQuery:
    """The samples with a column `clip_score`, where they have both vectors."""
    both = {image, text} <= set(samples.columns)
    return samples.mutate(clip_score=clip_score(image, text)) if both else samples


@dataclass(frozen=True)
class AlignmentFilter:
    """Keep samples whose caption fits.

    What a score means depends on the model and on what it was trained on: a bar that is right for one pool empties
    another. So there are two, and the lower one holds.

    Attributes:
        min_score: scores from here on are kept. LAION used 0.28 with ViT-B/32; TinyCLIP scores 95 % of the right
            captions of rendered images above 0.75 and 95 % of the wrong ones below 0.24.
        min_share: share of the pool, the best of it, that is kept in any case; DataComp's `clip_score` keeps 0.3.
        min_auc: how well the model has to tell own captions from those of other samples of the pool, or it has no say
            and all are kept (see `proof.judge_clip`); 0 asks for no proof.
        min_known: share of the pool that has to have a score for it to remove those that have none, or a lower one.
    """

    min_score: float = 0.5
    min_share: float = 0.3
    min_auc: float = MIN_AUC
    min_known: float = MIN_KNOWN

    def verdict(self, scored: DatasetQuery) -> Verdict:
        """Whether the model may judge this pool."""
        if "clip_score" not in scored.columns:
            lacking = "captions" if "caption" not in scored.columns else "pictures"
            hint = NO_CAPTIONS if lacking == "captions" else NO_PICTURES
            return Verdict(False, f"CLIP has nothing to compare: these samples have no {lacking}.", hint)
        if few := little_known(scored, {"scores": fn.isFinite(C.clip_score)}, self.min_known):
            said = f"{few['scores']} samples have a picture and a caption that CLIP compared."
            return Verdict(False, said, NO_CAPTIONS)
        if not self.min_auc:
            return Verdict(True, "No proof was asked for.")
        return judge_clip(scored, min_auc=self.min_auc)

    def threshold(self, scored: DatasetQuery) -> float:
        """The smallest score that is kept of a pool.

        Args:
            scored: the pool, with a column `clip_score`.
        """
        best = fn.quantileExactHigh(C.clip_score, parameters=[1 - self.min_share])
        found = scored.filter(fn.isFinite(C.clip_score)).agg(best=best, rows=fn.count()).to_arrow().to_pylist()[0]
        if not found["rows"] or not math.isfinite(found["best"]):
            return self.min_score
        return min(self.min_score, float(found["best"]))

    def judged(self, pool: DatasetQuery) -> JudgedRules:
        """One rule, by which a sample without a score is not kept; none where the model cannot judge the pool.

        Args:
            pool: with a column `clip_score`, see `with_score`.
        """
        return self.verdict(pool).judged(lambda: self._rules(pool))

    def _rules(self, scored: DatasetQuery) -> dict[str, Expr]:
        bar = self.threshold(scored)
        return {f"CLIP score below {bar:.3g}": (C.clip_score >= bar).fill_null(False)}
