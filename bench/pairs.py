"""Two runs of one signal at once: does the pair cost what one costs, and is every value right?

    python -m bench.pairs [--pairs 20] [--load 2]

Each pair computes a signal over a dataset that nobody computed it for, in two processes that start up to a second apart,
while other processes keep the machine busy. Every value is compared with what the function gives when it is called
directly. The cost is the number of values that were computed, as the versions' provenance says, and CPU seconds of the
processes, workers included, beside those of one run alone.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.report import print_report
from factory_lib import DatasetQuery, signal

SHARDS, ROWS = 8, 50
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_fork = multiprocessing.get_context("fork")


def digest(text: str) -> int:
    """What the signal gives: some milliseconds of work."""
    return int.from_bytes(hashlib.pbkdf2_hmac("sha256", text.encode(), b"salt", 5_000)[:4], "big")


@signal
def weight(caption: str) -> int:
    """A number of a text."""
    return digest(caption)


def _save(dataset: str, name: str, delay: float, sender: Any) -> None:
    time.sleep(delay)
    version = DatasetQuery(dataset).add_signals(weight).save(name)
    record = version.provenance
    sender.send((str(version), record.computed if record else -1))


def _runs(dataset: str, delays: list[float]) -> tuple[int, float, list[str]]:
    """Run at once; values computed, CPU seconds, names of the versions."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = []
    for number, delay in enumerate(delays):
        receiver, sender = _fork.Pipe(duplex=False)
        process = _fork.Process(target=_save, args=(dataset, f"{dataset}_{number}", delay, sender))
        process.start()
        started.append((process, receiver))
    said = [receiver.recv() for process, receiver in started]
    for process, _ in started:
        process.join()
    _reap()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return sum(computed for _, computed in said), cpu, [version for version, _ in said]


def _reap() -> None:
    """Wait for the workers of runs that ended, for their CPU seconds: this process took them over (see `main`)."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        ours = {child.pid for child in multiprocessing.active_children()}
        left = [pid for pid in _children() if pid not in ours]
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)


def _children() -> list[int]:
    """Child processes of this one, but for the engine."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    found = []
    for pid in listed:
        with contextlib.suppress(OSError):
            if b"warehouse.server" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
    return found


def _wrong(versions: list[str], right: dict[str, int]) -> int:
    """Values of versions that are not right: of another number, NULL, or an error."""
    wrong = 0
    for version in versions:
        rows = DatasetQuery(version).to_arrow().to_pylist()
        wrong += sum(row["weight"] != right[row["caption"]] or row["weight_error"] is not None for row in rows)
        wrong += abs(len(rows) - len(right))
    return wrong


def _burn() -> None:
    while True:
        hashlib.pbkdf2_hmac("sha256", b"busy", b"salt", 100_000)


def main() -> None:
    """Run the pairs and print what they cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--load", type=int, default=2, help="processes that keep the machine busy")
    arguments = parser.parse_args()
    ctypes.CDLL(None).prctl(_SUBREAPER, 1)
    with tempfile.TemporaryDirectory() as temporary:
        os.environ.update(FACTORY_HOME=temporary, FACTORY_WORKERS="2")
        from factory_lib.warehouse.embedded import stop_engine

        burners = [_fork.Process(target=_burn, daemon=True) for _ in range(arguments.load)]
        for burner in burners:
            burner.start()
        try:
            rows = [
                _pair(number, [0.0] if number < 0 else [0.0, random.random()]) for number in _order(arguments.pairs)
            ]
        finally:
            for burner in burners:
                burner.kill()
            stop_engine(Path(temporary))
    alone = [row for row in rows if row[0] == 1]
    pairs = [row for row in rows if row[0] == 2]
    table = []
    for what, of in (("one run alone", alone), ("a pair", pairs)):
        computed, cpu = sum(r[1] for r in of) / len(of), sum(r[2] for r in of) / len(of)
        table.append((what, len(of), f"{computed:,.0f}", f"{cpu:.2f}", sum(r[3] for r in of)))
    print_report(
        f"{SHARDS * ROWS} values, {arguments.load} busy processes beside",
        ("what", "times", "values computed", "CPU seconds", "wrong values"),
        table,
    )
    values = sum(r[1] for r in pairs) / len(pairs) / (sum(r[1] for r in alone) / len(alone))
    seconds = sum(r[2] for r in pairs) / len(pairs) / (sum(r[2] for r in alone) / len(alone))
    print(f"\nA pair costs {values:.2f} x the values and {seconds:.2f} x the CPU seconds of one run.")
    if any(row[3] for row in rows):
        sys.exit("There are wrong values.")


def _order(pairs: int) -> list[int]:
    """Runs alone, negative numbers, spread among the pairs."""
    found = []
    for number in range(pairs):
        found += [-1 - number, number] if number % 4 == 0 else [number]
    return found


def _pair(number: int, delays: list[float]) -> tuple[int, int, float, int]:
    name = f"texts_{number}" if number >= 0 else f"alone_{-number}"
    texts = [f"{name} {i}" for i in range(SHARDS * ROWS)]
    parts = [f"s{i // ROWS}" for i in range(SHARDS * ROWS)]
    keys = [str(i) for i in range(len(texts))]
    DatasetQuery.from_arrow(pa.table({"part": parts, "key": keys, "caption": texts}), shard="part").save(name)
    computed, cpu, versions = _runs(name, delays)
    wrong = _wrong(versions, {text: digest(text) for text in texts})
    print(f"  {name}: {computed} values, {cpu:.2f} CPU s, {wrong} wrong", file=sys.stderr, flush=True)
    return len(delays), computed, cpu, wrong


if __name__ == "__main__":
    main()
