"""Values that were lost on their way into a version: a row that has neither a value of a signal nor an error.

Every version is checked for them before it is published. Those that were published before this was so are found here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from factory_lib.names import CATALOG
from factory_lib.plan.sqltext import literal, quote
from factory_lib.warehouse.versions import Version


@dataclass(frozen=True)
class LostValues:
    """Rows of a shard that have neither a value of a signal nor an error.

    Attributes:
        column: the column of the values.
        rows: how many rows.
    """

    shard: str
    column: str
    rows: int


def is_bare(value: str, error: str, ch_type: str) -> str:
    """SQL of whether there is neither a value nor an error in two columns.

    Args:
        ch_type: ClickHouse type of the values; an empty list stands for one that is missing, as there is no NULL of it.
    """
    if ch_type.startswith("Tuple("):
        # Compared by their hashes: a NULL inside a tuple makes a comparison NULL.
        nothing = f"sipHash128(tuple({value})) = sipHash128(tuple(defaultValueOfTypeName({literal(ch_type)})))"
    else:
        nothing = f"empty({value})" if ch_type.startswith("Array(") else f"isNull({value})"
    return f"({error} IS NULL AND {nothing})"


def lost_values(version: Version, *, unchecked: bool = True) -> list[LostValues]:
    """What a version lacks of the values of its signals.

    Args:
        unchecked: look only at shards that were made when versions were not checked.
    """
    wh = version.warehouse
    shards = {name: shard.origin for name, shard in version.shards.items()}
    if unchecked:
        checked = wh.rows(
            f"SELECT DISTINCT toString(uuid) AS id FROM {CATALOG}.versions WHERE has({{o:Array(UUID)}}, uuid)"
            " AND JSONExtractBool(record, 'checked')",
            {"o": sorted(set(shards.values()))},
        )
        known = {row["id"] for row in checked}
        shards = {name: origin for name, origin in shards.items() if origin not in known}
    if not shards:
        return []
    found: list[LostValues] = []
    for value, error in _held(version, shards):
        bare = is_bare(quote(value), quote(error), version.columns[value])
        rows = wh.rows(
            f"SELECT toString(shard) AS shard, count() AS n FROM {version.table}"
            f" WHERE has({{s:Array(String)}}, toString(shard)) AND {bare} GROUP BY shard ORDER BY shard",
            {"s": sorted(shards)},
            {"prefer_column_name_to_alias": 1},  # a signal may be called `n`
        )
        found += [LostValues(row["shard"], value, row["n"]) for row in rows]
    return found


def _held(version: Version, shards: Mapping[str, str]) -> list[tuple[str, str]]:
    """The columns of a version that hold values of signals, each with that of its errors."""
    rows = version.warehouse.rows(
        f"SELECT DISTINCT value, error FROM {CATALOG}.signal_values WHERE has({{o:Array(UUID)}}, origin)"
        " ORDER BY value",
        {"o": sorted(set(shards.values()))},
    )
    return [(r["value"], r["error"]) for r in rows if {r["value"], r["error"]} <= version.columns.keys()]
