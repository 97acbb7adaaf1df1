"""How fast a loader is and where its time goes: counted always, shown in a terminal while it iterates."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from factory_lib import progress

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

STALL_SECONDS = 0.1
_REFRESH_SECONDS = 0.2

Counters = dict[str, float]


def tiers(counters: Mapping[str, float]) -> dict[str, float]:
    """Bytes by where they came from: local files, the cache, the shared tier, the origin. What was fetched ahead counts
    where it was fetched from; whole pages and objects are fetched, so that may be more than was delivered.
    """
    shared, origin = counters.get("bytes_shared", 0), counters.get("bytes_origin", 0)
    hits = max(0, counters.get("bytes_read", 0) - shared - origin)
    found = {"local": counters.get("bytes_local", 0), "cache": hits, "shared": shared, "origin": origin}
    return {tier: amount for tier, amount in found.items() if amount}


def statistics(counters: Mapping[str, float]) -> dict[str, float]:
    """What a person or a plot wants of a loader's counters.

    Returns:
        samples_per_second, samples, substituted, bytes_<tier> as in `tiers`, decode_share (of the time of making
        batches), wait_share (of the training's time: it waited for a batch, the first of an iteration excepted), stalls
        (batches waited for longer than 0.1 s), retries of storage and the seconds waited for them, restarted_workers.
        Shares are 0 where nothing was measured.
    """
    seconds, make = counters.get("iterating_seconds", 0), counters.get("make_seconds", 0)
    return {
        "samples_per_second": counters.get("samples", 0) / seconds if seconds else 0.0,
        "samples": counters.get("samples", 0),
        "substituted": counters.get("substituted", 0),
        **{f"bytes_{tier}": amount for tier, amount in tiers(counters).items()},
        "decode_share": counters.get("decode_seconds", 0) / make if make else 0.0,
        "wait_share": counters.get("wait_seconds", 0) / seconds if seconds else 0.0,
        "stalls": counters.get("stalls", 0),
        "retries": counters.get("retries", 0),
        "retry_seconds": counters.get("retry_seconds", 0.0),
        "restarted_workers": counters.get("restarted_workers", 0),
    }


class Meter:
    """Watches one iteration.

    Args:
        counters: of the dataset; seconds and stalls are added to them.
        batches: that the iteration has.
        shown: whether a bar may be drawn in a terminal.
    """

    def __init__(self, counters: Counters, batches: int, shown: bool) -> None:
        self._counters, self._total, self._shown = counters, batches, shown
        self._before = dict(counters)
        self._done = 0
        self._bar: tuple[Progress, TaskID] | None = None
        self._drawn = 0.0

    def over(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The same batches, watched."""
        report = progress.current()
        source = iter(batches)
        begun = clock = time.monotonic()
        try:
            while True:
                asked = time.monotonic()
                try:
                    batch = next(source)
                except StopIteration:
                    return
                now = time.monotonic()
                if self._done:
                    self._count("wait_seconds", now - asked)
                    self._count("stalls", float(now - asked > STALL_SECONDS))
                self._done += 1
                self._count("iterating_seconds", now - clock)
                clock = now
                if now - begun >= progress.QUIET_SECONDS:
                    if report is not None:
                        report("loading, batches", self._done, self._total)
                    elif self._shown:
                        self._draw(now)
                yield batch
        finally:
            self._count("iterating_seconds", time.monotonic() - clock)
            if self._bar is not None:
                self._bar[0].stop()

    def line(self) -> str:
        """How the iteration goes, in one line."""
        now = {name: value - self._before.get(name, 0) for name, value in self._counters.items()}
        found = statistics(now)
        parts = [f"{found['samples_per_second']:,.0f} samples/s"]
        came = tiers(now)
        if set(came) - {"local"}:
            parts.append(", ".join(f"{tier} {amount / sum(came.values()):.0%}" for tier, amount in came.items()))
        parts += [f"decode {found['decode_share']:.0%}", f"waited {found['wait_share']:.0%}"]
        parts += [f"{n} {int(found[n]):,}" for n in ("stalls", "substituted", "retries") if found[n]]
        return " · ".join(parts)

    def _draw(self, now: float) -> None:
        if self._bar is None:
            self._bar = _bar(self._total)
            self._shown = self._bar is not None
        if self._bar is not None and now - self._drawn >= _REFRESH_SECONDS:
            self._drawn = now
            bar, task = self._bar
            bar.update(task, completed=self._done, line=self.line(), refresh=True)

    def _count(self, name: str, amount: float) -> None:
        self._counters[name] = self._counters.get(name, 0) + amount


def _bar(total: int) -> tuple[Progress, TaskID] | None:
    """A bar on stderr; None where that is no terminal, or something else is drawn there."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.errors import LiveError
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("loading"), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn())
    # No thread that draws: processes may be forked at any time.
    console = Console(stderr=True)
    bar = Progress(*columns, TextColumn("{task.fields[line]}"), console=console, transient=True, auto_refresh=False)
    try:
        bar.start()
    except LiveError:
        return None
    return bar, bar.add_task("", total=total, line="")
