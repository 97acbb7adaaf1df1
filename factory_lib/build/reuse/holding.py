"""Which columns of a query hold the values of signals as they were computed, and the inputs as they were read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from factory_lib.plan.operators import Column
from factory_lib.plan.sql import Block, PendingSource
from factory_lib.warehouse.computed import Held


def held_columns(block: Block, records: Sequence[Mapping[str, Any]]) -> list[Held]:
    """Columns in which a query carries values of signals, unchanged, beside everything that they were computed from.

    Args:
        records: the signals that were computed for it: `name` and `fingerprint` of each.
    """
    prints = {record["name"]: str(record["fingerprint"]) for record in records}
    twice = {record["name"] for record in records if prints[record["name"]] != record["fingerprint"]}
    return [one for one in _held(block, {n: p for n, p in prints.items() if n not in twice}) if _is_whole(one)]


def _held(block: Block, prints: Mapping[str, str]) -> list[Held]:
    if block.group_by is not None:
        return []
    carried: dict[str, str] = {}
    for name, expr in block.columns.items():
        if isinstance(expr, Column):
            carried.setdefault(expr.name, name)
    return [
        Held(one.fingerprint, carried[one.value], carried[one.error], {c: carried[n] for c, n in one.reads.items()})
        for one in _held_by(block.source, prints)
        if {one.value, one.error, *one.reads.values()} <= carried.keys()
    ]


def _held_by(source: Any, prints: Mapping[str, str]) -> list[Held]:
    """What a source of rows holds, under its own names of columns."""
    if isinstance(source, Block):
        return _held(source, prints)
    inner = getattr(source.origin, "block", None) if isinstance(source, PendingSource) else None
    if not isinstance(inner, Block):
        return []
    signals = getattr(source.origin, "signals", ())
    written = {n for s in signals for n in s.columns} | set(getattr(source.origin, "types", ()))
    # What a later step writes under the same name is not what was read or computed any more.
    before = [one for one in _held(inner, prints) if not written & {one.value, one.error, *one.reads.values()}]
    own = [
        Held(prints[s.name], s.name, f"{s.name}_error", {c: c for c in s.reads})
        for s in signals
        if s.name in prints and not written & set(s.reads)
    ]
    return before + own


def _is_whole(held: Held) -> bool:
    """Whether the inputs are those of the rows of a version: a copy of rows gives them other places."""
    return not {"shard", "position"} & set(held.reads)
