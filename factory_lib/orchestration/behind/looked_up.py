"""Datasets that a stage looks up and the graph does not show as its inputs.

A semi join, `isin`, joined metadata, SQL text that names a table: a query may read more than the parameters of its
stage. Each such dataset is recorded with the stage's materialization, by its content: when that changed, the stage is
behind, as if it were an input. Declared as an input (a parameter, or `deps=`) it shows in the graph, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from factory_lib.errors import NotFound
from factory_lib.orchestration.events.partition_events import EMPTY, combined_data_version
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import resolve

if TYPE_CHECKING:
    from factory_lib.warehouse.versions import Version

_PREFIX = "factory/looked_up."
_LONGEST = 63
"""Characters of a tag's name, as Dagster allows."""
GONE = "gone"
"""State of a dataset that is not there."""


def undeclared(version: Version, inputs: Iterable[str]) -> list[str]:
    """Names of the versions that a version was made of and that belong to none of these datasets, nor to its own."""
    declared = {version.dataset, *inputs}
    parents = version.provenance.parents if version.provenance is not None else []
    names = [parent["name"] for parent in parents]
    return [name for name in dict.fromkeys(names) if name.partition(".")[0] not in declared]


def tags_of(names: Iterable[str]) -> dict[str, str]:
    """Tags that record these versions."""
    keys = {name: f"{_PREFIX}{name.partition('.')[0]}" for name in names}
    return {key: _content(name) for name, key in keys.items() if len(key.partition("/")[2]) <= _LONGEST}


def looked_up(tags: Mapping[str, str]) -> dict[str, str]:
    """Dataset -> content that was read, as a materialization's tags record it."""
    return {name.removeprefix(_PREFIX): state for name, state in tags.items() if name.startswith(_PREFIX)}


class States:
    """What datasets hold now, each asked once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def changed(self, tags: Mapping[str, str]) -> list[str]:
        """Datasets that a materialization looked up and that hold something else now."""
        return [name for name, before in looked_up(tags).items() if self._now(name) != before]

    def _now(self, dataset: str) -> str:
        if dataset not in self._known:
            self._known[dataset] = _content(dataset)
        return self._known[dataset]


def _content(name: str) -> str:
    try:
        found = resolve(warehouse(), name).fingerprints()
    except NotFound:
        return GONE
    return combined_data_version(found)[:32] if found else EMPTY
