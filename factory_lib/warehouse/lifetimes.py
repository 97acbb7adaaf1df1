"""Staging tables that go with a Python object, whenever that goes.

An object that lies in a cycle goes while garbage is collected, which happens at any moment: also while its thread holds
a lock of the client or of a library below it, and to ask the engine then would wait for itself. Such tables are dropped
with the next one that goes or is made.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from factory_lib.errors import EngineError

if TYPE_CHECKING:
    from factory_lib.warehouse.staging import StagingTable

_left: deque[StagingTable] = deque()
_collecting: set[int] = set()
"""Threads that collect garbage now."""


def drop_with(one: object, stage: StagingTable) -> None:
    """Have a table go when an object goes, or at the end of the process."""
    drop_left()
    weakref.finalize(one, _gone, stage, os.getpid())


def drop_left() -> None:
    """Drop the tables of objects that went while garbage was collected."""
    with contextlib.suppress(IndexError):
        while True:
            stage = _left.popleft()
            # When the engine is gone, what it left is swept with other stale staging tables.
            with contextlib.suppress(EngineError):
                if stage.warehouse.is_up:
                    stage.drop()


def _gone(stage: StagingTable, process: int) -> None:
    if os.getpid() != process:  # a fork's copy of the object: the table is the parent's
        return
    _left.append(stage)
    if threading.get_ident() not in _collecting:
        drop_left()


def _note(phase: str, _: dict[str, Any]) -> None:
    if phase == "start":
        _collecting.add(threading.get_ident())
    else:
        _collecting.discard(threading.get_ident())


gc.callbacks.append(_note)
