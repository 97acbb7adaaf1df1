"""Writes a LAION-shaped folder of rendered, captioned images, laid out as img2dataset does, with its truth beside it.

`path/NNNNN.tar` holds `key.jpg`, `key.txt` and `key.json` of each downloaded row in completion order,
`path/NNNNN.parquet` the metadata of all rows, failed downloads included, in another order, `path/NNNNN_stats.json`
the counts, and `path/NNNNN.npz` vectors (`key`, `img_emb`, `txt_emb`), row i of which belongs to row i of the
parquet. `path.truth.parquet`, beside the folder, says what each row really is; only a report may read it. The same
recipe always writes the same samples.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from factory_lib.errors import SourceError
from factory_lib.rendered.draw import render
from factory_lib.rendered.edits import DAMAGES, EDITS, damage, encode
from factory_lib.rendered.plan import Recipe, Row, picture_seed, plan_shard
from factory_lib.rendered.scores import Scores, score

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

_EPOCH = 1_700_000_000
_FAILURES = ("HTTP Error 404: Not Found", "HTTP Error 403: Forbidden", "<urlopen error timed out>")


@dataclass(frozen=True)
class RenderedFolder:
    """A written folder: where its shards and its truth are, and how many rows and pictures it has."""

    path: Path
    truth: Path
    shards: int
    rows: int
    images: int


def truth_path(path: str | Path) -> Path:
    """Where the truth of a folder lies: beside it, so that no reader of the folder meets it."""
    folder = Path(path).absolute()
    return folder.with_name(f"{folder.name}.truth.parquet")


def write_folder(
    path: str | Path,
    samples: int = 6000,
    shards: int = 12,
    seed: int = 0,
    *,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> RenderedFolder:
    """Write a folder of rendered, captioned images.

    Args:
        path: the folder; made, and its shards of the same names overwritten.
        samples: rows in all, failed downloads included; rounded up to whole shards.
        shards: how many shards, at most 100,000.
        seed: of everything random.
        workers: processes that draw.
        progress: called with the rows of each shard that is finished.

    Returns:
        what was written.
    """
    recipe = Recipe(rows=-(-samples // shards), seed=seed)
    folder = Path(path).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    truths = []
    for truth in _write_shards(folder, recipe, shards, workers):
        truths.append(truth)
        if progress is not None:
            progress(len(truth))
    return _finish(folder, recipe, pa.concat_tables(truths))


def add_shard(path: str | Path, rows: int | None = None) -> RenderedFolder:
    """Add one more shard to a folder that `write_folder` wrote, as a crawl does that goes on.

    Args:
        path: the folder.
        rows: refused unless it equals the rows of the folder's other shards, which is the default.

    Raises:
        SourceError: the folder has no truth beside it, so it was not written here.
    """
    folder, beside = Path(path).absolute(), truth_path(path)
    if not beside.exists():
        raise SourceError(f"{folder} has no {beside.name} beside it.", "Write the folder with write_folder first.")
    truth = pq.read_table(beside)
    recipe = _recipe_of(truth)
    if rows not in (None, recipe.rows):
        raise SourceError(f"The shards of {folder} have {recipe.rows} rows, not {rows}.", "Leave rows out.")
    number = len(truth) // recipe.rows
    return _finish(folder, recipe, pa.concat_tables([truth, _write_shard(folder, recipe, number)]))


def _write_shards(folder: Path, recipe: Recipe, shards: int, workers: int) -> Iterator[pa.Table]:
    if workers <= 1:
        for number in range(shards):
            yield _write_shard(folder, recipe, number)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_write_shard, [folder] * shards, [recipe] * shards, range(shards))


def _finish(folder: Path, recipe: Recipe, truth: pa.Table) -> RenderedFolder:
    described = {"rows": recipe.rows, "seed": recipe.seed, "shares": dict(recipe.shares)}
    truth = truth.replace_schema_metadata({b"recipe": json.dumps(described).encode()})
    pq.write_table(truth, truth_path(folder))
    failed = int(truth["failed"].to_numpy().sum())
    return RenderedFolder(folder, truth_path(folder), len(truth) // recipe.rows, len(truth), len(truth) - failed)


def _recipe_of(truth: pa.Table) -> Recipe:
    described = json.loads((truth.schema.metadata or {}).get(b"recipe", b"{}"))
    if not described:
        raise SourceError("This truth does not say which recipe it was written with.", "Write the folder anew.")
    return Recipe(**described)


def _write_shard(folder: Path, recipe: Recipe, number: int) -> pa.Table:
    """Write the four files of one shard and return its rows of the truth."""
    name = f"{number:05d}"
    rows = plan_shard(recipe, number)
    scores = score(recipe, number, rows)
    records: list[dict[str, Any]] = [{} for _ in rows]
    with tarfile.open(folder / f"{name}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for index in _order(recipe, number, "tar"):
            row = rows[index]
            jpeg, size = (None, None) if row.fault == "failed" else _jpeg(recipe, row)
            record = records[index] = _record(recipe, row, scores, size)
            if jpeg is not None:
                _add(tar, f"{record['key']}.jpg", jpeg)
                _add(tar, f"{record['key']}.txt", row.caption.encode())
                _add(tar, f"{record['key']}.json", json.dumps(record, indent=4).encode())
    order = _order(recipe, number, "parquet")
    pq.write_table(pa.Table.from_pylist([records[i] for i in order], schema=METADATA), folder / f"{name}.parquet")
    keys = np.array([records[i]["key"] for i in order])
    np.savez(folder / f"{name}.npz", key=keys, img_emb=scores.image[order], txt_emb=scores.text[order])
    (folder / f"{name}_stats.json").write_text(json.dumps(_stats(records), indent=4))
    return pa.Table.from_pylist([_true(name, row, records[row.index]) for row in rows], schema=TRUTH)


def _order(recipe: Recipe, shard: int, of: str) -> list[int]:
    order = list(range(recipe.rows))
    Random(f"order-{of}-{recipe.seed}/{shard}").shuffle(order)
    return order


def _jpeg(recipe: Recipe, row: Row) -> tuple[bytes, tuple[int, int]]:
    """The stored bytes of a row's picture, and the size that its metadata claims."""
    seed = picture_seed(recipe, row.picture)
    rng = Random(f"edit-{recipe.seed}/{row.shard}/{row.index}")
    size = (rng.randint(24, 72), rng.randint(24, 72)) if row.fault == "too_small" else None
    picture = render(row.scene, seed, size)
    if row.edit in EDITS:
        from PIL import Image

        jpeg = EDITS[row.edit](picture, rng)
        return jpeg, Image.open(io.BytesIO(jpeg)).size
    jpeg = encode(picture)
    return (damage(row.edit, jpeg, rng) if row.edit in DAMAGES else jpeg), picture.size


def _record(recipe: Recipe, row: Row, scores: Scores, size: tuple[int, int] | None) -> dict[str, Any]:
    """One row of the parquet, which is also the json member of the tar."""
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


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime = len(data), _EPOCH
    tar.addfile(member, io.BytesIO(data))


def _stats(records: list[dict[str, Any]]) -> dict[str, Any]:
    successes = sum(record["status"] == "success" for record in records)
    messages = [record["error_message"] or "success" for record in records]
    return {
        "count": len(records),
        "successes": successes,
        "failed_to_download": len(records) - successes,
        "failed_to_resize": 0,
        "duration": 12.5,
        "start_time": float(_EPOCH),
        "end_time": _EPOCH + 12.5,
        "status_dict": {message: messages.count(message) for message in sorted(set(messages))},
    }


def _true(shard: str, row: Row, record: dict[str, Any]) -> dict[str, Any]:
    faults = ("failed", "broken", "too_small", "uninformative", "unsafe", "mismatched")
    return {
        "shard": shard,
        "key": record["key"],
        "uid": record["uid"],
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
