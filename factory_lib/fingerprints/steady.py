"""Looking at objects that other threads change meanwhile."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

LOOKS = 50
_PAUSE_SECONDS = 0.01
# What dictionaries, sets and deques say, in the words of their kind.
_CHANGED = re.compile(r"(?:changed|mutated)(?: size)? during iteration")
_Found = TypeVar("_Found")


class Unsteady(Exception):
    """Something was changed at every look."""


def steady(look: Callable[[], _Found]) -> _Found:
    """The result of `look()`, which is called again while a dict or set changes under it.

    A run in another thread computes with the same objects: its memo grows while components are taken of it, which
    raises `dictionary changed size during iteration` -> the next look, whose result is whole.

    Raises:
        Unsteady: each of 50 looks was disturbed.
    """
    looks = 0
    while True:
        try:
            return look()
        except RuntimeError as error:
            looks += 1
            if not _CHANGED.search(str(error)):
                raise
            if looks == LOOKS:
                raise Unsteady(str(error)) from error
        time.sleep(_PAUSE_SECONDS)
