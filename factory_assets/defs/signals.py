"""Signals: columns computed from the bytes of samples, shard by shard."""

from factory_assets.models import chosen_models, not_said
from factory_assets.partitions import SHARDS
from factory_lib.orchestration.stage import stage
from factory_lib.query import DatasetQuery
from factory_lib.signals import clip
from factory_lib.signals.cleanvision import cleanvision
from factory_lib.signals.hashes import dhash, phash, sha256
from factory_lib.signals.image import image_header, quality
from factory_lib.signals.inputs import computable
from factory_lib.signals.language import lang_fasttext
from factory_lib.signals.text import caption_stats
from factory_lib.signals.thumbnails import thumbnail

OF_PICTURES = (image_header, quality, cleanvision, sha256, phash, dhash, thumbnail)
OF_CAPTIONS = (caption_stats, lang_fasttext)
MODELS = chosen_models()


@stage(group="signals", partitions=SHARDS, kinds=["python"])
def image_signals(samples: DatasetQuery) -> DatasetQuery:
    """Header and decode status, brightness, contrast, sharpness, issues, hashes, thumbnail; captions and languages."""
    return samples.add_signals(*computable((*OF_PICTURES, *OF_CAPTIONS), samples.columns))


@stage(group="signals", partitions=SHARDS, kinds=["pytorch"])
def clip_embeddings(image_signals: DatasetQuery) -> DatasetQuery:
    """CLIP vectors of images and captions, of unit length, to be compared by dot product."""
    return image_signals.add_signals(*computable((clip.encode_image, clip.encode_text), image_signals.columns))


@stage(group="signals", partitions=SHARDS, kinds=["pytorch"])
def photo_signals(clip_embeddings: DatasetQuery) -> DatasetQuery:
    """What models of `FACTORY_MODELS` say of photos; what the source says itself is not asked."""
    return clip_embeddings.add_signals(*computable(not_said(MODELS, clip_embeddings.columns), clip_embeddings.columns))
