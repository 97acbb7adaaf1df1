"""The power goes right after `save` returned: what is left of the version?

    python -m bench.power_loss [--cuts 20]

A data folder lies on a disk of its own, a file mounted as a device, which takes root. After each commit (a new dataset,
a merge, a filter, a column, a tag, in turn) the device is copied as it is, without what the system holds in its cache,
and the copy is mounted and read by an engine of its own: every version that was returned must be there, with its rows,
its values and its provenance, and with its tags.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.disks import copied, disk, mounted

MEGABYTES = 192


@dataclass
class Oracle:
    """What was said to be saved: version -> (rows, sum of x); tags."""

    versions: dict[str, tuple[int, int]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


def commit(number: int, oracle: Oracle) -> str:
    """One change to the warehouse of the settings; what it was."""
    from factory_lib import C, DatasetQuery
    from factory_lib.warehouse.client import warehouse
    from factory_lib.warehouse.tags import set_tag

    def rows(shards: list[str]) -> pa.Table:
        draw = np.random.default_rng(number)
        count = 100 * len(shards)
        return pa.table({"part": np.repeat(shards, 100), "x": draw.integers(0, 1000, count), "s": ["text"] * count})

    changes: list[tuple[str, Callable[[], Any]]] = [
        ("new", lambda: DatasetQuery.from_arrow(rows(["a", "b", "c"]), shard="part").save("laion")),
        (
            "merge",
            lambda: DatasetQuery.from_arrow(rows([f"n{number}"]), shard="part").save("laion", mode="overwrite_shards"),
        ),
        ("filter", lambda: DatasetQuery("laion").filter(C.x > 300).save("good")),
        ("column", lambda: DatasetQuery("laion").mutate(y=C.x * 2).save("wide")),
    ]
    if number % 5 == 4:
        last = next(reversed(oracle.versions))
        found = DatasetQuery(last).count()
        assert found == oracle.versions[last][0]
        uuid = warehouse().scalar(
            "SELECT toString(uuid) FROM system.tables WHERE concat(database, '.', name) = {v:String}", {"v": last}
        )
        set_tag(warehouse(), last.partition(".")[0], last, uuid, f"tag{number}")
        oracle.tags[f"{last.partition('.')[0]}@tag{number}"] = last
        return "tag"
    what, change = changes[number % 5]
    version = change()
    summed = DatasetQuery(str(version)).to_arrow().column("x").to_numpy().sum()
    oracle.versions[str(version)] = (version.rows, int(summed))
    return what


def faults(home: Path, oracle: Oracle) -> list[str]:
    """What a data folder lacks, read by an engine of its own."""
    from factory_lib.warehouse.client import Warehouse
    from factory_lib.warehouse.embedded import stop_engine
    from factory_lib.warehouse.tags import all_tags
    from factory_lib.warehouse.versions import datasets

    found: list[str] = []
    warehouse = Warehouse(home=home)
    try:
        there = {str(v): v for made in datasets(warehouse).values() for v in made}
        for name, expected in oracle.versions.items():
            if name not in there:
                found.append(f"{name} is not there")
                continue
            row = warehouse.rows(f"SELECT count() AS n, toInt64(sum(x)) AS s FROM {name}")[0]
            if (row["n"], row["s"]) != expected:
                found.append(f"{name} has {row['n']} rows with sum {row['s']}, saved were {expected}")
            provenance = there[name].provenance
            if provenance is None or provenance.rows != expected[0]:
                found.append(f"{name} has no provenance")
            elif there[name].rows != expected[0] or not all(s.origin for s in there[name].shards.values()):
                found.append(f"the shards of {name} are not recorded")
        tags = {str(tag): tag.version for of in all_tags(warehouse).values() for tag in of.values()}
        found += [f"{tag} is gone" for tag, version in oracle.tags.items() if tags.get(tag) != version]
    finally:
        warehouse.close()
        stop_engine(home)
    return found


def cut(image: Path, scratch: Path, oracle: Oracle) -> list[str]:
    """Cut the power now: the faults of what is on the medium."""
    taken = copied(image, scratch / "taken.img")
    with mounted(taken, scratch / "taken") as folder:
        return faults(folder / "home", oracle)


def run(cuts: int, say: Callable[[str], None]) -> list[str]:
    """Commit and cut the power so many times; all faults."""
    import os

    from factory_lib.warehouse.client import warehouse
    from factory_lib.warehouse.embedded import stop_engine

    found: list[str] = []
    oracle = Oracle()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        image = scratch / "disk.img"
        with disk(image, scratch / "disk", MEGABYTES) as folder:
            home = folder / "home"
            os.environ["FACTORY_HOME"] = str(home)
            try:
                for number in range(cuts):
                    what = commit(number, oracle)
                    wrong = cut(image, scratch, oracle)
                    say(f"  cut {number + 1}, after {what}: {'; '.join(wrong) or 'whole'}")
                    found += wrong
            finally:
                warehouse().close()
                stop_engine(home)
    return found


def main() -> None:
    """Cut the power, print a table."""
    from bench.report import print_report

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=20)
    arguments = parser.parse_args()
    started = time.monotonic()
    found = run(arguments.cuts, lambda text: print(text, file=sys.stderr, flush=True))
    print_report(
        "Power cuts right after a commit",
        ("cuts", "faults", "seconds"),
        [(arguments.cuts, len(found), time.monotonic() - started)],
    )
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
