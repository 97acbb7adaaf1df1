"""What a query depends on: the rows that it begins with, and everything that it looks up besides.

Looked up are the other side of a semi or anti join, of `isin` and of scalar subqueries, Arrow tables in memory, and
tables that SQL text names. What is looked up counts like what is read: it stands in provenance, it is kept from being
collected, and a dataset is behind when it changed.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from factory_lib.build.computing import SignalRows
from factory_lib.build.pending import Ledger, Origin, ShardRows
from factory_lib.plan.expressions import SqlText
from factory_lib.plan.sql import Block, PendingSource, TableSource, blocks_of
from factory_lib.plan.sqltext import quote
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.handwritten import tables_named
from factory_lib.warehouse.names import is_version_name
from factory_lib.warehouse.versions import Version, resolve

_CONSTANT = frozenset(["system.one", "system.numbers", "system.zeros"])


def all_blocks(source: Any) -> Iterator[Block]:
    """All SELECTs of a query, those behind pending rows included: what gives it its rows first."""
    for block in blocks_of(source):
        yield block
        if isinstance(block.source, PendingSource) and isinstance(inner := _inner(block.source.origin), Block):
            yield from all_blocks(inner)


def root_of(block: Block) -> Any:
    """The table or source that a query begins with."""
    return next(_leaves(block))


def versions_read(warehouse: Warehouse, block: Block) -> list[Version]:
    """The versions that a query reads and looks up, what gives it its rows first.

    Raises:
        NotFound: one of them is not there.
    """
    tables = [leaf.name for leaf in _leaves(block) if isinstance(leaf, TableSource) and is_version_name(leaf.name)]
    named = [name for name in _named_in_text(warehouse, block) if is_version_name(name)]
    return [resolve(warehouse, name) for name in dict.fromkeys([*tables, *named])]


def lookups(warehouse: Warehouse, block: Block) -> list[str]:
    """What a query looks up besides the rows that it begins with, a text each that changes with it.

    Arrow tables are written and hashed in the warehouse. A table that SQL text names and whose state cannot be told
    counts as changed each time.
    """
    # The rows that a query begins with may be looked up, too: then any change of them counts.
    states = [_state(warehouse, leaf) for leaf in list(_leaves(block))[1:]]
    return sorted({*states, *(_table_state(warehouse, name) for name in _named_in_text(warehouse, block))})


def _leaves(block: Block) -> Iterator[Any]:
    """Tables, and pending rows that are made of no other query."""
    for one in all_blocks(block):
        source = one.source
        if isinstance(source, TableSource) or (isinstance(source, PendingSource) and not _is_passing(source.origin)):
            yield source


def _is_passing(origin: Origin) -> bool:
    """Whether rows are what their query and their signals say."""
    return isinstance(origin, SignalRows)


def _inner(origin: Origin) -> Any:
    return getattr(origin, "block", None)


def _state(warehouse: Warehouse, leaf: TableSource | PendingSource) -> str:
    if isinstance(leaf, TableSource):
        return _table_state(warehouse, leaf.name)
    if isinstance(leaf.origin, ShardRows):
        return " ".join([str(leaf.origin), *(shard.fingerprint for shard in leaf.origin.shards)])
    stage = leaf.origin.stage(Ledger())
    row = ", ".join(f"tuple({quote(name)})" for name in stage.columns())
    rows, content = warehouse.rows(f"SELECT count() AS n, sum(cityHash64({row})) AS h FROM {stage.name}")[0].values()
    return f"{rows} rows {content:016x}"


def _table_state(warehouse: Warehouse, name: str) -> str:
    if is_version_name(name):
        return f"{name} {resolve(warehouse, name).uuid}"
    database, _, table = name.partition(".")
    parts = warehouse.rows(
        "SELECT count() AS n, hex(groupBitXor(sipHash64(name, hash_of_all_files))) AS h FROM system.parts"
        " WHERE active AND database = {d:String} AND table = {t:String}",
        {"d": database, "t": table},
    )[0]
    if parts["n"] or name in _CONSTANT:
        return f"{name} {parts['h']}"
    return f"{name} {uuid.uuid4().hex}"


def _named_in_text(warehouse: Warehouse, block: Block) -> list[str]:
    """Tables that SQL text of a query names, and that there are."""
    texts = {
        e.text for one in all_blocks(block) for expr in one.expressions() for e in expr.walk() if isinstance(e, SqlText)
    }
    names = sorted({name for text in texts for name in tables_named(text)})
    if not names:
        return []
    rows = warehouse.rows(
        "SELECT concat(database, '.', name) AS found FROM system.tables"
        " WHERE has({d:Array(String)}, database) AND has({n:Array(String)}, concat(database, '.', name))",
        {"d": [name.partition(".")[0] for name in names], "n": names},
    )
    return sorted(row["found"] for row in rows)
