"""A dataset is brought up to date: only the shards that changed are made again.

What each shard of a dataset was made of, and by what, is recorded beside its version: the fingerprint of its files, or
the version that made the shard of the parent, and the fingerprint of the query with its signals. A shard is behind when
either is not what it is now, and when values of it were lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from factory_lib.build.dependencies import lookups, root_of
from factory_lib.build.recipes import recipe_of
from factory_lib.build.requests import SaveRequest
from factory_lib.build.saving import save
from factory_lib.errors import QueryError
from factory_lib.names import is_version_name
from factory_lib.plan.identity import identity
from factory_lib.plan.nodes import Storage, Table
from factory_lib.plan.restriction import narrowed
from factory_lib.plan.select import Select
from factory_lib.warehouse import provenance
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.lost import lost_values
from factory_lib.warehouse.provenance import ShardInput
from factory_lib.warehouse.versions import Version, latest, resolve


def refresh(
    query: Select, python: str, dataset: str, context: Mapping[str, Any], executor: str | None = None
) -> Version:
    """Make the next version of a dataset with the shards of a query that are behind; none where none is.

    Raises:
        QueryError: a row of the query may depend on rows of other shards.
    """
    wh = warehouse()
    root = None if narrowed(query, ()) is None else _root(query)
    if root is None:
        raise QueryError(
            f"{dataset}: refresh() works shard by shard, and a row of this query may depend on rows of other shards.",
            f"save({dataset!r}) makes all of them.",
        )
    maker = identity(recipe_of(query, {}))
    now = {s: ShardInput(root.name, maker, given) for s, given in root.read.items()}
    base = latest(wh, dataset)
    before = provenance.read_inputs(wh, base.uuid) if base else {}
    gone = sorted(s for s, given in before.items() if given.root == root.name and s not in root.there)
    lost = {one.shard for one in lost_values(base)} if base else set()
    behind = [shard for shard, given in now.items() if before.get(shard) != given or shard in lost]
    if base is not None and not behind and not gone:
        return base
    some = narrowed(query, behind)
    assert some is not None
    inputs = {s: now[s] for s in behind}
    return save(
        SaveRequest(
            dataset,
            some,
            python,
            "overwrite_shards",
            tuple(behind),
            tuple(gone),
            False,
            context,
            inputs,
            executor=executor,
        )
    )


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


def _root(query: Select) -> _Root | None:
    source = root_of(query)
    suffix = " ".join(["", *lookups(warehouse(), query)])
    if isinstance(source, Table) and is_version_name(source.name):
        parent = resolve(warehouse(), source.name)
        wanted = parent.shards if source.shards is None else [s for s in source.shards if s in parent.shards]
        read = {s: parent.shards[s].origin + suffix for s in wanted}
        return _Root(parent.dataset, read, frozenset(parent.shards))
    if isinstance(source, Storage):
        read = {s.name: s.fingerprint + suffix for s in source.shards}
        return _Root(source.uri, read, frozenset(s.name for s in source.source.shards()))
    return None
