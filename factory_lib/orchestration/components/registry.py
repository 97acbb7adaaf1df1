"""What stages written in YAML can name: filters, functions from samples to samples, signals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from factory_lib.orchestration.components.names import imported, unknown

FILTERS: Mapping[str, str] = {
    "basic": "factory_lib.curation.basic.BasicFilter",
    "captions": "factory_lib.curation.text_quality.CaptionFilter",
    "clip_score": "factory_lib.curation.alignment.AlignmentFilter",
    "head": "factory_lib.curation.heads.HeadFilter",
    "quality": "factory_lib.curation.quality.QualityFilter",
    "where": "factory_lib.curation.rules.Where",
    "without": "factory_lib.curation.rules.Without",
}
"""Short name -> class of a filter."""

FUNCTIONS: Mapping[str, str] = {
    "in_subset": "factory_lib.curation.subset.in_subset",
    "near_duplicates": "factory_lib.curation.duplicates.near_duplicates",
    "with_score": "factory_lib.curation.alignment.with_score",
}
"""Short name -> function whose first parameter is the samples, and which returns a query."""

SIGNALS: Mapping[str, str] = {
    "caption_stats": "factory_lib.signals.text.caption_stats",
    "cleanvision": "factory_lib.signals.cleanvision.cleanvision",
    "clip": "factory_lib.signals.clip.encode_image",
    "clip_text": "factory_lib.signals.clip.encode_text",
    "dhash": "factory_lib.signals.hashes.dhash",
    "image_header": "factory_lib.signals.image.image_header",
    "lang_cld3": "factory_lib.signals.language.lang_cld3",
    "lang_fasttext": "factory_lib.signals.language.lang_fasttext",
    "phash": "factory_lib.signals.hashes.phash",
    "pixel_md5": "factory_lib.signals.hashes.pixel_md5",
    "quality": "factory_lib.signals.image.quality",
    "sha256": "factory_lib.signals.hashes.sha256",
    "thumbnail": "factory_lib.signals.thumbnails.thumbnail",
}
"""Column -> signal that makes it."""


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
