"""Privacy, where it is asked for: what training reads, once more, with faces blurred and without EXIF."""

import dagster as dg

from factory_assets.models import is_asked
from factory_lib.augmentation import BlurFaces, StripExif
from factory_lib.curation import make_samples
from factory_lib.orchestration.checks import datasets
from factory_lib.orchestration.stage import stage
from factory_lib.query import DatasetQuery
from factory_lib.settings import settings

BLUR = BlurFaces("faces", strength=3)  # at 1, as img2dataset has it, large faces can still be told

if is_asked("faces") and settings().derived:

    @stage(group="privacy", kinds=["tar"])
    def private_set(clip_score_filter: DatasetQuery) -> DatasetQuery:
        """New samples in FACTORY_DERIVED: the photos that training reads, faces blurred, nothing beside the pixels."""
        return make_samples(clip_score_filter, BLUR, StripExif())

    @dg.asset_check(asset="private_set")
    def all_made() -> dg.AssetCheckResult:
        """Nearly all samples have one without faces; why the others have none."""
        return datasets.check_made("private_set")
