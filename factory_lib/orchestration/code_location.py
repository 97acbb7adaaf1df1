"""Which graph is meant: that of the project in this folder, or else the one that comes with the package.

`factory up`, `run`, `unsynced` and `why-stale` ask here. A project says what its graph is in `pyproject.toml`, as
Dagster reads it (`[tool.dagster]`, `[tool.dg.project]`), or in `workspace.yaml`, of which the first location is taken.
"""

from __future__ import annotations

import importlib
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory_lib.errors import FactoryError

if TYPE_CHECKING:
    from dagster import Definitions

PACKAGE = "factory_assets.definitions"
"""The graph that comes with the package."""

PROJECT, WORKSPACE = "pyproject.toml", "workspace.yaml"


@dataclass(frozen=True)
class CodeLocation:
    """A module with a graph.

    Attributes:
        module: its dotted name.
        folder: where it is looked for before all other places.
    """

    module: str
    folder: Path


def code_location(folder: Path | None = None) -> CodeLocation:
    """The graph of the project in a folder.

    Args:
        folder: of the project; None means that of this process.

    Raises:
        FactoryError: a file says something that cannot be read, or names a file instead of a module.
    """
    folder = folder or Path.cwd()
    return _of_project(folder) or _of_workspace(folder) or CodeLocation(PACKAGE, folder)


def dagster_arguments(folder: Path | None = None) -> list[str]:
    """The arguments that have Dagster serve the project in a folder, with all of its locations."""
    folder = folder or Path.cwd()
    if (folder / WORKSPACE).exists():
        return ["-w", WORKSPACE]
    found = code_location(folder)
    return ["-m", found.module, "-d", str(found.folder)]


def load_definitions(module: str | None = None) -> Definitions:
    """The definitions of a graph.

    Args:
        module: that has them; None means that of the project in this folder.

    Raises:
        FactoryError: it cannot be loaded; the message says why.
    """
    from dagster import Definitions

    from factory_lib.orchestration.dagster_internals import disable_dagster_warnings

    where = code_location() if module is None else CodeLocation(module, Path.cwd())
    if str(where.folder) not in sys.path:
        sys.path.insert(0, str(where.folder))
    try:
        with disable_dagster_warnings():  # of what is in beta
            found = getattr(importlib.import_module(where.module), "defs", None)
            made = found() if callable(found) else found
            if not isinstance(made, Definitions):
                raise TypeError("it has no definitions named 'defs'")
            made.resolve_asset_graph()
    except Exception as error:  # whatever users have in their modules
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        said = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise FactoryError(f"The graph of {where.module} cannot be loaded: {said}", "--debug shows where.") from error
    return made


def _of_project(folder: Path) -> CodeLocation | None:
    path = folder / PROJECT
    if not path.exists():
        return None
    try:
        tools = tomllib.loads(path.read_text()).get("tool", {})
    except tomllib.TOMLDecodeError as error:
        raise FactoryError(f"{path} cannot be read: {error}") from None
    given = tools.get("dagster", {})
    if module := given.get("module_name"):
        return CodeLocation(module, folder / given.get("working_directory", "."))
    project = tools.get("dg", {}).get("project", {})
    if root := project.get("root_module"):
        source = folder / "src"
        module = project.get("code_location_target_module", f"{root}.definitions")
        return CodeLocation(module, source if source.is_dir() else folder)
    return None


def _of_workspace(folder: Path) -> CodeLocation | None:
    path = folder / WORKSPACE
    if not path.exists():
        return None
    import yaml

    try:
        entries = (yaml.safe_load(path.read_text()) or {}).get("load_from") or []
        said: Any = entries[0]["python_module"] if entries else None
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise FactoryError(
            f"{path} names no module first ({type(error).__name__}: {error}).",
            "Name the graph: --module my_factory.definitions.",
        ) from None
    if said is None:
        return None
    if isinstance(said, str):
        return CodeLocation(said, folder)
    return CodeLocation(said["module_name"], folder / said.get("working_directory", "."))
