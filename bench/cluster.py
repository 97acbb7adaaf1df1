"""What computing signals on Ray costs beside the local pool, and how evenly the work spreads over workers.

`python -m bench.cluster [--tars 4] [--samples 1000] [--rounds 3]` starts a Ray cluster of its own on this machine, ingests
tars of photo-like pictures and computes two bundled signals over them in turns: by two processes of the local pool, and
by two workers on Ray; each time every value anew, with workers that are warm. CPU seconds count this process, the
workers, the engine and Ray's own daemons, the median of the rounds. Then a signal that waits 5 ms for each sample, as
for a GPU or a service, by 2, 4 and 8 workers on two nodes: seconds beside one worker's share, and what the busiest and
the idlest worker computed. `--only overhead` or `--only spread` measures one of the two.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import print_report
from bench.signals import made_pictures, write_tars

if TYPE_CHECKING:
    from factory_lib import DatasetQuery
    from factory_lib.signals import Signal

WAIT_SECONDS = 0.005
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tars", type=int, default=4)
    parser.add_argument("--samples", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["overhead", "spread"])
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-cluster-", dir=os.environ.get("BENCH_FOLDER")))
    os.environ |= {"FACTORY_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    from factory_lib import DatasetQuery
    from factory_lib.warehouse.embedded import stop_engine

    try:
        write_tars(folder, made_pictures(), options.tars, options.samples)
        samples = DatasetQuery(DatasetQuery.from_source(str(folder)).save("samples"))
        if options.only != "spread":
            with cluster([1, 1]):
                overhead(samples, options.rounds, folder / "home")
        if options.only != "overhead":
            with cluster([4, 4]):
                spread(samples)
    finally:
        stop_engine(folder / "home")
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def cluster(cores: Sequence[int]) -> Iterator[None]:
    """A Ray cluster on this machine, a node for each number of cores that it says it has; this process is connected."""
    import ray
    from ray.cluster_utils import Cluster

    from factory_lib.compute.cluster.staff import dismiss_kept

    room = [{"num_cpus": n, "object_store_memory": 80 * 2**20, "memory": n * 2**30} for n in cores]
    started = Cluster(initialize_head=True, head_node_args=room[0] | {"include_dashboard": False})
    try:
        for node in room[1:]:
            started.add_node(**node)
        ray.init(address=started.address, log_to_driver=False, logging_level=logging.ERROR)
        yield
        dismiss_kept()
    finally:
        ray.shutdown()
        started.shutdown()


def overhead(samples: DatasetQuery, rounds: int, home: Path) -> None:
    """Two bundled signals by the local pool and on Ray, in turns."""
    from factory_lib.signals import hashes, image

    os.environ["FACTORY_WORKERS"] = "2"
    signals = [hashes.phash, image.quality]
    count = samples.count()
    taken: dict[str, list[tuple[float, float, float]]] = {"local": [], "ray": []}
    for executor in taken:
        compute(samples, signals, executor)  # processes and workers are there, the engine has read the tables once
    for _ in range(rounds):
        for executor, runs in taken.items():
            cpu, daemons, start = cpu_seconds(home), daemon_seconds(), time.perf_counter()
            compute(samples, signals, executor)
            runs.append((time.perf_counter() - start, cpu_seconds(home) - cpu, daemon_seconds() - daemons))
    found = {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in taken.items()}
    print_report(
        f"phash and quality of {count:,} pictures by two processes, warm, median of {rounds} rounds",
        ["executor", "seconds", "CPU s", "CPU µs/sample", "CPU / local", "of it Ray's daemons, CPU s"],
        [
            (name, wall, cpu, 1e6 * cpu / count, cpu / found["local"][1], daemons)
            for name, (wall, cpu, daemons) in found.items()
        ],
    )


def spread(samples: DatasetQuery) -> None:
    """A signal that waits, by more and more workers."""
    from factory_lib import DatasetQuery, signal

    def waits(image: bytes) -> int:
        time.sleep(WAIT_SECONDS)
        return os.getppid()

    os.environ["FACTORY_WORKERS"] = "8"
    compute(samples, [signal(waits)], "ray")
    count = samples.count()
    table = []
    for workers in (8, 4, 2):
        os.environ["FACTORY_WORKERS"] = str(workers)
        start = time.perf_counter()
        fresh = signal(waits, name=f"waits_{workers}", version=f"by {workers}")  # no values of another round
        version = samples.add_signals(fresh).save("waits", executor="ray")
        seconds = time.perf_counter() - start
        shares = Counter(DatasetQuery(version).to_arrow()[f"waits_{workers}"].to_pylist()).values()
        ideal = count * WAIT_SECONDS / workers
        table.append((workers, seconds, ideal, ideal / seconds, max(shares), min(shares)))
    print_report(
        f"A signal that waits {WAIT_SECONDS * 1000:.0f} ms, {count:,} samples, whole save, workers warm",
        ["workers", "seconds", "waiting alone", "of it", "busiest worker", "idlest worker"],
        sorted(table),
    )


def compute(samples: DatasetQuery, signals: Sequence[Signal], executor: str) -> None:
    """Compute all values anew, and leave nothing behind."""
    from factory_lib.build.ledger import Ledger
    from factory_lib.build.session import discard, staged

    query = samples.add_signals(*signals).plan
    ledger = Ledger(fresh=True, executor=executor)
    staged(query.source, ledger)
    assert ledger.computed == samples.count() * len(signals)
    for finish in ledger.finish:
        finish()
    discard(query)


def cpu_seconds(home: Path) -> float:
    """CPU seconds of this process, of all processes below it, and of the engine."""
    from factory_lib.warehouse.embedded import engine_status

    engine = int((engine_status(home) or {})["pid"])
    return sum(seconds for _, seconds in (*_tree(os.getpid()), *_tree(engine)))


def daemon_seconds() -> float:
    """CPU seconds of Ray's own processes below this one."""
    return sum(seconds for name, seconds in _tree(os.getpid()) if name in {"raylet", "gcs_server"} or "ray-" in name)


def _tree(root: int) -> Iterator[tuple[str, float]]:
    """Names of a process and all below it, and their CPU seconds with those of children that ended."""
    children: dict[int, list[int]] = {}
    known: dict[int, tuple[str, float]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                name, _, rest = (entry / "stat").read_text().partition(" (")[2].rpartition(") ")
                fields = rest.split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))
                known[int(entry.name)] = name, sum(map(int, fields[11:15])) / TICKS
    waiting = [root]
    while waiting:
        process = waiting.pop()
        if process in known:
            yield known[process]
        waiting += children.get(process, [])


if __name__ == "__main__":
    main()
