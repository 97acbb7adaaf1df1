"""The code location: everything in `defs/`.

It is found by import, not by a project file above it: a project of your own takes it in from wherever it is installed.
"""

from dagster import Definitions, definitions, load_definitions_from_package_name

from factory_lib.orchestration.dagster_internals import disable_dagster_warnings


@definitions
def defs() -> Definitions:
    """All assets, checks, resources, schedules and sensors of the factory."""
    with disable_dagster_warnings():  # of what is in beta
        from factory_assets.defs.resources import resources

        return Definitions.merge(load_definitions_from_package_name("factory_assets.defs"), resources())
