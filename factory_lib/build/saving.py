"""Saving: a query becomes the next version of a dataset: its rows are written, then committed (see `build.commit`)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

from factory_lib.build.commit import Draft, commit
from factory_lib.build.dependencies import versions_read
from factory_lib.build.ledger import Ledger
from factory_lib.build.recipes import recipe_of
from factory_lib.build.requests import SaveRequest
from factory_lib.build.reuse.cached_columns import cached_columns
from factory_lib.build.session import settled, staged
from factory_lib.errors import QueryError
from factory_lib.names import check_dataset_name
from factory_lib.plan.identity import identity
from factory_lib.plan.nodes import Derived, NewSamples, Plan, Rows, Table
from factory_lib.plan.predicates import predicates
from factory_lib.plan.select import Select
from factory_lib.plan.sql import Rendering
from factory_lib.plan.storing import Derivation
from factory_lib.settings import executor
from factory_lib.warehouse import provenance
from factory_lib.warehouse.client import Warehouse, warehouse
from factory_lib.warehouse.derive import derive, naming_columns
from factory_lib.warehouse.locking import locked
from factory_lib.warehouse.provenance import Provenance, ShardRecord
from factory_lib.warehouse.vector_index import indexed
from factory_lib.warehouse.versions import Version


def save(request: SaveRequest) -> Version:
    """Build and publish the version.

    Raises:
        InvalidName: the dataset cannot be called that.
        QueryError: the query is wrong, or its columns do not fit those of the version whose shards it overwrites.
        CommitError: the version could not be published.
    """
    started = time.monotonic()
    check_dataset_name(request.dataset)
    if request.mode not in ("new", "overwrite_shards"):
        raise QueryError(f"save(mode={request.mode!r}): there is no such mode.", "Use 'new' or 'overwrite_shards'.")
    if request.index is not None and request.mode != "new":
        raise QueryError(f"save(index={request.index!r}) makes a version of its own: mode='new'.")
    wh = warehouse()
    ledger = Ledger(executor=executor(request.executor))
    parents = versions_read(wh, request.query)
    # Before anything is computed: what a signal's code does when it is used is no other code.
    recipe = recipe_of(request.query, {str(v): v.uuid for v in parents})
    maker = identity(recipe)
    query = settled(request.query, ledger)
    with naming_columns(query):
        rows, derivation, added = derive(wh, request.dataset, query)
    if request.index is not None:
        with rows.dropped_on_error():
            rows = indexed(rows, request.index)
        added = rows.bytes()  # it is a copy
        ledger.storage.append("index")
    try:
        made = rows.shard_rows() if derivation.rows is None else derivation.rows
        passed_on = _is_passed_on(request.query, derivation)
        told = Provenance(
            dataset=request.dataset,
            created=provenance.now(),
            parents=[{"name": str(v), "uuid": v.uuid} for v in parents],
            python=request.python,
            sql=Rendering(inline=True).select(request.query),
            predicates=predicates(request.query),
            signals=ledger.signals,
            sources=ledger.sources,
            code=provenance.code_of(os.getcwd()),
            context={**request.context, **ledger.told()},
            storage="+".join([*ledger.storage, *([derivation.kind] if derivation.kind != "clone" else [])]) or "clone",
            rows_in=sum(made.values()) if passed_on else _rows_in(wh, request.query),
            bytes_added=ledger.bytes + added,
            reused=ledger.reused,
            computed=ledger.computed,
            checked=True,
        )
        sources = {**_sources(parents), **ledger.shard_sources}
        records = [ShardRecord(s, n, "", maker, sources.get(s, "")) for s, n in made.items()]
        cached = cached_columns(request.query, ledger.signals)
        # Parents are locked, too: who drops versions must see this one, or be done before.
        with locked(wh, request.dataset, *(v.dataset for v in parents)):
            version = commit(wh, Draft(request, rows, records, cached, ledger.losses, told, recipe, started))
    finally:
        rows.drop()
    for finish in ledger.finish:
        finish()
    return version


def _sources(parents: Sequence[Version]) -> dict[str, str]:
    return {name: s.source for version in reversed(parents) for name, s in version.shards.items() if s.source}


def _is_passed_on(query: Select, derivation: Derivation) -> bool:
    """Whether the rows of a query are those that it was given, all of them."""
    return derivation.kind == "clone" and not isinstance(query.source, Derived | NewSamples)


def _rows_in(wh: Warehouse, query: Select) -> int:
    """Rows that the query was given, in the shards that it reads: those of each table once, however often it is read.

    What rows are only looked up in (the right side of a semi or an anti join) gives none.
    """
    given = {(table.name, table.shards): table for table in _givers(query)}
    total = 0
    for table in given.values():
        everything = Rendering()
        text = everything.select(Select(table, {}))
        total += int(wh.scalar(f"SELECT count() FROM ({text})", everything.params))
    return total


def _givers(plan: Plan) -> Iterator[Table]:
    """The tables whose rows become rows of the query; other rows stand as the table that they were written to."""
    if isinstance(plan, Table):
        yield plan
    elif isinstance(plan, Rows) and not isinstance(plan, Derived | NewSamples):
        yield staged(plan, Ledger()).source()
    else:
        for one in plan.inputs:
            yield from _givers(one)
