"""What a change costs: a new shard, nothing new, samples appended to a shard, metadata that changes alone.

`python -m bench.incremental [--shards 17] [--samples 2000]` writes tars of pictures (384 pixels, JPEG) with captions,
ingests them and computes bundled signals over them, from source to signals, through the library. CPU seconds are of
this process, its workers and the engine.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from factory_lib.warehouse.versions import Version

SIDE = 384
PICTURES = 64
APPENDED = 10


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=17)
    parser.add_argument("--samples", type=int, default=2_000)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-incremental-", dir=os.environ.get("BENCH_FOLDER")))
    os.environ["FACTORY_HOME"] = str(folder / "home")
    from factory_lib.warehouse.embedded import stop_engine

    try:
        compare(folder / "tars", options.shards, options.samples)
    finally:
        for home in ("home", "kept"):
            stop_engine(folder / home)
        shutil.rmtree(folder, ignore_errors=True)


def compare(folder: Path, shards: int, samples: int) -> None:
    """Run the library's path again and again over a folder that changes."""
    from bench.report import print_report

    data = pictures()
    folder.mkdir()
    (folder.parent / "warm").mkdir()
    write_tar(folder.parent / "warm" / "warm.tar", data, 999, 256)
    measured(lambda: run(folder.parent / "warm", "warm"))  # processes are started, code is loaded
    for number in range(shards):
        write_tar(folder / f"{number:05d}.tar", data, number, samples)
    full = measured(lambda: run(folder, "full"))
    os.environ["FACTORY_HOME"] = str(folder.parent / "kept")  # nothing of that is known here
    measured(lambda: run(folder.parent / "warm", "warm"))
    last = folder / f"{shards - 1:05d}.tar"
    aside = folder.parent / last.name
    last.rename(aside)
    most = measured(lambda: run(folder, "kept"))
    aside.rename(last)
    steps = [
        (f"all {shards} shards", full),
        (f"{shards - 1} shards", most),
        ("the last shard, the others done", measured(lambda: run(folder, "kept"))),
        ("nothing new", measured(lambda: run(folder, "kept"))),
    ]
    write_tar(last, data, shards - 1, samples + APPENDED)
    steps.append((f"{APPENDED} samples appended to a shard", measured(lambda: run(folder, "kept"))))
    os.utime(last)
    steps.append(("a shard written anew as it was", measured(lambda: run(folder, "kept"))))
    share = (full.seconds / shards, full.cpu / shards)
    rows = [
        (
            what,
            f"{one.seconds:.2f}",
            f"{one.cpu:.2f}",
            f"{one.seconds / share[0]:.2f}",
            f"{one.cpu / share[1]:.2f}",
            f"{one.computed:,}",
            f"{one.reused:,}",
            one.commits,
        )
        for what, one in steps
    ]
    header = ("", "s", "CPU s", "of a shard's s", "of its CPU s", "computed", "taken over", "commits")
    print_report(f"{samples:,} samples a shard, {len(signals())} signals", header, rows)


@dataclass(frozen=True)
class Taken:
    """What a run took: wall and CPU seconds, values computed and taken over, versions committed."""

    seconds: float
    cpu: float
    computed: int
    reused: int
    commits: int


def signals() -> list[object]:
    """The signals that are computed."""
    from factory_lib.signals.hashes import dhash, phash
    from factory_lib.signals.image import image_header, quality
    from factory_lib.signals.text import caption_stats

    return [image_header, quality, phash, dhash, caption_stats]


def run(folder: Path, name: str) -> list[Version]:
    """From source to signals: both datasets are brought up to date."""
    from factory_lib import DatasetQuery

    samples = DatasetQuery.from_source(str(folder)).refresh(f"{name}_samples")
    measured = DatasetQuery(samples).add_signals(*signals()).refresh(f"{name}_signals")  # type: ignore[arg-type]
    return [samples, measured]


_seen: set[str] = set()


def measured(work: Callable[[], list[Version]]) -> Taken:
    """Run and see what it took."""
    begun, cpu = time.perf_counter(), cpu_seconds()
    versions = work()
    seconds, used = time.perf_counter() - begun, cpu_seconds() - cpu
    new = [version for version in versions if version.uuid not in _seen]
    _seen.update(version.uuid for version in versions)
    records = [version.provenance for version in new if version.provenance is not None]
    computed, reused = sum(one.computed for one in records), sum(one.reused for one in records)
    return Taken(seconds, used, computed, reused, len(new))


def cpu_seconds() -> float:
    """CPU seconds of this process and of everything that it started, so far."""
    from factory_lib.settings import settings
    from factory_lib.warehouse.embedded import engine_status

    parents = {}
    ticks = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(path.parent.name)
        parents[pid] = int(fields[1])
        ticks[pid] = int(fields[11]) + int(fields[12])
    status = engine_status(settings().home)
    mine = {os.getpid(), *([int(status["pid"])] if status else [])}
    mine |= {pid for pid, parent in parents.items() if parent in mine}
    return sum(ticks.get(pid, 0) for pid in mine) / os.sysconf("SC_CLK_TCK")


def pictures() -> list[bytes]:
    """Different pictures, some kilobytes each."""
    from PIL import Image

    draw = np.random.default_rng(0)
    found = []
    for _ in range(PICTURES):
        small = Image.fromarray(draw.integers(0, 255, (12, 12, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=80)
        found.append(buffer.getvalue())
    return found


def write_tar(path: Path, data: list[bytes], seed: int, samples: int) -> None:
    """A tar of samples, no two of which have the same bytes; written anew as a whole."""
    with tarfile.open(path.with_suffix(".part"), "w") as tar:
        for i in range(samples):
            number = seed * 1_000_000 + i
            for extension, content in (
                ("jpg", data[i % PICTURES] + number.to_bytes(8, "little")),
                ("txt", f"a picture of the number {number}".encode()),
            ):
                about = tarfile.TarInfo(f"{number:09d}.{extension}")
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))
    path.with_suffix(".part").rename(path)


if __name__ == "__main__":
    main()
