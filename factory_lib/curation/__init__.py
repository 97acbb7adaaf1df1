"""Curation: filters that show first that they can judge, near-duplicates, subsets, the funnel of what was removed."""

from factory_lib.curation.alignment import AlignmentFilter, clip_score, with_score
from factory_lib.curation.basic import BasicFilter
from factory_lib.curation.clusters import centroids, cluster_of, index_recall, semantic_duplicates
from factory_lib.curation.duplicates import (
    duplicate_groups,
    exact_duplicates,
    near_duplicates,
    of_equal_size,
    reference_matches,
)
from factory_lib.curation.funnel import funnel, rejections
from factory_lib.curation.heads import HeadFilter
from factory_lib.curation.new_samples import make_samples, superset
from factory_lib.curation.photos import FaceFilter, TextFilter
from factory_lib.curation.proof import Verdict
from factory_lib.curation.quality import QualityFilter
from factory_lib.curation.rules import Filter, JudgedRules, Kept, Where, Without, all_of, keep
from factory_lib.curation.subset import in_subset, read_subset, write_subset
from factory_lib.curation.text_quality import CaptionFilter

__all__ = [
    "AlignmentFilter",
    "BasicFilter",
    "CaptionFilter",
    "FaceFilter",
    "Filter",
    "HeadFilter",
    "JudgedRules",
    "Kept",
    "QualityFilter",
    "TextFilter",
    "Verdict",
    "Where",
    "Without",
    "all_of",
    "centroids",
    "clip_score",
    "cluster_of",
    "duplicate_groups",
    "exact_duplicates",
    "funnel",
    "in_subset",
    "index_recall",
    "keep",
    "make_samples",
    "near_duplicates",
    "of_equal_size",
    "read_subset",
    "reference_matches",
    "rejections",
    "semantic_duplicates",
    "superset",
    "with_score",
    "write_subset",
]
