"""Components and their digest: what a fingerprint is made of, and what differs between two."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Collection, Mapping
from operator import attrgetter

from factory_lib.fingerprints import fresh
from factory_lib.fingerprints.places import look_again
from factory_lib.fingerprints.process import counted
from factory_lib.fingerprints.steady import steady
from factory_lib.fingerprints.walk import Walk

WAY = "fingerprinting"
"""The component that says how fingerprints are taken."""
NUMBER = "5"
"""Raised when the same object gets other components than before."""
_OLD_WAY = "1"


def walked(
    follow: Callable[[Walk], None],
    counts_for_nothing: Callable[[str], bool],
    configured: Collection[tuple[str, str]] | None = None,
) -> Walk:
    """Take objects apart.

    Args:
        follow: adds what counts to the walk it is given; called again where what code does with docstrings, annotations
            or folders tells that more of them counts.
        counts_for_nothing: whether a module is machinery, whose code changes no value.
        configured: (module, name) of what was configured in modules that are imported inside, where that is known.

    Returns:
        The walk, with the components that it found.

    Raises:
        Unsteady: another thread changes what is taken apart, all the time.
    """
    return steady(lambda: _walked(follow, counts_for_nothing, configured))


def _walked(
    follow: Callable[[Walk], None],
    counts_for_nothing: Callable[[str], bool],
    configured: Collection[tuple[str, str]] | None,
) -> Walk:
    look_again()
    walk = Walk(counts_for_nothing)
    _follow(walk, follow, configured)
    if walk.shows or (walk.files and (walk.texts or walk.written)):
        again = Walk(counts_for_nothing, walk.shows, walk.texts, walk.written)
        _follow(again, follow, configured)
        walk = again
    python = ".".join(map(str, sys.version_info[:2]))
    walk.found |= {WAY: NUMBER, "python": python} | counted(walk.others, walk.names)
    return walk


def _follow(walk: Walk, follow: Callable[[Walk], None], configured: Collection[tuple[str, str]] | None) -> None:
    follow(walk)
    walk.finish()
    if configured is not None:
        for module, name in sorted(configured):
            walk.configured(module, name, attrgetter(name)(sys.modules[module]))
    elif walk.imported_later:
        for (module, name), value in fresh.configured(walk.imported_later, walk.names | walk.inner_names).items():
            walk.configured(module, name, value)
    walk.finish()


def digest(components: Mapping[str, str]) -> str:
    """Fingerprint over components: 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(sorted(components.items())).encode()).hexdigest()[:32]


def other_way(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """What to say where fingerprints were taken in another way, so that their components cannot be compared; or ""."""
    before, after = old.get(WAY, _OLD_WAY), new.get(WAY, _OLD_WAY)
    if before == after or not old or not new:
        return ""
    return f"the way of fingerprinting changed ({before} -> {after}); its values are computed once more"


def why(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """What differs between two sets of components, one line each, sorted by name.

    Returns:
        Lines such as `package:numpy: 2.4.5 -> 2.4.6`, `score.THRESHOLD: 0.3 -> 0.5`, `helpers.clean: changed`.
    """
    if told := other_way(old, new):
        return [told]
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return [f"{name}: {words(old.get(name), new.get(name))}" for name in names]


def words(old: str | None, new: str | None) -> str:
    """How one component changed."""
    if old is None or new is None:
        return "no longer used" if new is None else "new"
    return "changed" if _is_hash(old) and _is_hash(new) else f"{old} -> {new}"


def _is_hash(value: str) -> bool:
    return len(value) in (16, 32, 40, 64) and all(digit in "0123456789abcdef" for digit in value)


def unequal(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Names of components that are not the same on both sides."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


__all__ = ["NUMBER", "WAY", "Walk", "digest", "other_way", "unequal", "walked", "why", "words"]
