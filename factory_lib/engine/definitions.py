"""Definitions of tables that a full disk cut: the engine reads all of them when it starts, and does not start over one.

A definition ends with a line break. One that does not is of a table that was being made: nothing was published by its
name, and it is set aside.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger("factory.engine")


def set_aside_unfinished(data: Path) -> list[Path]:
    """Take definitions that were not written to their end out of the engine's way; which ones, as they are called now.

    Args:
        data: the folder of the engine's tables, which no engine has open.
    """
    found = [path for path in _definitions(data) if not _is_whole(path)]
    for path in found:
        # The engine passes over .bak.
        path.rename(path.with_name(f"{path.name}.bak"))
        logger.warning("%s was not written to its end, and is set aside", path)
    return [path.with_name(f"{path.name}.bak") for path in found]


def _definitions(data: Path) -> Iterator[Path]:
    yield from (data / "metadata").glob("*.sql")
    yield from (data / "store").glob("*/*/*.sql")


def _is_whole(path: Path) -> bool:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return size > 0 and os.pread(file.fileno(), 1, size - 1) == b"\n"
