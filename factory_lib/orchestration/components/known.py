"""Which datasets there are when a stage written in YAML loads: a name that nothing makes is told at once."""

from __future__ import annotations

import dagster as dg
from dagster.components.core.defs_module import PythonFileComponent


def assets_in_python(tree: dg.ComponentTree) -> set[str]:
    """The assets that the Python files of a project define."""
    found: set[str] = set()
    for place, declared in tree.find_root_decl().iterate_loc_component_decl_pairs():
        if declared.component_type is PythonFileComponent:
            for made in tree.build_defs_at_path(place).assets or []:
                keys = made.keys if isinstance(made, dg.AssetsDefinition) else [made.key]  # type: ignore[union-attr]
                found |= {key.to_user_string() for key in keys}
    return found
