"""Checks on what the stages made, besides those that every stage has."""

import dagster as dg

from factory_assets.defs.signals import MODELS
from factory_assets.models import not_said
from factory_lib.orchestration.checks import datasets, sources
from factory_lib.orchestration.source.vanishing import check_all_there
from factory_lib.query import DatasetQuery


@dg.asset_check(asset="samples")
def ingested() -> dg.AssetCheckResult:
    """The source gave samples, and few of those it promised are lost."""
    return sources.check_ingest("samples")


@dg.asset_check(asset="samples")
def accounted() -> dg.AssetCheckResult:
    """Every file and column at the source is used, or left out for a reason that is said."""
    return sources.check_account("samples")


@dg.asset_check(asset="source_shards")
def all_there(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """The source lists every shard that samples were read from; since when it does not, and what becomes of them."""
    return check_all_there(context.instance, dg.AssetKey("source_shards"))


@dg.asset_check(asset="image_signals")
def images_decode() -> dg.AssetCheckResult:
    """Nearly all images decode; the reasons why some do not."""
    return datasets.check_decoding("image_signals")


@dg.asset_check(asset="photo_signals")
def models_answer() -> dg.AssetCheckResult:
    """Every model of `FACTORY_MODELS` can be asked about these samples, or why it cannot."""
    columns = DatasetQuery("clip_embeddings").columns
    return datasets.check_computable(not_said(MODELS, columns), columns)


@dg.asset_check(asset="deduplicated")
def no_duplicates_left() -> dg.AssetCheckResult:
    """No two samples are near-duplicates of each other."""
    return datasets.check_duplicates("deduplicated")
