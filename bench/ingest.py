"""How fast shards become rows: tar headers, captions, parquet and vectors, first to Arrow, then into the warehouse.

    python bench/ingest.py [--tars 16] [--samples 2000] [--dim 512] [--workers 2] [--only-arrow]

Writes shards of random bytes as img2dataset lays them out (6 KB a picture, txt, json, a parquet and an npz of float16
vectors beside each tar) into a temporary folder, and times reading all of them. CPU seconds are of this process and the
processes that it started, the warehouse included.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import os
import platform
import resource
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PICTURE_BYTES = 6_000


def write_shards(folder: Path, tars: int, samples: int, dim: int) -> int:
    """Write shards; returns their bytes."""
    rng = np.random.default_rng(0)
    for tar in range(tars):
        records = [record(tar, row, rng) for row in range(samples)]
        with tarfile.open(folder / f"{tar:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for each in records:
                picture = rng.bytes(PICTURE_BYTES + int(rng.integers(-2000, 2000)))
                for extension, data in (
                    ("jpg", picture),
                    ("txt", each["caption"].encode()),
                    ("json", json.dumps(each, indent=4).encode()),
                ):
                    about = tarfile.TarInfo(f"{each['key']}.{extension}")
                    about.size = len(data)
                    archive.addfile(about, io.BytesIO(data))
        order = rng.permutation(samples)
        table = pa.Table.from_pylist([records[row] for row in order])
        pq.write_table(table, folder / f"{tar:05d}.parquet")
        np.savez(folder / f"{tar:05d}.npz", img_emb=rng.standard_normal((samples, dim)).astype(np.float16))
        (folder / f"{tar:05d}_stats.json").write_text(json.dumps({"count": samples, "successes": samples}))
    return sum(path.stat().st_size for path in folder.iterdir())


def record(tar: int, row: int, rng: np.random.Generator) -> dict[str, object]:
    """Metadata of one sample, as img2dataset has it."""
    return {
        "uid": rng.bytes(16).hex(),
        "caption": f"a photo of thing number {row} of shard {tar}, in good light",
        "url": f"https://images.example/{tar}/{row}.jpg",
        "key": f"{tar:05d}{row:04d}",
        "status": "success",
        "error_message": None,
        "width": 256,
        "height": 256,
        "original_width": 800,
        "original_height": 600,
        "similarity": float(rng.random()),
        "sha256": rng.bytes(32).hex(),
    }


def timed(action: Callable[[], int]) -> tuple[int, float, float]:
    """Rows, wall seconds and CPU seconds of this process and of its ended children."""

    def cpu() -> float:
        return sum(
            used.ru_utime + used.ru_stime
            for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        )

    wall, before = time.perf_counter(), cpu()
    rows = action()
    return rows, time.perf_counter() - wall, cpu() - before


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tars", type=int, default=16)
    parser.add_argument("--samples", type=int, default=2_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only-arrow", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ingest-") as temporary:
        os.environ["FACTORY_HOME"] = str(Path(temporary) / "home")
        folder = Path(temporary) / "shards"
        folder.mkdir()
        size = write_shards(folder, options.tars, options.samples, options.dim)
        print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {datetime.date.today()}")
        print(
            f"{options.tars} tars x {options.samples} samples, {size / 1e6:.0f} MB, vectors of {options.dim} float16\n"
        )
        print("| what | samples | seconds | samples/s | CPU s | samples per CPU s |")
        print("|---|---|---|---|---|---|")
        for name, action in cases(str(folder), options.workers, options.only_arrow):
            rows, wall, cpu = timed(action)
            print(
                f"| {name} | {rows:,} | {wall:.2f} | {rows / wall:,.0f} | {cpu:.2f} | {rows / cpu:,.0f} |", flush=True
            )


def cases(uri: str, workers: int, only_arrow: bool) -> list[tuple[str, Callable[[], int]]]:
    """What is measured, in order."""
    from factory_lib.sources import open_source, read_shards

    def read(format: str, workers: int) -> Callable[[], int]:
        def run() -> int:
            source = open_source(uri, format=format)
            return sum(len(batch) for _, batch in read_shards(source, source.shards(), workers))

        return run

    found = [
        ("tar + txt + json -> Arrow, 1 process", read("webdataset", 1)),
        ("tar + txt + parquet + npz -> Arrow, 1 process", read("img2dataset", 1)),
    ]
    if workers > 1:
        found.append((f"tar + txt + parquet + npz -> Arrow, {workers} workers", read("img2dataset", workers)))
    if not only_arrow:
        found.append(("tar + txt + parquet + npz -> a saved version", lambda: ingest(uri)))
    return found


def ingest(uri: str) -> int:
    """Ingest into the embedded warehouse."""
    from factory_lib import DatasetQuery

    return DatasetQuery.from_source(uri).save("ingested").rows


if __name__ == "__main__":
    main()
