"""Rows to load, without a warehouse: tars written here, and the reader that a query would give."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image


def jpeg(seed: int, width: int = 40, height: int = 32) -> bytes:
    """A picture of one colour that tells its number: red = seed % 251, green = seed // 251."""
    out = io.BytesIO()
    Image.new("RGB", (width, height), (seed % 251, seed // 251 % 251, 128)).save(out, "PNG")
    return out.getvalue()


def write_shards(folder: Path, sizes: list[int], data: Callable[[int], bytes] = jpeg) -> pa.Table:
    """One tar a shard; sample number n has data(n). The table of all rows in storage order."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    number = 0
    for shard, count in enumerate(sizes):
        path = folder / f"{shard:05d}.tar"
        with tarfile.open(path, "w") as tar:
            for _ in range(count):
                content = data(number)
                member = tarfile.TarInfo(f"{number:06d}.png")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
                number += 1
        with tarfile.open(path) as tar:
            members = [(m.offset_data, m.size) for m in tar]
        rows += [
            {"shard": f"{shard:05d}", "image": {"uri": str(path), "offset": offset, "size": size}}
            for offset, size in members
        ]
    table = pa.Table.from_pylist(rows, schema=pa.schema([("shard", pa.string()), ("image", POINTER)]))
    return table.append_column("number", pa.array(np.arange(number))).append_column(
        "caption", pa.array([f"sample {n}" for n in range(number)])
    )


POINTER = pa.struct([("uri", pa.string()), ("offset", pa.uint64()), ("size", pa.uint64())])


def reader_of(table: pa.Table, batch_rows: int = 100) -> Callable[[], pa.RecordBatchReader]:
    """What `to_torch` takes as its rows."""
    return lambda: pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=batch_rows))


def numbers(batches: Iterable[Any], count: int | None = None) -> list[list[int]]:
    """The column `number` of batches, of the first so many if said."""
    found = []
    for batch in batches:
        found.append(batch["number"].tolist())
        if len(found) == count:
            break
    return found
