"""What many shards cost: commit, ls, show, the engine's start; and in Dagster sensor, automation, unsynced, partitions.

    python -m bench.shards [--shards 125 500 2000] [--columns 40] [--versions 3] [--only storage graph]

A dataset of so many shards of four rows and a version for each further commit, then the graph of the tests over as many
tars. What is printed are CPU seconds, of this process and of the engine together, and, behind a slash, milliseconds a
shard: where these grow with the number of shards, the cost grows worse than linearly. Many shards take long: the engine
writes some 90 files for a shard of 40 columns.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from bench.commits import cpu_seconds, engine_pid

if TYPE_CHECKING:
    import dagster as dg

ROWS = 4
_BESIDE = 6
"""Columns that every version has, and the key and the shard that are given."""

PAGE = {
    "UI: state of an asset": "staleStatus staleCauses { reason }"
    " partitionStats { numMaterialized numPartitions numFailed numMaterializing }",
    "UI: its partitions": "partitionKeysByDimension { partitionKeys } assetPartitionStatuses { ... on"
    " DefaultPartitionStatuses { materializedPartitions failedPartitions unmaterializedPartitions } }",
    "UI: which of them are behind": "staleStatusByPartition",
}
"""What is measured of the UI, and what is asked of an asset for it in GraphQL."""

Step = tuple[str, Callable[[], object]]


def rows(names: list[str], columns: int, seed: int) -> pa.Table:
    """The rows of shards."""
    count = len(names) * ROWS
    draw = np.random.default_rng(seed)
    given = {"part": np.repeat(names, ROWS), "key": [f"{name}-{i}" for name in names for i in range(ROWS)]}
    return pa.table(given | {f"c{i}": draw.random(count) for i in range(columns - _BESIDE)})


def storage(home: Path, shards: int, columns: int, versions: int) -> Iterator[Step]:
    """Versions of one dataset, and what is asked of them."""
    from factory_lib.query import DatasetQuery
    from factory_lib.warehouse.client import warehouse
    from factory_lib.warehouse.embedded import stop_engine

    names = [f"{i:05d}" for i in range(shards)]

    def save(some: list[str], seed: int) -> None:
        DatasetQuery.from_arrow(rows(some, columns, seed), shard="part").save("laion", mode="overwrite_shards")

    def start() -> None:
        stop_engine(home)
        warehouse().close()
        warehouse().scalar("SELECT 1")

    yield "first save", lambda: save(names, 0)
    for i in range(versions):
        yield "commit of one shard", partial(save, [names[i % shards]], i + 1)
    yield "mask over all", lambda: DatasetQuery("laion").filter("c0 > 0.1").save("masked")
    yield "column over all", lambda: DatasetQuery("laion").mutate(one=1).save("laion")
    yield "factory ls", lambda: command("ls")
    yield "factory ls laion", lambda: command("ls", "laion")
    yield "factory show laion", lambda: command("show", "laion")
    yield "engine start", start


def graph(home: Path, shards: int) -> Iterator[Step]:
    """The tests' graph over as many tars, made once, and what Dagster asks about it when nothing changed."""
    import dagster as dg

    from factory_lib.orchestration.behind.unsynced import unsynced
    from factory_lib.orchestration.source.shard_watch import shard_sensor
    from factory_lib.orchestration.source.shards import ShardSource
    from tests.dagster_graph import ORDER, SHARDS, SOURCE, Daemon, look, run, tar_of
    from tests.dagster_graph import graph as made

    folder = home / "tars"
    folder.mkdir()
    for i in range(shards):
        (folder / f"{i:05d}.tar").write_bytes(tar_of([f"{i}"]))
    definitions = made(folder)
    (home / "dagster").mkdir()
    instance = dg.DagsterInstance.local_temp(str(home / "dagster"))
    daemon = Daemon(instance)

    def tick() -> None:
        with dg.build_sensor_context(
            instance=instance, definitions=definitions, resources={"source": ShardSource(uri=str(folder))}
        ) as context:
            said = shard_sensor(asset=SOURCE, partitions=SHARDS)(context)
        assert isinstance(said, dg.SkipReason), said

    def make() -> None:
        assert run(definitions, instance, ORDER[:3], instance.get_dynamic_partitions("shards")).success
        assert run(definitions, instance, ORDER[3:]).success

    yield "first look of the sensor", lambda: look(instance, folder)
    yield "run of four stages", make
    yield "sensor tick", tick
    yield "first automation tick", lambda: daemon.evaluate(definitions)
    yield "automation tick", lambda: daemon.evaluate(definitions)
    yield "unsynced", lambda: unsynced(instance, definitions.resolve_asset_graph())
    yield from page(home, instance, folder)


def page(home: Path, instance: dg.DagsterInstance, folder: Path) -> Iterator[Step]:
    """What the UI's page of an asset asks, of a code location in a process of its own."""
    from dagster_graphql.test.utils import define_out_of_process_context, execute_dagster_graphql

    location = home / "location.py"
    made = "from pathlib import Path\nfrom tests.dagster_graph import graph\n"
    location.write_text(f"{made}defs = graph(Path({str(folder)!r}))\n")
    with define_out_of_process_context(str(location), None, instance) as context:
        for name, asked in PAGE.items():
            query = f'{{ assetNodeOrError(assetKey: {{ path: ["kept"] }}) {{ ... on AssetNode {{ {asked} }} }} }}'
            yield name, partial(execute_dagster_graphql, context, query)


def command(*arguments: str) -> None:
    """A command as a user calls it, without what it prints."""
    subprocess.run([sys.executable, "-m", "factory_lib.cli", *arguments], check=True, stdout=subprocess.DEVNULL)


def measured(shards: int, columns: int, versions: int, only: list[str]) -> dict[str, float]:
    """Step -> CPU seconds; of steps that are done several times, of the last."""
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        os.environ |= {"FACTORY_HOME": str(home), "FACTORY_SETTLE_SECONDS": "0"}
        from factory_lib.warehouse.client import warehouse
        from factory_lib.warehouse.embedded import stop_engine

        warehouse().scalar("SELECT 1")
        parts = {"storage": storage(home, shards, columns, versions), "graph": graph(home, shards)}
        found: dict[str, float] = {}
        for part in only:
            for name, step in parts[part]:
                engine, before, started = engine_pid(home), spent(home), time.monotonic()
                step()
                # A new engine begins at 0.
                found[name] = spent(home) - (before if engine_pid(home) == engine else ours())
                wall = time.monotonic() - started
                print(f"  {shards} shards, {name}: {found[name]:.2f} CPU s, {wall:.1f} s", file=sys.stderr, flush=True)
        stop_engine(home)
        return found


def ours() -> float:
    """CPU seconds of this process and of those that it ran."""
    return sum(os.times()[:4])


def spent(home: Path) -> float:
    """CPU seconds of this process, of those that it ran, and of the engine."""
    return ours() + cpu_seconds(engine_pid(home))


def main() -> None:
    """Measure, print a table: a row a step, a column a number of shards."""
    from bench.report import print_report

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, nargs="+", default=[125, 500, 2000])
    parser.add_argument("--columns", type=int, default=40)
    parser.add_argument("--versions", type=int, default=3, help="commits after the first")
    parser.add_argument("--only", nargs="+", choices=["storage", "graph"], default=["storage", "graph"])
    given = parser.parse_args()
    found = {n: measured(n, given.columns, given.versions, given.only) for n in given.shards}
    print_report(
        f"Many shards: {given.columns} columns, {given.versions} further versions",
        ("CPU seconds / ms a shard", *(f"{n:,} shards" for n in found)),
        [
            (name, *(f"{of[name]:.2f} / {1000 * of[name] / n:.1f}" for n, of in found.items()))
            for name in next(iter(found.values()))
        ],
    )


if __name__ == "__main__":
    main()
