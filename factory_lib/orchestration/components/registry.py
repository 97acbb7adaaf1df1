"""What stages written in YAML can name: filters, functions from samples to samples, signals, operations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from factory_lib.orchestration.components.names import imported, unknown

FILTERS: Mapping[str, str] = {
    "basic": "factory_lib.curation.basic.BasicFilter",
    "captions": "factory_lib.curation.text_quality.CaptionFilter",
    "clip_score": "factory_lib.curation.alignment.AlignmentFilter",
    "datacomp_basic_filter": "factory_lib.curation.datacomp.CaptionAndSize",
    "datacomp_clip_score": "factory_lib.curation.datacomp.ClipScore",
    "datacomp_image_based": "factory_lib.curation.datacomp.ImageBased",
    "datacomp_image_based_intersect_clip_score": "factory_lib.curation.datacomp.ImageBasedClipScore",
    "datacomp_laion2b": "factory_lib.curation.datacomp.Laion2B",
    "datacomp_no_filter": "factory_lib.curation.datacomp.NoFilter",
    "datacomp_text_based": "factory_lib.curation.datacomp.TextBased",
    "faces": "factory_lib.curation.photos.FaceFilter",
    "head": "factory_lib.curation.heads.HeadFilter",
    "quality": "factory_lib.curation.quality.QualityFilter",
    "text_area": "factory_lib.curation.photos.TextFilter",
    "where": "factory_lib.curation.rules.Where",
    "without": "factory_lib.curation.rules.Without",
}
"""Short name -> class of a filter."""

FUNCTIONS: Mapping[str, str] = {
    "centroids": "factory_lib.curation.clusters.centroids",
    "duplicate_groups": "factory_lib.curation.duplicates.duplicate_groups",
    "exact_duplicates": "factory_lib.curation.duplicates.exact_duplicates",
    "in_subset": "factory_lib.curation.subset.in_subset",
    "make_samples": "factory_lib.curation.new_samples.make_samples",
    "near_duplicates": "factory_lib.curation.duplicates.near_duplicates",
    "of_equal_size": "factory_lib.curation.duplicates.of_equal_size",
    "reference_matches": "factory_lib.curation.duplicates.reference_matches",
    "search": "factory_lib.query.DatasetQuery.search",
    "semantic_duplicates": "factory_lib.curation.clusters.semantic_duplicates",
    "superset": "factory_lib.curation.new_samples.superset",
    "with_score": "factory_lib.curation.alignment.with_score",
}
"""Short name -> function whose first parameter is the samples, and which returns a query."""

SIGNALS: Mapping[str, str] = {
    "caption_stats": "factory_lib.signals.text.caption_stats",
    "cleanvision": "factory_lib.signals.cleanvision.cleanvision",
    "clip": "factory_lib.signals.clip.encode_image",
    "clip_text": "factory_lib.signals.clip.encode_text",
    "cluster_of": "factory_lib.curation.clusters.cluster_of",
    "dhash": "factory_lib.signals.hashes.dhash",
    "faces": "factory_lib.signals.models.faces.faces",
    "head_score": "factory_lib.signals.heads.published.head_score",
    "image_header": "factory_lib.signals.image.image_header",
    "lang_cld3": "factory_lib.signals.language.lang_cld3",
    "lang_fasttext": "factory_lib.signals.language.lang_fasttext",
    "open_nsfw": "factory_lib.signals.models.unsafe.open_nsfw",
    "phash": "factory_lib.signals.hashes.phash",
    "photo_embedding": "factory_lib.signals.models.photos.photo_embedding",
    "pixel_md5": "factory_lib.signals.hashes.pixel_md5",
    "quality": "factory_lib.signals.image.quality",
    "sha256": "factory_lib.signals.hashes.sha256",
    "text_area": "factory_lib.signals.models.text_area.text_area",
    "thumbnail": "factory_lib.signals.thumbnails.thumbnail",
    "wordnet_entity": "factory_lib.signals.entities.wordnet_entity",
}
"""Column -> signal that makes it; or short name -> function that makes a signal of what it is given."""

OPERATIONS: Mapping[str, str] = {
    "blur_faces": "factory_lib.augmentation.BlurFaces",
    "center_crop": "factory_lib.augmentation.CenterCrop",
    "crop_to_box": "factory_lib.augmentation.CropToBox",
    "horizontal_flip": "factory_lib.augmentation.HorizontalFlip",
    "random_crop": "factory_lib.augmentation.RandomCrop",
    "recaption": "factory_lib.augmentation.Recaption",
    "resize": "factory_lib.augmentation.Resize",
    "strip_exif": "factory_lib.augmentation.StripExif",
}
"""Short name -> class of an operation of `make_samples`."""


def named(name: str, registry: Mapping[str, str]) -> Any:
    """What a short name of a registry, or a dotted name, means.

    Raises:
        ValueError: there is no such name.
    """
    if name in registry:
        return imported(registry[name])
    if "." not in name:
        raise ValueError(unknown(name, registry))
    return imported(name)
