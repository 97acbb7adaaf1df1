"""Statistics of a cache folder: what it served, counted by all processes that use it, in one small file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from factory_lib.filelocks import exclusive

FILE = "served.json"
KEPT = (
    "bytes_read",
    "bytes_shared",
    "bytes_origin",
    "evicted_bytes",
    "bypassed_bytes",
    "corrupt_pages",
    "corrupt_objects",
    "cache_errors",
    "shared_errors",
)
"""Counters of `BlockCache` that are kept."""


def add(folder: Path, counters: Mapping[str, float]) -> None:
    """Add to the numbers of a folder; trouble with the folder is ignored, they are only for people to look at."""
    news = {name: int(counters[name]) for name in KEPT if counters.get(name)}
    if not news:
        return
    try:
        descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    try:
        with exclusive(descriptor):
            total = _parsed(os.pread(descriptor, 4096, 0))
            for name, amount in news.items():
                total[name] += amount
            # Padded, so that a shorter text leaves nothing of a longer one behind.
            os.pwrite(descriptor, json.dumps(total).encode().ljust(1024), 0)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def read(folder: Path) -> dict[str, int]:
    """The numbers of a folder, by the names in `KEPT`; zeros where nothing was counted."""
    try:
        return _parsed((folder / FILE).read_bytes())
    except OSError:
        return _parsed(b"")


def shares(counters: Mapping[str, float]) -> dict[str, float]:
    """Tier -> its part of the bytes that were read: what neither the origin nor the shared tier gave was a hit.

    More may be fetched than is read, whole pages and objects: the parts of the outer tiers may add up to more than 1.
    Empty where nothing was read.
    """
    read = counters.get("bytes_read", 0)
    if not read:
        return {}
    shared, origin = (counters.get(f"bytes_{tier}", 0) / read for tier in ("shared", "origin"))
    return {"cache": max(0.0, 1.0 - shared - origin), "shared": shared, "origin": origin}


def reset(folder: Path) -> None:
    """Begin anew."""
    (folder / FILE).unlink(missing_ok=True)


def _parsed(raw: bytes) -> dict[str, int]:
    try:
        found = json.loads(raw)
        return {name: int(found.get(name, 0)) for name in KEPT}
    except (ValueError, AttributeError, TypeError):
        return dict.fromkeys(KEPT, 0)
