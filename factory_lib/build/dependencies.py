"""What a query depends on: the rows that it begins with, and everything that it looks up besides.

Looked up are the other side of a semi or anti join and of `isin`, Arrow tables in memory, tables that SQL text names,
and what a signal knows from a version (the centroids that it finds the nearest of). What is looked up counts like what
is read: it stands in provenance, it is kept from being collected, and a dataset is behind when it changed.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from factory_lib.build.ledger import Ledger
from factory_lib.build.session import staged
from factory_lib.names import is_version_name
from factory_lib.plan.expressions import SqlText
from factory_lib.plan.nodes import NewSamples, Plan, Rows, Signals, Storage, Table, walk
from factory_lib.plan.select import Select
from factory_lib.plan.sqltext import quote
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.user_sql import tables_named
from factory_lib.warehouse.versions import Version, resolve

_CONSTANT = frozenset(["system.one", "system.numbers", "system.zeros"])


def root_of(plan: Plan) -> Rows:
    """The table or source that a query begins with."""
    return next(_origins(plan))


def versions_read(warehouse: Warehouse, plan: Plan) -> list[Version]:
    """The versions that a query reads and looks up, what gives it its rows first.

    Raises:
        NotFound: one of them is not there.
    """
    tables = [node.name for node in _origins(plan) if isinstance(node, Table) and is_version_name(node.name)]
    named = [name for name in _named_in_text(warehouse, plan) if is_version_name(name)]
    known = [name for node in walk(plan) if isinstance(node, Signals) for s in node.signals for name in s.looks_up]
    return [resolve(warehouse, name) for name in dict.fromkeys([*tables, *named, *known])]


def lookups(warehouse: Warehouse, plan: Plan) -> list[str]:
    """What a query looks up besides the rows that it begins with, a text each that changes with it.

    Arrow tables are written and hashed in the warehouse. A table that SQL text names and whose state cannot be told
    counts as changed each time.
    """
    # The rows that a query begins with may be looked up, too: then any change of them counts.
    states = [_state(warehouse, rows) for rows in list(_origins(plan))[1:]]
    return sorted({*states, *(_table_state(warehouse, name) for name in _named_in_text(warehouse, plan))})


def _origins(plan: Plan) -> Iterator[Rows]:
    """Tables, and rows in no table that are not what their query and code for each row say; what gives rows first."""
    return (node for node in walk(plan) if isinstance(node, Rows) and not isinstance(node, Signals | NewSamples))


def _state(warehouse: Warehouse, rows: Rows) -> str:
    if isinstance(rows, Table):
        return _table_state(warehouse, rows.name)
    if isinstance(rows, Storage):
        return " ".join([rows.label, *(shard.fingerprint for shard in rows.shards)])
    stage = staged(rows, Ledger())
    row = ", ".join(f"tuple({quote(name)})" for name in stage.columns())
    count, content = warehouse.rows(f"SELECT count() AS n, sum(cityHash64({row})) AS h FROM {stage.name}")[0].values()
    return f"{count} rows {content:016x}"


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


def _named_in_text(warehouse: Warehouse, plan: Plan) -> list[str]:
    """Tables that SQL text of a query names, and that there are."""
    selects = [node for node in walk(plan) if isinstance(node, Select)]
    parts = [e for one in selects for expr in one.expressions() for e in expr.walk()]
    texts = {e.text for e in parts if isinstance(e, SqlText)}
    names = sorted({name for text in texts for name in tables_named(text)})
    if not names:
        return []
    rows = warehouse.rows(
        "SELECT concat(database, '.', name) AS found FROM system.tables"
        " WHERE has({d:Array(String)}, database) AND has({n:Array(String)}, concat(database, '.', name))",
        {"d": [name.partition(".")[0] for name in names], "n": names},
    )
    return sorted(row["found"] for row in rows)
