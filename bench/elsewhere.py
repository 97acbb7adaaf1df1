"""The whole graph of `make demo` here, on a Ray cluster of three nodes, with its versions in a bucket, and both: equal?

`python -m bench.elsewhere [--samples 6000] [--shards 12] [--modes default,ray,bucket,both]` draws the pictures once and runs
`factory demo` over them in a data folder of its own for each mode. All versions of all datasets have to have the same
content fingerprints, shard by shard, and the same fingerprints of their signals as those of the default: else it ends
with 1 and says which differ. Seconds are those of `factory demo` and of the process pool or cluster that it uses; all nodes are this
machine, and the bucket is moto's in this process, so they say what the detour costs and not what machines gain. Bytes of
versions are what lies under the tables on the disk and what was sent to the bucket.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.bucket import Seen, file_bytes, serve
from bench.cluster import cluster
from bench.report import print_report, timed

if TYPE_CHECKING:
    from factory_lib.warehouse.versions import Version

MODES = {"default": (False, False), "ray": (True, False), "bucket": (False, True), "both": (True, True)}
"""Mode -> whether signals are computed on Ray, whether versions lie in a bucket."""


@dataclass(frozen=True)
class DemoRun:
    """What came of the graph.

    Attributes:
        fingerprints: (version, shard or signal) -> fingerprint.
        seconds: how long it took.
        disk: bytes under the tables on the disk.
        sent: bytes sent to the bucket.
        requests: requests to it.
    """

    fingerprints: dict[tuple[str, str], str]
    seconds: float
    disk: int
    sent: int
    requests: int


def main() -> None:
    """Measure, print a table and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=6_000)
    parser.add_argument("--shards", type=int, default=12)
    parser.add_argument("--modes", default="default,ray,bucket,both")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-elsewhere-", dir=os.environ.get("BENCH_FOLDER")))
    os.environ |= {"OMP_NUM_THREADS": "1", "FACTORY_MODELS": "none"}
    from factory_assets.demo.rendered.folder import write_folder

    try:
        write_folder(folder / "shards", options.samples, options.shards, seed=7)
        runs = {mode: demo_run(mode, folder) for mode in options.modes.split(",")}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    first, *others = runs
    table = [
        (mode, run.seconds, len({version for version, _ in run.fingerprints}), len(differing(runs[first], run)),
         run.disk / 1e6, run.sent / 1e6, run.requests)
        for mode, run in runs.items()
    ]  # fmt: skip
    header = ["mode", "seconds", "versions", "fingerprints that differ", "MB on disk", "MB sent", "requests"]
    print_report(f"The graph of `make demo`, {options.samples:,} samples in {options.shards} shards", header, table)
    if wrong := {mode: found for mode in others if (found := differing(runs[first], runs[mode]))}:
        sys.exit(f"Others than by {first}: {wrong}")


def differing(one: DemoRun, other: DemoRun) -> list[tuple[str, str]]:
    """Shards and signals of versions whose fingerprints are not the same in two runs."""
    keys = one.fingerprints.keys() | other.fingerprints.keys()
    return sorted(key for key in keys if one.fingerprints.get(key) != other.fingerprints.get(key))


def demo_run(mode: str, folder: Path) -> DemoRun:
    """Run the graph over the shards of a folder in a mode."""
    on_ray, in_bucket = MODES[mode]
    home = folder / mode
    with contextlib.ExitStack() as stack:
        bucket = stack.enter_context(versions_in_bucket()) if in_bucket else None
        if on_ray:
            stack.enter_context(cluster([1, 1, 1]))
            stack.enter_context(variables(FACTORY_EXECUTOR="ray", RAY_ADDRESS=_address()))
        stack.enter_context(variables(FACTORY_HOME=str(home)))
        command = [sys.executable, "-m", "factory_lib.entry", "demo", "--source", str(folder / "shards"), "--json"]
        _, seconds = timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
        disk, sent = file_bytes(home / "data" / "store"), bucket.sent if bucket else 0
        requests = sum(bucket.requests.values()) if bucket else 0
        return DemoRun(fingerprints(home), seconds, disk, sent, requests)


def fingerprints(home: Path) -> dict[tuple[str, str], str]:
    """Of all versions of a data folder: of each shard's content, and of each signal."""
    from factory_lib.warehouse.client import warehouse
    from factory_lib.warehouse.embedded import stop_engine
    from factory_lib.warehouse.versions import datasets

    try:
        made = [version for versions in datasets(warehouse()).values() for version in versions]
        return {(str(version), what): found for version in made for what, found in _of(version)}
    finally:
        stop_engine(home)
        warehouse().close()


def _of(version: Version) -> Iterator[tuple[str, str]]:
    yield from version.fingerprints().items()
    for signal in version.provenance.signals if version.provenance else ():
        yield f"signal {signal['name']}", signal["fingerprint"]


@contextlib.contextmanager
def versions_in_bucket() -> Iterator[Seen]:
    """A bucket of moto's in a thread, which the settings name as the place of versions."""
    seen = serve()
    keys = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1"}
    local = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    with variables(AWS_ENDPOINT_URL=seen.url, FACTORY_VERSIONS="s3://bench/versions", **keys, **local):
        yield seen


@contextlib.contextmanager
def variables(**given: str) -> Iterator[None]:
    """Variables of the environment within the block."""
    before = {name: os.environ.get(name) for name in given}
    os.environ |= given
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _address() -> str:
    import ray

    return str(ray.get_runtime_context().gcs_address)


if __name__ == "__main__":
    main()
