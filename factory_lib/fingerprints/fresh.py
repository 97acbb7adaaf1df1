"""What somebody configured in modules that functions import when they run: all that importing them does not give.

A registry that a driver filled, a singleton that it set up, an attribute that it replaced: what such a module holds is
compared with what importing it gives in a process of its own, or gave when computing itself imported it here.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import subprocess
import sys
import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from factory_lib.fingerprints.compiled import ParsedFile, told
from factory_lib.fingerprints.places import place_of
from factory_lib.fingerprints.sources import said_of
from factory_lib.fingerprints.steady import Unsteady, steady
from factory_lib.fingerprints.walk import Walk

_SECONDS = 60
_HERE = __name__.partition(".")[0]
_DESCRIBED = (
    types.FunctionType, staticmethod, classmethod, property, types.MemberDescriptorType, types.GetSetDescriptorType,
)  # fmt: skip
_Given = Mapping[str, Mapping[str, str]]
_seen: dict[str, tuple[Any, Mapping[str, str]]] = {}
"""Module that computing imported -> its spec, which a reload replaces, and digests of what it held then."""
_told: dict[tuple[tuple[str, int], ...], _Given] = {}
"""Modules with the numbers of their specs -> digests of what importing them gives, one after the other."""


def configured(modules: Mapping[str, ParsedFile], names: Collection[str]) -> dict[tuple[str, str], Any]:
    """What loaded modules hold that importing them does not give.

    Args:
        modules: those that functions import when they run, with what their files say.
        names: all names in code: others of the modules do not matter.

    Returns:
        (module, dotted name in it) -> its value.
    """
    held = {name: _named(_held(sys.modules[name], what), names) for name, what in modules.items() if not _is_ours(name)}
    unseen = any(values and not _is_seen(name) for name, values in held.items())
    given = {**{name: _seen[name][1] for name in held if _is_seen(name)}, **(_asked([*held]) if unseen else {})}
    return {
        (name, inner): value
        for name in held
        for inner, value in held[name].items()
        if given.get(name, {}).get(inner) != _digest(value, f"{name}.{inner}")
    }


def note_imported(names: Iterable[str]) -> None:
    """Take modules of the user that computing imported for what importing them gives."""
    for name in names:
        module = sys.modules.get(name)
        if type(module) is types.ModuleType and not _is_ours(name) and place_of(name).owner == "own":
            with contextlib.suppress(Unsteady):  # then a process of its own is asked
                _seen[name] = module.__spec__, _digests(module)


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == _HERE


def _is_seen(name: str) -> bool:
    return name in _seen and _seen[name][0] is sys.modules[name].__spec__


def _asked(names: Collection[str]) -> _Given:
    """What importing modules gives in a process of its own, in the order of here, but for those that were seen."""
    ordered = [name for name in sys.modules if name in names]
    key = tuple((name, id(sys.modules[name].__spec__)) for name in ordered)
    if key not in _told:
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import tell; tell({ordered!r})"
        command = [sys.executable, "-c", code]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=True)
            _told[key] = json.loads(done.stdout.splitlines()[-1])
        except (OSError, subprocess.SubprocessError, ValueError, IndexError):
            _told[key] = {}
    return {name: held for name, held in _told[key].items() if not _is_seen(name)}


def tell(names: Iterable[str]) -> None:
    """Import modules, and print what that gives: in the process that was started for it."""
    found = []
    for name in names:
        with contextlib.suppress(Exception):  # it gives nothing, then
            found.append(importlib.import_module(name))
    print()
    print(json.dumps({module.__name__: _digests(module) for module in found}), flush=True)


def _digests(module: types.ModuleType) -> dict[str, str]:
    what = said_of(module)

    def look() -> dict[str, str]:
        held = {} if what is None else dict(_held(module, what))
        return {inner: _digest(value, f"{module.__name__}.{inner}") for inner, value in held.items()}

    return steady(look)


def _digest(value: Any, path: str) -> str:
    return Walk().isolated(value, path)


def _named(held: Iterator[tuple[str, Any]], names: Collection[str]) -> dict[str, Any]:
    return {inner: value for inner, value in held if inner.rpartition(".")[2] in names}


def _held(module: types.ModuleType, what: ParsedFile) -> Iterator[tuple[str, Any]]:
    """What a module and its classes hold that its file does not say as a constant, function or class."""
    known = told(what)
    for name, value in sorted(vars(module).items()):
        if name.startswith("__") or name in known or isinstance(value, types.ModuleType):
            continue
        if not (isinstance(value, type) and value.__module__ == module.__name__):
            yield name, value
            continue
        for key, member in sorted(vars(value).items()):
            inner = f"{name}.{key}"
            if not (key.startswith("__") or key == "_abc_impl" or inner in known or isinstance(member, _DESCRIBED)):
                yield inner, member
