"""Progress of whatever takes longer than two seconds: a bar in a terminal, a line in a notebook, lines in a log.

Code that works through many things reports to `track`; who runs it decides with `reporting` where reports go.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Report = Callable[[str, int, int | None], None]
"""Called with what is going on, how much is done, and how much there is (None when not known)."""

DETAIL = " · "
"""What stands behind it in `what` may change while the same thing goes on."""

QUIET_SECONDS = 2.0
_LOG_SECONDS = 10.0
_NOTEBOOK_SECONDS = 0.5
_report: contextvars.ContextVar[Report | None] = contextvars.ContextVar("factory_report", default=None)


@dataclass
class Tracked:
    """One thing going on."""

    what: str
    total: int | None
    report: Report
    done: int = 0
    detail: str = ""
    started: float = field(default_factory=time.monotonic)

    def advance(self, n: int = 1) -> None:
        """Say that n more are done."""
        self.done += n
        self._tell()

    def describe(self, detail: str) -> None:
        """Say how it goes, such as how far each of several machines is."""
        self.detail = detail
        self._tell()

    def _tell(self) -> None:
        if time.monotonic() - self.started >= QUIET_SECONDS:
            self.report(self.what + (DETAIL + self.detail if self.detail else ""), self.done, self.total)


@contextlib.contextmanager
def track(what: str, total: int | None = None) -> Iterator[Tracked]:
    """Report on something of known or unknown length while it goes on.

    Args:
        what: a few words, such as "computing clip for laion".
    """
    given = _report.get()
    if given is not None:
        yield Tracked(what, total, given)
    elif (display := _notebook_display()) is not None:
        with _notebook_line(display) as report:
            yield Tracked(what, total, report)
    elif sys.stderr.isatty():
        with _terminal_bar() as report:
            yield Tracked(what, total, report)
    else:
        yield Tracked(what, total, lambda *_: None)


def done(what: str, n: int, total: int) -> None:
    """Report that something has been done, however quickly it went; a terminal's bar shows only what takes long."""
    if (report := _report.get()) is not None:
        report(what, n, total)


def current() -> Report | None:
    """Where reports go now, or None when nothing was said."""
    return _report.get()


@contextlib.contextmanager
def reporting(report: Report) -> Iterator[None]:
    """Send all progress within this block to a function."""
    token = _report.set(report)
    try:
        yield
    finally:
        _report.reset(token)


def log_lines(write: Callable[[str], None]) -> Report:
    """A report that writes a line every ten seconds, for logs that people read later."""
    last: dict[str, float] = {}

    def report(what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        thing = what.partition(DETAIL)[0]
        if now - last.get(thing, 0.0) >= _LOG_SECONDS or done == total:
            last[thing] = now
            share = f" of {total:,} ({done / total:.0%})" if total else ""
            write(f"{what}: {done:,}{share}")

    return report


def _notebook_display() -> Callable[..., Any] | None:
    """What shows things below the cell of a notebook that runs; None where none does."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or getattr(shell, "kernel", None) is None:
        return None
    display: Callable[..., Any] = importlib.import_module("IPython.display").display
    return display


@contextlib.contextmanager
def _notebook_line(display: Callable[..., Any]) -> Iterator[Report]:
    """One line that changes in its place, and is gone at the end."""
    handle: Any = None
    shown = 0.0

    def report(what: str, done: int, total: int | None) -> None:
        nonlocal handle, shown
        now = time.monotonic()
        if now - shown < _NOTEBOOK_SECONDS and done != total:
            return
        shown = now
        text = _Line(f"{what}: {done:,}" + (f" of {total:,} ({done / total:.0%})" if total else ""))
        if handle is None:
            handle = display(text, display_id=True)
        else:
            handle.update(text)

    try:
        yield report
    finally:
        if handle is not None:
            handle.update(_Line(""))


@dataclass(frozen=True)
class _Line:
    """Text that notebooks show as it is, without quotes."""

    text: str

    def __repr__(self) -> str:
        return self.text


@contextlib.contextmanager
def _terminal_bar() -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = None

        def report(what: str, done: int, total: int | None) -> None:
            nonlocal task
            if task is None:
                task = bar.add_task(what, total=total)
            bar.update(task, description=what, completed=done, total=total)

        yield report
