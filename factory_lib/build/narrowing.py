"""Queries over fewer shards than they were written for, where that leaves the rows of the others as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from factory_lib.build.computing import SignalRows, table_sources
from factory_lib.build.pending import Origin, ShardRows
from factory_lib.errors import FactoryError
from factory_lib.plan.sql import Block, JoinSource, PendingSource, TableSource, leaves, source_columns, tables
from factory_lib.plan.sqltext import literal, quote
from factory_lib.redaction import without_credentials
from factory_lib.storage.files import is_state
from factory_lib.storage.store import store
from factory_lib.warehouse import provenance
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.derive import plan, with_system_columns

_AT_ONCE = 16


def narrowed(block: Block, shards: Sequence[str]) -> Block | None:
    """The query over some of its shards; None where a row depends on rows of other shards."""
    full = with_system_columns(block)
    columns = dict.fromkeys(source_columns(full.source), "")
    if plan(replace(full, source=TableSource("rows", columns))).kind == "copy":
        return None
    source = block.source
    if isinstance(source, TableSource):
        kept = tuple(s for s in shards if source.shards is None or s in source.shards)
        return replace(block, source=replace(source, shards=kept))
    if isinstance(source, JoinSource):
        # Each row is one of the left, in its shard, and what it is joined with is looked up.
        of_left = source.how in ("inner", "left") and source.columns.get("shard") == ("l", "shard")
        left = narrowed(source.left, shards) if of_left else None
        return None if left is None else replace(block, source=replace(source, left=left))
    if not isinstance(source, PendingSource):
        return None
    if isinstance(source.origin, ShardRows):
        there = {shard.name for shard in source.origin.shards}
        rows: Origin = ShardRows(source.origin.source, [s for s in shards if s in there])
        return replace(block, source=replace(source, origin=rows))
    if isinstance(source.origin, SignalRows):
        inner = narrowed(source.origin.block, shards)
        if inner is not None:
            rows = SignalRows(inner, source.origin.signals, source.origin.on_error)
            return replace(block, source=replace(source, origin=rows))
    return None


def pending_origins(block: Block) -> Iterator[Origin]:
    """What writes the rows that a query reads and that are in no table yet, however deep."""
    for source in leaves(block):
        if isinstance(source, PendingSource):
            yield source.origin
            inner = getattr(source.origin, "block", None)
            if isinstance(inner, Block):
                yield from pending_origins(inner)


def changed_members(wh: Warehouse, block: Block) -> dict[str, str]:
    """Shards whose bytes the signals of a query would read and which are not those that were ingested, with reasons."""
    found: dict[str, str] = {}
    for origin in pending_origins(block):
        if isinstance(origin, SignalRows):
            members = [name for signal in origin.signals for name in signal.members]
            for table in tables(origin.block):
                used = [name for name in dict.fromkeys(members) if name in table.columns]
                if used:
                    found |= _changed(wh, table, used, origin.block)
    return found


def _changed(wh: Warehouse, table: TableSource, members: Sequence[str], block: Block) -> dict[str, str]:
    name = ".".join(quote(part) for part in table.name.split(".", 1))
    where = "" if table.shards is None else f" WHERE has([{', '.join(map(literal, table.shards))}], shard)"
    files: dict[str, list[str]] = {}
    for member in members:
        for row in wh.rows(f"SELECT DISTINCT shard, tupleElement({quote(member)}, 'uri') AS uri FROM {name}{where}"):
            if row["uri"]:
                files.setdefault(row["uri"], []).append(row["shard"])
    etags = provenance.etags(wh, table_sources(block, wh).values())
    wanted = [uri for uri in files if etags.get(uri)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        reasons = dict(zip(wanted, pool.map(lambda uri: _difference(uri, etags[uri]), wanted), strict=True))
    return {shard: why for uri, why in reasons.items() if why for shard in files[uri]}


def _difference(uri: str, etag: str) -> str:
    """What is different about a file; empty when nothing is."""
    try:
        now = store().info(uri).etag
    except (FactoryError, OSError) as error:
        return f"source changed: {without_credentials(str(error))}"
    shown = without_credentials(uri)
    return "" if is_state(now, etag) else f"source changed: {shown} has the etag {now}, it had {etag}"
