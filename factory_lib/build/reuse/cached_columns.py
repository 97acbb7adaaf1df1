"""Which columns of a query hold the values of signals as they were computed, and the inputs as they were read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from factory_lib.plan.nodes import Over, Plan, Signals
from factory_lib.plan.select import Select
from factory_lib.warehouse.computed import Held


def cached_columns(query: Select, records: Sequence[Mapping[str, Any]]) -> list[Held]:
    """Columns in which a query carries values of signals, unchanged, beside everything that they were computed from.

    Args:
        records: the signals that were computed for it: `name` and `fingerprint` of each.
    """
    prints = {record["name"]: str(record["fingerprint"]) for record in records}
    twice = {record["name"] for record in records if prints[record["name"]] != record["fingerprint"]}
    return [one for one in _held(query, {n: p for n, p in prints.items() if n not in twice}) if _is_whole(one)]


def _held(plan: Plan, prints: Mapping[str, str]) -> list[Held]:
    """What a plan holds, under its own names of columns."""
    if isinstance(plan, Select):
        return _passed(plan, prints)
    if not isinstance(plan, Over):
        return []
    # What a later step writes under the same name is not what was read or computed any more.
    written = plan.written
    before = [one for one in _held(plan.input, prints) if not written & {one.value, one.error, *one.reads.values()}]
    signals = plan.signals if isinstance(plan, Signals) else ()
    own = [
        Held(prints[s.name], s.name, f"{s.name}_error", {c: c for c in s.reads})
        for s in signals
        if s.name in prints and not written & set(s.reads)
    ]
    return before + own


def _passed(query: Select, prints: Mapping[str, str]) -> list[Held]:
    """What a SELECT passes on of what its source holds."""
    if query.group_by is not None:
        return []
    carried: dict[str, str] = {}
    for name in query.columns:
        if (of_source := query.passed(name)) is not None:
            carried.setdefault(of_source, name)
    return [
        Held(one.fingerprint, carried[one.value], carried[one.error], {c: carried[n] for c, n in one.reads.items()})
        for one in _held(query.source, prints)
        if {one.value, one.error, *one.reads.values()} <= carried.keys()
    ]


def _is_whole(held: Held) -> bool:
    """Whether the inputs are those of the rows of a version: a copy of rows gives them other places."""
    return not {"shard", "position"} & set(held.reads)
