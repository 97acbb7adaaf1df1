"""Which modules may be imported because a record names them: those of the project, and of packages that were declared.

What a record names is imported, and importing runs it. A module that only happens to lie in the current folder is not
meant: it counts where the folder is a project's, or was named in PYTHONPATH.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from factory_lib.environment import python_path
from factory_lib.errors import SignalError

_PROJECT = "pyproject.toml"
_SOURCES = "src"


def project_folders() -> list[str]:
    """Where modules of the current folder's project are found: beside its pyproject.toml, and in src."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / _PROJECT).is_file():
            return [str(one) for one in (folder / _SOURCES, folder) if one.is_dir()]
    return []


def check_declared(module: str, where: str) -> None:
    """Refuse a module, by its first name, that only lies in the current folder. Nothing is imported.

    Raises:
        SignalError: it does; `where` begins the message.
    """
    if module in sys.modules:
        return
    spec = PathFinder.find_spec(module)
    places = set(_places(spec)) if spec is not None else set()
    if os.getcwd() in places and not places & {*_declared(), *project_folders()}:
        raise SignalError(
            f"{where}; a module {module!r} lies in the current folder, which is no project's: it is not imported.",
            f"Install its package, name the folder in PYTHONPATH, or run this where its {_PROJECT} is.",
        )


def _places(spec: ModuleSpec) -> Iterator[str]:
    """The folders that a module or package lies in."""
    origin = spec.origin if spec.origin and os.path.isabs(spec.origin) else None
    for path in (
        [origin] if origin and spec.submodule_search_locations is None else spec.submodule_search_locations or ()
    ):
        if path:
            yield os.path.dirname(os.path.abspath(path))


def _declared() -> Iterator[str]:
    yield from map(os.path.abspath, python_path())
