"""Fingerprints and use: what computing itself changes is told apart from what somebody else changed.

A memo that fills, a counter, a model loaded on first use make a signal's objects differ after use. What they were
before the first value is what counts. So components are taken before and after each use in this process: one that
still is what use left it to be counts as what it was before; one that differs from that was changed by somebody else,
and counts as it is: where it can't be told who changed it, a value is computed once more rather than kept.

`memo = {}` before use, `{"a": 1}` behind it -> counts as `{}`; somebody adds `"b"` -> counts as `{"a": 1, "b": 2}`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from factory_lib.signals.signal import Signal

CHEAP_SECONDS = 0.01
"""Where taking components takes longer, and use was last seen to change none, it is done at the first, second, fourth,
eighth … use alone."""

_changes: dict[str, tuple[str | None, str | None]] = {}
"""Component -> what it was before use, and what use made of it; None where it was not there."""
_uses: Counter[str] = Counter()
_dear: set[str] = set()
_steady: set[str] = set()
"""Signals that use, when it was last looked at, left as it had found them."""
_notices = True
_lock = threading.RLock()
"""Runs may be under way in several threads; all that follows belongs to them together."""
_open: Counter[int] = Counter()
"""Thread -> the uses that began in it and go on."""
_under_way: dict[int, _Use] = {}
"""By the id of the signal."""
_loaded: frozenset[str] = frozenset()
"""Modules that were there before any of the uses that go on."""


@dataclass
class _Use:
    """A signal in use.

    Attributes:
        signal: the signal.
        before: its components before the first of the uses that go on.
        runs: how many those are.
    """

    signal: Signal
    before: Mapping[str, str]
    runs: int = 0


def settled(signal: Signal) -> dict[str, str]:
    """The components of a signal, as if nothing had been computed in this process."""
    from factory_lib.signals.fingerprint import components_of

    return _undone(components_of(signal))


@contextlib.contextmanager
def using(*signals: Signal) -> Iterator[None]:
    """Notice what computing signals in this process changes of them; what happens inside belongs to the outermost.

    Several threads may compute at once, the same signals, too: what they change is noticed when the last of them ends.
    """
    thread = threading.get_ident()  # a generator that uses signals may be ended by another one
    began = _begin(thread, signals) if _notices else None
    try:
        yield
    finally:
        if began is not None:
            _end(thread, began)


def forget_use() -> None:
    """Notice nothing from now on: in a process that is there for computing alone."""
    global _notices
    _notices = False


def _begin(thread: int, signals: Sequence[Signal]) -> list[_Use]:
    """Begin a use; what is to be compared at its end."""
    global _loaded
    with _lock:
        began: list[_Use] = []
        if not _open[thread]:
            loaded = frozenset(sys.modules)
            for one in signals:
                if id(one) in _under_way or _is_due(one.name):
                    began.append(_under_way.get(id(one)) or _Use(one, _timed(one)))
            if not _open:
                _loaded = loaded
        for use in began:
            use.runs += 1
            _under_way[id(use.signal)] = use
        _open[thread] += 1
        return began


def _end(thread: int, began: Sequence[_Use]) -> None:
    with _lock:
        _open[thread] -= 1
        if not _open[thread]:
            del _open[thread]
        if not _open and (new := sys.modules.keys() - _loaded):
            from factory_lib.fingerprints.fresh import note_imported

            note_imported(new)
        for use in began:
            use.runs -= 1
            if not use.runs:
                del _under_way[id(use.signal)]
                _compare(use.signal, use.before)


def _after_fork() -> None:
    """Of other threads a forked child has only what they held."""
    global _lock
    _lock = threading.RLock()
    for thread in _open.keys() - {threading.get_ident()}:
        del _open[thread]


os.register_at_fork(after_in_child=_after_fork)


def _is_due(name: str) -> bool:
    _uses[name] += 1
    return name not in _dear or name not in _steady or _uses[name].bit_count() == 1


def _timed(signal: Signal) -> Mapping[str, str]:
    started = time.perf_counter()
    found = settled(signal)
    if time.perf_counter() - started > CHEAP_SECONDS:
        _dear.add(signal.name)
    else:
        _dear.discard(signal.name)
    return found


def _compare(signal: Signal, before: Mapping[str, str]) -> None:
    from factory_lib.signals.fingerprint import FingerprintWarning, components_of

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FingerprintWarning)
        after = components_of(signal)
    pairs = {name: (before.get(name), after.get(name)) for name in before.keys() | after.keys()}
    changed = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    (_steady.add if changed.items() <= _changes.items() else _steady.discard)(signal.name)
    for name in pairs:
        _changes.pop(name, None)
    _changes.update(changed)


def _undone(components: dict[str, str]) -> dict[str, str]:
    """Components with what use changed as it was before: `{"memo": "as use left it"}` -> `{"memo": "as it was"}`."""
    for name, (before, after) in _changes.items():
        if after is not None and components.get(name) == after:
            if before is None:
                del components[name]
            else:
                components[name] = before
    return components
