"""How fast batches come: beside other loaders over local tars, from a slow S3 through the caches, and how far a seek is.

`python -m bench.loader [--peers PYTHON] [--tars 16] [--samples 2000] [--rounds 3] [--only local,remote,nodes,seek]`

`--peers` names an interpreter that has torch, `webdataset`, `datasets` and `mosaicml-streaming`; without it only our own
loader is measured. Loaders take turns, each in a process of its own; the median of the later epochs of all rounds counts,
so nobody's workers' start is in it. CPU seconds are of the process and its workers.
"""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import feather

from bench.report import print_report
from factory_lib.storage import store as store_module

BANDWIDTH, LATENCY = 100e6, 0.02
Results = list[dict[str, float]]
_numbers = itertools.count()


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=None)
    parser.add_argument("--tars", type=int, default=16)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--decoded", type=int, default=4000, help="samples of an epoch that are decoded")
    parser.add_argument("--only", default="local,remote,nodes,seek")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder = Path(tempfile.mkdtemp(prefix="bench-loader-", dir=os.environ.get("BENCH_FOLDER")))
    os.environ["FACTORY_HOME"] = str(folder / "home")
    try:
        for name in options.only.split(","):
            store_module._clients.clear()  # each part has a server of its own
            {"local": local, "remote": remote, "nodes": nodes, "seek": seek}[name](folder, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def local(folder: Path, options: argparse.Namespace) -> None:
    """Local tars in the page cache, against other loaders."""
    from bench.signals import made_pictures, rows_of, write_tars

    (folder / "tars").mkdir()
    spans, size = write_tars(folder / "tars", made_pictures(), options.tars, options.samples)
    rows_table = pa.Table.from_batches(rows_of(spans))
    feather.write_feather(rows_table, folder / "rows.arrow", compression="uncompressed")
    # Whole epochs of fewer samples: what is decoded ahead of an epoch's end would count for nobody.
    few, count = folder / "few", max(1, round(options.decoded / options.samples))
    (few / "tars").mkdir(parents=True)
    for path in sorted((folder / "tars").glob("*.tar"))[:count]:
        (few / "tars" / path.name).symlink_to(path)
    rows_few = rows_table.slice(0, count * options.samples)
    feather.write_feather(rows_few, few / "rows.arrow", compression="uncompressed")
    peers = ["webdataset", "streaming", "arrow"] if options.peers else []
    raw: dict[str, Results] = {name: [] for name in ["ours", *peers]}
    decoded: dict[str, Results] = {name: [] for name in ["ours", "ours, simplejpeg", *peers]}
    for _ in range(options.rounds):
        for name in raw:
            raw[name] += _run(folder, name, options)
        for name in decoded:
            extra = ["--decode"]
            extra += ["--decoder", "simplejpeg"] if "simplejpeg" in name else []
            decoded[name] += _run(few, name.split(",")[0], options, *extra)
    count = options.tars * options.samples
    for title, table, counted in (("bytes out", raw, count), ("decoded to 256 pixels", decoded, rows_few.num_rows)):
        ours = {kind: _rate(table["ours"], kind) for kind in ("seconds", "cpu")}
        rows = [
            [
                name,
                _rate(results, "seconds"),
                ours["seconds"] / _rate(results, "seconds"),
                _rate(results, "cpu"),
                ours["cpu"] / _rate(results, "cpu"),
            ]
            for name, results in table.items()
        ]
        header = ["loader", "samples/s", "ours is x times", "samples per CPU second", "ours is x times"]
        print_report(
            f"Local tars, {title}: {counted:,} samples of {size / count / 1e3:.1f} KB, 2 workers", header, rows
        )


def _run(folder: Path, name: str, options: argparse.Namespace, *extra: str) -> Results:
    """The later epochs of one loader in a process of its own."""
    python = sys.executable if name == "ours" else options.peers
    command = [python, "-m", "bench.loader_peers", name, str(folder), "--epochs", "3", *extra]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    epochs: Results = json.loads(done.stdout.splitlines()[-1])["epochs"]
    rates = ", ".join(f"{epoch['samples'] / epoch['seconds']:,.0f}" for epoch in epochs)
    print(f"{name} {' '.join(extra)}: {rates} samples/s", file=sys.stderr, flush=True)
    return epochs[1:]


def _rate(results: Results, kind: str) -> float:
    return statistics.median(epoch["samples"] / epoch[kind] for epoch in results)


def remote(folder: Path, options: argparse.Namespace) -> None:
    """A stub S3 with latency and a limited bandwidth; whole and half caches; small and large samples."""
    from factory_lib.storage.cache import CacheOptions
    from tests.stub_s3 import StubS3

    header = ["", "samples/s", "of bandwidth", "of local", "bytes from S3 / data", "requests"]
    for size in (6_000, 24_000):
        place = folder / f"s3-{size}"
        table, data = _random_shards(place, options.tars, options.samples, size)
        dataset = _loader(table, None)
        beside = statistics.median([_epoch(dataset)["rate"] for _ in range(4)][1:])
        dataset.close()
        rows: list[list[object]] = [["local files", beside, "", 1.0, "", ""]]
        memory = 0.0
        store_module._clients.clear()  # each server is another one
        with StubS3(place, latency=LATENCY, bandwidth=BANDWIDTH) as stub:
            os.environ.update(stub.environment)
            for title, share in (("cache for all", 2.0), ("cache for half", 0.5)):
                cache = CacheOptions(folder / f"cache-{size}-{share}", int(data * share))
                dataset = _loader(_moved(table), cache)
                for number in range(1, 4):
                    os.sync()  # nobody measures how the system writes what the epoch before has fetched
                    epoch = _epoch(dataset, stub)
                    memory = max(memory, epoch["memory"])
                    busy = epoch["busy"] if epoch["bytes"] else ""
                    row = [f"{title}, epoch {number}", epoch["rate"], busy, epoch["rate"] / beside]
                    rows.append([*row, epoch["bytes"] / data, epoch["requests"]])
                dataset.close()
        title = f"S3: {LATENCY * 1e3:.0f} ms, {BANDWIDTH / 1e6:.0f} MB/s, {data / 1e6:.0f} MB, samples of {size} bytes"
        print_report(f"{title}, 2 workers; at most {memory / 2**20:.0f} MB a worker beyond torch's", header, rows)


def nodes(folder: Path, options: argparse.Namespace) -> None:
    """Eight machines, each with a cache of its own, with and without the shared tier."""
    from factory_lib.storage.cache import CacheOptions
    from tests.stub_s3 import StubS3

    table, data = _random_shards(folder / "nodes", options.tars, options.samples, 6_000)
    rows = []
    with StubS3(folder / "nodes") as stub:
        os.environ.update(stub.environment)
        for title, shared in (("caches of their own", None), ("and a shared tier", str(folder / "shared"))):
            cluster = []
            for rank in range(8):
                cache = CacheOptions(folder / f"{title}-{rank}", 10**10, shared)
                placed = {"rank": rank, "world_size": 8, "num_workers": 0, "global_batch_size": 480}
                cluster.append(_loader(_moved(table), cache, **placed))
            for number in range(1, 3):
                stub.counters()
                running = [iter(node) for node in cluster]
                for _ in range(len(cluster[0])):
                    for node in running:
                        next(node)
                for node in running:
                    next(node, None)
                rows.append([f"{title}, epoch {number}", stub.counters().get("bytes", 0) / data])
    print_report(f"8 machines, {data / 1e6:.0f} MB", ["", "bytes from origin / data"], rows)


def seek(folder: Path, options: argparse.Namespace) -> None:
    """The order of 100 million rows: from nothing to the first batch in the middle of an epoch."""
    from factory_lib.loading.order import Order, OrderKey, default_units, rank_positions

    rows = 100_000_000
    unit, window = default_units(rows, 8_500)
    cuts = np.arange(10_000, rows, 10_000)
    times = []
    for epoch in range(5):
        clock = time.perf_counter()
        order = Order(OrderKey("x", rows, unit_rows=unit, window_rows=window), epoch, cuts)
        order.rows(rank_positions(order.key, rows // 2, 480, 3, 8))
        times.append(time.perf_counter() - clock)
    print_report(
        "Order of 100 million rows in 10,000 shards",
        ["first batch in mid-epoch, s", "plan, MB"],
        [[statistics.median(times), order.nbytes / 1e6]],
    )


def _random_shards(folder: Path, tars: int, samples: int, size: int) -> tuple[pa.Table, int]:
    """Tars of random bytes; rows that point into them, and the bytes of all."""
    import tarfile

    folder.mkdir()
    names, offsets = [], []
    for number in range(tars):
        content = np.random.default_rng(number).bytes(size)
        path = folder / f"{number:05d}.tar"
        with tarfile.open(path, "w") as tar:
            for at in range(samples):
                member = tarfile.TarInfo(f"{at:06d}.jpg")
                member.size = size
                tar.addfile(member, io.BytesIO(at.to_bytes(4, "big") + content[4:]))
        with tarfile.open(path) as tar:
            offsets += [member.offset_data for member in tar]
        names += [str(path)] * samples
    pointer = pa.StructArray.from_arrays(
        [pa.array(names), pa.array(offsets, pa.uint64()), pa.array([size] * len(names), pa.uint64())],
        ["uri", "offset", "size"],
    )
    table = pa.table({"shard": names, "image": pointer})
    return table, sum(path.stat().st_size for path in folder.iterdir())


def _moved(table: pa.Table) -> pa.Table:
    """The same rows with their files in the stub's bucket."""
    pointer = table.column("image").combine_chunks()
    uris = pa.array([f"s3://stub/{Path(uri).name}" for uri in pointer.field("uri").to_pylist()])
    moved = pa.StructArray.from_arrays(
        [uris, pointer.field("offset"), pointer.field("size")], ["uri", "offset", "size"]
    )
    return table.set_column(1, "image", moved)


def _loader(table: pa.Table, cache: Any, **options: Any) -> Any:
    from factory_lib.loading.dataset import to_torch

    with_memory = functools.partial(_with_memory, _torch_alone())
    options = {"num_workers": 2, "global_batch_size": 192, "collate": with_memory, **options}
    return to_torch(
        table.to_reader, f"bench {next(_numbers)}", members=["image"], decoders="raw", cache=cache, **options
    )


def _epoch(dataset: Any, stub: Any = None) -> dict[str, float]:
    """Samples a second of an epoch, and what the server sent; the share of the bandwidth leaves out the first tenth,
    when processes start.
    """
    rows, memory, sent = 0, 0, [{"bytes": 0, "requests": 0}]
    if stub is not None:
        stub.counters()
    clock = begun = time.monotonic()
    for number, batch in enumerate(dataset):
        rows += len(batch["image"]["offsets"]) - 1
        memory = max(memory, batch["memory"])
        if stub is not None and number == dataset.epoch_batches // 10:
            sent.append(stub.counters())
            begun = time.monotonic()
    end = time.monotonic()
    if stub is not None:
        sent.append(stub.counters())
    total = {name: sum(part.get(name, 0) for part in sent) for name in ("bytes", "requests")}
    busy = sent[-1].get("bytes", 0) / (end - begun) / BANDWIDTH
    return {"rate": rows / (end - clock), "busy": busy, "memory": memory, **total}


def _with_memory(alone: int, batch: dict[str, Any]) -> dict[str, Any]:
    """The batch and how many bytes this worker has taken at most, beyond what torch alone takes."""
    return {**batch, "memory": max(0, _peak(Path("/proc/self/status").read_text()) - alone)}


@functools.cache
def _torch_alone() -> int:
    """Resident bytes of a process that has only imported torch."""
    code = "import torch; print(open('/proc/self/status').read())"
    return _peak(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def _peak(status: str) -> int:
    """Bytes resident at most; not what getrusage says, which a process inherits from the one that started it."""
    return int(status.split("VmHWM:")[1].split(maxsplit=1)[0]) * 1024


if __name__ == "__main__":
    main()
