"""What a stage leaves out for want of columns or values: its log tells it, and its version keeps it."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

LEFT_OUT = "left_out"
"""Of what provenance keeps of a stage, and in the metadata of its events: what it left out, in sentences."""
_noted: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("factory_omissions", default=None)


def note_omission(sentence: str) -> None:
    """Tell that something is left out, and why; nothing happens where nobody collects it."""
    noted = _noted.get()
    if noted is not None and sentence not in noted:
        noted.append(sentence)


@contextlib.contextmanager
def omissions() -> Iterator[list[str]]:
    """Collect what is left out within this block."""
    token = _noted.set([])
    try:
        found = _noted.get()
        assert found is not None
        yield found
    finally:
        _noted.reset(token)
