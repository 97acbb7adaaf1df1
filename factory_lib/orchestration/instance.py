"""Dagster's instance in the factory's home."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from factory_lib.orchestration.home import dagster_home

__all__ = ["dagster_home", "factory_instance"]


@contextmanager
def factory_instance(home: Path | None = None) -> Iterator[dg.DagsterInstance]:
    """The instance of the factory's home, the same one that the UI shows.

    Args:
        home: the factory's home; None means that of the settings.
    """
    with dg.DagsterInstance.from_config(str(dagster_home(home))) as instance:
        yield instance
