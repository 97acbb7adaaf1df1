"""Whose code is it: the user's own, an installed package's, Python's, or the factory's machinery.

The user's own code is fingerprinted by its source, an installed package by its version; Python itself and the machinery
of the factory (queries, storage, the engine) do not change values and count for nothing.
"""

from __future__ import annotations

import importlib.util
import site
import sys
import sysconfig
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Literal

Owner = Literal["own", "installed", "python", "machinery"]

_VALUES_IN_FACTORY = ("curation", "rendered", "training")
"""Packages of factory_lib whose code makes values; of `signals`, all but `_MACHINERY_OF_SIGNALS`."""

_MACHINERY_OF_SIGNALS = {
    "bytecode", "canonical", "engine", "fingerprint", "inputs", "live_code", "outputs", "packages", "pool", "reading",
    "references", "signal", "single", "source_code", "static_code", "task", "wire", "worker",
}  # fmt: skip
_SITE_FOLDERS = {"site-packages", "dist-packages"}
_DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}


@dataclass(frozen=True)
class Place:
    """Where a module is.

    Attributes:
        owner: whose it is.
        path: its source file, None where it has none.
        folders: where its submodules are, for a package.
    """

    owner: Owner
    path: str | None = None
    folders: tuple[str, ...] = ()


def place_of(module: str) -> Place:
    """Find a module without importing it; an unknown one is taken for the user's own, without source."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return Place("python")
    loaded = sys.modules.get(module)
    spec = getattr(loaded, "__spec__", None)
    path = getattr(loaded, "__file__", None) or getattr(spec, "origin", None)
    folders = tuple(getattr(loaded, "__path__", ()))
    if loaded is None:
        path, folders = _found(module)
    return Place(_owner(module, path, folders), path if path and path.endswith(".py") else None, folders)


def is_module(module: str) -> bool:
    """Whether there is a module of that name, loaded or not."""
    return module in sys.modules or _found(module) != (None, ())


@lru_cache(maxsize=4096)
def _found(module: str) -> tuple[str | None, tuple[str, ...]]:
    parent, _, _ = module.rpartition(".")
    spec: ModuleSpec | None
    try:
        if not parent:
            spec = importlib.util.find_spec(module)
        else:
            spec = PathFinder.find_spec(module, list(place_of(parent).folders))
    except (ImportError, ValueError, AttributeError):
        spec = None
    if spec is None:
        return None, ()
    return spec.origin, tuple(spec.submodule_search_locations or ())


def _owner(module: str, path: str | None, folders: tuple[str, ...]) -> Owner:
    if module == "factory_lib" or module.startswith("factory_lib."):
        return _owner_in_factory(module)
    where = path or (folders[0] if folders else "")
    if module == "__main__" or not where:
        return "own"
    if where in {"built-in", "frozen"}:
        return "python"
    file = Path(where)
    if _SITE_FOLDERS & set(file.parts) or any(file.is_relative_to(folder) for folder in _site_folders()):
        return "installed"
    if any(file.is_relative_to(folder) for folder in _python_folders()):
        return "python"
    return "own"


def _owner_in_factory(module: str) -> Owner:
    room, _, rest = module.removeprefix("factory_lib").removeprefix(".").partition(".")
    if room == "signals" and rest and rest.partition(".")[0] not in _MACHINERY_OF_SIGNALS:
        return "own"
    return "own" if room in _VALUES_IN_FACTORY else "machinery"


@lru_cache(maxsize=1)
def _site_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths["purelib"], paths["platlib"], *site.getsitepackages(), site.getusersitepackages()}
    return tuple(sorted(folders))


@lru_cache(maxsize=1)
def _python_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({paths["stdlib"], paths["platstdlib"]})


@lru_cache(maxsize=1024)
def distribution(module: str) -> tuple[str, str]:
    """Name and version of the distribution that a module was installed with.

    The local part of a version (`2.13.0+cpu`) is left out: builds of one version count as equal.

    Returns:
        (name, version), with version "unknown" for a module without metadata.
    """
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    top = module.partition(".")[0]
    for name in (_DISTRIBUTIONS.get(top, top), None):
        # Reading what every distribution installed takes a second: only where the name does not tell.
        candidates = [name] if name else sorted(set(packages_distributions().get(top, [])))
        for candidate in candidates:
            try:
                return candidate.lower().replace("_", "-"), version(candidate).partition("+")[0]
            except PackageNotFoundError:
                continue
    return top, "unknown"
