"""Writes a LAION-shaped folder of rendered, captioned images, laid out as img2dataset does, with its truth beside it.

`path/NNNNN.tar` holds `key.jpg`, `key.txt` and `key.json` of each downloaded row in completion order,
`path/NNNNN.parquet` the metadata of all rows, failed downloads included, in another order, `path/NNNNN_stats.json`
the counts, and `path/NNNNN.npz` vectors (`key`, `img_emb`, `txt_emb`), row i of which belongs to row i of the
parquet. `path.truth.parquet`, beside the folder, says what each row really is; only a report may read it. The same
recipe always writes the same samples.
"""

from __future__ import annotations

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

from factory_assets.demo.rendered.draw import render
from factory_assets.demo.rendered.edits import DAMAGES, EDITS, damage, encode
from factory_assets.demo.rendered.plan import RenderingRecipe, Row, picture_seed, plan_shard
from factory_assets.demo.rendered.records import METADATA, TRUTH, record, stats, true_row
from factory_assets.demo.rendered.scores import score
from factory_lib.errors import SourceError
from factory_lib.lifeline import end_with_creator
from factory_lib.pictures import open_picture

_EPOCH = 1_700_000_000  # everything seems to have been written then: equal folders are equal bytes


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
    recipe = RenderingRecipe(rows=-(-samples // shards), seed=seed)
    folder = Path(path).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    truths = []
    for truth in _write_shards(folder, recipe, shards, workers):
        truths.append(truth)
        if progress is not None:
            progress(len(truth))
    return _finish(folder, recipe, pa.concat_tables(truths))


def add_shard(path: str | Path) -> RenderedFolder:
    """Add one more shard to a folder that `write_folder` wrote, as a crawl does that goes on.

    It has as many rows as the others, and near-duplicates of their pictures.

    Raises:
        SourceError: the folder has no truth beside it, so it was not written here.
    """
    folder, beside = Path(path).absolute(), truth_path(path)
    if not beside.exists():
        raise SourceError(f"{folder} has no {beside.name} beside it.", "Write the folder with write_folder first.")
    truth = pq.read_table(beside)
    recipe = _recipe_of(truth)
    number = len(truth) // recipe.rows
    return _finish(folder, recipe, pa.concat_tables([truth, _write_shard(folder, recipe, number)]))


def _write_shards(folder: Path, recipe: RenderingRecipe, shards: int, workers: int) -> Iterator[pa.Table]:
    if workers <= 1:
        for number in range(shards):
            yield _write_shard(folder, recipe, number)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), end_with_creator) as pool:
        yield from pool.map(_write_shard, [folder] * shards, [recipe] * shards, range(shards))


def _finish(folder: Path, recipe: RenderingRecipe, truth: pa.Table) -> RenderedFolder:
    described = {"rows": recipe.rows, "seed": recipe.seed, "shares": dict(recipe.shares)}
    truth = truth.replace_schema_metadata({b"recipe": json.dumps(described).encode()})
    pq.write_table(truth, truth_path(folder))
    failed = int(truth["failed"].to_numpy().sum())
    return RenderedFolder(folder, truth_path(folder), len(truth) // recipe.rows, len(truth), len(truth) - failed)


def _recipe_of(truth: pa.Table) -> RenderingRecipe:
    described = json.loads((truth.schema.metadata or {}).get(b"recipe", b"{}"))
    if not described:
        raise SourceError("This truth does not say which recipe it was written with.", "Write the folder anew.")
    return RenderingRecipe(**described)


def _write_shard(folder: Path, recipe: RenderingRecipe, number: int) -> pa.Table:
    """Write the four files of one shard and return its rows of the truth."""
    name = f"{number:05d}"
    rows = plan_shard(recipe, number)
    scores = score(recipe, number, rows)
    records: list[dict[str, Any]] = [{} for _ in rows]
    with tarfile.open(folder / f"{name}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for index in _order(recipe, number, "tar"):
            row = rows[index]
            jpeg, size = (None, None) if row.fault == "failed" else _jpeg(recipe, row)
            described = records[index] = record(recipe, row, scores, size)
            if jpeg is not None:
                _add(tar, f"{described['key']}.jpg", jpeg)
                _add(tar, f"{described['key']}.txt", row.caption.encode())
                _add(tar, f"{described['key']}.json", json.dumps(described, indent=4).encode())
    order = _order(recipe, number, "parquet")
    pq.write_table(pa.Table.from_pylist([records[i] for i in order], schema=METADATA), folder / f"{name}.parquet")
    keys = np.array([records[i]["key"] for i in order])
    np.savez(folder / f"{name}.npz", key=keys, img_emb=scores.image[order], txt_emb=scores.text[order])
    (folder / f"{name}_stats.json").write_text(json.dumps(stats(records, _EPOCH), indent=4))
    return pa.Table.from_pylist([true_row(name, row, records[row.index]) for row in rows], schema=TRUTH)


def _order(recipe: RenderingRecipe, shard: int, of: str) -> list[int]:
    order = list(range(recipe.rows))
    Random(f"order-{of}-{recipe.seed}/{shard}").shuffle(order)
    return order


def _jpeg(recipe: RenderingRecipe, row: Row) -> tuple[bytes, tuple[int, int]]:
    """The stored bytes of a row's picture, and the size that its metadata claims."""
    seed = picture_seed(recipe, row.picture)
    rng = Random(f"edit-{recipe.seed}/{row.shard}/{row.index}")
    size = (rng.randint(24, 72), rng.randint(24, 72)) if row.fault == "too_small" else None
    picture = render(row.scene, seed, size)
    if row.edit in EDITS:
        jpeg = EDITS[row.edit](picture, rng)
        return jpeg, open_picture(jpeg).size
    jpeg = encode(picture)
    return (damage(row.edit, jpeg, rng) if row.edit in DAMAGES else jpeg), picture.size


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime = len(data), _EPOCH
    tar.addfile(member, io.BytesIO(data))
