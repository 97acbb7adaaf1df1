"""What was written is put on the medium: `syncfs` of the disk under a data folder.

The engine writes as ClickHouse does by default, into the system's cache, from where it reaches the medium half a
minute later. One call for the whole disk costs some 5 ms where little is to be written; an fsync of every file of
every part, a file a column, costs seconds.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from factory_lib.errors import EngineError


def sync_disk(folder: Path) -> None:
    """Return when all that was written to the disk of a folder, by whatever process, is on the medium.

    Raises:
        EngineError: the disk reports that something could not be written.
    """
    if sys.platform != "linux":
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            reason = os.strerror(ctypes.get_errno())
            raise EngineError(
                f"The disk of {folder} does not keep what is written to it: {reason}.",
                "What was saved last may be lost at a power cut: check the disk, then save again.",
            )
    finally:
        os.close(descriptor)
