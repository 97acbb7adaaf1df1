"""What made the shards of a version: that version itself, or an earlier one from which they were carried over."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from factory_lib.names import CATALOG, is_version_name
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.provenance import Provenance
from factory_lib.warehouse.schema import ensure_tables
from factory_lib.warehouse.versions import Version

_KNOWN = ("name", "uri", "format", "declared_in")
"""What is the same of a source in all runs that read it."""


@dataclass(frozen=True)
class Origin:
    """A version that made shards of another.

    Attributes:
        version: its name; None when nothing is known of it any more.
        uuid: UUID of its table.
        provenance: what made it, where that was recorded.
        shards: the shards that it made and that are still there.
    """

    version: str | None
    uuid: str
    provenance: Provenance | None
    shards: tuple[str, ...]

    @property
    def name(self) -> str:
        """The version's name, or the beginning of its UUID."""
        return self.version or f"version {self.uuid[:8]}"


def origins_of(warehouse: Warehouse, version: Version) -> list[Origin]:
    """The versions that made the shards of a version, the newest first."""
    shards: dict[str, list[str]] = {}
    for name, shard in version.shards.items():
        shards.setdefault(shard.origin, []).append(name)
    return origins(warehouse, shards)


def origins(warehouse: Warehouse, shards: Mapping[str, Iterable[str]]) -> list[Origin]:
    """Origins by their UUIDs, with the shards they made; the newest first."""
    records = read_records(warehouse, shards)
    known = known_versions(warehouse, shards)
    names = {uuid: version.name for uuid, version in known.items()}
    found = [Origin(names.get(uuid), uuid, records.get(uuid), tuple(made)) for uuid, made in shards.items()]
    return sorted(found, key=lambda o: o.provenance.created if o.provenance else "", reverse=True)


def read_records(warehouse: Warehouse, uuids: Iterable[str] | None = None) -> dict[str, Provenance]:
    """Provenance of versions by the UUIDs of their tables, or of all; what was not recorded is left out."""
    ensure_tables(warehouse)
    wanted = None if uuids is None else sorted(set(uuids))
    if wanted == []:
        return {}
    where = "" if wanted is None else "WHERE has({u:Array(UUID)}, uuid)"
    rows = warehouse.rows(
        f"SELECT toString(uuid) AS id, record FROM {CATALOG}.versions {where}", {"u": wanted} if wanted else {}
    )
    return {row["id"]: Provenance(**json.loads(row["record"])) for row in rows}


@dataclass(frozen=True)
class KnownVersion:
    """A version that is there, or was until it was dropped."""

    name: str
    is_there: bool


def known_versions(warehouse: Warehouse, uuids: Iterable[str]) -> dict[str, KnownVersion]:
    """Versions by the UUIDs of their tables, dropped ones included."""
    wanted = sorted(set(uuids))
    if not wanted:
        return {}
    ensure_tables(warehouse)
    rows = warehouse.rows(
        "SELECT toString(uuid) AS id, concat(database, '.', name) AS version, true AS is_there FROM system.tables"
        f" WHERE has({{u:Array(UUID)}}, uuid) UNION ALL SELECT toString(uuid), version, false FROM {CATALOG}.dropped"
        " WHERE has({u:Array(UUID)}, uuid)",
        {"u": wanted},
    )
    found = [row for row in rows if is_version_name(row["version"])]
    # while a version is being dropped it is both
    found.sort(key=lambda row: row["is_there"])
    return {row["id"]: KnownVersion(row["version"], row["is_there"]) for row in found}


def shards_behind(version: Version) -> list[str]:
    """Shards that another query, or signals of other code, made than what the version itself made."""
    own = {s.made_by for s in version.shards.values() if s.origin == version.uuid}
    return [name for name, s in version.shards.items() if own and s.made_by not in own]


def signal_shards(made: Iterable[Origin]) -> list[dict[str, Any]]:
    """Signals that computed values of a version, and in how many of its shards.

    A signal with two fingerprints is there twice: shards made by older code are behind.

    Returns:
        `{"name", "fingerprint", "shards", "components"}` each; those of the newest shards first.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for origin in made:
        for signal in origin.provenance.signals if origin.provenance else []:
            known = found.setdefault((signal["name"], signal["fingerprint"]), {**signal, "shards": 0})
            known["shards"] += len(origin.shards)
    return list(found.values())


def source_counts(made: Iterable[Origin]) -> list[dict[str, Any]]:
    """Sources that the shards of a version were read from.

    Returns:
        `{"uri", "format", "samples", "counts", "problems"}` each, summed over the runs that read them; of one of
        several sources also its `name`, and `declared_in`, the file.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for origin in made:
        for source in origin.provenance.sources if origin.provenance else []:
            empty: dict[str, Any] = {key: source[key] for key in _KNOWN if key in source}
            empty |= {"samples": 0, "counts": {}, "problems": []}
            known = found.setdefault((source["uri"], source["format"]), empty)
            known["samples"] += source["samples"]
            known["problems"] += source["problems"]
            for name, n in source["counts"].items():
                known["counts"][name] = known["counts"].get(name, 0) + n
    return list(found.values())
