"""Everything is killed at random while everything goes on: is anything lost, half, wrong or NULL?

    python -m bench.soak [--kills 200] [--seed 0]

Rounds over one data folder. In each something goes on (an update with a signal, two runs of one signal at once, a run of
a Dagster graph or of its daemon, tags, gc, a disk that fills up), sources change before it, and at a random moment the
client, the engine, a worker process, the Dagster run or the daemon gets SIGKILL. Behind each round all versions are
compared with an oracle that knows what was written into the tars and what calls returned (`bench.soak_oracle`); at
the end with their seals, too. The daemon is a stand-in within a process of its own: ticks that evaluate the automation
conditions and run what they request. The disk fills up where a tmpfs can be mounted, which takes root.
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
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.disks import NoDisks, memory_disk
from bench.soak_oracle import Oracle, caption
from bench.soak_oracle import weight as weight_of
from factory_lib import DatasetQuery, signal

SHARDS, SAMPLES = ("a", "b", "c", "d"), 40
MEGABYTES = 600
PATIENCE_SECONDS = 600.0
_SLOW_SECONDS = 0.003
_fork = multiprocessing.get_context("fork")


@signal
def weight(caption: str) -> int:
    """A number of a text, slow enough to be killed at."""
    time.sleep(_SLOW_SECONDS)
    return weight_of(caption)


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


def run(kills: int, seed: int, say: Callable[[str], None], seconds: float = 1e9) -> Soak:
    """Kill so many times, or for so long; the soak with its faults."""
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
            _round(soak, number, disk)
        soak.faults += _not_as_published(home)
    return soak


def _round(soak: Soak, number: int, disk: Path | None) -> None:
    draw, oracle = soak.draw, soak.oracle
    if draw.random() < 0.7:
        _write(soak, draw.choice(SHARDS))
    actions = [*_ACTIONS, *(["full disk"] if disk else [])]
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
        self._process = _fork.Process(target=_act, args=(name, soak.source, sender, soak.draw.random()))
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


def _act(name: str, source: Path, sender: Any, chance: float) -> None:
    """Body of an actor."""
    from factory_lib.errors import FactoryError

    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        for version in _DOES[name](source, chance):
            sender.send(version)
        sender.send(("done",))
    except FactoryError as error:
        sender.send(("refused", type(error).__name__))
    except OSError as error:
        sender.send(("refused", f"{type(error).__name__} {error.errno}"))


def _update(source: Path, chance: float) -> Iterator[tuple[str, ...]]:
    one = DatasetQuery.from_source(str(source)).update("texts")
    yield "version", str(one), one.uuid
    two = DatasetQuery("texts").add_signals(weight).update("weighed")
    yield "version", str(two), two.uuid


def _save(source: Path, chance: float) -> Iterator[tuple[str, ...]]:
    time.sleep(0.3 * chance)
    one = DatasetQuery("texts").add_signals(weight).save("both")
    yield "version", str(one), one.uuid


def _tag(source: Path, chance: float) -> Iterator[tuple[str, ...]]:
    from factory_lib.warehouse.client import warehouse
    from factory_lib.warehouse.tags import set_tag
    from factory_lib.warehouse.versions import latest

    found = latest(warehouse(), "texts")
    if found is not None:
        tag = f"t{int(chance * 1e9)}"
        set_tag(warehouse(), "texts", str(found), found.uuid, tag)
        yield "tag", f"texts@{tag}", found.uuid


def _gc(source: Path, chance: float) -> Iterator[tuple[str, ...]]:
    from factory_lib.warehouse.client import warehouse
    from factory_lib.warehouse.policy import KeepPolicy, drop_versions, expired
    from factory_lib.warehouse.retention import find_sweepable, sweep

    policy = KeepPolicy(last=2, days=0)
    drop_versions(warehouse(), expired(warehouse(), policy), policy)
    sweep(warehouse(), find_sweepable(warehouse()))
    yield from ()


def _dagster(source: Path, chance: float) -> Iterator[tuple[str, ...]]:
    from factory_lib.orchestration.instance import factory_instance
    from factory_lib.orchestration.running import run_graph
    from tests.dagster_graph import graph

    with factory_instance() as instance:
        run_graph(instance, graph(source))
    yield from ()


def _daemon(source: Path, chance: float) -> Iterator[tuple[str, ...]]:
    from factory_lib.orchestration.instance import factory_instance
    from tests.dagster_graph import Daemon, graph, look

    with factory_instance() as instance:
        daemon = Daemon(instance)
        for _ in range(3):
            look(instance, source)
            daemon.tick(graph(source))
    yield from ()


_DOES: dict[str, Callable[[Path, float], Iterator[tuple[str, ...]]]] = {
    "update": _update,
    "save": _save,
    "tag": _tag,
    "gc": _gc,
    "Dagster run": _dagster,
    "daemon": _daemon,
}
_ACTIONS: dict[str, tuple[list[str], int]] = {
    "update": (["update"], 5),
    "pair": (["save", "save"], 4),
    "update, tag and gc": (["update", "tag", "gc"], 4),
    "pair and gc": (["save", "save", "gc"], 3),
    "Dagster run": (["Dagster run"], 1),
    "daemon": (["daemon"], 1),
}
"""What goes on at once, and how often relative to others."""


def _kill(soak: Soak, draw: random.Random, actors: list[_Actor]) -> str:
    """Kill one of those who are at it; what it was, or an empty string where all were done."""
    living = [actor for actor in actors if actor.is_alive]
    victims: dict[str, int] = {}
    for actor in living:
        victims["client" if actor.name not in ("Dagster run", "daemon") else actor.name] = actor.pid
        for worker in _children(actor.pid):
            victims.setdefault("worker", worker)
    with contextlib.suppress(OSError, ValueError, KeyError):
        if living:
            victims["engine"] = json.loads((soak.oracle.home / "engine.json").read_text())["owner"]["pid"]
    if not victims:
        return ""
    # Workers live shortly: where there are any, they are the likelier ones.
    victim = "worker" if "worker" in victims and draw.random() < 0.5 else draw.choice(sorted(victims))
    with contextlib.suppress(ProcessLookupError):
        os.kill(victims[victim], signals.SIGKILL)
        soak.kills[victim] += 1
        return victim
    return ""


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            if int(entry.read_text().rpartition(")")[2].split()[1]) == pid:
                own = int(entry.parent.name)
                found += [own, *_children(own)]
    return found


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
    arguments = parser.parse_args()
    began = time.monotonic()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    soak = run(arguments.kills, arguments.seed, say, arguments.seconds)
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
