"""What an export costs beside copying the same tars and beside Python's tarfile: `python -m bench.exports`."""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from factory_lib import DatasetQuery, export
from factory_lib.writing import HuggingFaceExport, WebDatasetExport


def write_pool(folder: Path, samples: int, size: int, tars: int) -> int:
    """Tars of random bytes that begin as JPEGs do; how many bytes they have."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for shard in range(tars):
        with tarfile.open(folder / f"{shard:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for number in range(shard * samples // tars, (shard + 1) * samples // tars):
                picture = b"\xff\xd8\xff" + random.bytes(size)
                about = json.dumps({"uid": f"{number:032x}", "width": 256, "height": 256, "score": number / 7}).encode()
                for extension, data in (("jpg", picture), ("txt", b"a photo of something"), ("json", about)):
                    member = tarfile.TarInfo(f"{number:09d}.{extension}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return sum(path.stat().st_size for path in folder.iterdir())


def copied(pool: Path, out: Path) -> None:
    """`cp`, and a sync of each file."""
    out.mkdir()
    for path in sorted(pool.iterdir()):
        shutil.copyfile(path, out / path.name)
        with open(out / path.name, "rb") as file:
            os.fsync(file.fileno())


def repacked(pool: Path, out: Path) -> None:
    """A loop over tarfile that reads each member and writes it again."""
    out.mkdir()
    for path in sorted(pool.iterdir()):
        with tarfile.open(path) as source, open(out / path.name, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as target:
                for member in source:
                    target.addfile(member, source.extractfile(member))
            file.flush()
            os.fsync(file.fileno())


def measured(name: str, size: int, action: Callable[[], object]) -> None:
    """Print seconds, seconds of this process's CPU, and MB/s of either."""
    os.sync()
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{name:34} {wall:7.2f} s {size / wall / 1e6:8.0f} MB/s   {cpu:7.2f} CPU-s {size / cpu / 1e6:8.0f} MB/CPU-s")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=20_000, help="of a picture")
    parser.add_argument("--tars", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["FACTORY_HOME"] = str(folder / "home")
        size = write_pool(folder / "pool", given.samples, given.bytes, given.tars)
        print(f"{given.samples:,} samples of {given.bytes:,} bytes in {given.tars} tars, {size / 1e6:,.0f} MB")
        DatasetQuery.from_source(str(folder / "pool")).save("pool")
        measured("cp of the tars", size, lambda: copied(folder / "pool", folder / "cp"))
        measured("loop over tarfile", size, lambda: repacked(folder / "pool", folder / "tarfile"))
        tars = WebDatasetExport(samples_per_file=given.samples // given.tars)
        for what, format, shuffle in (
            ("webdataset", tars, False),
            ("webdataset, shuffled", tars, True),
            ("huggingface", HuggingFaceExport(), False),
        ):
            out = str(folder / what)
            measured(
                what, size, lambda f=format, o=out, s=shuffle: export("pool", o, f, shuffle=s, workers=given.workers)
            )
        from factory_lib.warehouse.embedded import stop_engine

        stop_engine(folder / "home")


if __name__ == "__main__":
    main()
