"""The fingerprint of a signal or stage: everything that its values depend on, component by component.

A component is a dotted name with a short hash: each function and class of the user's own modules that the target
reaches, the value of each global, closure variable, default and field it uses, the version of each installed package,
the declared version and dependencies, and what a class declares with `__fingerprint__()`. It is taken of the live
objects (see `factory_lib.fingerprints`): comments, docstrings, formatting and code that is not reached count for
nothing, nor does the place of the checkout.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from factory_lib.errors import SignalError
from factory_lib.fingerprints.components import digest, walked, why
from factory_lib.fingerprints.holders import draws_for_all
from factory_lib.fingerprints.steady import Unsteady
from factory_lib.fingerprints.walk import Walk

if TYPE_CHECKING:
    from factory_lib.signals.signal import Signal

VALUES = "1"
"""Raised when the factory's machinery changes what any signal's value is; part of every fingerprint."""

_VALUES_IN_FACTORY = ("augmentation", "curation", "pictures")
"""Packages of factory_lib whose code makes values; of `signals`, all but `_MACHINERY_OF_SIGNALS`."""
_MACHINERY_OF_SIGNALS = {
    "bundled", "dependencies", "fingerprint", "inputs", "naming", "outputs", "resources", "signal", "single", "task",
    "use",
}  # fmt: skip
_DRAWS = {"rand", "randn", "randperm", "rand_like", "randn_like", "random_sample"}
_SEEDS = {"seed", "manual_seed", "default_rng", "generator", "set_state", "setstate", "set_rng_state"}
_told: set[tuple[str, str]] = set()


class FingerprintWarning(UserWarning):
    """Something a value depends on cannot be fingerprinted."""


def components_of(signal: Signal) -> dict[str, str]:
    """What the values of a signal depend on.

    Returns:
        Dotted name -> short hash (or the value itself, for versions and numbers).

    Raises:
        SignalError: a declared dependency is not there, or another thread keeps changing what the signal uses.
    """
    walk = walk_of(signal)
    _warn(signal.name, [*_opaque(walk), *_undeclared(signal, walk), *_drawn(walk), *_outdated(signal)])
    return walk.found


def walk_of(signal: Signal, configured: Collection[tuple[str, str]] | None = None) -> Walk:
    """A signal taken apart.

    Args:
        signal: any.
        configured: in a worker, (module, name) of what was configured in modules that are imported inside.
    """

    def follow(walk: Walk) -> None:
        walk.found |= signal.declaration | {"factory": VALUES}
        for place, one in enumerate(signal.depends_on):
            walk.keep(one, getattr(one, "fingerprint_name", f"depends_on[{place}]"))
        kinds = {given.kind for given in signal.inputs}
        if signal.pinned:
            if not isinstance(signal.target, types.FunctionType):
                walk.fields(signal.target, type(signal.target).__qualname__)
            return
        if kinds & {"image", "member"}:
            from factory_lib.pictures import decode
            from factory_lib.signals.member import Member

            walk.follow(Member if "member" in kinds else decode)
            walk.package("PIL")
        walk.follow(signal.target)

    return _walked(f"signal {signal.name!r}", follow, configured)


def code_components(target: Callable[..., Any], *, ignore: Collection[str] = ()) -> dict[str, str]:
    """What the result of any function depends on: its code, what it reaches, and package versions.

    Args:
        target: a function, a callable object, a class.
        ignore: distributions whose version does not matter to the result, such as `dagster`.
    """
    name = getattr(target, "__qualname__", "")
    walk = _walked(name or type(target).__name__, lambda walk: walk.follow(target))
    _warn(name, _opaque(walk))
    ignored = {f"package:{name}" for name in ignore}
    found = walk.found | {"factory": VALUES}
    return {name: value for name, value in found.items() if name not in ignored}


def _walked(what: str, follow: Callable[[Walk], None], configured: Collection[tuple[str, str]] | None = None) -> Walk:
    try:
        return walked(follow, is_machinery, configured)
    except Unsteady as error:
        raise SignalError(
            f"The fingerprint of {what} cannot be taken: another thread keeps changing what it uses ({error}).",
            "Let that thread end first.",
        ) from error


@lru_cache(maxsize=4096)
def is_machinery(module: str) -> bool:
    """Whether a module is part of the factory and changes no value: queries, storage, the engine."""
    if module != "factory_lib" and not module.startswith("factory_lib."):
        return False
    room, _, rest = module.removeprefix("factory_lib").removeprefix(".").partition(".")
    if room == "signals":
        return not rest or rest.partition(".")[0] in _MACHINERY_OF_SIGNALS
    return room not in _VALUES_IN_FACTORY


def _opaque(walk: Walk) -> list[str]:
    return [
        f"{path} is a {kind}, whose value cannot be told; a change of it is not noticed. "
        "Give its class __fingerprint__(), or make it in setup() from parameters."
        for path, kind in walk.opaque
    ]


def _undeclared(signal: Signal, walk: Walk) -> list[str]:
    """Code that reads what only shows when it runs, where nothing is declared that it may be."""
    if signal.depends_on or signal.version:
        return []
    return [
        f"{file}:{line} {what} when it runs; a change of that is not noticed. "
        f"Declare it: @signal(depends_on=[{'env(…)' if 'environment' in what else 'Path(…)'}]), or give version=."
        for file, line, what in sorted(set(walk.reads))
        if not ("file" in what and walk.files)
    ]


def _drawn(walk: Walk) -> list[str]:
    """Code that draws from a random state that the samples of a process share."""
    by_name = not _DRAWS.isdisjoint(walk.names) and not {"numpy", "torch"}.isdisjoint(walk.others)
    draws = by_name or any(draws_for_all(value) for _, value in walk.held)
    if not draws or not _SEEDS.isdisjoint(walk.names | walk.texts):
        return []
    return [
        "it draws from the random state of the process, so that its values hang on the order of samples and on the "
        "worker. Make a generator from the sample: random.Random(key), torch.Generator().manual_seed(…)."
    ]


def _outdated(signal: Signal) -> list[str]:
    """A signal of a module that was loaded again since: what runs is what it was before."""
    found = signal.successor
    if not found:
        return []
    return [
        f"{found} is another signal by now, as its module was loaded again: this one is what it was before. "
        f"Take it anew: from {' import '.join(found.rsplit('.', 1))}."
    ]


def _warn(name: str, problems: list[str]) -> None:
    for problem in problems:
        if (name, problem) not in _told:
            _told.add((name, problem))
            warnings.warn(f"Fingerprint of {name}: {problem}", FingerprintWarning, stacklevel=4)


__all__ = ["FingerprintWarning", "code_components", "components_of", "digest", "is_machinery", "walk_of", "why"]
