"""What the files of a rendered shard say of each row: metadata for everyone, and the truth for the report."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from random import Random
from typing import Any

import pyarrow as pa

from factory_assets.demo.rendered.plan import RenderingRecipe, Row
from factory_assets.demo.rendered.scores import CrawlScores

METADATA = pa.schema(
    [
        ("uid", pa.string()),
        ("url", pa.string()),
        ("caption", pa.string()),
        ("similarity", pa.float32()),
        ("punsafe", pa.float32()),
        ("pwatermark", pa.float32()),
        ("key", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("exif", pa.string()),
        ("sha256", pa.string()),
    ]
)
"""Columns of a shard's parquet: width and height are of the stored picture, original_* and sha256 of the download."""

TRUTH = pa.schema(
    [
        ("shard", pa.string()),
        ("key", pa.string()),
        ("uid", pa.string()),
        ("fault", pa.string()),
        ("failed", pa.bool_()),
        ("broken", pa.bool_()),
        ("too_small", pa.bool_()),
        ("uninformative", pa.bool_()),
        ("unsafe", pa.bool_()),
        ("mismatched", pa.bool_()),
        ("picture", pa.int64()),
        ("edit", pa.string()),
        ("meaning", pa.int32()),
        ("colour", pa.string()),
        ("shape", pa.string()),
        ("size", pa.string()),
        ("background", pa.string()),
        ("said_meaning", pa.int32()),
    ]
)
"""Columns of the truth, one row a row of the parquets. Rows with one `picture` are duplicates of each other."""

_FAILURES = ("HTTP Error 404: Not Found", "HTTP Error 403: Forbidden", "<urlopen error timed out>")


def record(recipe: RenderingRecipe, row: Row, scores: CrawlScores, size: tuple[int, int] | None) -> dict[str, Any]:
    """One row of the parquet, which is also the json member of the tar.

    Args:
        scores: of the row's shard.
        size: width and height of the stored picture, None for a failed download.
    """
    rng = Random(f"record-{recipe.seed}/{row.shard}/{row.index}")
    uid = f"{rng.getrandbits(128):032x}"
    width, height = size or (None, None)
    digits = len(str(recipe.rows - 1))
    # img2dataset scales down what it downloads, and keeps the size and the digest of what it had downloaded.
    download = 1.0 if row.fault == "too_small" else Random(f"download-{recipe.seed}/{row.picture}").uniform(1.0, 6.0)
    exact = row.edit in ("original", "exact")
    downloaded = f"{recipe.seed}/{row.picture}" if exact else f"{recipe.seed}/{row.picture}/{row.shard}/{row.index}"
    return {
        "uid": uid,
        "url": f"https://images.example/{uid[:2]}/{uid[2:12]}.jpg",
        "caption": row.caption,
        "similarity": float(scores.similarity[row.index]),
        "punsafe": float(scores.punsafe[row.index]),
        "pwatermark": float(scores.pwatermark[row.index]),
        "key": f"{row.shard:05d}{row.index:0{digits}d}",
        "status": "success" if size else "failed_to_download",
        "error_message": None if size else rng.choice(_FAILURES),
        "width": width,
        "height": height,
        "original_width": round(width * download) if width else None,
        "original_height": round(height * download) if height else None,
        "exif": "{}" if size else None,
        "sha256": hashlib.sha256(downloaded.encode()).hexdigest() if size else None,
    }


def stats(records: Sequence[dict[str, Any]], written: int) -> dict[str, Any]:
    """What `_stats.json` says of a shard whose download began at the time `written`, in seconds since 1970."""
    successes = sum(one["status"] == "success" for one in records)
    messages = [one["error_message"] or "success" for one in records]
    return {
        "count": len(records),
        "successes": successes,
        "failed_to_download": len(records) - successes,
        "failed_to_resize": 0,
        "duration": 12.5,
        "start_time": float(written),
        "end_time": written + 12.5,
        "status_dict": {message: messages.count(message) for message in sorted(set(messages))},
    }


def true_row(shard: str, row: Row, described: dict[str, Any]) -> dict[str, Any]:
    """One row of the truth; `described` is what `record` gave for it."""
    faults = ("failed", "broken", "too_small", "uninformative", "unsafe", "mismatched")
    return {
        "shard": shard,
        "key": described["key"],
        "uid": described["uid"],
        "fault": row.fault,
        **{fault: row.fault == fault for fault in faults},
        "picture": row.picture,
        "edit": row.edit,
        "meaning": row.scene.meaning,
        "colour": row.scene.colour,
        "shape": row.scene.shape,
        "size": row.scene.size,
        "background": row.scene.background,
        "said_meaning": row.said.meaning if row.said else None,
    }
