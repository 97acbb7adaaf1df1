"""How fast shards become rows: tar headers, captions, parquet and vectors, first to Arrow, then into the warehouse.

`python -m bench.ingest [--tars 16] [--samples 2000] [--dim 512] [--workers 2]` writes shards of random bytes as
img2dataset lays them out (6 KB a picture, txt, json, and beside each tar a parquet and an npz of float16 vectors) into
a temporary folder, and times reading all of them. CPU seconds are of this process, its workers and the engine.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.report import print_report, timed

PICTURE_BYTES = 6_000


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tars", type=int, default=16)
    parser.add_argument("--samples", type=int, default=2_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-ingest-", dir=os.environ.get("BENCH_FOLDER")))
    os.environ["FACTORY_HOME"] = str(folder / "home")
    from factory_lib.warehouse.embedded import engine_url, stop_engine

    try:
        shards = folder / "shards"
        shards.mkdir()
        size = write_shards(shards, options.tars, options.samples, options.dim)
        engine_url(folder / "home")
        rows = []
        for name, action in cases(str(shards), options.workers):
            before = cpu_seconds(folder / "home")
            samples, wall = timed(action)
            cpu = cpu_seconds(folder / "home") - before
            rows.append((name, f"{samples:,}", wall, samples / wall, cpu, samples / cpu))
        print_report(
            f"Ingest: {options.tars} tars x {options.samples} samples, {size / 1e6:.0f} MB, {options.dim} float16 each",
            ["what", "samples", "seconds", "samples/s", "CPU s", "samples/CPU s"],
            rows,
        )
    finally:
        stop_engine(folder / "home")
        shutil.rmtree(folder, ignore_errors=True)


def cases(uri: str, workers: int) -> list[tuple[str, Callable[[], int]]]:
    """What is measured, in order."""
    from factory_lib import DatasetQuery
    from factory_lib.sources import open_source, read_shards

    def read(format: str, workers: int) -> Callable[[], int]:
        def run() -> int:
            source = open_source(uri, format=format)
            return sum(len(batch) for _, batch in read_shards(source, source.shards(), workers))

        return run

    return [
        ("tar + txt + json to Arrow", read("webdataset", 1)),
        ("tar + txt + parquet + npz to Arrow", read("img2dataset", 1)),
        (f"tar + txt + parquet + npz to Arrow, {workers} processes", read("img2dataset", workers)),
        ("tar + txt + parquet + npz to a version", lambda: DatasetQuery.from_source(uri).save("ingested").rows),
        ("the same again", lambda: DatasetQuery.from_source(uri).save("again").rows),
    ]


def cpu_seconds(home: Path) -> float:
    """CPU seconds so far of this process, of its children that ended, and of the engine."""
    from factory_lib.warehouse.embedded import engine_status

    used = os.times()
    status = engine_status(home)
    total = used.user + used.system + used.children_user + used.children_system
    if status is not None and Path("/proc").is_dir():
        fields = Path(f"/proc/{status['pid']}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


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


if __name__ == "__main__":
    main()
