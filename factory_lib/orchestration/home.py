"""Dagster's own home and its instance there: where it keeps runs and events, and how it is configured."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from factory_lib.home import private_folder
from factory_lib.settings import settings

if TYPE_CHECKING:
    from dagster import DagsterInstance


def dagster_home(home: Path | None = None) -> Path:
    """The folder of Dagster's instance, `dagster` in the factory's home, made and configured if it is not there.

    Args:
        home: the factory's home; None means that of the settings.

    Returns:
        The folder, to be named in `DAGSTER_HOME`. A `dagster.yaml` that is there already is left alone.
    """
    home = home or settings().home
    folder = private_folder(home / "dagster", home)
    target = folder / "dagster.yaml"
    if not target.exists():
        template = importlib.resources.files("factory_lib.orchestration").joinpath("dagster.yaml")
        target.write_text(template.read_text())
    return folder


@contextmanager
def factory_instance(home: Path | None = None) -> Iterator[DagsterInstance]:
    """The instance of the factory's home, the same one that the UI shows.

    What runs in this process prints goes to where this process prints. Dagster would send it through files, and through
    two processes that show these on the terminal: late, after an interrupt with their own tracebacks, and no bar moves.

    Args:
        home: the factory's home; None means that of the settings.
    """
    from dagster import DagsterInstance

    from factory_lib.orchestration.dagster_internals import InstanceRef, NoOpComputeLogManager

    kind = NoOpComputeLogManager
    logs = {"compute_logs": {"module": kind.__module__, "class": kind.__name__}}
    with DagsterInstance.from_ref(InstanceRef.from_dir(str(dagster_home(home)), overrides=logs)) as instance:
        yield instance
