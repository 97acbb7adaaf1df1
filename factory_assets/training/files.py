"""Files that are whole or not there: written beside their place, synced, renamed."""

from __future__ import annotations

import os
from pathlib import Path

from factory_lib.owners import replacing


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new one and nothing between."""
    with replacing(path) as beside, open(beside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
