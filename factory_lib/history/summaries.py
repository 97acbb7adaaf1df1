"""Datasets and versions at a glance, from the catalog alone: a thousand versions take one query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from factory_lib.names import CATALOG, is_dataset_database
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.pulled import listed
from factory_lib.warehouse.tags import Tag, all_tags

_RECORD = "'Tuple(bytes_added UInt64, seconds Float64, created String, reused UInt64, computed UInt64)'"


@dataclass(frozen=True)
class VersionSummary:
    """A version at a glance; figures are None where nothing was recorded.

    Attributes:
        name: `laion.v3`.
        rows, shards: how many.
        storage: how it is stored, such as mask or copy.
        bytes_added: bytes on disk that it added; what it shares with others is not counted.
        seconds: how long it took to make.
        reused, computed: signal values taken over and computed.
        parents: names of the versions that it was made of.
        created: when, in ISO format.
        tags: its tags.
    """

    name: str
    dataset: str
    number: int
    uuid: str
    rows: int | None = None
    shards: int | None = None
    storage: str = ""
    bytes_added: int | None = None
    seconds: float | None = None
    reused: int | None = None
    computed: int | None = None
    parents: list[str] = field(default_factory=list)
    created: str = ""
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DatasetSummary:
    """A dataset at a glance.

    Attributes:
        latest: name of its latest version.
        versions: how many there are.
        rows: of the latest version.
        bytes: of the latest version on disk, what it shares with others included.
        bytes_added: bytes on disk that all its versions added together.
        created: when the latest version was made, in ISO format.
        tags: tag -> version.
    """

    dataset: str
    latest: str
    versions: int
    rows: int | None
    bytes: int
    bytes_added: int
    created: str
    tags: dict[str, str]


def version_summaries(warehouse: Warehouse, dataset: str | None = None) -> list[VersionSummary]:
    """Versions of a dataset, or of all datasets: by dataset, the oldest first."""
    tags = all_tags(warehouse, dataset)
    only = "AND database = {d:String}" if dataset else ""
    rows = listed(
        warehouse,
        "WITH known AS (SELECT database, toUInt32(substring(name, 2)) AS number, uuid FROM system.tables"
        f" WHERE match(name, '^v[1-9][0-9]*$') {only})"
        f" SELECT database AS dataset, number, toString(known.uuid) AS id, p.rows AS rows, p.made AS made,"
        " p.storage AS storage, p.parents AS parents, s.shards AS shards, notEmpty(p.dataset) AS is_recorded FROM known"
        f" LEFT JOIN (SELECT uuid, dataset, rows, JSONExtract(record, {_RECORD}) AS made, storage,"
        f"   parents.name AS parents FROM {CATALOG}.versions"
        "   WHERE uuid IN (SELECT uuid FROM known) LIMIT 1 BY uuid) AS p ON p.uuid = known.uuid"
        f" LEFT JOIN (SELECT uuid, uniqExact(shard) AS shards FROM {CATALOG}.shards"
        "   WHERE uuid IN (SELECT uuid FROM known) GROUP BY uuid) AS s ON s.uuid = known.uuid"
        " ORDER BY dataset, number",
        dataset or "",
    )
    return [_version(row, tags.get(row["dataset"], {})) for row in rows if is_dataset_database(row["dataset"])]


def dataset_summaries(warehouse: Warehouse) -> list[DatasetSummary]:
    """All datasets, by name."""
    by_dataset: dict[str, list[VersionSummary]] = {}
    for version in version_summaries(warehouse):
        by_dataset.setdefault(version.dataset, []).append(version)
    latest = [versions[-1] for versions in by_dataset.values()]
    sizes = table_bytes(warehouse, [v.name for v in latest])
    tags = {name: {t.tag: t.version for t in found.values()} for name, found in all_tags(warehouse).items()}
    return [_dataset(versions, sizes[versions[-1].name], tags.get(name, {})) for name, versions in by_dataset.items()]


def table_bytes(warehouse: Warehouse, versions: list[str]) -> dict[str, int]:
    """Bytes on disk of versions, what they share with others included."""
    rows = warehouse.rows(
        "SELECT concat(database, '.', name) AS version, total_bytes AS n FROM system.tables"
        # With IN the engine looks at these tables alone; has() makes it add up the bytes of all.
        " WHERE database IN {d:Array(String)} AND name IN {n:Array(String)}",
        {"d": sorted({v.partition(".")[0] for v in versions}), "n": sorted({v.partition(".")[2] for v in versions})},
    )
    sizes = {row["version"]: int(row["n"] or 0) for row in rows}
    return {version: sizes.get(version, 0) for version in versions}


def _version(row: Mapping[str, Any], tags: Mapping[str, Tag]) -> VersionSummary:
    dataset, number, uuid = row["dataset"], row["number"], row["id"]
    own = sorted(tag.tag for tag in tags.values() if tag.uuid == uuid)
    if not row["is_recorded"]:
        return VersionSummary(f"{dataset}.v{number}", dataset, number, uuid, tags=own)
    return VersionSummary(
        name=f"{dataset}.v{number}",
        dataset=dataset,
        number=number,
        uuid=uuid,
        rows=row["rows"],
        shards=row["shards"],
        tags=own,
        storage=row["storage"],
        parents=list(row["parents"]),
        **row["made"],
    )


def _dataset(versions: list[VersionSummary], size: int, tags: dict[str, str]) -> DatasetSummary:
    latest = versions[-1]
    added = sum(version.bytes_added or 0 for version in versions)
    return DatasetSummary(latest.dataset, latest.name, len(versions), latest.rows, size, added, latest.created, tags)
