"""The code of a stage, component by component: beside its code version, and remembered when it has made something.

A code version is a digest of components (see `factory_lib.signals.fingerprint`). Those of now stand in the metadata of
the asset; those of code that made something are kept in the catalog under the digest, so that what changed in between
can be told later.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import dagster as dg

from factory_lib.fingerprints.components import digest
from factory_lib.warehouse import provenance
from factory_lib.warehouse.client import warehouse

LOADED = round(time.time(), 3)  # as its tag says it: rounded up, the tag alone would be of later code
"""When this process loaded its code, in seconds of Unix time."""

CODE_LOADED = "factory/code_loaded"
"""Tag of an event: when the process that made it had loaded its code."""

CODE = "code"
"""Metadata key of an asset under which the components of its code stand."""


def code_metadata(components: Mapping[str, str]) -> dict[str, Any]:
    """Metadata of an asset that says what its code version is made of."""
    return {CODE: dg.MetadataValue.json(dict(components))}


def components_in(metadata: Mapping[str, Any]) -> dict[str, str] | None:
    """The components that an asset's metadata holds; None where it holds none."""
    value = metadata.get(CODE)
    found = value.value if isinstance(value, dg.JsonMetadataValue) else value
    return {str(n): str(v) for n, v in found.items()} if isinstance(found, Mapping) else None


def code_tags() -> dict[str, str]:
    """Tags of an event that this process makes."""
    return {CODE_LOADED: f"{LOADED:.3f}"}


def is_of_later_code(tags: Mapping[str, str]) -> bool:
    """Whether an event was made by a process that loaded its code after this one did.

    Runs load what stands in the files, and so may know more than a code location that was not reloaded since they were
    edited, or since the package was upgraded. By what such a location knows nothing is behind that they made.
    """
    return float(tags.get(CODE_LOADED) or 0.0) > LOADED


def remember_code(components: Mapping[str, str] | None) -> None:
    """Keep the components of code that has made something."""
    if components:
        provenance.record_code(warehouse(), digest(components), components)
