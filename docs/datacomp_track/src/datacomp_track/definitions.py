"""The code location: everything in `defs/`."""

from pathlib import Path

from dagster import Definitions, definitions, load_from_defs_folder


@definitions
def defs() -> Definitions:
    """All that the modules of `defs/` define."""
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
