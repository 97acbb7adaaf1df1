"""Curation: which samples are kept. Every stage is a mask over rows that exist already."""

from collections.abc import Iterable

from factory_assets.models import is_asked
from factory_assets.photos import EPS, PHOTO, no_centroids, nothing_found
from factory_lib.curation.alignment import AlignmentFilter, with_score
from factory_lib.curation.basic import UNSAFE as UNSAFE_BY_SOURCE
from factory_lib.curation.basic import BasicFilter
from factory_lib.curation.clusters import centroids, cluster_of
from factory_lib.curation.clusters import semantic_duplicates as find_semantic_duplicates
from factory_lib.curation.duplicates.exact import exact_duplicates
from factory_lib.curation.duplicates.linking import duplicate_groups
from factory_lib.curation.duplicates.pixels import near_duplicates as find_near_duplicates
from factory_lib.curation.heads import HeadFilter
from factory_lib.curation.photos import TextFilter
from factory_lib.curation.quality import QualityFilter
from factory_lib.curation.rules import Filter, Kept, Without, keep
from factory_lib.curation.text_quality import CaptionFilter
from factory_lib.orchestration.checks.volume import Volume
from factory_lib.orchestration.stage import stage
from factory_lib.plan.expressions import C, case, fn
from factory_lib.plan.operators import Expr
from factory_lib.query import DatasetQuery

BASIC = BasicFilter()
UNSAFE = HeadFilter("open_nsfw", most=0.8)  # from there on its authors are sure; clothes on plain ground reach .67
# what cleanvision calls blurry are soft grounds and plain clothes as often as blurred pictures
QUALITY: tuple[Filter, ...] = (
    QualityFilter(blurry=None),
    CaptionFilter(min_words=None, min_characters=None, file_names=True),  # of those that BASIC has kept
    *([TextFilter(most=0.3)] if is_asked("text") else []),
)
FOUND_BY = [
    ("sha256", "sha256", "the bytes of a better sample"),
    ("pixels", "thumbnail", "the picture of a better sample"),
    *([(PHOTO, PHOTO, "nearly the photo of a better sample")] if is_asked("photo") else []),
]
"""What `by` of a finding says, the column that it looks at, and why samples go."""
ALIGNMENT = AlignmentFilter()
TEST_SHARE = 0.1
MAY_BE_EMPTY = Volume(may_be_empty=True)


@stage(group="curation")
def basic_filter(photo_signals: DatasetQuery) -> Kept:
    """Samples whose image decodes, is large enough, not too narrow and not unsafe, and whose caption says something."""
    asked = is_asked("unsafe") and UNSAFE_BY_SOURCE not in photo_signals.columns
    return keep(photo_signals, BASIC, *([UNSAFE] if asked else []))


@stage(group="curation")
def quality_filter(basic_filter: DatasetQuery) -> Kept:
    """Samples whose picture is not dark, light, empty or covered by text, and whose caption is a text."""
    return keep(basic_filter, *QUALITY)


@stage(group="duplicates", volume=MAY_BE_EMPTY)
def near_duplicates(quality_filter: DatasetQuery) -> DatasetQuery:
    """Groups of samples that show the same, which of them is kept, and how sure that is: thumbnails correlate."""
    there = "thumbnail" in quality_filter.columns
    return find_near_duplicates(quality_filter) if there else nothing_found(quality_filter)


@stage(group="duplicates", volume=MAY_BE_EMPTY, stays=True)
def photo_centroids(quality_filter: DatasetQuery) -> DatasetQuery:
    """Middles of clusters of photos. Once made they stay, so that later samples come into the same clusters."""
    there = PHOTO in quality_filter.columns
    return centroids(quality_filter, PHOTO) if there else no_centroids(quality_filter)


@stage(group="duplicates")
def photo_clusters(quality_filter: DatasetQuery, photo_centroids: DatasetQuery) -> DatasetQuery:
    """The cluster of each photo, that of the nearest centroid; computed for new samples alone."""
    there = PHOTO in quality_filter.columns
    return quality_filter.add_signals(*([cluster_of(photo_centroids, PHOTO)] if there else []))


@stage(group="duplicates", volume=MAY_BE_EMPTY)
def semantic_duplicates(photo_clusters: DatasetQuery) -> DatasetQuery:
    """Photos that are nearly the same to a model, in groups."""
    there = f"{PHOTO}_cluster" in photo_clusters.columns
    return find_semantic_duplicates(photo_clusters, PHOTO, eps=EPS) if there else nothing_found(photo_clusters)


@stage(group="duplicates", volume=MAY_BE_EMPTY)
def duplicates(
    quality_filter: DatasetQuery, near_duplicates: DatasetQuery, semantic_duplicates: DatasetQuery
) -> DatasetQuery:
    """Groups of samples with the same bytes, the same picture, or nearly the same photo, and which one is kept."""
    there = "sha256" in quality_filter.columns
    exact = exact_duplicates(quality_filter, by=["sha256"]) if there else nothing_found(quality_filter)
    return duplicate_groups(quality_filter, exact, near_duplicates, semantic_duplicates)


@stage(group="curation")
def deduplicated(quality_filter: DatasetQuery, duplicates: DatasetQuery) -> Kept:
    """One sample of every group of duplicates: the one with most pixels, margins left aside."""
    rules = [Without(duplicates.filter(C.by == by), why, by=column) for by, column, why in FOUND_BY]
    return keep(quality_filter, *rules, Without(duplicates, "a better sample, by another finding"))


@stage(group="curation")
def clip_score_filter(deduplicated: DatasetQuery) -> Kept:
    """Samples whose caption fits their image: cosine of their CLIP vectors."""
    return keep(with_score(deduplicated), ALIGNMENT)


@stage(group="curation")
def training_set(clip_score_filter: DatasetQuery) -> DatasetQuery:
    """What training reads: image, caption and score, split into train and test by a hash of the image's hash."""
    there = [
        name
        for name in ("key", "image", "caption", "source", "phash", "clip_score")
        if name in clip_score_filter.columns
    ]
    return clip_score_filter.select(*there, split=split(there))


def split(columns: Iterable[str]) -> Expr:
    """Whether a sample is to learn from ("train") or to be scored on ("test"), the same before and after any filter.

    Equal pictures fall on the same side even where no filter found them; pictures without a hash are drawn one by one.
    """
    identity = fn.coalesce(C.phash, C.sample_id) if "phash" in columns else C.sample_id
    return case((fn.sipHash64(identity, "split") / 2.0**64 < TEST_SHARE, "test"), default="train")
