"""Whose the code is that a walk comes by; told once for each module in a walk."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from factory_lib.fingerprints.files import file_digest
from factory_lib.fingerprints.found import Found
from factory_lib.fingerprints.places import place_of

_SOURCES = (".py", ".pyc")
_CODE = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType)
_PLAIN = (bool, int, float, str, bytes, tuple, list, dict, set)


class Owned(Found):
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
