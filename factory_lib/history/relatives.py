"""Samples that were made of samples: from a new sample to its parent, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from factory_lib.history.origins import known_versions
from factory_lib.history.sample_history import Stop, pointers_of
from factory_lib.plan.nodes import OPERATION, PARENT
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.versions import Version, datasets


@dataclass(frozen=True)
class Child:
    """A sample that was made of another.

    Attributes:
        operation: what was done, with its parameters.
        pointers: member -> uri, offset and size of its bytes.
        versions: the latest version of each dataset that has it.
    """

    key: str
    sample_id: int
    operation: str
    pointers: Mapping[str, Any]
    versions: Sequence[str]


def parent_of(warehouse: Warehouse, stops: Sequence[Stop]) -> tuple[Version, int] | None:
    """The parent of a sample, and the version in which it was when the sample was made.

    Args:
        stops: where the sample was, the oldest last.

    Returns:
        None where it has none, or that version was dropped.
    """
    first = next((stop for stop in reversed(stops) if stop.row), None)
    if first is None or first.row is None or first.record is None or first.row.get(PARENT) is None:
        return None
    sample_id = int(first.row[PARENT])
    known = known_versions(warehouse, [parent["uuid"] for parent in first.record.parents])
    for parent in first.record.parents:
        found = known.get(parent["uuid"])
        if found is not None and found.is_there:
            dataset, _, number = found.name.rpartition(".v")
            version = Version(dataset, int(number), parent["uuid"], warehouse)
            if warehouse.rows(f"SELECT 1 FROM {version.table} WHERE sample_id = {sample_id} LIMIT 1"):
                return version, sample_id
    return None


def children_of(warehouse: Warehouse, sample_id: int) -> list[Child]:
    """What was made of a sample, as the latest versions have it."""
    latest = {(of_one[-1].dataset, f"v{of_one[-1].number}"): of_one[-1] for of_one in datasets(warehouse).values()}
    having = warehouse.rows(
        "SELECT database, table FROM system.columns WHERE name = {c:String} AND has({d:Array(String)}, database)"
        " AND has({n:Array(String)}, concat(database, '.', table)) ORDER BY database",
        {"c": PARENT, "d": [dataset for dataset, _ in latest], "n": [".".join(place) for place in latest]},
    )
    found: dict[int, Child] = {}
    for row in having:
        version = latest[(row["database"], row["table"])]
        children = f"SELECT * FROM {version.table} WHERE {PARENT} = {int(sample_id)} ORDER BY shard, position"
        for child in warehouse.rows(children):
            known = found.get(child["sample_id"])
            versions = (*(known.versions if known else ()), str(version))
            found[child["sample_id"]] = Child(
                child["key"], child["sample_id"], child.get(OPERATION) or "", pointers_of(child), versions
            )
    return list(found.values())
