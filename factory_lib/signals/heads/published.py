"""Published heads by name, for graphs that are written without Python."""

from __future__ import annotations

from typing import Literal

from factory_lib.signals.heads import architecture as of
from factory_lib.signals.heads.head import Head
from factory_lib.signals.signal import Signal

PublishedHead = Literal[
    "nsfw_b32", "nsfw_h14", "nsfw_l14", "aesthetic_v1_b32", "aesthetic_v1_l14", "aesthetic_v2_l14", "watermark"
]


def head_score(name: str, weights: str, head: PublishedHead, vectors: str = "clip", prefix: str = "") -> Signal:
    """Signal: the score of a head that is published, with weights of yours.

    Args:
        name: of the column.
        weights: path or URI of a safetensors file.
        head: the architecture, by the name of its constant in lower case.
        vectors: column of the vectors.
        prefix: see `Head`.
    """
    return Head(weights, getattr(of, head.upper()), prefix).signal(name, vectors)
