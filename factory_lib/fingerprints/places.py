"""Whose code is it: the user's own, an installed package's, or Python's.

The user's own code counts by what it is, an installed package by its version, Python by its minor version. The place
of the file decides and never the name: a module of the user may be called like one of the standard library.
"""

from __future__ import annotations

import importlib.util
import os
import site
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, Literal

from factory_lib.fingerprints.installed import owner

Owner = Literal["own", "installed", "python"]

_SITE_FOLDERS = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class Place:
    """Where a module is.

    Attributes:
        owner: whose it is.
        path: the file that it was, or would be, loaded from; None where there is none.
        folders: where its submodules are, for a package.
    """

    owner: Owner
    path: str | None = None
    folders: tuple[str, ...] = ()


def place_of(module: str, namespace: Mapping[str, Any] | None = None) -> Place:
    """Find a module without importing it; an unknown one is taken for the user's own.

    Args:
        module: its dotted name.
        namespace: its globals, where they are at hand: they may have come from another process.
    """
    if module == "__main__":
        return Place("own", (namespace or vars(sys.modules["__main__"])).get("__file__"))
    if namespace is not None and namespace.get("__file__"):
        return _place(module, str(namespace["__file__"]), tuple(namespace.get("__path__") or ()))
    loaded = sys.modules.get(module)
    if loaded is None:
        return _unloaded(module, tuple(sys.path))
    path = getattr(loaded, "__file__", None) or getattr(getattr(loaded, "__spec__", None), "origin", None)
    try:
        folders = tuple(getattr(loaded, "__path__", ()))
    except Exception:  # a module that makes its attributes itself
        folders = ()
    return _place(module, path, folders)


def is_module(module: str) -> bool:
    """Whether there is a module of that name, loaded or not."""
    return module in sys.modules or _found(module, tuple(sys.path)) != (None, ())


@lru_cache(maxsize=8192)
def distribution(path: str, top: str) -> tuple[str, str] | None:
    """Name and version of the distribution that installed a file, by the list of files that it keeps.

    The local part of a version (`2.13.0+cpu`) is left out: builds of one version count as equal.

    Args:
        path: the file, or the folder of a package without `__init__.py`.
        top: name of the outermost package.

    Returns:
        None for a file that no distribution installed.
    """
    folder, relative = _below_site(path)
    try:
        found = owner(folder, relative, top)
    except OSError:
        return None
    return None if found is None else (found.name, found.version)


@lru_cache(maxsize=8192)
def _place(module: str, path: str | None, folders: tuple[str, ...]) -> Place:
    where = path or (folders[0] if folders else "")
    if where in {"built-in", "frozen"} or (not where and module.partition(".")[0] in sys.stdlib_module_names):
        return Place("python")
    if not where:
        return Place("own")
    return Place(_owner(where, module.partition(".")[0]), path, folders)


@lru_cache(maxsize=8192)
def _owner(where: str, top: str) -> Owner:
    parts = Path(where).parts
    if any(name in parts for name in _SITE_FOLDERS) or any(_is_below(where, folder) for folder in _site_folders()):
        return "own" if distribution(where, top) is None else "installed"
    return "python" if any(_is_below(where, folder) for folder in _python_folders()) else "own"


@lru_cache(maxsize=4096)
def _unloaded(module: str, paths: tuple[str, ...]) -> Place:
    return _place(module, *_found(module, paths))


@lru_cache(maxsize=4096)
def _found(module: str, paths: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    parent, _, _ = module.rpartition(".")
    spec: ModuleSpec | None
    try:
        if parent:
            spec = PathFinder.find_spec(module, list(place_of(parent).folders))
        else:
            spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        spec = None
    return (None, ()) if spec is None else (spec.origin, tuple(spec.submodule_search_locations or ()))


def _below_site(path: str) -> tuple[str, str]:
    """The folder for installed packages that a file is in, and the file's path from there."""
    parts = Path(path).parts
    for place in range(len(parts) - 1, -1, -1):
        if parts[place] in _SITE_FOLDERS:
            return str(Path(*parts[: place + 1])), "/".join(parts[place + 1 :])
    folder = max((one for one in _site_folders() if _is_below(path, one)), key=len, default=os.path.dirname(path))
    return folder, os.path.relpath(path, folder).replace(os.sep, "/")


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder + os.sep)


@lru_cache(maxsize=1)
def _site_folders() -> tuple[str, ...]:
    return tuple(sorted({*site.getsitepackages(), site.getusersitepackages()}))


@lru_cache(maxsize=1)
def _python_folders() -> tuple[str, ...]:
    return (os.path.dirname(os.__file__),)  # `sysconfig` takes long to import
