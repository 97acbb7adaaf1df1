"""Curation: which samples are kept. Every stage is a mask over rows that exist already."""

from collections.abc import Iterable

from factory_lib.curation.alignment import AlignmentFilter, with_score
from factory_lib.curation.basic import BasicFilter
from factory_lib.curation.duplicates import near_duplicates as find_near_duplicates
from factory_lib.curation.rules import Kept, Without, keep
from factory_lib.orchestration.checks.volume import Volume
from factory_lib.orchestration.stage import stage
from factory_lib.plan.expressions import C, case, fn, lit
from factory_lib.plan.operators import Expr
from factory_lib.query import DatasetQuery

BASIC = BasicFilter()
ALIGNMENT = AlignmentFilter()
TEST_SHARE = 0.1


@stage(group="curation")
def basic_filter(clip_embeddings: DatasetQuery) -> Kept:
    """Samples whose image decodes, is large enough, not too narrow and not unsafe, and whose caption says something."""
    return keep(clip_embeddings, BASIC)


@stage(group="curation", volume=Volume(may_be_empty=True))
def near_duplicates(basic_filter: DatasetQuery) -> DatasetQuery:
    """Groups of samples that show the same, which of them is kept, and how sure that is: thumbnails correlate."""
    if "thumbnail" not in basic_filter.columns:  # no pictures, no copies
        return basic_filter.filter("0").select("shard", "position", "sample_id", "key", kept=lit(True))
    return find_near_duplicates(basic_filter)


@stage(group="curation")
def deduplicated(basic_filter: DatasetQuery, near_duplicates: DatasetQuery) -> Kept:
    """One sample of every group of near-duplicates: the one with most pixels, margins left aside."""
    return keep(basic_filter, Without(near_duplicates, "near-duplicate of a better sample", by="thumbnail"))


@stage(group="curation")
def clip_score_filter(deduplicated: DatasetQuery) -> Kept:
    """Samples whose caption fits their image: cosine of their CLIP vectors."""
    return keep(with_score(deduplicated), ALIGNMENT)


@stage(group="curation")
def training_set(clip_score_filter: DatasetQuery) -> DatasetQuery:
    """What training reads: image, caption and score, split into train and test by a hash of the image's hash."""
    there = [name for name in ("key", "image", "caption", "phash", "clip_score") if name in clip_score_filter.columns]
    return clip_score_filter.select(*there, split=split(there))


def split(columns: Iterable[str]) -> Expr:
    """Whether a sample is to learn from ("train") or to be scored on ("test"), the same before and after any filter.

    Equal pictures fall on the same side even where no filter found them; pictures without a hash are drawn one by one.
    """
    identity = fn.coalesce(C.phash, C.sample_id) if "phash" in columns else C.sample_id
    return case((fn.sipHash64(identity, "split") / 2.0**64 < TEST_SHARE, "test"), default="train")
