"""How fast signals are computed, beside a bare loop that does nothing but read, decode and average.

`python -m bench.signals [--tars 16] [--samples 2000] [--workers 2] [--rounds 3]` writes tars of photos-like pictures
(384 pixels, JPEG, 6 KB on average), then takes the mean of every picture in turns: by bare processes (`pread` at known
offsets, Pillow, mean; each process gets its share at once) and by the signal engine, both with and without the time
that starting the processes takes. Then the bundled signals, one by one and all those of a picture in one pass, beside
decoding alone. The median of the rounds counts. CPU seconds are of this process and its workers. `--only bundled` or
`--only mean` measures one of the two; `--photos FOLDER` takes the JPEGs of a folder in place of made pictures.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import resource
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.pool import Pool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

    from factory_lib.signals import Signal

SIDE = 384
PICTURES = 64
Span = tuple[str, int, int]


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tars", type=int, default=16)
    parser.add_argument("--samples", type=int, default=2_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["mean", "bundled"])
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-signals-", dir=os.environ.get("BENCH_FOLDER")))
    try:
        pictures = photos_of(options.photos) if options.photos else made_pictures()
        spans, size = write_tars(folder, pictures, options.tars, options.samples)
        if options.only != "bundled":
            compare(spans, size, options)
        if options.only != "mean":
            bundled(spans, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def compare(spans: list[list[Span]], size: int, options: argparse.Namespace) -> None:
    """The mean of every picture, by bare processes and by the engine, in turns."""
    from bench.report import print_report
    from factory_lib.compute.pool import stop_workers
    from factory_lib.signals import signal

    mean = signal(mean_of, name="mean")
    rows = rows_of(spans)
    flat = [span for shard in spans for span in shard]
    shares = [
        flat[len(flat) * n // options.workers : len(flat) * (n + 1) // options.workers] for n in range(options.workers)
    ]
    taken: dict[str, list[tuple[float, float]]] = {}
    context = multiprocessing.get_context("spawn")
    for _ in range(options.rounds):
        with context.Pool(options.workers) as bare:
            taken.setdefault("bare loop, with its start", []).append(measured(lambda: run_bare(bare, shares)))
            taken.setdefault("bare loop", []).append(measured(lambda: run_bare(bare, shares)))
        stop_workers()
        taken.setdefault("signal engine, with its start", []).append(measured(lambda: run(mean, rows, options.workers)))
        taken.setdefault("signal engine", []).append(measured(lambda: run(mean, rows, options.workers)))
        stop_workers()
    table = []
    for name, runs in taken.items():
        wall, cpu = (statistics.median(column) for column in zip(*runs, strict=True))
        base = taken[name.replace("signal engine", "bare loop")]
        of_wall, of_cpu = (statistics.median(column) for column in zip(*base, strict=True))
        table.append((name, wall, len(flat) / wall, cpu, 1e6 * cpu / len(flat), of_wall / wall, of_cpu / cpu))
    print_report(
        f"Mean of {len(flat):,} pictures ({size / len(flat) / 1e3:.1f} KB), {options.workers} processes, "
        f"median of {options.rounds} rounds",
        ["what", "seconds", "pictures/s", "CPU s", "CPU µs/picture", "speed / bare", "CPU bare / CPU"],
        table,
    )


def bundled(spans: list[list[Span]], options: argparse.Namespace) -> None:
    """The bundled signals, one by one and those of a picture in one pass, beside decoding alone, in turns."""
    from bench.report import print_report
    from factory_lib.signals import hashes, image, signal, text, thumbnails

    decoding = signal(decoded)
    of_pictures = [
        image.image_header,
        image.quality,
        hashes.phash,
        hashes.dhash,
        hashes.pixel_md5,
        thumbnails.thumbnail,
    ]
    runs: dict[str, list[Signal]] = {"decoding alone": [decoding]}
    runs |= {one.name: [one] for one in of_pictures}
    runs |= {"all of these": of_pictures, "without pixel_md5": [one for one in of_pictures if one.name != "pixel_md5"]}
    runs |= {one.name: [one] for one in (hashes.sha256, text.caption_stats)}
    rows = rows_of(spans[: max(1, options.tars // 4)])
    count = sum(batch.num_rows for batch in rows)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(options.rounds + 1):
        for name, signals in runs.items():
            taken[name].append(measured(lambda given=signals: run(given, rows, options.workers)))
    # The first round warms the processes.
    found = {
        name: [statistics.median(column) for column in zip(*times[1:], strict=True)] for name, times in taken.items()
    }
    alone = found["decoding alone"][1]
    print_report(
        f"Bundled signals over {count:,} of the pictures, processes warm, median of {options.rounds} rounds",
        ["signals", "seconds", "samples/s", "CPU µs/sample", "CPU / decoding"],
        [(name, wall, count / wall, 1e6 * cpu / count, cpu / alone) for name, (wall, cpu) in found.items()],
    )


def decoded(image: Image.Image) -> bool:
    """Nothing: the picture is decoded for it."""
    return image.width > 0


def mean_of(image: Image.Image) -> float:
    """Mean of all pixels and channels, 0 to 255."""
    return float(np.asarray(image).mean())


def run(signals: Signal | Sequence[Signal], rows: Sequence[pa.RecordBatch], workers: int) -> int:
    """Compute signals over rows; returns how many values there are."""
    from factory_lib.compute.run import compute
    from factory_lib.signals import Signal

    given = [signals] if isinstance(signals, Signal) else list(signals)
    return sum(batch.num_rows for batch in compute(given, rows, workers=workers, on_error="raise"))


def run_bare(pool: Pool, shares: list[list[Span]]) -> int:
    """The bare loop in every process of a pool."""
    return sum(pool.map(bare, shares, chunksize=1))


def bare(share: list[Span]) -> int:
    """Read, decode and average, and nothing else."""
    from PIL import Image

    files: dict[str, int] = {}
    means = []
    for path, offset, size in share:
        if path not in files:
            files[path] = os.open(path, os.O_RDONLY)
        means.append(float(np.asarray(Image.open(io.BytesIO(os.pread(files[path], size, offset)))).mean()))
    for descriptor in files.values():
        os.close(descriptor)
    return len(means)


def measured(action: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds of an action, workers included."""
    cpu, start = cpu_seconds(), time.perf_counter()
    action()
    return time.perf_counter() - start, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """CPU seconds of this process and its children, living or reaped."""
    ticks = 0
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread or a process that ended meanwhile
            for child in (task / "children").read_text().split():
                fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
    own = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return ticks / os.sysconf("SC_CLK_TCK") + sum(one.ru_utime + one.ru_stime for one in own)


def made_pictures() -> list[bytes]:
    """Photo-like JPEGs of `SIDE` pixels."""
    from PIL import Image

    random = np.random.default_rng(0)
    pictures = []
    for number in range(PICTURES):
        coarse = random.integers(0, 256, (12 + number % 5, 12, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(
            buffer, "JPEG", quality=10 + number % 12
        )
        pictures.append(buffer.getvalue())
    return pictures


def photos_of(folder: Path) -> list[bytes]:
    """The JPEGs of a folder, or those of the samples of its tars."""
    photos = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))]
    for path in sorted(folder.rglob("*.tar")):
        with tarfile.open(path) as tar:
            photos += [tar.extractfile(member).read() for member in tar if member.name.endswith(".jpg")]  # type: ignore[union-attr]
    return photos


def write_tars(folder: Path, pictures: list[bytes], tars: int, samples: int) -> tuple[list[list[Span]], int]:
    """Tars of so many samples with these pictures; returns where each member lies, by tar, and the bytes of all."""
    spans: list[list[Span]] = []
    total = 0
    for shard in range(tars):
        path = folder / f"{shard:05d}.tar"
        with tarfile.open(path, "w") as tar:
            for number in range(samples):
                data = pictures[(shard * 7 + number) % len(pictures)]
                member = tarfile.TarInfo(f"{shard:05d}{number:04d}.jpg")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
                total += len(data)
        with tarfile.open(path) as tar:
            spans.append([(str(path), member.offset_data, member.size) for member in tar])
    return spans, total


def rows_of(spans: list[list[Span]]) -> list[pa.RecordBatch]:
    """Rows that point at the members, as a version gives them."""
    import pyarrow as pa

    rows = []
    for shard in spans:
        uris, offsets, sizes = (list(column) for column in zip(*shard, strict=True))
        pointer = pa.StructArray.from_arrays(
            [pa.array(uris), pa.array(offsets, pa.uint64()), pa.array(sizes, pa.uint64())],
            names=["uri", "offset", "size"],
        )
        position = pa.array(range(len(shard)), pa.uint32())
        captions = [f"a photo of sample {number} in IMG_{number:04d}.jpg" for number in range(len(shard))]
        columns = [pa.array([uris[0]] * len(shard)), position, position.cast(pa.uint64()), pa.array(captions), pointer]
        rows.append(pa.RecordBatch.from_arrays(columns, names=["shard", "position", "sample_id", "caption", "image"]))
    return rows


if __name__ == "__main__":
    main()
