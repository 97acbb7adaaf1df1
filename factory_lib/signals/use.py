"""Fingerprints and use: what computing itself changes is told apart from what somebody else changed.

A memo that fills, a counter, a model loaded on first use make a signal's objects differ after use. What they were
before the first value is what counts. So components are taken before and after each use in this process: one that
still is what use left it to be counts as what it was before; one that differs from that was changed by somebody else,
and counts as it is: where it can't be told who changed it, a value is computed once more rather than kept.
"""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
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
_depth = 0


def settled(signal: Signal) -> dict[str, str]:
    """The components of a signal, as if nothing had been computed in this process."""
    from factory_lib.signals.fingerprint import components_of

    return _undone(components_of(signal))


@contextlib.contextmanager
def using(*signals: Signal) -> Iterator[None]:
    """Notice what computing signals in this process changes of them; what happens inside belongs to the outermost."""
    global _depth
    before: list[tuple[Signal, Mapping[str, str]]] = []
    loaded: set[str] = set()
    if not _depth:
        loaded = set(sys.modules)
        before = [(one, _timed(one)) for one in signals if _is_due(one.name)]
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth and (new := sys.modules.keys() - loaded):
            from factory_lib.fingerprints.fresh import note_imported

            note_imported(new)
        for one, components in before:
            _compare(one, components)


def forget_use() -> None:
    """Notice nothing from now on: in a process that is there for computing alone."""
    global _depth
    _depth += 1


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
    """Components as before use."""
    for name, (before, after) in _changes.items():
        if after is not None and components.get(name) == after:
            if before is None:
                del components[name]
            else:
                components[name] = before
    return components
