"""What an export says of where its samples come from: versions, query, signals, sources, licences. No secrets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from factory_lib.history.lineage import lineage
from factory_lib.names import is_version_name
from factory_lib.plan.expressions import C, fn
from factory_lib.plan.nodes import tables
from factory_lib.redaction import stripped
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.provenance import read
from factory_lib.warehouse.versions import resolve

if TYPE_CHECKING:
    from factory_lib.query import DatasetQuery

_LICENCE = re.compile(r"licen[cs]es?(?:_\w+)?|\w+_licen[cs]e", re.IGNORECASE)
_MOST_LICENCES = 100


def about(samples: DatasetQuery) -> dict[str, Any]:
    """Where samples come from.

    Returns:
        `rows`, `query`, `versions` (name, uuid, rows, created), `signals` (name -> fingerprint), `sources` (uri ->
        format) and `licences` (column -> value -> samples).
    """
    versions = [
        resolve(warehouse(), name) for name in sorted({t.name for t in tables(samples.plan)}) if is_version_name(name)
    ]
    lineages = [lineage(version) for version in versions]
    signals: dict[str, str] = {}
    for one in lineages:
        for ancestor in reversed(one.versions.values()):
            record = read(warehouse(), ancestor.uuid)
            signals |= {signal["name"]: signal["fingerprint"] for signal in (record.signals if record else ())}
    found = {
        "rows": samples.count(),
        "query": repr(samples),
        "versions": [
            {"name": str(version), "uuid": version.uuid, "rows": version.rows, "created": provenance.created}
            for version in versions
            if (provenance := version.provenance) is not None
        ],
        "signals": {name: fingerprint for name, fingerprint in sorted(signals.items()) if name in samples.columns},
        "sources": {uri: kind for one in lineages for uri, kind in one.sources.items()},
        "licences": _licences(samples),
    }
    kept: dict[str, Any] = stripped(found)
    return kept


def _licences(samples: DatasetQuery) -> dict[str, dict[str, int]]:
    """Column -> value -> samples, the most frequent values first."""
    found = {}
    for column, kind in samples.columns.items():
        if _LICENCE.fullmatch(column) and "String" in kind and not kind.startswith("Array"):
            counted = samples.group_by(value=C[column]).agg(n=fn.count()).order_by("-n", "value").limit(_MOST_LICENCES)
            found[column] = {str(row["value"]): row["n"] for row in counted.to_arrow().to_pylist()}
    return found
