"""What `explain` says of a query beyond how it would be stored: what is read, and what is computed."""

from __future__ import annotations

from factory_lib.plan.nodes import NewSamples, Over, Plan, Signals, Storage, Table, walk
from factory_lib.redaction import redact
from factory_lib.view.html import code, counted, page
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.estimate import rows_and_bytes


class Explanation(str):
    """Text that notebooks show in lines, and not as one quoted string."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return page(code(str(self)))


def to_do(warehouse: Warehouse, plan: Plan) -> list[str]:
    """Lines that say how many rows are read of what, and how many values are computed at most."""
    lines = []
    for name, shards in dict.fromkeys((one.name, one.shards) for one in walk(plan) if isinstance(one, Table)):
        rows, _ = rows_and_bytes(warehouse, [Table(name, shards, columns={})])
        some = "" if shards is None else f" in {counted(len(shards), 'shard')}"
        lines.append(f"reads: up to {rows:,} rows of {name}{some}")
    for node in walk(plan):
        if isinstance(node, Storage):
            lines.append(f"reads: {counted(len(node.shards), 'shard')} of {node.label}")
        if isinstance(node, Signals):
            lines.append(f"computes: {_values(warehouse, node)}{', '.join(signal.name for signal in node.signals)}")
        if isinstance(node, NewSamples):
            lines.append(f"makes: {node.label}, in {redact(node.into)}")
    return list(dict.fromkeys(lines))


def _values(warehouse: Warehouse, node: Over) -> str:
    """How many values of each signal, where that can be told before anything is read."""
    below = list(walk(node.input))
    if any(isinstance(one, Storage) for one in below):
        return "a value a sample of "
    rows, _ = rows_and_bytes(warehouse, [one for one in below if isinstance(one, Table)])
    return f"up to {rows:,} values, less those that versions have already, of "
