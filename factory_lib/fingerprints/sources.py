"""Modules that functions import when they run: not imported to be looked at, but followed through their files.

All of such a module counts, and what it imports: coarser than live objects, so that an unrelated edit there computes
again, and nothing is missed. One that is loaded already may have been changed since: what differs counts as it is.
"""

from __future__ import annotations

import hashlib
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from factory_lib.fingerprints.codes import CodeFacts, facts
from factory_lib.fingerprints.compiled import ParsedFile, changes, parsed_file, parsed_in_archive
from factory_lib.fingerprints.files import file_digest
from factory_lib.fingerprints.places import is_module, package_of, place_of

Import = tuple[str, int, tuple[str, ...]]


class Sources:
    """Adds the modules that imports lead to as components.

    Args:
        found: dotted name -> short hash; added to.
        counts_for_nothing: whether a module is left out.
        live: called with a loaded module, a dotted name in it and its value, where that is not what the file says;
            with an empty name for a module without a file.
        others: outermost names of modules that are not the user's; added to.

    Attributes:
        modules: those of the user that were met.
        loaded: those of them that are loaded, with what their files say.
    """

    def __init__(
        self,
        found: dict[str, str],
        counts_for_nothing: Callable[[str], bool],
        live: Callable[[types.ModuleType, str, Any], None],
        others: set[str],
    ) -> None:
        self._found = found
        self._others = others
        self._skips = counts_for_nothing
        self._live = live
        self._seen: set[str] = set()
        self._imported: set[tuple[Import, str]] = set()
        self.modules: set[str] = set()
        self.loaded: dict[str, ParsedFile] = {}

    def imported(self, one: Import, package: str) -> None:
        """Follow an import.

        Args:
            one: module as written, leading dots, names taken from it.
            package: the package that relative imports start from.
        """
        if (one, package) in self._imported:
            return
        self._imported.add((one, package))
        name, level, names = one
        if level:
            parts = package.split(".")
            name = ".".join([*parts[: len(parts) - level + 1], *([name] if name else [])])
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            self._module(".".join(parts[:end]))
        for inner in names:
            if place_of(name).folders and is_module(f"{name}.{inner}"):
                self._module(f"{name}.{inner}")

    def _module(self, name: str) -> None:
        if not name or name in self._seen or self._skips(name):
            return
        self._seen.add(name)
        place = place_of(name)
        if place.owner == "installed":
            self.package(name)
        if place.owner != "own":
            self._others.add(name.partition(".")[0])
            return
        self.modules.add(name)
        loaded = sys.modules.get(name)
        if place.path is None:
            if loaded is not None and not place.folders:
                self._live(loaded, "", loaded)
            return
        what = _as_loaded(loaded, _said(place.path))
        if what is None:
            there = os.path.isfile(place.path)
            self._found[f"{name} (module)"] = file_digest(place.path)[:16] if there else "none"
            return
        self._found[f"{name} (module)"] = _short(what.facts)
        for one in what.facts.imports:
            self.imported(one, name if place.folders else name.rpartition(".")[0])
        if type(loaded) is types.ModuleType:
            self.loaded[name] = what
            for inner, value in changes(loaded, what).items():
                self._live(loaded, inner, value)

    def package(self, module: str) -> None:
        """The version of the distribution that a module was installed with."""
        named = package_of(module)
        if named is not None:
            self._found[f"package:{named[0]}"] = named[1]


def said_of(module: types.ModuleType) -> ParsedFile | None:
    """What the file of a loaded module says; None where it has none that can be read."""
    path = place_of(module.__name__).path
    return None if path is None else _as_loaded(module, _said(path))


def _said(path: str) -> ParsedFile | None:
    if not path.endswith(".py"):
        return None
    return parsed_file(path) if os.path.isfile(path) else parsed_in_archive(path)


def _as_loaded(module: types.ModuleType | None, what: ParsedFile | None) -> ParsedFile | None:
    """What the file of a loaded module said when that was first seen here: it may have been edited since."""
    spec = getattr(module, "__spec__", None)
    if module is None or spec is None:
        return what
    known = _loaded.get(module.__name__)
    if known is None or known[0] is not spec:  # a reload makes another one
        known = _loaded[module.__name__] = (spec, what)
    return known[1]


_loaded: dict[str, tuple[Any, ParsedFile | None]] = {}


def code_then(name: str) -> types.CodeType | None:
    """The code of a loaded module whose file says something else by now, or is gone; None for all others."""
    module = sys.modules.get(name)
    known = _loaded.get(name)
    if module is None or known is None or known[0] is not module.__spec__ or known[1] is None:
        return None
    path = place_of(name).path
    now = None if path is None else _said(path)
    return None if now is not None and now.facts.digest == known[1].facts.digest else known[1].code


def is_loaded_from(name: str, code: types.CodeType) -> bool:
    """Whether a module is loaded, and from code that does the same."""
    known, module = _loaded.get(name), sys.modules.get(name)
    if module is None or known is None or known[1] is None:
        return False
    return known[0] is module.__spec__ and known[1].facts.digest == facts(code).digest


def loaded_from(module: types.ModuleType, code: types.CodeType) -> None:
    """Take a module for loaded from some code, whatever its file says."""
    _loaded[module.__name__] = (module.__spec__, ParsedFile(facts(code), code))


def _short(known: CodeFacts) -> str:
    return hashlib.sha256(known.digest.encode()).hexdigest()[:16]
