"""What a function made of an earlier state of the same query: it can go on from there.

Rows that are computed from rows as a whole depend on all of them, and most of these are as they were. The newest
version that holds nothing but what the same function, with the same options and code, made of the same query tells what
it found then, and the versions that the query read then tell of what.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from factory_lib.build.recipes import NotReproducible, prepared, recipe_of
from factory_lib.names import CATALOG, is_version_name
from factory_lib.plan.identity import identity
from factory_lib.plan.nodes import Derived, pending
from factory_lib.plan.select import Select
from factory_lib.warehouse import provenance
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.schema import ensure_tables
from factory_lib.warehouse.versions import resolve

_LOOKED_AT = 20
"""Versions, the newest first, that are looked at: others may have been made of the same function, too."""


@dataclass(frozen=True)
class EarlierRows:
    """What was made before.

    Attributes:
        input: the rows that it was made of, all of them in tables.
        rows: what was made, with the columns of the node.
    """

    input: Select
    rows: Select


def earlier_rows(warehouse: Warehouse, node: Derived) -> EarlierRows | None:
    """What the function of a node made of an earlier state of its input; None where nothing is left of that."""
    ensure_tables(warehouse)
    wanted = identity(recipe_of(Select.over(node), {}))
    found = warehouse.rows(
        "SELECT toString(uuid) AS id, concat(t.database, '.', t.name) AS version"
        f" FROM {CATALOG}.recipes AS r INNER JOIN {CATALOG}.versions AS v USING (uuid)"
        " INNER JOIN (SELECT uuid, database, name FROM system.tables) AS t USING (uuid)"
        " WHERE position(r.recipe, {p:String}) > 0 ORDER BY v.created DESC LIMIT {n:UInt32}",
        {"p": node.function.place, "n": _LOOKED_AT},
    )
    versions = {row["id"]: row["version"] for row in found if is_version_name(row["version"])}
    recipes = provenance.read_recipes(warehouse, versions)
    for uuid, version in versions.items():
        if uuid in recipes and identity(recipes[uuid]) == wanted and (given := _input(warehouse, recipes[uuid])):
            return EarlierRows(given, Select.over(resolve(warehouse, version).source))
    return None


def _input(warehouse: Warehouse, recipe: Mapping[str, Any]) -> Select | None:
    """What the function was given then; None where the versions are gone, or hold it only in part."""
    uuids = [node["uuid"] for node in recipe["nodes"] if node.get("uuid")]
    rows = warehouse.rows(
        "SELECT toString(uuid) AS id, concat(database, '.', name) AS version FROM system.tables"
        " WHERE has({u:Array(UUID)}, uuid)",
        {"u": uuids},
    )
    names = {row["id"]: row["version"] for row in rows if is_version_name(row["version"])}
    try:
        made = prepared(recipe, names)
    except NotReproducible:
        return None
    node = made.query.source
    if not isinstance(node, Derived) or made.unpinned or made.changed or pending(node.input):
        return None
    return node.input
