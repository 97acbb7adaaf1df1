"""Heads: small models on the vectors of an encoder, such as LAION's of unsafe pictures, with weights of yours."""

from factory_lib.signals.heads.architecture import (
    AESTHETIC_V1_B32,
    AESTHETIC_V1_L14,
    AESTHETIC_V2_L14,
    NSFW_B32,
    NSFW_H14,
    NSFW_L14,
    WATERMARK,
    Architecture,
)
from factory_lib.signals.heads.head import Head

__all__ = [
    "AESTHETIC_V1_B32",
    "AESTHETIC_V1_L14",
    "AESTHETIC_V2_L14",
    "NSFW_B32",
    "NSFW_H14",
    "NSFW_L14",
    "WATERMARK",
    "Architecture",
    "Head",
]
