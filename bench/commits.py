"""What many versions cost: 1,000 commits to one dataset of 200 shards, then ls, show, diff, lineage, trace, gc.

    python -m bench.commits [--commits 1000] [--shards 200] [--home FOLDER]
    python -m bench.commits --writers 8 [--commits 15] [--shards 40]

The commands run as a user runs them, as processes of their own; their time includes the interpreter's start. On a
machine that is busy with other things the CPU seconds, of the command and of the engine, say more than the wall clock.
Making the versions takes minutes: with --home they stay, and the next call measures alone, and the start of the engine,
too. The CPU seconds of a commit are those of the process that saves and of the engine together, of the last commits.

With --writers so many processes commit to one dataset at once, each so often: how long does one wait, and does the queue
keep its order?
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

ROWS = 50


def rows(names: list[str], seed: int) -> pa.Table:
    """The rows of shards."""
    count = len(names) * ROWS
    draw = np.random.default_rng(seed)
    return pa.table(
        {
            "part": np.repeat(names, ROWS),
            "key": [f"{name}-{i}" for name in names for i in range(ROWS)],
            "width": draw.integers(64, 2048, count),
            "score": draw.random(count),
        }
    )


def save(names: list[str], seed: int) -> None:
    """Commit new rows of shards."""
    from factory_lib.query import DatasetQuery

    DatasetQuery.from_arrow(rows(names, seed), shard="part").save("laion", mode="overwrite_shards")


def commits(first: int, last: int, shards: int, home: Path) -> None:
    """Make a dataset of so many shards, then replace one of them in each commit; tell what the commits cost."""
    names = [f"{i:05d}" for i in range(shards)]
    if first == 0:
        save(names, 0)
    engine = engine_pid(home)

    def now() -> tuple[float, float, float]:
        return time.monotonic(), time.process_time(), cpu_seconds(engine)

    began, since = now(), max(first, 1)
    for i in range(since, last):
        save([names[i % shards]], i)
        if (i + 1) % 50 == 0 or i == last - 1:
            wall, ours, engines = ((b - a) / (i + 1 - since) for a, b in zip(began, now(), strict=True))
            said = f"  {i + 1} commits, the last ones {wall:.2f} s and {ours:.2f} + {engines:.2f} CPU s each"
            print(said, file=sys.stderr, flush=True)
            began, since = now(), i + 1


def writers(number: int, merges: int, shards: int) -> None:
    """So many processes merge at once, each so often; print how long a merge takes, waiting included."""
    from bench.report import print_report
    from factory_lib.warehouse.client import warehouse
    from factory_lib.warehouse.versions import versions

    save([f"{i:05d}" for i in range(shards)], 0)
    before = len(versions(warehouse(), "laion"))
    with multiprocessing.get_context("spawn").Pool(number, _connect) as pool:
        taken = pool.starmap(_merges, [(i, merges) for i in range(number)], chunksize=1)
    made = len(versions(warehouse(), "laion")) - before
    seconds = sorted(one for of_writer in taken for one in of_writer)
    middle = statistics.median(seconds)
    print_report(
        f"{number} writers, {merges} merges each",
        ("versions", "median, s", "90 %, s", "slowest, s", "slowest / median", "slowest writer / fastest"),
        [
            (
                made,
                middle,
                seconds[int(0.9 * len(seconds))],
                seconds[-1],
                seconds[-1] / middle,
                max(map(sum, taken)) / min(map(sum, taken)),
            )
        ],
    )
    if made != number * merges:
        sys.exit(f"{number * merges} versions were to be made.")


def _connect() -> None:
    """What a process does once, and no merge has to wait for."""
    from factory_lib.query import DatasetQuery
    from factory_lib.warehouse.client import warehouse

    warehouse().scalar(f"SELECT '{DatasetQuery.__name__}'")


def _merges(writer: int, merges: int) -> list[float]:
    """What a writer does; seconds that each merge took."""
    taken = []
    for i in range(merges):
        started = time.monotonic()
        save([f"w{writer}"], i)
        taken.append(time.monotonic() - started)
    return taken


def main() -> None:
    """Make the commits, time the commands, print a table."""
    from bench.report import print_report

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--home", type=Path, help="data folder; one that has the dataset already is used as it is")
    parser.add_argument("--writers", type=int, default=0, help="processes that commit at once")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = arguments.home or Path(temporary)
        os.environ["FACTORY_HOME"] = str(home)
        from factory_lib.warehouse.client import warehouse
        from factory_lib.warehouse.embedded import stop_engine
        from factory_lib.warehouse.versions import versions

        if arguments.writers:
            writers(arguments.writers, arguments.commits, arguments.shards)
            stop_engine(home)
            return
        made = len(versions(warehouse(), "laion"))
        if made < arguments.commits:
            commits(made, arguments.commits, arguments.shards, home)
        start(home)
        last = arguments.commits
        calls = [
            ["ls"],
            ["ls", "laion"],
            ["show", "laion"],
            ["diff", f"laion.v{last - 1}", f"laion.v{last}"],
            ["diff", f"laion.v{last // 2}", f"laion.v{last}"],
            ["lineage", "laion"],
            ["trace", "laion", "00003-7"],
            ["gc", "--keep-last", "10", "--keep-days", "0"],
        ]
        print_report(
            f"{last:,} versions of {arguments.shards} shards",
            ("command", "seconds", "CPU seconds of the command", "CPU seconds of the engine"),
            [(f"factory {' '.join(call)}", *timed(call, engine_pid(home))) for call in calls],
        )
        if not arguments.home:
            stop_engine(home)


def start(home: Path) -> None:
    """Stop the engine, start it, and tell what that took."""
    from factory_lib.warehouse.client import warehouse
    from factory_lib.warehouse.embedded import stop_engine

    stop_engine(home)
    parts = sum(1 for _ in home.glob("data/store/*/*/*/columns.txt"))
    started = time.monotonic()
    warehouse().scalar("SELECT 1")
    wall = time.monotonic() - started
    cpu = cpu_seconds(engine_pid(home))
    print(f"  the engine starts over {parts:,} parts in {wall:.1f} s, {cpu:.1f} CPU s", file=sys.stderr, flush=True)


def timed(call: list[str], engine: int) -> tuple[str, str, str]:
    """Wall seconds of a command, CPU seconds of it and of the engine: of each the least of five calls."""
    walls, cpus, engines = [], [], []
    for _ in range(5):
        before, engine_before, started = os.times(), cpu_seconds(engine), time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "factory_lib.cli", *call],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        walls.append(time.monotonic() - started)
        after = os.times()
        cpus.append(after.children_user + after.children_system - before.children_user - before.children_system)
        engines.append(cpu_seconds(engine) - engine_before)
    return f"{min(walls):.2f}", f"{min(cpus):.2f}", f"{min(engines):.2f}"


def engine_pid(home: Path) -> int:
    """The process of the embedded engine of a data folder."""
    from factory_lib.warehouse.embedded import engine_status

    status = engine_status(home)
    assert status is not None
    return int(status["pid"])


def cpu_seconds(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
