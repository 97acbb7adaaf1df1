"""The fingerprint of a signal or stage: everything that its values depend on, component by component.

A component is a dotted name with a short hash: the code of each function and class of the user's own modules that the
target reaches, the value of each global, closure variable, default and field it uses, the version of each installed
package, the declared version, and what a class declares with `__fingerprint__()` (model weights, preprocessing).
Comments, docstrings, formatting and code that is not reached count for nothing, nor does the place of the checkout.

What code imports inside a function is followed in the source files, without importing it: a fingerprint costs
milliseconds and loads no model library.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from factory_lib.signals.live_code import LiveCode

if TYPE_CHECKING:
    from factory_lib.signals.signal import Signal

VALUES = "1"
"""Raised when the factory's machinery changes what any signal's value is; part of every fingerprint."""


_told: set[tuple[str, str]] = set()


class FingerprintWarning(UserWarning):
    """Something a value depends on cannot be fingerprinted."""


def components_of(signal: Signal) -> dict[str, str]:
    """What the values of a signal depend on.

    Returns:
        Dotted name -> short hash (or the value itself, for versions and numbers).
    """
    code = LiveCode()
    code.add_signal(signal)
    return _warned(code, signal.name) | signal.declaration | {"factory": VALUES}


def code_components(target: Callable[..., Any], *, ignore: Collection[str] = ()) -> dict[str, str]:
    """What the result of any function depends on: its code, what it reaches, and package versions.

    Args:
        target: a function, a callable object, a class.
        ignore: distributions whose version does not matter to the result, such as `dagster`.
    """
    code = LiveCode()
    code.add(target)
    found = _warned(code, getattr(target, "__qualname__", "")) | {"factory": VALUES}
    ignored = {f"package:{name}" for name in ignore}
    return {name: value for name, value in found.items() if name not in ignored}


def digest(components: Mapping[str, str]) -> str:
    """Fingerprint over components: 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(sorted(components.items())).encode()).hexdigest()[:32]


def why(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """What differs between two sets of components, one line each, sorted by name.

    Returns:
        Lines such as `package:numpy: 2.4.5 -> 2.4.6`, `score.THRESHOLD: 0.3 -> 0.5`, `helpers.clean: code changed`.
    """
    lines = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if before is None or after is None:
            lines.append(f"{name}: {'no longer used' if after is None else 'new'}")
        elif _is_hash(before) and _is_hash(after):
            lines.append(f"{name}: changed")
        else:
            lines.append(f"{name}: {before} -> {after}")
    return lines


def differing(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """Components that both sides have with different values: another process holds other code.

    Code that one of them has no source of travelled by value and is the same.
    """
    unequal = (name for name in here.keys() & there.keys() if here[name] != there[name])
    return sorted(name for name in unequal if not {here[name][:5], there[name][:5]} & {"bytec", "made:"})


def _warned(code: LiveCode, name: str) -> dict[str, str]:
    for problem in code.problems:
        if (name, problem) not in _told:
            _told.add((name, problem))
            warnings.warn(f"Fingerprint of {name}: {problem}", FingerprintWarning, stacklevel=4)
    return dict(code.found)


def _is_hash(value: str) -> bool:
    return len(value) == 16 and all(digit in "0123456789abcdef" for digit in value)
