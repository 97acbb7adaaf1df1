"""A dataset is brought up to date: only the shards that changed are made again.

What each shard of a dataset was made of, and by what, is recorded beside its version: the fingerprint of its files, or
the version that made the shard of the parent, and the fingerprint of the query with its signals. A shard is behind when
either is not what it is now, and when values of it were lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from factory_lib.build.dependencies import lookups, root_of
from factory_lib.build.narrowing import narrowed, pending_origins
from factory_lib.build.pending import ShardRows
from factory_lib.build.saving import Request, made_by, save
from factory_lib.errors import QueryError
from factory_lib.plan.sql import Block, PendingSource, TableSource
from factory_lib.redaction import without_credentials
from factory_lib.warehouse import provenance
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.lost import lost_values
from factory_lib.warehouse.names import is_version_name
from factory_lib.warehouse.provenance import ShardInput
from factory_lib.warehouse.versions import Version, latest, resolve


def update(block: Block, python: str, dataset: str, context: Mapping[str, str]) -> Version:
    """Make the next version of a dataset with the shards of a query that are behind; none where none is.

    Raises:
        QueryError: a row of the query may depend on rows of other shards.
    """
    wh = warehouse()
    root = None if narrowed(block, ()) is None else _root(block)
    if root is None:
        raise QueryError(
            f"{dataset}: refresh() works shard by shard, and a row of this query may depend on rows of other shards.",
            f"save({dataset!r}) makes all of them.",
        )
    maker = made_by(block, _signals(block))
    now = {s: ShardInput(root.name, maker, given) for s, given in root.read.items()}
    base = latest(wh, dataset)
    before = provenance.read_inputs(wh, base.uuid) if base else {}
    gone = sorted(s for s, given in before.items() if given.root == root.name and s not in root.there)
    lost = {one.shard for one in lost_values(base)} if base else set()
    behind = [shard for shard, given in now.items() if before.get(shard) != given or shard in lost]
    if base is not None and not behind and not gone:
        return base
    some = narrowed(block, behind)
    assert some is not None
    inputs = {s: now[s] for s in behind}
    return save(Request(dataset, some, python, "overwrite_shards", tuple(behind), tuple(gone), False, context, inputs))


@dataclass(frozen=True)
class _Root:
    """What gives a query its rows.

    Attributes:
        name: uri of the source, or name of the parent dataset.
        read: shard that the query reads -> what it holds, as a string that changes with it.
        there: all shards that the source or the parent has.
    """

    name: str
    read: dict[str, str]
    there: frozenset[str]


def _root(block: Block) -> _Root | None:
    source = root_of(block)
    suffix = " ".join(["", *lookups(warehouse(), block)])
    if isinstance(source, TableSource) and is_version_name(source.name):
        parent = resolve(warehouse(), source.name)
        wanted = parent.shards if source.shards is None else [s for s in source.shards if s in parent.shards]
        read = {s: parent.shards[s].origin + suffix for s in wanted}
        return _Root(parent.dataset, read, frozenset(parent.shards))
    if isinstance(source, PendingSource) and isinstance(source.origin, ShardRows):
        rows = source.origin
        read = {s.name: s.fingerprint + suffix for s in rows.shards}
        return _Root(without_credentials(rows.source.uri), read, frozenset(s.name for s in rows.source.shards()))
    return None


def _signals(block: Block) -> list[dict[str, str]]:
    return [
        {"name": signal.name, "fingerprint": signal.fingerprint}
        for origin in pending_origins(block)
        for signal in getattr(origin, "signals", ())
    ]
