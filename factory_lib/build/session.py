"""Rows that are in no table yet are written when a plan first needs them, once for as long as its nodes are used.

The staging table of a node is kept as long as the node: a query that is counted, shown and saved reads its source and
computes its signals once.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import pyarrow as pa

from factory_lib.build.arrow_rows import write_arrow
from factory_lib.build.column_rows import write_columns
from factory_lib.build.earlier import EarlierRows, earlier_rows
from factory_lib.build.ledger import Ledger
from factory_lib.build.new_samples import write_new_samples
from factory_lib.build.rows import stage_of_rows
from factory_lib.build.signal_rows import write_signals
from factory_lib.build.storage_rows import write_storage
from factory_lib.plan.expressions import SqlText
from factory_lib.plan.nodes import (
    Arrow,
    Columns,
    Derived,
    NewSamples,
    Plan,
    Rows,
    Signals,
    Storage,
    Table,
    leaves,
    pending,
    transform,
)
from factory_lib.plan.select import Select
from factory_lib.plan.sqltext import literal
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.lifetimes import drop_with
from factory_lib.warehouse.staging import StagingTable

_staged: WeakKeyDictionary[Plan, tuple[StagingTable, Ledger]] = WeakKeyDictionary()
"""Node -> its rows as a table, and what happened while they were written."""


def settled(query: Select, ledger: Ledger) -> Select:
    """The query with all its rows written, so that it reads tables alone.

    Args:
        ledger: gets what happened when the rows were written, now or before.
    """
    unwritten = dict.fromkeys(node for node in leaves(query) if not isinstance(node, Table))
    tables: dict[Plan, Plan] = {node: staged(node, ledger).source() for node in unwritten}
    return _select(transform(query, tables.get))


def staged(node: Plan, ledger: Ledger) -> StagingTable:
    """The rows of a node as a table, written at the first call; the table goes when the node goes."""
    if node not in _staged:
        own = Ledger(fresh=ledger.fresh, executor=ledger.executor)
        stage = _written(node, own)
        drop_with(node, stage)
        _staged[node] = stage, own
    stage, own = _staged[node]
    ledger.add(own)
    return stage


def ledger_of(node: Plan) -> Ledger | None:
    """What happened while the rows of a node were written; None when they were not yet."""
    return _staged[node][1] if node in _staged else None


def discard(plan: Plan) -> None:
    """Drop the tables of all rows of a plan that were written for it."""
    for node in pending(plan):
        if node in _staged:
            _staged.pop(node)[0].drop()


def typed(query: Select) -> Select:
    """The query with typed empty rows in place of those that are in no table, so that the engine can tell its types."""

    def change(node: Plan) -> Plan | None:
        if not isinstance(node, Rows) or isinstance(node, Table):
            return None
        columns = {n: SqlText(f"defaultValueOfTypeName({literal(t)})") for n, t in node.columns.items()}
        return Select(Table("system.one", columns={}), columns)

    return _select(transform(query, change))


def _written(node: Plan, ledger: Ledger) -> StagingTable:
    match node:
        case Arrow():
            return write_arrow(node, ledger)
        case Storage():
            return write_storage(node, ledger)
        case Signals():
            return write_signals(node, settled(node.input, ledger), ledger)
        case Columns():
            return write_columns(node, settled(node.input, ledger), ledger)
        case Derived():
            return _write_derived(node, settled(node.input, ledger), ledger)
        case NewSamples():
            return write_new_samples(node, settled(node.input, ledger), ledger)
    raise AssertionError(f"{node.label} is written nowhere")


def _write_derived(node: Derived, rows: Select, ledger: Ledger) -> StagingTable:
    before: list[EarlierRows | None] = []
    if node.function.remembered_by:
        before = [None if ledger.fresh else earlier_rows(warehouse(), node)]
    table: pa.Table = node.function.rows(rows, *before, **node.options)
    stage = stage_of_rows(node.columns, table.to_batches(), node.label)
    ledger.bytes += stage.bytes()
    ledger.storage.append("insert")
    return stage


def _select(plan: Plan) -> Select:
    assert isinstance(plan, Select)
    return plan
