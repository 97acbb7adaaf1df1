"""Plans over fewer shards than they were written for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from factory_lib.plan.nodes import Join, NewSamples, Plan, Signals, Storage, Table, transform
from factory_lib.plan.select import Select
from factory_lib.plan.storing import storage_plan, with_system_columns


def restricted_to(plan: Plan) -> tuple[str, ...] | None:
    """The shards that what gives a plan its rows was restricted to, or None."""
    if isinstance(plan, Table):
        return plan.shards
    if isinstance(plan, Storage):
        return tuple(shard.name for shard in plan.shards)
    givers = plan.inputs[:1] if isinstance(plan, Join) else plan.inputs
    found = [shards for one in givers if (shards := restricted_to(one)) is not None]
    return tuple(dict.fromkeys(shard for shards in found for shard in shards)) if found else None


def restricted(plan: Select, shards: Collection[str]) -> Select:
    """The same query with everything that was restricted to shards restricted to these: what is left of a run when some
    of its shards cannot be made. Inputs that are read as a whole stay whole.
    """
    kept = set(shards)

    def change(node: Plan) -> Plan | None:
        own = restricted_to(node) if isinstance(node, Table | Storage) else None
        return None if own is None else _over(node, [shard for shard in own if shard in kept])

    changed = transform(plan, change)
    assert isinstance(changed, Select)
    return changed


def narrowed(query: Select, shards: Sequence[str]) -> Select | None:
    """The query over some of its shards; None where a row depends on rows of other shards."""
    full = with_system_columns(query)
    columns = dict.fromkeys(full.source.names, "")
    if storage_plan(replace(full, source=Table("rows", columns=columns))).kind == "copy":
        return None
    source = _narrowed(query.source, shards)
    return None if source is None else replace(query, source=source)


def _narrowed(source: Plan, shards: Sequence[str]) -> Plan | None:
    match source:
        case Table() | Storage():
            return _over(source, shards)
        case Join() if source.how in ("inner", "left") and source.columns.get("shard") == ("l", "shard"):
            # Each row is one of the left, in its shard, and what it is joined with is looked up.
            left = narrowed(source.left, shards)
            return None if left is None else replace(source, left=left)
        case Signals() | NewSamples():
            inner = narrowed(source.input, shards)
            return None if inner is None else replace(source, input=inner)
    return None


def _over(rows: Plan, shards: Sequence[str]) -> Plan:
    """A table or samples in storage with these of its shards alone."""
    if isinstance(rows, Table):
        return replace(rows, shards=tuple(s for s in shards if rows.shards is None or s in rows.shards))
    assert isinstance(rows, Storage)
    there = {shard.name: shard for shard in rows.shards}
    return replace(rows, shards=tuple(there[s] for s in shards if s in there), whole=False)
