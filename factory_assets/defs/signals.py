"""Signals: columns computed from the bytes of samples, shard by shard."""

from factory_assets.partitions import SHARDS
from factory_lib.orchestration.stage import stage
from factory_lib.query import DatasetQuery
from factory_lib.signals import clip
from factory_lib.signals.hashes import dhash, phash
from factory_lib.signals.image import image_header, quality
from factory_lib.signals.inputs import computable
from factory_lib.signals.text import caption_stats
from factory_lib.signals.thumbnails import thumbnail


@stage(group="signals", partitions=SHARDS, kinds=["python"])
def image_signals(samples: DatasetQuery) -> DatasetQuery:
    """Header and decode status, brightness, contrast, sharpness, entropy, hashes, thumbnail, caption statistics."""
    wanted = (image_header, quality, phash, dhash, thumbnail, caption_stats)
    return samples.add_signals(*computable(wanted, samples.columns))


@stage(group="signals", partitions=SHARDS, kinds=["pytorch"])
def clip_embeddings(image_signals: DatasetQuery) -> DatasetQuery:
    """CLIP vectors of images and captions, of unit length, to be compared by dot product."""
    return image_signals.add_signals(*computable((clip.encode_image, clip.encode_text), image_signals.columns))
