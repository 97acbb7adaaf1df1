"""What sharing a version costs: `python -m bench.sharing [rows] [--shards 40] [--latency 0.0]`.

Published into a bucket (`tests.stub_s3`, on this machine), pulled by another process with another folder while the first
engine is stopped, asked twice, and one shard of it derived: seconds, seconds of CPU of the process and of its engine,
requests, and bytes that the bucket sent.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.report import print_report

COLUMNS = 10
"""Of values; a shard and a position come with them."""

PLACE = "s3://stub/team"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="?", type=float, default=10e6)
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer of the bucket")
    parser.add_argument("--part", choices=["publish", "pull"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        print(json.dumps(publishing(int(asked.rows), asked.shards) if asked.part == "publish" else pulling()))
        return
    from tests.stub_s3 import StubS3

    folder = Path(tempfile.mkdtemp(prefix="bench-sharing-", dir=os.environ.get("BENCH_FOLDER")))
    try:
        with StubS3(folder / "bucket", latency=asked.latency) as stub:
            os.environ |= stub.environment
            steps = [step for part in ("publish", "pull") for step in run(part, folder / part)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    title = f"Sharing: {asked.rows:,.0f} rows x {COLUMNS + 2} columns, {asked.shards} shards"
    print_report(f"{title}, {asked.latency * 1000:.0f} ms an answer", ["", "s", "CPU s", "requests", "MB read"], steps)


def run(part: str, home: Path) -> list[list[Any]]:
    """A part in a process of its own, with a data folder of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.sharing", *sys.argv[1:], "--part", part],
        env={**os.environ, "FACTORY_HOME": str(home)},
        stdout=subprocess.PIPE,
        check=True,
    )
    steps: list[list[Any]] = json.loads(done.stdout)
    return steps


def publishing(rows: int, shards: int) -> list[list[Any]]:
    """A version is made, with its fingerprints, and published; its engine is stopped."""
    from factory_lib import DatasetQuery, publish, version

    measure = Steps()
    rng = np.random.default_rng(0)
    tables = [table(rng, rows // shards, number) for number in range(shards)]
    query = DatasetQuery.from_arrow(pa.concat_tables(tables), shard="part")
    measure("save", lambda: query.save("laion"))
    measure("fingerprints", version("laion").fingerprints)
    measure("publish", lambda: publish("laion", PLACE))
    return measure.end()


def table(rng: np.random.Generator, rows: int, shard: int) -> pa.Table:
    """The rows of a shard."""
    columns = {f"c{number}": pa.array(rng.random(rows), pa.float32()) for number in range(COLUMNS - 1)}
    return pa.table({"part": pa.array([f"s{shard:05}"] * rows), "id": pa.array(range(rows)), **columns})


def pulling() -> list[list[Any]]:
    """The version is pulled where nothing is known of it, and read; a version is derived that changes one of its shards."""
    from factory_lib import C, DatasetQuery, pull
    from factory_lib.warehouse.client import warehouse

    measure = Steps()
    measure("start of an engine", lambda: warehouse().rows("SELECT 1"))
    pulled = measure("pull", lambda: pull(f"{PLACE}/laion"))
    narrow = DatasetQuery("laion").filter(C.c0 < 0.5)
    measure("a query of one column", narrow.count)
    measure("the same again", narrow.count)
    shard = DatasetQuery("laion").filter(C.shard == min(pulled.shards))
    measure("one shard derived", lambda: shard.mutate(y=C.c0 * 2).save("mine"))
    return measure.end()


class Steps:
    """What is done one after the other in a process, each with what it took."""

    def __init__(self) -> None:
        self._found: list[list[Any]] = []
        self._counted()

    def __call__(self, name: str, step: Callable[[], Any]) -> Any:
        """Do something; what it gives."""
        began, cpu = time.perf_counter(), self._cpu()
        result = step()
        seconds, spent = time.perf_counter() - began, self._cpu() - cpu
        counted = self._counted()
        self._found.append([name, seconds, spent, counted.get("requests", 0), counted.get("bytes", 0) / 1e6])
        return result

    def end(self) -> list[list[Any]]:
        """What was found; the engine is stopped."""
        from factory_lib.settings import settings
        from factory_lib.warehouse.embedded import stop_engine

        stop_engine(settings().home)
        return self._found

    def _counted(self) -> dict[str, float]:
        with urllib.request.urlopen(f"{os.environ['AWS_ENDPOINT_URL']}/-/counters") as answer:
            return dict(json.load(answer))

    def _cpu(self) -> float:
        """Seconds of this process, and of the engine of its folder while there is one."""
        from factory_lib.settings import settings
        from factory_lib.warehouse.embedded import EngineState

        state = EngineState.read(settings().home)
        fields = Path(f"/proc/{state.pid}/stat").read_text().rpartition(")")[2].split() if state else ["0"] * 13
        return time.process_time() + sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
