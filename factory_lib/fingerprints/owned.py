"""What a walk over objects has found, and whose the code is that it comes by; told once for each module in a walk."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from factory_lib.fingerprints.files import file_digest
from factory_lib.fingerprints.places import place_of

_SOURCES = (".py", ".pyc")
_CODE = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType)
_PLAIN = (bool, int, float, str, bytes, tuple, list, dict, set)


class Findings:
    """What was found.

    Attributes:
        found: dotted name -> short hash or value.
        opaque: (path, type) of what cannot be taken apart.
        held: (path, object) of all that holds no value that could be told: locks, loggers, open files.
        uses: module of the user -> the attributes of it that are used; None for all of them.
        reads: (file, line, what) of code that opens files or reads the environment.
        changed: (module that is imported inside, dotted name in it) -> its value, where that is not what the file says.
        of_files: components that hold the content of files, which may change while others are taken.
        texts: string constants of code, which may name what is used of a folder.
        shows: what code does with docstrings, annotations and subclasses, as for the argument.
        written: names of variables and attributes that stand for what code writes to.
        found_configured: (module, name) of what somebody configured in modules, and no code that is followed names.
        others: outermost names of the modules of others that are used.
        names: all names in code of the user.
        lines: name of what is no file -> the lines in it, where code looks at the source of what they make.
    """

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self.opaque: list[tuple[str, str]] = []
        self.held: list[tuple[str, Any]] = []
        self.uses: dict[str, set[str] | None] = {}
        self.reads: list[tuple[str, int, str]] = []
        self.of_files: set[str] = set()
        self.changed: dict[tuple[str, str], Any] = {}
        self.texts: set[str] = set()
        self.written: set[str] = set()
        self.shows: set[str] = set()
        self.others: set[str] = set()
        self.found_configured: set[tuple[str, str]] = set()
        self.names: set[str] = set()
        self.lines: dict[str, list[str]] = {}
        self._names: dict[int, str] = {}
        self._taken: set[str] = set()
        self._kept: list[Any] = []
        self._importers: set[str] = set()
        self._by_name: set[str] = set()

    def _take_over(self, inner: Findings) -> None:
        """Add what was noticed in a walk of its own, whose components stand under one."""
        self.opaque += inner.opaque
        self.held += inner.held
        self.reads += inner.reads
        self.changed |= inner.changed
        self.texts |= inner.texts
        self.written |= inner.written
        self.shows |= inner.shows
        self.others |= inner.others
        self.names |= inner.names
        self.lines |= inner.lines
        self._importers |= inner._importers
        self._by_name |= inner._by_name
        self.found |= {name: version for name, version in inner.found.items() if name.startswith("package:")}
        for module, names in inner.uses.items():
            self.uses[module] = None if names is None else (self.uses.get(module) or set()) | names

    def _claim(self, value: Any, own: str, path: str) -> str:
        """The name of a component: its own, or for lambdas and inner functions the path on which they were met."""
        name = path if "<" in own and path else own
        number, wanted = 1, name
        while name in self._taken:
            number += 1
            name = f"{wanted}#{number}"
        self._taken.add(name)
        self._names[id(value)] = name
        return name

    def _put(self, path: str, value: str) -> str:
        number, name = 1, path
        while self.found.get(name, value) != value:
            number += 1
            name = f"{path}#{number}"
        self.found[name] = value
        return name


class OwnedFindings(Findings):
    """What was found, and whose it is.

    Args:
        counts_for_nothing: whether a module is machinery, whose code changes no value.
    """

    def __init__(self, counts_for_nothing: Callable[[str], bool]) -> None:
        super().__init__()
        self._skips = counts_for_nothing
        self._own: dict[tuple[str, int], bool] = {}

    @staticmethod
    def _is_code(value: Any) -> bool:
        kind = type(value)
        return kind in _CODE or issubclass(kind, type)

    def _is_own(self, module: str, namespace: Mapping[str, Any] | None = None) -> bool:
        """Whether code is the user's: of a module of that name, or with these globals."""
        known = self._own.get((module, id(namespace)))
        if known is None:
            known = not self._skips(module) and place_of(module, namespace).owner == "own"
            self._own[module, id(namespace)] = known
        return known

    def _is_users(self, value: Any) -> bool:
        """Whether a function or class was defined by the user's code."""
        if type(value) is types.FunctionType:
            return self._is_own(str(value.__globals__.get("__name__") or ""), value.__globals__)
        home = value.__module__ if issubclass(type(value), type) else None
        return isinstance(home, str) and home in sys.modules and self._is_own(home)

    def _is_put_there(self, value: Any) -> bool:
        """Whether something among Python's builtins was put there by the user."""
        return type(value) in _PLAIN or (self._is_code(value) and self._is_users(value))

    def _extension(self, module: str) -> None:
        """Count the file of a module of the user that is no Python code."""
        place = place_of(module)
        if place.owner == "own" and place.path and not place.path.endswith(_SOURCES) and os.path.isfile(place.path):
            self.found[f"{module} (module)"] = file_digest(place.path)[:16]
