"""Which datasets there are when a stage written in YAML loads: a name that nothing makes is told at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster.components.core.decl import ComponentDecl
from dagster.components.core.defs_module import PythonFileComponent


def assets_of_others(tree: dg.ComponentTree, own: type[dg.Component]) -> set[str]:
    """The assets of a project that are not those of one type of component: of Python files and of other components."""
    found: set[str] = set()
    for declared in _innermost(tree.find_root_decl()):
        if not issubclass(declared.component_type, own):
            for made in tree.build_defs_at_path(declared.loc).assets or []:
                keys = made.keys if isinstance(made, dg.AssetsDefinition) else [made.key]  # type: ignore[union-attr]
                found |= {key.to_user_string() for key in keys}
    return found


def _innermost(declared: ComponentDecl[Any]) -> Iterator[ComponentDecl[Any]]:
    """What is declared, without the folders and files that hold several; a Python file is one, whatever it has."""
    within = [] if declared.component_type is PythonFileComponent else list(declared.iterate_child_component_decls())
    for one in within:
        yield from _innermost(one)
    if not within:
        yield declared
