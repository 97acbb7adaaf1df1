"""The constants that docs/scale.md reckons with: bytes, files, requests, CPU and memory for one row, shard or version.

    python -m bench.scale [--samples 2000] [--shards 100] [--record]

Small runs of what the other benches measure at length, each in turn, some two minutes together. CPU seconds are of this
process, those that it starts and the engine. With --record they are written to `bench/recorded/scale.json`, of which
`python -m bench.scale_page` makes the tables of docs/scale.md.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from factory_lib.warehouse.versions import Version

RECORDED = Path(__file__).parent / "recorded" / "scale.json"
KIND_ROWS = 200_000
FILTER_ROWS = 4_000_000
THUMBNAILS = 200_000
VECTORS, CENTROIDS = 50_000, 1_000
SHARD_COLUMNS = 40
PICTURE_BYTES = 35_000
Constants = dict[str, float]
T = TypeVar("T")


def main() -> None:
    """Measure, print, and record if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2_000)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    parts: dict[str, tuple[Callable[..., Constants], int]] = {
        "bytes of a row, by kind of column": (kinds, KIND_ROWS),
        "ingest": (ingest, options.samples),
        "requests to a store": (requests, options.samples),
        "signals": (signals, options.samples // 4),
        "signals by models": (models, options.samples // 20),
        "near-duplicates": (near_duplicates, THUMBNAILS),
        "clusters": (clusters, VECTORS),
        "shards of a version": (shards, options.shards),
    }
    found: Constants = {}
    for name, (work, size) in parts.items():
        # A process each: what one holds in memory or keeps open is none of the next one's.
        found |= in_a_process(work, size)
        print(f"  {name}: done", file=sys.stderr, flush=True)
    from bench.report import machine, print_report

    print_report("Constants of docs/scale.md", ["constant", "value"], sorted(found.items()))
    if options.record:
        said = {"date": dt.date.today().isoformat(), "machine": machine(), "constants": found}
        RECORDED.write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")


def in_a_process(work: Callable[[int], T], size: int) -> T:
    """What some work gives in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as own:
        return own.submit(work, size).result()


class _Home:
    """A data folder of its own, for one measurement; gone after it."""

    def __enter__(self) -> Path:
        self._folder = Path(tempfile.mkdtemp(prefix="bench-scale-", dir=os.environ.get("BENCH_FOLDER")))
        os.environ["FACTORY_HOME"] = str(self._folder / "home")
        from factory_lib.warehouse.client import warehouse

        warehouse().scalar("SELECT 1")
        return self._folder

    def __exit__(self, *_: object) -> None:
        from factory_lib.warehouse.embedded import stop_engine

        stop_engine(self._folder / "home")
        shutil.rmtree(self._folder, ignore_errors=True)


def spent(work: Callable[[], Any]) -> float:
    """CPU seconds of this process, of those that it started and of the engine, in some work."""
    from bench.ingest import cpu_seconds

    home = Path(os.environ["FACTORY_HOME"])
    before = cpu_seconds(home)
    work()
    return cpu_seconds(home) - before


def kinds(rows: int) -> Constants:
    """What a row takes on disk of columns of each kind, and a filter over them."""
    from factory_lib import C, DatasetQuery

    draw = np.random.default_rng(0)
    words = np.array([draw.bytes(int(length)).hex()[:length] for length in draw.integers(3, 9, 20_000)])
    chosen = np.minimum(draw.zipf(1.3, (rows, 9)), len(words)) - 1  # some 60 letters, frequent words and rare ones
    table = pa.table(
        {
            "key": [f"{row // 10_000:06d}{row % 10_000:04d}" for row in range(rows)],
            "caption": [" ".join(line) for line in words[chosen]],
            "url": [f"https://images.example/{draw.bytes(12).hex()}.jpg" for _ in range(rows)],
            "number": draw.random(rows, dtype=np.float32),
            "flag": draw.random(rows) < 0.5,
            "hash": draw.integers(0, 2**63, rows, dtype=np.uint64),
            "checksum": [draw.bytes(32).hex() for _ in range(rows)],
        }
    )
    numbers = draw.standard_normal((rows // 20, 512)).astype(np.float32)
    vectors = pa.table({"vector": list(numbers)})
    with _Home():
        vectors_saved = DatasetQuery.from_arrow(vectors).mutate(vector=C.vector.cast("Array(BFloat16)")).save("vectors")
        sizes = column_bytes(DatasetQuery.from_arrow(table).save("kinds"))
        two = {"number": draw.random(FILTER_ROWS, dtype=np.float32), "flag": draw.random(FILTER_ROWS) < 0.5}
        pool = DatasetQuery(DatasetQuery.from_arrow(pa.table(two)).save("two"))
        filtered: list[Version] = []
        cpu = spent(lambda: filtered.append(pool.filter((C.number < 0.31) & (C.flag == 1)).save("kept")))
        return {f"bytes_{name}": sizes[name] for name in table.column_names} | {
            "bytes_identity": sum(sizes[name] for name in ("sample_id", "shard", "position")),
            "bytes_vector_512": column_bytes(vectors_saved)["vector"],
            "bytes_mask": column_bytes(filtered[0])["_row_exists"],
            "cpu_us_filter": 1e6 * cpu / FILTER_ROWS,
        }


def ingest(samples: int) -> Constants:
    """Tars of one's own disk to a version, and what pointers and a clone of the version take."""
    from bench.ingest import write_shards
    from bench.report import disk_bytes
    from factory_lib import DatasetQuery

    tars = 8
    with _Home() as folder:
        (folder / "tars").mkdir()
        write_shards(folder / "tars", tars, samples, 1)
        for path in folder.glob("tars/*[!r]"):  # all but the tars
            path.unlink()
        made: list[Version] = []
        cpu = spent(lambda: made.append(DatasetQuery.from_source(str(folder / "tars")).save("pool")))
        before = disk_bytes(folder / "home")
        DatasetQuery("pool").save("clone")
        return {
            "cpu_us_ingest": 1e6 * cpu / (tars * samples),
            "bytes_pointer": column_bytes(made[0])["image"],
            "bytes_clone_partition": (disk_bytes(folder / "home") - before) / tars,
        }


def requests(samples: int) -> Constants:
    """What a store is asked for one tar: at ingest, and when all its pictures are read."""
    import bench.ingest
    from bench.ingest import write_shards
    from factory_lib import DatasetQuery
    from factory_lib.signals.hashes import sha256
    from tests.stub_s3 import StubS3

    bench.ingest.PICTURE_BYTES = PICTURE_BYTES
    few, tars = 4, 8
    with _Home() as folder:
        (folder / "tars").mkdir()
        write_shards(folder / "tars", tars, samples // tars, 1)
        for path in folder.glob("tars/*[!r]"):  # all but the tars
            path.unlink()
        size = (folder / "tars/00000.tar").stat().st_size
        with StubS3(folder / "tars") as stub:
            os.environ |= stub.environment
            asked = {}
            for count in (
                few,
                tars,
            ):  # some tars are looked into before all are read, so more tars are compared with few
                for path in sorted(folder.glob("tars/*"))[count:]:
                    path.rename(folder / path.name)
                pool = DatasetQuery(DatasetQuery.from_source("s3://stub/").save("pool"))
                asked[count] = stub.counters()
                for path in folder.glob("*.tar"):
                    path.rename(folder / "tars" / path.name)
            pool.add_signals(sha256).save("hashed")
            at_signals = stub.counters()
    more = {name: (asked[tars][name] - asked[few][name]) / (tars - few) for name in ("requests", "bytes")}
    return {
        "requests_ingest_tar": more["requests"],
        "share_read_ingest": more["bytes"] / size,
        "mb_a_request_signals": tars * size / 1e6 / at_signals["requests"],
        "share_read_signals": at_signals["bytes"] / (tars * size),
    }


def signals(samples: int) -> Constants:
    """CPU of the bundled signals, processes warm."""
    from bench.signals import made_pictures, measured, rows_of, run, write_tars
    from factory_lib.compute.pool import stop_workers
    from factory_lib.signals import hashes, image, text, thumbnails

    together = [image.image_header, image.quality, hashes.phash, thumbnails.thumbnail]
    runs = {"pictures": together, "sha256": [hashes.sha256], "captions": [text.caption_stats]}
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of(write_tars(Path(folder), made_pictures(), 1, samples)[0])
        found = {}
        for name, some in runs.items():
            run(some, rows, 1)  # warms the processes
            found[f"cpu_us_{name}"] = 1e6 * measured(lambda some=some: run(some, rows, 1))[1] / samples
    stop_workers()
    return found


def models(samples: int) -> Constants:
    """CPU of signals by models, processes warm."""
    from bench.models import signal_of
    from bench.signals import made_pictures, measured, rows_of, run, write_tars
    from factory_lib.compute.pool import stop_workers

    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of(write_tars(Path(folder), made_pictures(), 1, samples)[0])
        found = {}
        for name in ("open_nsfw", "photo_embedding", "text_area"):
            one = signal_of(name)
            run(one, rows, 1)
            found[f"cpu_us_{name}"] = 1e6 * measured(lambda one=one: run(one, rows, 1))[1] / samples
    stop_workers()
    return found


def near_duplicates(samples: int) -> Constants:
    """CPU and memory of the comparison of thumbnails; memory is what twice as many samples take more."""
    (_, less), (cpu, more) = (in_a_process(compared, count) for count in (samples // 2, samples))
    return {"cpu_us_near_duplicates": 1e6 * cpu / samples, "memory_near_duplicates": (more - less) / (samples // 2)}


def compared(samples: int) -> tuple[float, int]:
    """CPU seconds of comparing so many thumbnails, and the bytes that the process held at most."""
    from bench.clusters import costs
    from bench.duplicates import thumbnails_of
    from factory_lib.curation.duplicates.copies import copies
    from factory_lib.curation.duplicates.distinct import Thumbnails

    planes, _ = thumbnails_of(samples, 0.1)
    _, _, cpu, _ = costs(lambda: copies(Thumbnails(planes, np.arange(samples)), 0.85, 10))
    return cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def clusters(samples: int) -> Constants:
    """CPU of k-means' passes and of the cluster of each vector."""
    from bench.clusters import costs, vectors_of
    from factory_lib.curation.clusters.kmeans import kmeans
    from factory_lib.curation.clusters.nearest import nearest

    vectors = vectors_of(samples, 512)
    done, _, training, _ = costs(lambda: kmeans(vectors, CENTROIDS, "cosine", iterations=5, seed=0, batch=None))
    _, _, cpu, _ = costs(lambda: nearest(vectors, done.centroids, "cosine"))
    return {"cpu_us_kmeans_pass": 1e6 * training / 5 / samples, "cpu_us_cluster_of": 1e6 * cpu / samples}


def shards(count: int) -> Constants:
    """What a version costs for each of its shards, rows aside; a shard has `SHARD_COLUMNS` columns."""
    from bench.shards import measured, rows
    from factory_lib import DatasetQuery
    from factory_lib.warehouse.client import warehouse

    cpu = measured(count, SHARD_COLUMNS, 1, ["storage"])
    with _Home():
        names = [f"{i:05d}" for i in range(10)]
        DatasetQuery.from_arrow(rows(names, SHARD_COLUMNS, 0), shard="part").save("laion")
        files = sum(
            len(list(Path(row["path"]).iterdir()))
            for row in warehouse().rows("SELECT path FROM system.parts WHERE active AND database = 'laion'")
        )
        catalog = warehouse().rows(
            "SELECT sum(bytes_on_disk) AS size FROM system.parts WHERE active AND database = 'factory'"
        )
    return {
        "cpu_ms_shard_save": 1e3 * cpu["first save"] / count,
        "cpu_ms_shard_mask": 1e3 * cpu["mask over all"] / count,
        "cpu_ms_shard_column": 1e3 * cpu["column over all"] / count,
        "cpu_ms_commit_one": 1e3 * cpu["commit of one shard"],
        "files_shard": files / len(names),
        "catalog_bytes_shard": float(catalog[0]["size"]) / len(names),
    }


def column_bytes(version: Version) -> Constants:
    """Bytes on disk for one row of each column of a version."""
    from factory_lib.warehouse.client import warehouse

    database, table = str(version).split(".")
    rows = warehouse().rows(
        "SELECT column, sum(column_bytes_on_disk) / sum(rows) AS size FROM system.parts_columns"
        f" WHERE active AND database = '{database}' AND table = '{table}' GROUP BY column"
    )
    return {row["column"]: float(row["size"]) for row in rows}


if __name__ == "__main__":
    main()
