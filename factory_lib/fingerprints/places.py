"""Whose code is it: the user's own, an installed package's, or Python's.

The user's own code counts by what it is, an installed package by its version, Python by its minor version. The place
of the file decides and never the name: a module of the user may be called like one of the standard library.
"""

from __future__ import annotations

import importlib.util
import os
import site
import sys
from collections.abc import Collection, Mapping
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any, Literal, NamedTuple

from factory_lib.fingerprints.installed import owner

Owner = Literal["own", "installed", "python"]

_SITE_FOLDERS = ("site-packages", "dist-packages")
_OF_PYTHON = {"_frozen_importlib", "_frozen_importlib_external", "_distutils_hack"}
"""Where finders of modules come from that find nothing but what the folders of `sys.path` and Python itself hold."""


class ModulePlace(NamedTuple):
    """Where a module is.

    Attributes:
        owner: whose it is.
        path: the file that it was, or would be, loaded from; None where there is none.
        folders: where its submodules are, for a package.
    """

    owner: Owner
    path: str | None = None
    folders: tuple[str, ...] = ()


def place_of(module: str, namespace: Mapping[str, Any] | None = None) -> ModulePlace:
    """Find a module without importing it; an unknown one is taken for the user's own.

    Args:
        module: its dotted name.
        namespace: its globals, where they are at hand: they may have come from another process.
    """
    if module == "__main__":
        return ModulePlace("own", (namespace or vars(sys.modules["__main__"])).get("__file__"))
    if namespace is not None and namespace.get("__file__"):
        return _place(module, str(namespace["__file__"]), tuple(namespace.get("__path__") or ()))
    loaded = sys.modules.get(module)
    if loaded is None:
        return _place(module, *_found(module))
    path = getattr(loaded, "__file__", None) or getattr(getattr(loaded, "__spec__", None), "origin", None)
    try:
        folders = tuple(getattr(loaded, "__path__", ()))
    except Exception:  # a module that makes its attributes itself
        folders = ()
    return _place(module, path, folders)


def package_of(module: str) -> tuple[str, str] | None:
    """Name and version of the distribution that a module was installed with, as it was when the module was loaded."""
    place = place_of(module)
    where = place.path or (place.folders[0] if place.folders else "")
    if place.owner != "installed" or not where:
        return None
    return distribution(where, module.partition(".")[0], 0 if module in sys.modules else _state(_below_site(where)[0]))


def is_module(module: str) -> bool:
    """Whether there is a module of that name, loaded or not."""
    return module in sys.modules or _found(module) != (None, ())


def may_be_modules(names: Collection[str]) -> set[str]:
    """Those of some names of outermost modules that are not certainly nobody's: most texts are none."""
    found = {name for name in names if name in sys.modules or name in sys.stdlib_module_names}
    rest = set(names) - found
    for folder in sys.path:
        there = _outermost(folder or os.getcwd())
        found |= rest if there is None else rest & there
    for finder in sys.meta_path:
        if getattr(finder, "__module__", "") not in _OF_PYTHON:
            found |= {name for name in rest - found if _finds(finder, name)}
    return found


def _finds(finder: Any, module: str) -> bool:
    try:
        return finder.find_spec(module, None) is not None
    except Exception:  # whatever it does not know to be a module
        return False


def _outermost(folder: str) -> frozenset[str] | None:
    """Names of the files and folders in a folder of modules, without extensions; None for an archive."""
    try:
        return _listed(folder, os.stat(folder).st_mtime_ns)
    except NotADirectoryError:
        return None
    except OSError:
        return frozenset()


@lru_cache(maxsize=64)
def _listed(folder: str, modified: int) -> frozenset[str]:
    """`modified` tells one state of the folder from another."""
    return frozenset(name.partition(".")[0] for name in os.listdir(folder))


@lru_cache(maxsize=8192)
def distribution(path: str, top: str, state: int = 0) -> tuple[str, str] | None:
    """Name and version of the distribution that installed a file, by the list of files that it keeps.

    The local part of a version (`2.13.0+cpu`) is left out: builds of one version count as equal.

    Args:
        path: the file, or the folder of a package without `__init__.py`.
        top: name of the outermost package.
        state: tells one state of what is installed from another, for files that were not loaded yet.

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
def _place(module: str, path: str | None, folders: tuple[str, ...]) -> ModulePlace:
    where = path or (folders[0] if folders else "")
    if where in {"built-in", "frozen"} or (not where and module.partition(".")[0] in sys.stdlib_module_names):
        return ModulePlace("python")
    if not where:
        return ModulePlace("own")
    return ModulePlace(_owner(where, module.partition(".")[0]), path, folders)


@lru_cache(maxsize=8192)
def _owner(where: str, top: str) -> Owner:
    parts = where.split(os.sep)
    if any(name in parts for name in _SITE_FOLDERS) or any(_is_below(where, folder) for folder in _site_folders()):
        return "own" if distribution(where, top) is None else "installed"
    return "python" if any(_is_below(where, folder) for folder in _python_folders()) else "own"


def _found(module: str) -> tuple[str | None, tuple[str, ...]]:
    """Where a module that is not loaded would be loaded from: its file, or its folders."""
    parent = module.rpartition(".")[0]
    folders = place_of(parent).folders if parent else tuple(sys.path)
    return _found_in(module, folders, _states(folders, _moment))


def look_again() -> None:
    """See what stands in folders of modules now: within a walk they are taken not to change."""
    global _moment
    _moment += 1


_moment = 0


@lru_cache(maxsize=64)
def _states(folders: tuple[str, ...], moment: int) -> tuple[int, ...]:
    return (*(_state(folder or os.getcwd()) for folder in folders), *map(id, sys.meta_path))


def _state(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=4096)
def _found_in(module: str, folders: tuple[str, ...], states: tuple[int, ...]) -> tuple[str | None, tuple[str, ...]]:
    """`states` tells one state of folders and finders from another: a module may be written while a process runs."""
    spec: ModuleSpec | None
    try:
        spec = PathFinder.find_spec(module, list(folders)) if "." in module else importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        spec = None
    return (None, ()) if spec is None else (spec.origin, tuple(spec.submodule_search_locations or ()))


def _below_site(path: str) -> tuple[str, str]:
    """The folder for installed packages that a file is in, and the file's path from there."""
    parts = path.split(os.sep)
    for place in range(len(parts) - 1, -1, -1):
        if parts[place] in _SITE_FOLDERS:
            return os.sep.join(parts[: place + 1]), "/".join(parts[place + 1 :])
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


def same_package(one: str, other: str) -> bool:
    """Whether two dotted names begin in one package."""
    return one.partition(".")[0] == other.partition(".")[0]
