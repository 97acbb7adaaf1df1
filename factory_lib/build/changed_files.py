"""Which shards point at bytes that are not those which were ingested any more."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from factory_lib.build.signal_rows import table_sources
from factory_lib.errors import FactoryError
from factory_lib.plan.nodes import Plan, Signals, Table, pending, tables
from factory_lib.plan.sqltext import literal, quote
from factory_lib.redaction import without_credentials
from factory_lib.storage.files import is_state
from factory_lib.storage.store import store
from factory_lib.warehouse import provenance
from factory_lib.warehouse.client import Warehouse

_AT_ONCE = 16


def changed_members(wh: Warehouse, plan: Plan) -> dict[str, str]:
    """Shards whose bytes the signals of a query would read and which are not those that were ingested, with reasons."""
    found: dict[str, str] = {}
    for node in pending(plan):
        if isinstance(node, Signals):
            members = [name for signal in node.signals for name in signal.members]
            for table in tables(node.input):
                used = [name for name in dict.fromkeys(members) if name in table.columns]
                if used:
                    found |= _changed(wh, table, used, node.input)
    return found


def _changed(wh: Warehouse, table: Table, members: Sequence[str], plan: Plan) -> dict[str, str]:
    name = ".".join(quote(part) for part in table.name.split(".", 1))
    where = "" if table.shards is None else f" WHERE has([{', '.join(map(literal, table.shards))}], shard)"
    files: dict[str, list[str]] = {}
    for member in members:
        for row in wh.rows(f"SELECT DISTINCT shard, tupleElement({quote(member)}, 'uri') AS uri FROM {name}{where}"):
            if row["uri"]:
                files.setdefault(row["uri"], []).append(row["shard"])
    etags = provenance.etags(wh, table_sources(plan, wh).values())
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
