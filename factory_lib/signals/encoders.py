"""Encoders: signals whose vectors can be searched, by what they read, a picture or a text."""

from __future__ import annotations

from typing import Any, Literal

from factory_lib.errors import SignalError
from factory_lib.signals.clip import ImageTower, TextTower, Tower
from factory_lib.signals.outputs import Vector
from factory_lib.signals.signal import Signal, signal

Sought = Literal["image", "text"]


def encoder_for(made_by: Signal, sought: Sought) -> Signal:
    """The signal that makes vectors of pictures, or of texts, that can be compared with those of another.

    Args:
        made_by: the signal that made the vectors that are searched: itself, where it reads what is sought; the other
            tower of a CLIP.

    Raises:
        SignalError: it makes no vectors, or none of what is sought.
    """
    if not isinstance(made_by.output, Vector) or len(made_by.inputs) != 1:
        raise SignalError(f"Signal {made_by.name!r} makes no vectors of one picture or text.")
    reads: Sought = "text" if made_by.inputs[0].kind == "value" else "image"
    if reads == sought:
        return made_by
    tower: Any = made_by.target
    if not isinstance(tower, Tower):
        raise SignalError(
            f"Signal {made_by.name!r} encodes {_PLURAL[reads]} alone, so that its vectors cannot be searched by"
            f" {_PLURAL[sought]}.",
            f"Search by {reads}=, sample= or vector=, or the vectors of a CLIP, which has both.",
        )
    kind = TextTower if sought == "text" else ImageTower
    target = kind(tower.checkpoint, tower.device, tower.precision)
    return signal(target, name=f"{made_by.name}_{sought}", output=made_by.output, batch=made_by.batch)


_PLURAL = {"image": "pictures", "text": "texts"}
