"""Everything is killed at random while everything goes on: is anything lost, half, wrong or NULL?

    python -m bench.soak [--kills 200] [--seed 0] [--without daemon]

Rounds over one data folder. In each something goes on (an update with a signal, two runs of one signal at once, a run of
a Dagster graph or of its daemon, tags, gc, a disk that fills up), sources change before it, and at a random moment the
client, the engine, a worker process, the Dagster run, the daemon, its code server or the run that it launched gets
SIGKILL. Behind each round all versions are compared with an oracle that knows what was written into the tars and what
calls returned (`bench.soak_oracle`), and Dagster's events with the versions; at the end all with their seals, too. The
daemon is Dagster's own, with a queue and runs in processes of their own. The disk fills up where a tmpfs can be mounted,
which takes root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal as signals
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.disks import NoDisks, memory_disk
from bench.soak_doings import act
from bench.soak_oracle import Oracle, caption

SHARDS, SAMPLES = ("a", "b", "c", "d"), 160
"""More samples a shard than are computed without workers."""
MEGABYTES = 600
PATIENCE_SECONDS = 600.0
_fork = multiprocessing.get_context("fork")


@dataclass
class Soak:
    """A soak under way.

    Attributes:
        source: the folder of tars.
        kills: what was killed -> how often.
        done: what ended by itself -> how often.
        refused: errors that calls ended with, which is their right.
        took: what goes on -> seconds that it took, to kill within.
    """

    oracle: Oracle
    source: Path
    draw: random.Random
    say: Callable[[str], None]
    kills: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    took: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def run(kills: int, seed: int, say: Callable[[str], None], seconds: float = 1e9, without: Sequence[str] = ()) -> Soak:
    """Kill so many times, or for so long; the soak with its faults. Some of `_ACTIONS` may be left out."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        home = scratch / "home"
        disk = None
        try:
            disk = stack.enter_context(memory_disk(scratch / "disk", MEGABYTES))
            home = disk / "home"
        except NoDisks as error:
            say(f"no disk fills up: {error}")
        os.environ.update(FACTORY_HOME=str(home), FACTORY_WORKERS="2")
        soak = Soak(Oracle(home), scratch / "tars", random.Random(seed), say)
        soak.source.mkdir()
        stack.callback(_stop, home)
        for shard in SHARDS:
            _write(soak, shard)
        number, until = 0, time.monotonic() + seconds
        while sum(soak.kills.values()) < kills and time.monotonic() < until:
            number += 1
            _round(soak, number, disk, without)
        soak.faults += _not_as_published(home)
    return soak


def _round(soak: Soak, number: int, disk: Path | None, without: Sequence[str]) -> None:
    draw, oracle = soak.draw, soak.oracle
    if draw.random() < 0.7:
        _write(soak, draw.choice(SHARDS))
    actions = [name for name in (*_ACTIONS, *(["full disk"] if disk else [])) if name not in without]
    weights = [_ACTIONS[a][1] if a in _ACTIONS else 1 for a in actions]
    action = draw.choices(actions, weights)[0] if number > 1 else "update"
    with _filled(disk, draw) if action == "full disk" and disk else contextlib.nullcontext():
        names = _ACTIONS["update" if action == "full disk" else action][0]
        began = time.monotonic()
        actors = [_Actor(name, soak) for name in names]
        victim = ""
        if number > 1 and action != "full disk":
            limit = 1.2 * soak.took.get(action, 3.0)
            time.sleep(draw.uniform(0, limit))
            victim = _kill(soak, draw, actors)
        for actor in actors:
            actor.end(soak)
        if not victim:
            soak.took[action] = 0.5 * (soak.took.get(action, 0.0) or time.monotonic() - began) + 0.5 * (
                time.monotonic() - began
            )
    wrong = oracle.faults()
    soak.faults += [f"round {number}, {action}, {victim or 'nobody'} killed: {what}" for what in wrong]
    soak.say(
        f"  {sum(soak.kills.values())} kills, round {number}: {action}, {victim or 'nobody'} killed:"
        f" {'; '.join(wrong) or 'whole'}"
    )


class _Actor:
    """A process that does something and says what came of it."""

    def __init__(self, name: str, soak: Soak) -> None:
        self.name = name
        self.now = dict(soak.oracle.now)
        self._receiver, sender = _fork.Pipe(duplex=False)
        self._process = _fork.Process(target=act, args=(name, soak.source, sender, soak.draw.random()))
        self._process.start()
        sender.close()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid or 0

    @property
    def is_alive(self) -> bool:
        """Whether it goes on."""
        return self._process.is_alive()

    def end(self, soak: Soak) -> None:
        """Wait for its end, and take down what it said."""
        self._process.join(PATIENCE_SECONDS)
        if self._process.is_alive():
            soak.faults.append(f"{self.name} hangs since {PATIENCE_SECONDS:.0f} s")
            self._process.kill()
            self._process.join()
        with contextlib.suppress(EOFError):
            while self._receiver.poll():
                what, *about = self._receiver.recv()
                if what == "version":
                    soak.oracle.returned[about[0]] = about[1]
                    if self.name == "update":
                        soak.oracle.expected[about[1]] = self.now
                elif what == "tag":
                    soak.oracle.tags[about[0]] = about[1]
                elif what == "refused":
                    soak.refused[f"{self.name}: {about[0]}"] += 1
                else:
                    soak.done[self.name] += 1


_ACTIONS: dict[str, tuple[list[str], int]] = {
    "update": (["update"], 5),
    "pair": (["save", "save"], 4),
    "update, tag and gc": (["update", "tag", "gc"], 4),
    "pair and gc": (["save", "save", "gc"], 3),
    "Dagster run": (["Dagster run"], 3),
    "daemon": (["daemon"], 1),
}
"""What goes on at once, and how often relative to others."""


def _kill(soak: Soak, draw: random.Random, actors: list[_Actor]) -> str:
    """Kill one of those who are at it; what it was, or an empty string where all were done."""
    victims = _victims(soak.oracle.home, actors)
    if not victims:
        return ""
    # Workers live shortly: where there are any, they are the likelier ones.
    victim = "worker" if "worker" in victims and draw.random() < 0.5 else draw.choice(sorted(victims))
    with contextlib.suppress(ProcessLookupError):
        os.kill(draw.choice(victims[victim]), signals.SIGKILL)
        soak.kills[victim] += 1
        return victim
    return ""


def _victims(home: Path, actors: list[_Actor]) -> dict[str, list[int]]:
    """What is at it: what it is -> its processes."""
    engine = 0
    with contextlib.suppress(OSError, ValueError, KeyError):
        engine = json.loads((home / "engine.json").read_text())["owner"]["pid"]
    found: defaultdict[str, list[int]] = defaultdict(list)
    for actor in actors:
        if not actor.is_alive:
            continue
        if actor.name != "daemon":  # this one merely watches
            found[actor.name if actor.name == "Dagster run" else "client"].append(actor.pid)
        for pid, command in _children(actor.pid):
            if pid != engine and "resource_tracker" not in command:
                found[_role(actor.name, command)].append(pid)
    if found and engine:
        found["engine"].append(engine)
    return found


def _role(actor: str, command: str) -> str:
    if actor != "daemon":
        return "worker"
    if "dagster._daemon" in command:
        return "daemon"
    return "code server" if "grpc" in command else "launched run"


def _children(pid: int) -> Iterator[tuple[int, str]]:
    """All processes below one, with their command lines."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                yield int(entry.name), (entry / "cmdline").read_text().replace("\0", " ")
                yield from _children(int(entry.name))


@contextlib.contextmanager
def _filled(disk: Path, draw: random.Random) -> Iterator[None]:
    """Fill the disk but for a few KiB while something goes on, then make room again."""
    ballast = disk / "ballast"
    free = shutil.disk_usage(disk).free - draw.randrange(0, 2 << 20)
    with contextlib.suppress(OSError), open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(free, 4096))
    try:
        yield
    finally:
        ballast.unlink(missing_ok=True)


def _write(soak: Soak, shard: str) -> None:
    """Write a shard anew: another generation, one sample more or less."""
    from tests.dagster_graph import write_tar

    generation = soak.oracle.now.get(shard, 0) + 1
    soak.oracle.now[shard] = generation
    samples = SAMPLES + generation % 3
    write_tar(soak.source / f"{shard}.tar", [caption(shard, generation, i, samples) for i in range(samples)])


def _not_as_published(home: Path) -> list[str]:
    from factory_lib.history.verifying import verify
    from factory_lib.warehouse.client import Warehouse

    warehouse = Warehouse(home=home)
    try:
        found = verify(warehouse, every=True, sources=False).findings
        return [f"verify: {one.version} {one.shard}: {one.what}" for one in found]
    finally:
        warehouse.close()


def _stop(home: Path) -> None:
    from factory_lib.warehouse.embedded import stop_engine

    stop_engine(home)


def main() -> None:
    """Soak, and say what came of it; exit code 1 for faults."""
    from bench.report import print_report

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--without", action="append", default=[], choices=list(_ACTIONS), help="leave out")
    arguments = parser.parse_args()
    began = time.monotonic()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    soak = run(arguments.kills, arguments.seed, say, arguments.seconds, arguments.without)
    rows = [("killed", what, n) for what, n in sorted(soak.kills.items())]
    rows += [("done", what, n) for what, n in sorted(soak.done.items())]
    rows += [("ended with an error", what, n) for what, n in sorted(soak.refused.items())]
    rows += [("versions that were returned", "", len(soak.oracle.returned)), ("tags", "", len(soak.oracle.tags))]
    rows += [("versions compared", "", len(soak.oracle.seen)), ("faults", "", len(soak.faults))]
    print_report(f"{sum(soak.kills.values())} kills in {time.monotonic() - began:.0f} s", ("what", "of", "times"), rows)
    for fault in soak.faults:
        print(fault)
    sys.exit(1 if soak.faults else 0)


if __name__ == "__main__":
    main()
