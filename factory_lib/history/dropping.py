"""Why a query does not keep a row that no condition drops: what beat it to a limit, or what a join lacked.

The query is made again from its recipe and asked about the one row, from the inside out. Queries that compute signals
on the way are not: the values of rows that they drop are kept nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from factory_lib.build.recipes import prepared
from factory_lib.errors import EngineError, FactoryError
from factory_lib.history.origins import known_versions
from factory_lib.plan.nodes import Join, Plan, Table, Union
from factory_lib.plan.operators import Call, Column, Expr, Literal, Window
from factory_lib.plan.python import python_of
from factory_lib.plan.select import Select, said_order
from factory_lib.plan.sql import Rendering
from factory_lib.warehouse import provenance
from factory_lib.warehouse.client import Warehouse


def why_dropped(warehouse: Warehouse, maker: str, sample_id: int) -> str:
    """What kept a sample out of a version although it meets all conditions; an empty string where that cannot be told.

    Args:
        maker: UUID of the version.
    """
    recipe = provenance.read_recipes(warehouse, [maker]).get(maker)
    if recipe is None or any(node["is"] not in _ASKED for node in recipe.get("nodes", ())):
        return ""
    uuids = [node["uuid"] for node in recipe["nodes"] if node.get("uuid")]
    names = {uuid: known.name for uuid, known in known_versions(warehouse, uuids).items() if known.is_there}
    try:
        return _Asked(warehouse, sample_id).about(prepared(recipe, names).query)
    except (EngineError, FactoryError):  # something that it read was dropped meanwhile
        return ""


_ASKED = frozenset(["Table", "Join", "Union", "Select"])
"""Nodes of plans whose rows are there to be asked about."""
_COUNTED = 1000
"""So many partners of a joined row are counted."""


class _Asked:
    """Asks queries about one sample."""

    def __init__(self, warehouse: Warehouse, sample_id: int) -> None:
        self.warehouse = warehouse
        self.sample_id = sample_id

    def about(self, query: Select) -> str:
        """Why a query does not keep the sample; an empty string where it does, or where it cannot be told."""
        source = query.source
        inside = self._inside(source)
        if inside or query.group_by is not None or "sample_id" not in source.names:
            return inside
        return self._of_another_shard(query) or self._later_than_the_first(query) or self._beyond_the_limit(query)

    def _inside(self, source: Plan) -> str:
        match source:
            case Union():
                reasons = [self.about(query) for query in source.queries]
                return next(filter(None, reasons), "") if all(reasons) else ""
            case Join():
                return self._by_join(source)
            case Select():
                return self.about(source)
        return ""

    def _of_another_shard(self, query: Select) -> str:
        source = query.source
        if not isinstance(source, Table) or source.shards is None:
            return ""
        rows = self._rows(Select(replace(source, shards=None), {"shard": Column("shard")}, (self._is_it(),)).head(1))
        if not rows or rows[0]["shard"] in source.shards:
            return ""
        return f"only the shards {', '.join(source.shards[:5])} were read, it is in {rows[0]['shard']}"

    def _by_join(self, join: Join) -> str:
        """Why a join does not give the sample, which stands on its left, or is what is joined to samples there."""
        if inside := self.about(join.left):
            return inside
        if own := self._keys_of(join.left, [a for a, _ in join.on]):
            found = self._partners(join.right, [b for _, b in join.on], own)
            return (
                "" if found or join.how not in ("inner", "right") else _lacks(join.right, [b for _, b in join.on], own)
            )
        if inside := self.about(join.right):
            return inside
        if not (own := self._keys_of(join.right, [b for _, b in join.on])):
            return ""
        names = [a for a, _ in join.on]
        if found := self._partners(join.left, names, own):
            many = "" if len(found) == 1 else f" and {len(found) - 1:,} more"
            more = f" and {_COUNTED - 1:,} or more" if len(found) == _COUNTED else many
            sample = f", sample {found[0]['sample_id']}" if "sample_id" in found[0] else ""
            return f"its columns stand beside {join.left.label}{sample}{more}"
        return _lacks(join.left, names, own) if join.how in ("inner", "left") else ""

    def _keys_of(self, side: Select, names: Sequence[str]) -> list[Any]:
        """The values that the sample is joined by, where it is on a side of a join."""
        if "sample_id" not in side.columns:
            return []
        own = self._rows(side.nested().filter(self._is_it()).select({name: Column(name) for name in names}))
        return [own[0][name] for name in names] if own else []

    def _partners(self, side: Select, names: Sequence[str], values: Sequence[Any]) -> list[dict[str, Any]]:
        query = side.nested()
        for name, value in zip(names, values, strict=True):
            query = query.filter(Column(name) == Literal(value))
        shown = "sample_id" if "sample_id" in side.columns else names[0]
        return self._rows(query.select({shown: Column(shown)}).head(_COUNTED))

    def _later_than_the_first(self, query: Select) -> str:
        """What stands for it where one row of several is kept, such as the first of each label."""
        if not query.limit_by:
            return ""
        keys = {f"k{i}": key for i, key in enumerate(query.limit_by)}
        plain = replace(query, limit=None, offset=0, limit_by=(), order_by=())
        own = self._rows(self._it(plain, keys))
        if not own:
            return ""
        same = tuple(_same(key, own[0][name]) for name, key in keys.items())
        first = replace(
            plain, columns=self._named(query), where=(*plain.where, *same), order_by=query.order_by, limit=1
        )
        found = self._rows(first)
        if not found or found[0]["sample_id"] == self.sample_id:
            return ""
        of_what = _shown({python_of(key): own[0][name] for name, key in keys.items()})
        order = _order(query)
        return f"one row is kept of those with {of_what}, the first{order}: {found[0]['key']!r}"

    def _beyond_the_limit(self, query: Select) -> str:
        if query.limit is None and not query.offset:
            return ""
        rank = Window(Call("row_number"), (), query.order_by)
        plain = replace(query, limit=None, offset=0, order_by=())
        ranked = replace(plain, columns={**self._named(query), "rank": rank}) if not query.limit_by else None
        own = self._rows(Select.over(ranked).filter(self._is_it())) if ranked else []
        if not own:
            return ""
        place = int(own[0]["rank"])
        if place <= query.offset:
            return f"the first {query.offset:,}{_order(query)} are left out, it is number {place:,}"
        if query.limit is None or place <= query.offset + query.limit:
            return ""
        said = {f"o{i}": o.expr for i, o in enumerate(said_order(query))}
        mine = self._rows(self._it(plain, said)) if said else [{}]
        last = replace(query, columns={**self._named(query), **said}, limit=1, offset=query.offset + query.limit - 1)
        kept = self._rows(last)
        text = f"{query.limit:,} rows are kept{_order(query)}, it is number {place:,}"
        if not kept:
            return text
        values = [(python_of(e), mine[0][name], kept[0][name]) for name, e in said.items()]
        compared = "; ".join(f"{name} is {ours!r}, there {theirs!r}" for name, ours, theirs in values)
        return f"{text}; the last one kept is {kept[0]['key']!r}" + (f" ({compared})" if compared else "")

    def _named(self, query: Select) -> dict[str, Expr]:
        columns = query.source.names
        key = query.columns.get("key", Column("key")) if "key" in columns else Literal("")
        return {"sample_id": Column("sample_id"), "key": key}

    def _it(self, query: Select, columns: Mapping[str, Expr]) -> Select:
        return replace(query, columns=dict(columns), where=(*query.where, self._is_it()))

    def _is_it(self) -> Expr:
        return Column("sample_id") == Literal(self.sample_id).cast("UInt64")

    def _rows(self, query: Select) -> list[dict[str, Any]]:
        rendering = Rendering()
        text = rendering.select(query)
        return self.warehouse.rows(text, rendering.params, rendering.settings)


def _lacks(side: Select, names: Sequence[str], values: Sequence[Any]) -> str:
    return f"{side.label} has no row with {_shown(dict(zip(names, values, strict=True)))}"


def _order(query: Select) -> str:
    said = said_order(query)
    return f" by {', '.join(map(python_of, said))}" if said else ""


def _same(expr: Expr, value: Any) -> Expr:
    return expr.is_null() if value is None else expr == Literal(value)


def _shown(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in values.items())
