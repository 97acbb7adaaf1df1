"""What many versions cost: 1,000 commits to one dataset of 200 shards, then ls, show, diff, lineage, trace, gc.

    python -m bench.commits [--commits 1000] [--shards 200] [--home FOLDER]

The commands run as a user runs them, as processes of their own; their time includes the interpreter's start. On a
machine that is busy with other things the CPU seconds, of the command and of the engine, say more than the wall clock.
Making the versions takes minutes: with --home they stay, and the next call measures alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

ROWS = 50


def commits(n: int, shards: int) -> float:
    """Make a dataset of so many shards, then replace one of them in each commit; seconds for a commit at the end."""
    from factory_lib.query import DatasetQuery

    def rows(names: list[str], seed: int) -> pa.Table:
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

    names = [f"{i:05d}" for i in range(shards)]
    DatasetQuery.from_arrow(rows(names, 0), shard="part").save("laion")
    started = time.monotonic()
    for i in range(1, n):
        DatasetQuery.from_arrow(rows([names[i % shards]], i), shard="part").save("laion", mode="merge")
        if i % 50 == 0 or i == n - 1:
            taken = (time.monotonic() - started) / (50 if i % 50 == 0 else max(i % 50, 1))
            print(f"  {i + 1} commits, the last ones {taken:.2f} s each", file=sys.stderr, flush=True)
            started = time.monotonic()
    return taken


def main() -> None:
    """Make the commits, time the commands, print a table."""
    from bench.report import print_report

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--home", type=Path, help="data folder; one that has the dataset already is used as it is")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = arguments.home or Path(temporary)
        os.environ["FACTORY_HOME"] = str(home)
        from factory_lib.warehouse.client import warehouse
        from factory_lib.warehouse.embedded import stop_engine
        from factory_lib.warehouse.versions import versions

        made = len(versions(warehouse(), "laion"))
        if made < arguments.commits:
            commits(arguments.commits, arguments.shards)
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
