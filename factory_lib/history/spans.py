"""How one sample fared over the versions of a dataset: there or not, and when it changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from factory_lib.names import CATALOG
from factory_lib.plan.sqltext import literal
from factory_lib.warehouse.versions import Version, versions

_ALL = "all"
_READ = 50
"""Makers of the sample's shard that are looked at, the newest ones."""


@dataclass(frozen=True)
class Span:
    """Versions, one after the other, in which nothing happened to the sample.

    Attributes:
        first, last: names of the versions.
        is_there: whether the sample is in them.
        changed: columns whose value differs from that in the span before.
    """

    first: str
    last: str
    is_there: bool
    changed: tuple[str, ...] = ()


def spans(version: Version, sample_id: int, shards: Iterable[str]) -> list[Span]:
    """The spans of a sample over the versions of a dataset, the oldest first.

    Shards that were only carried over are not looked at again.

    Args:
        version: a version of the dataset.
        shards: names of the shards that the sample may be in.
    """
    known = {v.uuid: v for v in versions(version.warehouse, version.dataset)}
    rows = version.warehouse.rows(
        f"SELECT toString(uuid) AS id, groupArray(concat(shard, ' ', toString(origin))) AS makers FROM"
        f" (SELECT * FROM {CATALOG}.shards WHERE has({{u:Array(UUID)}}, uuid) AND has({{s:Array(String)}}, shard)"
        " ORDER BY shard) GROUP BY uuid",
        {"u": list(known), "s": sorted({*shards, _ALL})},
    )
    makers = {row["id"]: tuple(row["makers"]) for row in rows}
    alike = [list(group) for _, group in groupby(known.values(), key=lambda v: makers.get(v.uuid, ()))]
    found: list[Span] = []
    before: dict[str, Any] | None = None
    for group in alike[-_READ:]:
        known_shards = [maker.rpartition(" ")[0] for maker in makers.get(group[0].uuid, ())]
        row = _row(group[0], sample_id, known_shards or [s for s in group[0].shards if s in {*shards, _ALL}])
        changed = _changed(before, row) if before and row else ()
        if found and found[-1].is_there == (row is not None) and not changed:
            found[-1] = replace(found[-1], last=str(group[-1]))
        else:
            found.append(Span(str(group[0]), str(group[-1]), row is not None, changed))
        before = row or before
    return found


def _row(version: Version, sample_id: int, shards: Sequence[str]) -> dict[str, Any] | None:
    """The sample's row in these shards of a version."""
    if not shards:
        return None
    where = f"sample_id = {int(sample_id)} AND shard IN ({', '.join(map(literal, shards))})"
    rows = version.warehouse.rows(f"SELECT * FROM {version.table} WHERE {where} LIMIT 1")
    return rows[0] if rows else None


def _changed(before: dict[str, Any], row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(n for n in {**before, **row} if n != "position" and before.get(n) != row.get(n))
