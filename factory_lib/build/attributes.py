"""Which columns of a sample are true of the new samples that are made of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from factory_lib.build.dependencies import root_of
from factory_lib.errors import ColumnNotFound, NotFound, nearest
from factory_lib.names import is_version_name
from factory_lib.plan.nodes import OPERATION, OPERATION_FINGERPRINT, PARENT, Plan, Table
from factory_lib.plan.storing import SYSTEM
from factory_lib.warehouse import provenance
from factory_lib.warehouse.arrow_types import is_pointer
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.versions import Version, resolve

if TYPE_CHECKING:
    from factory_lib.augmentation.operation import Keeps

OWN = (*SYSTEM, "image", "caption", "width", "height", PARENT, OPERATION, OPERATION_FINGERPRINT)
"""Columns that new samples have themselves."""
_OF_THE_PARENT = ("uid",)
_OF_BYTES = ("sha256", "md5", "exif", "hash", "phash", "image_phash", "status", "error_message")
_SCORES = (
    "similarity", "clip_b32_similarity_score", "clip_l14_similarity_score", "clip_similarity_vitb32",
    "clip_similarity_vitl14", "clip_score", "punsafe", "pwatermark", "watermark_score", "nsfw",
    "nsfw_score_opennsfw2", "nsfw_score_gantman", "aesthetic", "aesthetic_score", "aesthetic_score_laion_v2",
    "ase_scores",
)  # fmt: skip
"""As DataComp, LAION and COYO call them, in whatever case."""
_OF_CAPTIONS = ("language", "lang", "text_length", "word_count", "num_tokens_bert", "num_tokens_gpt")
_IN_PIXELS = ("bboxes", "segmentations", "areas", "keypoints", "objects")
_IN_SHARES = ("face_bboxes", "relative_bboxes", "relative_segmentations", "relative_keypoints")


def true_of_new_samples(
    wh: Warehouse, plan: Plan, types: Mapping[str, str], keeps: Keeps, *, recaptioned: bool
) -> list[str]:
    """The columns that the source brought and that say nothing of what operations change: bytes, places, texts.

    What was computed of a sample, by signals or expressions, is computed of its new samples, too, or not known of them.

    Args:
        types: column -> ClickHouse type of the samples.
        keeps: what the operations leave true of boxes and outlines.
        recaptioned: whether they give other captions.
    """
    untrue = {*OWN, *_OF_THE_PARENT, *_OF_BYTES, *_SCORES}
    if keeps != "places":
        untrue |= {*_IN_PIXELS, *(_IN_SHARES if keeps == "nothing" else ())}
    if recaptioned:
        untrue |= {*_OF_CAPTIONS}
    brought = _brought(wh, plan)
    return [
        name
        for name, kind in types.items()
        if name.lower() not in untrue
        and name in brought
        and not is_pointer(kind)
        and not kind.startswith("Array(BFloat16")
    ]


def chosen(keep: Collection[str], types: Mapping[str, str]) -> list[str]:
    """Columns that a user names.

    Raises:
        ColumnNotFound: there is no such column.
    """
    for name in keep:
        if name not in types:
            raise ColumnNotFound(f"keep= names the column {name!r}, which is not there.", nearest(name, types))
    return [name for name in keep if name not in OWN]


def _brought(wh: Warehouse, plan: Plan) -> Collection[str]:
    """The columns of what a plan's rows began as: samples in storage, rows in memory, or the oldest version known."""
    root = root_of(plan)
    if not isinstance(root, Table) or not is_version_name(root.name):
        return root.names
    version = resolve(wh, root.name)
    while (before := _parent(wh, version)) is not None:
        version = before
    return version.columns


def _parent(wh: Warehouse, version: Version) -> Version | None:
    record = provenance.read(wh, version.uuid)
    if record is None or not record.parents:
        return None
    try:
        return resolve(wh, record.parents[0]["name"])
    except NotFound:
        return None
