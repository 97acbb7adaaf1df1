"""What code reaches by a name in a text: `globals()["score"]`, `eval("score(x)")`, `import_module("plugins." + kind)`.

Which of the texts becomes a name is only known when the code runs: everything that one of them may name counts.
"""

from __future__ import annotations

import re
import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from factory_lib.fingerprints.places import is_module, may_be_modules, place_of

_EVALUATE = frozenset({"eval", "exec"})
_LOOK_UP = _EVALUATE | {"globals", "modules"}
_IMPORT = frozenset({"import_module", "__import__", "iter_modules", "walk_packages", "find_spec", "run_module"})
_WORD = re.compile(r"[^\W\d]\w*")
_MODULE = re.compile(r"\.*[^\W\d]\w*(\.[^\W\d]\w*)*\.?")
_CONTAINERS = (list, tuple, set, frozenset, dict)
_MANY = 64
"""Of longer containers texts are no names."""


def texts_in(values: Iterable[Any]) -> set[str]:
    """The texts among values, and those that a list, set or dict among them holds."""
    found = set()
    for value in values:
        kind = type(value)
        if kind is str:
            found.add(value)
        elif kind in _CONTAINERS and len(value) <= _MANY:
            inner = [*value, *value.values()] if kind is dict else value
            found.update(one for one in inner if type(one) is str)
    return found


def looks_up(names: Collection[str]) -> bool:
    """Whether code of these names may look names up by texts."""
    return not _LOOK_UP.isdisjoint(names)


def looked_up(names: Collection[str], texts: Collection[str], namespace: Mapping[str, Any]) -> set[str]:
    """The names of a module that a function may look up there.

    Args:
        names: all names in the code of the function.
        texts: the texts that it may make names of.
        namespace: the globals of the module.
    """
    found: set[str] = set()
    if not _EVALUATE.isdisjoint(names):
        found |= {word for text in texts for word in _WORD.findall(text)} & namespace.keys()
    if "globals" in names or looks_for_module(names):
        own = {name for name in namespace if not name.startswith("__")}
        near = {name for name in own if any(_may_name(text, name) for text in texts)}
        found |= near or {name for name in own if _is_defined(namespace[name], namespace)}
    return found


def looks_for_module(names: Collection[str]) -> bool:
    """Whether code of these names looks for its own module: `sys.modules[__name__]`."""
    return "modules" in names and "__name__" in names


def _may_name(text: str, name: str) -> bool:
    return text == name or (len(text) > 1 and (name.startswith(text) or name.endswith(text)))


def _is_defined(value: Any, namespace: Mapping[str, Any]) -> bool:
    return isinstance(value, types.FunctionType | type) and value.__module__ == namespace.get("__name__")


def imports(names: Collection[str]) -> bool:
    """Whether code of these names imports modules by text."""
    return not _IMPORT.isdisjoint(names)


def modules(texts: Iterable[str], package: str) -> Iterator[str]:
    """Modules that texts may name: whole names, `module:attribute`, `module.attribute`, `package.` and what follows.

    Args:
        texts: any texts.
        package: that relative names start from.
    """
    named = {_absolute(_module_in(text), package) for text in set(texts)}
    tops = may_be_modules({name.partition(".")[0] for name in named})
    for name in sorted(name for name in named if name.partition(".")[0] in tops):
        whole = name.rstrip(".")
        if whole and is_module(whole):
            yield whole
            if name.endswith("."):
                yield from submodules(whole)
        elif "." in whole and is_module(whole.rpartition(".")[0]):
            yield whole.rpartition(".")[0]


def _module_in(text: str) -> str:
    """The module of `module:attribute`; a sentence that goes on behind a colon is none."""
    module, _, attribute = text.partition(":")
    return module if not attribute or _MODULE.fullmatch(attribute) else ""


@lru_cache(maxsize=8192)
def _absolute(name: str, package: str) -> str:
    """A dotted name as seen from outside its package; "" for a text that is none."""
    if not 0 < len(name) < 256 or not _MODULE.fullmatch(name):
        return ""
    if not name.startswith("."):
        return name
    level = len(name) - len(name.lstrip("."))
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - level + 1], name.lstrip(".")])


def submodules(package: str) -> Iterator[str]:
    """All modules in a package of the user."""
    place = place_of(package)
    if place.owner == "own":
        import pkgutil

        yield from (f"{package}.{one.name}" for one in pkgutil.iter_modules(place.folders))
