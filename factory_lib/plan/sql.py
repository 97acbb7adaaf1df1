"""A query becomes one flat SELECT with bound parameters.

A `Block` is one SELECT: a source, output columns as expressions over the source's columns, predicates, and what comes
after them. Each verb gives a new block; where SQL's order of evaluation forbids to add to the same SELECT (a filter
behind a limit, say) the block becomes the source of a new one. Expressions are substituted, never named and referred
to: ClickHouse lets aliases shadow columns, which gives wrong rows without an error, and a nested SELECT disables its
vector index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

import numpy as np

from factory_lib.errors import ColumnNotFound, QueryError, nearest
from factory_lib.plan.aggregates import is_ordered
from factory_lib.plan.expressions import SqlText, spans_rows
from factory_lib.plan.operators import Call, Column, Expr, InQuery, Literal, Ordering, Scalar, ordering, render_ordering
from factory_lib.plan.sqltext import literal, quote

Params = dict[str, Any]
ROW_ID = ("shard", "position")
WHOLE_ROW = "sipHash128"
"""What orders rows that have no place of their own."""


@dataclass(frozen=True, eq=False)
class TableSource:
    """A table of the warehouse.

    Attributes:
        name: `database.table`.
        columns: column name -> ClickHouse type.
        shards: the shards that are read, or None for all.
        unit: names of the columns that hold vectors of unit length.
    """

    name: str
    columns: Mapping[str, str]
    shards: tuple[str, ...] | None = None
    unit: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class JoinSource:
    """Two queries side by side; `columns` says where each output column comes from: (side, column name there)."""

    left: Block
    right: Block
    how: str
    on: tuple[tuple[str, str], ...]
    columns: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, eq=False)
class UnionSource:
    """Queries one after the other; a column that one of them lacks is NULL there."""

    blocks: tuple[Block, ...]


@dataclass(frozen=True, eq=False)
class PendingSource:
    """Rows that exist only once the query runs: an Arrow table, a source of shards, computed signals.

    Attributes:
        columns: column name -> ClickHouse type.
        origin: what it is made of, for provenance and for `explain`.
    """

    origin: Any
    columns: Mapping[str, str]
    unit: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Block:
    """One SELECT."""

    source: TableSource | JoinSource | UnionSource | PendingSource | Block
    columns: Mapping[str, Expr]
    where: tuple[Expr, ...] = ()
    group_by: tuple[Expr, ...] | None = None
    order_by: tuple[Ordering, ...] = ()
    limit: int | None = None
    offset: int = 0
    limit_by: tuple[Expr, ...] = ()
    distinct: bool = False
    windowed: bool = field(default=False)

    @staticmethod
    def over(source: TableSource | JoinSource | UnionSource | PendingSource | Block) -> Block:
        """All columns and rows of a source."""
        return Block(source, {name: Column(name) for name in source_columns(source)})

    # Verbs -----------------------------------------------------------------------------------------------------

    def nested(self) -> Block:
        """A block that reads this one as a subquery, in the same order as far as the output columns can tell it."""
        names = {id(e): name for name, e in self.columns.items()}
        keys = takewhile(lambda key: id(key.expr) in names, self.order_by)
        order = tuple(Ordering(Column(names[id(key.expr)]), key.descending) for key in keys)
        return replace(Block.over(self), order_by=order)

    def bind(self, expr: Expr) -> Expr:
        """An expression over the output columns as one over the source's columns.

        Raises:
            ColumnNotFound: it names a column that is not there.
        """

        def change(e: Expr) -> Expr | None:
            if isinstance(e, Column):
                return self.column(e.name)
            if isinstance(e, SqlText):
                return e.bound_to(self.columns)
            return None

        return expr.replace(change)

    def column(self, name: str) -> Expr:
        """The expression of an output column."""
        if name not in self.columns:
            raise ColumnNotFound(
                f"There is no column {name!r} in {describe(self.source)}.", nearest(name, self.columns)
            )
        return self.columns[name]

    def filter(self, predicate: Expr) -> Block:
        """Keep the rows for which the predicate holds; rows for which it is NULL go."""
        base = self if self._rows_are_plain() and not self.windowed else self.nested()
        bound = base.bind(predicate)
        if spans_rows(bound):
            base = replace(base.with_columns({"_keep": predicate}), windowed=True).nested()
            return base.filter(Column("_keep")).drop(["_keep"])
        return replace(base, where=(*base.where, bound))

    def with_columns(self, new: Mapping[str, Expr]) -> Block:
        """Add or replace columns; all new ones see the columns as they were before."""
        base = self.nested() if self.distinct or self.limit_by else self
        windowed = any(spans_rows(base.bind(e)) for e in new.values())
        if windowed and (base.limit is not None or base.offset or base.group_by is not None):
            base = base.nested()
        columns = {**base.columns, **{name: base.bind(e) for name, e in new.items()}}
        return replace(base, columns=columns, windowed=base.windowed or windowed)

    def select(self, new: Mapping[str, Expr]) -> Block:
        """Exactly these columns."""
        base = self.with_columns(new)
        return replace(base, columns={name: base.columns[name] for name in new})

    def drop(self, names: Iterable[str]) -> Block:
        """All columns but these."""
        gone = {name for name in names if self.column(name) is not None}
        base = self.nested() if self.distinct else self
        return replace(base, columns={n: e for n, e in base.columns.items() if n not in gone})

    def rename(self, names: Mapping[str, str]) -> Block:
        """Columns under new names, `{old: new}`, in their places."""
        for old in names:
            self.column(old)
        base = self.nested() if self.distinct else self
        renamed = {names.get(n, n): e for n, e in base.columns.items()}
        if len(renamed) != len(base.columns):
            raise QueryError(f"Renaming {dict(names)} would give two columns the same name.")
        return replace(base, columns=renamed)

    def sort(self, keys: Sequence[Any]) -> Block:
        """Order by these keys; ties keep the order there was."""
        plain = self.limit is None and not (self.offset or self.distinct or self.limit_by)
        base = self if plain else self.nested()
        bound = tuple(Ordering(base.bind(k.expr), k.descending) for k in map(ordering, keys))
        return replace(base, order_by=(*bound, *base.order_by))

    def head(self, n: int) -> Block:
        """The first n rows."""
        base = self.nested() if self.limit is not None else self
        return replace(base.in_row_order(), limit=n)

    def skip(self, n: int) -> Block:
        """All rows but the first n."""
        base = self.nested() if self.limit is not None or self.offset else self
        return replace(base.in_row_order(), offset=n)

    def unique(self, names: Sequence[str]) -> Block:
        """One row for each distinct row, or, with names, the first row for each distinct value of them."""
        base = self if self._rows_are_plain() else self.nested()
        if not names:
            return replace(base, distinct=True, order_by=())
        return replace(base.in_row_order(), limit_by=tuple(base.column(n) for n in names))

    def aggregate(self, keys: Mapping[str, Expr], values: Mapping[str, Expr]) -> Block:
        """One row for each distinct value of the keys."""
        base = self if self._rows_are_plain() and not self.windowed else self.nested()
        if any(is_ordered(e) for e in values.values()):
            base = self.in_row_order().nested()
        bound = {name: base.bind(e) for name, e in keys.items()}
        columns = {**bound, **{name: base.bind(e) for name, e in values.items()}}
        return replace(base, columns=columns, group_by=tuple(bound.values()), order_by=())

    def _rows_are_plain(self) -> bool:
        """Whether the rows are those of the source less the filtered ones."""
        return self.limit is None and not (self.offset or self.limit_by or self.distinct) and self.group_by is None

    def in_row_order(self) -> Block:
        """The same rows in an order that leaves nothing open, where they have one.

        Where nothing else was said it is the order of the source's rows, and what an order leaves equal comes in it,
        too: which rows a limit keeps, which of several is the first, and where each is stored is always the same.
        """
        return self._ordered_by(self._tie_breakers())

    def exposed(self) -> Block:
        """The block as a terminal reads it: in row order, but for rows of joins and unions that share a place."""
        return self._ordered_by([k for k in self._tie_breakers() if not (isinstance(k, Call) and k.name == WHOLE_ROW)])

    def _ordered_by(self, keys: Iterable[Expr]) -> Block:
        said = {repr(o.expr) for o in self.order_by}
        return replace(self, order_by=(*self.order_by, *(Ordering(k) for k in keys if repr(k) not in said)))

    def _tie_breakers(self) -> Sequence[Expr]:
        """What tells any two rows apart that are not the same in all that the query sees of them."""
        if self.group_by is not None:
            return self.group_by
        if self.distinct:
            return tuple(self.columns.values())
        names = list(source_columns(self.source))
        place = [Column(n) for n in ROW_ID if n in names]
        if _rows_have_places(self.source):
            return place
        # A NULL would make the whole hash NULL, but for inside a tuple.
        return (*place, Call(WHOLE_ROW, tuple(Call("tuple", (Column(n),)) for n in names if n not in ROW_ID)))

    def expressions(self) -> Iterator[Expr]:
        """Everything that is evaluated in the SELECT."""
        yield from self.columns.values()
        yield from self.where
        yield from self.group_by or ()
        yield from (key.expr for key in self.order_by)
        yield from self.limit_by

    def has_places(self) -> bool:
        """Whether no two rows have the same shard and position."""
        return self.has_row_id() and _rows_have_places(self.source)

    def has_row_id(self) -> bool:
        """Whether shard and position of the source pass through unchanged."""
        return all(isinstance(e := self.columns.get(n), Column) and e.name == n for n in ROW_ID)


def source_columns(source: Any) -> Mapping[str, Any]:
    """Names of the columns of a source (the keys of what is returned)."""
    if isinstance(source, UnionSource):
        return {name: None for block in source.blocks for name in block.columns}
    columns: Mapping[str, Any] = source.columns
    return columns


def _rows_have_places(source: Any) -> bool:
    """Whether no two rows of a source have the same shard and position."""
    if isinstance(source, Block):
        plain = source.group_by is None and not source.distinct and source.has_row_id()
        return plain and _rows_have_places(source.source)
    return isinstance(source, TableSource | PendingSource) and all(n in source.columns for n in ROW_ID)


def describe(source: Any) -> str:
    """A source in words, for messages."""
    if isinstance(source, TableSource):
        return source.name
    if isinstance(source, PendingSource):
        return str(source.origin)
    if isinstance(source, JoinSource):
        return f"the join of {describe(source.left.source)} and {describe(source.right.source)}"
    if isinstance(source, UnionSource):
        return "the union of " + ", ".join(describe(b.source) for b in source.blocks)
    return describe(source.source)


def blocks_of(source: Any) -> Iterator[Block]:
    """All SELECTs that a source is made of: those that give it its rows first, then those that these look up."""
    if isinstance(source, JoinSource | UnionSource):
        parts = (source.left, source.right) if isinstance(source, JoinSource) else source.blocks
        for part in parts:
            yield from blocks_of(part)
    elif isinstance(source, Block):
        yield source
        yield from blocks_of(source.source)
        for expr in source.expressions():
            for e in expr.walk():
                if isinstance(e, InQuery | Scalar):
                    yield from blocks_of(e.block)


def leaves(source: Any) -> list[Any]:
    """The tables and pending rows that a source reads, in the order of `blocks_of`."""
    sources = [source, *(block.source for block in blocks_of(source))]
    return [one for one in sources if isinstance(one, TableSource | PendingSource)]


def tables(source: Any) -> list[TableSource]:
    """All tables that a source reads, subqueries included."""
    return [one for one in leaves(source) if isinstance(one, TableSource)]


def map_sources(block: Block, change: Callable[[Any], Any]) -> Block:
    """A copy in which `change` replaced the leaves (tables and pending rows) of a query."""

    def source(node: Any) -> Any:
        if isinstance(node, JoinSource):
            return replace(node, left=map_sources(node.left, change), right=map_sources(node.right, change))
        if isinstance(node, UnionSource):
            return UnionSource(tuple(map_sources(b, change) for b in node.blocks))
        if isinstance(node, Block):
            return map_sources(node, change)
        return change(node)

    def nested(e: Expr) -> Expr | None:
        if isinstance(e, InQuery):
            return replace(e, base=e.base.replace(nested), block=map_sources(e.block, change))
        return replace(e, block=map_sources(e.block, change)) if isinstance(e, Scalar) else None

    def each(exprs: Iterable[Expr]) -> tuple[Expr, ...]:
        return tuple(e.replace(nested) for e in exprs)

    return replace(
        block,
        source=source(block.source),
        columns={n: e.replace(nested) for n, e in block.columns.items()},
        where=each(block.where),
        group_by=None if block.group_by is None else each(block.group_by),
        order_by=tuple(Ordering(o.expr.replace(nested), o.descending) for o in block.order_by),
        limit_by=each(block.limit_by),
    )


@dataclass
class Rendering:
    """Renders blocks; collects bound parameters, or writes literals where statements take no parameters.

    Attributes:
        inline: write values as literals.
        params: what was bound so far.
        settings: what the statement needs to be run with.
    """

    inline: bool = False
    params: Params = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=lambda: {"prefer_column_name_to_alias": 1})

    def select(self, block: Block) -> str:
        """SQL of a block."""
        scope = Scoped(self, block.source)
        if block.group_by is not None and any(is_ordered(e) for e in block.columns.values()):
            self.settings["max_threads"] = 1  # several would not keep the order of the rows
        columns = ", ".join(_named(e.render(scope), name) for name, e in block.columns.items()) or "1"
        parts = [f"SELECT {'DISTINCT ' if block.distinct else ''}{columns}", f"FROM {self._source(block.source)}"]
        where = [*self._shards(block.source), *(e.render(scope) for e in block.where)]
        if where:
            parts.append("WHERE " + " AND ".join(where))
        if block.group_by:
            parts.append("GROUP BY " + ", ".join(e.render(scope) for e in block.group_by))
        if block.order_by:
            parts.append("ORDER BY " + ", ".join(render_ordering(o, scope) for o in block.order_by))
        if block.limit_by:
            parts.append("LIMIT 1 BY " + ", ".join(e.render(scope) for e in block.limit_by))
        if block.limit is not None:
            parts.append(f"LIMIT {int(block.limit)}")
        if block.offset:
            parts.append(f"OFFSET {int(block.offset)}")
        return " ".join(parts)

    def expression(self, expr: Expr, source: Any) -> str:
        """SQL of an expression over the columns of a source."""
        return expr.render(Scoped(self, source))

    def predicate(self, block: Block) -> str:
        """SQL of all predicates of a block as one, or an empty string."""
        return " AND ".join(self.expression(e, block.source) for e in block.where)

    def bind(self, value: Any, ch_type: str) -> str:
        """A placeholder, or a literal of the type."""
        if self.inline:
            text = literal(value)
            return text if ch_type in {"Int64", "Float64", "String", "Bool"} else f"CAST({text}, {literal(ch_type)})"
        name = f"p{len(self.params)}"
        self.params[name] = (
            value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value
        )
        return f"{{{name}:{ch_type}}}"

    def _source(self, source: Any) -> str:
        if isinstance(source, TableSource):
            return ".".join(quote(part) for part in source.name.split(".", 1))
        if isinstance(source, Block):
            return f"({self.select(source)})"
        if isinstance(source, UnionSource):
            names = list(source_columns(source))
            aligned = (
                b.nested().with_columns({n: Literal(None) for n in names if n not in b.columns}) for b in source.blocks
            )
            return "(" + " UNION ALL ".join(self.select(b.select({n: Column(n) for n in names})) for b in aligned) + ")"
        if isinstance(source, JoinSource):
            return self._join(source)
        if self.inline and isinstance(source, PendingSource):
            text: str = source.origin.sql(self)
            return text
        raise QueryError(
            f"The rows of {describe(source)} exist only once the query runs.", "Save it, or call a terminal."
        )

    def _join(self, source: JoinSource) -> str:
        sides = {"l": source.left, "r": source.right}
        columns = ", ".join(f"{_joined(source, out)} AS {quote(out)}" for out in source.columns)
        on = " AND ".join(f"l.{quote(a)} = r.{quote(b)}" for a, b in source.on)
        left, right = (f"({self.select(sides[s])}) AS {s}" for s in "lr")
        # Without join_use_nulls a row without a partner gets zeros and empty strings that look like values.
        return f"(SELECT {columns} FROM {left} {source.how.upper()} JOIN {right} ON {on} SETTINGS join_use_nulls = 1)"

    def _shards(self, source: Any) -> list[str]:
        if isinstance(source, TableSource) and source.shards is not None:
            if not source.shards:
                return ["0"]
            return [f"shard IN ({', '.join(self.bind(s, 'String') for s in source.shards)})"]
        return []


def _joined(source: JoinSource, out: str) -> str:
    """A column of a join; what says which row it is, and the keys, of the right where the left has no partner."""
    side, name = source.columns[out]
    own = f"{side}.{quote(name)}"
    if side == "r" or source.how not in ("right", "full") or name not in source.right.columns:
        return own
    if name in (*ROW_ID, "sample_id", "key"):  # one of the two is there
        return f"ifNull({own}, assumeNotNull(r.{quote(name)}))"
    return f"ifNull({own}, r.{quote(name)})" if (name, name) in source.on else own


@dataclass(frozen=True, eq=False)
class Scoped:
    """The scope of expressions over one source: types, unit vectors, parameters."""

    rendering: Rendering
    source: Any

    def type_of(self, column: str) -> str:
        """ClickHouse type of a column where the source is a table; of columns passed through by a subquery."""
        if isinstance(self.source, TableSource | PendingSource):
            return self.source.columns.get(column, "")
        inner = self._inner(column)
        return inner[0].type_of(inner[1]) if inner else ""

    def is_unit(self, column: str) -> bool:
        """Whether a column holds unit vectors."""
        if isinstance(self.source, TableSource | PendingSource):
            return column in self.source.unit
        inner = self._inner(column)
        return inner[0].is_unit(inner[1]) if inner else False

    def bind(self, value: Any, ch_type: str) -> str:
        return self.rendering.bind(value, ch_type)

    def subquery(self, block: Block) -> str:
        return self.rendering.select(block)

    def places(self) -> Sequence[Expr]:
        return [Column(n) for n in ROW_ID] if _rows_have_places(self.source) else []

    def lazily(self) -> bool:
        # What is written with its values stands alone: it is shown, or becomes a mutation, which runs without settings.
        if not self.rendering.inline:
            self.rendering.settings["short_circuit_function_evaluation"] = "force_enable"
        return not self.rendering.inline

    def _inner(self, column: str) -> tuple[Scoped, str] | None:
        block, name = self.source, column
        if isinstance(block, JoinSource):
            if column not in block.columns:
                return None
            side, name = block.columns[column]
            block = block.left if side == "l" else block.right
        elif isinstance(block, UnionSource):
            block = block.blocks[0]
        if isinstance(block, Block) and isinstance(e := block.columns.get(name), Column):
            return Scoped(self.rendering, block.source), e.name
        return None


def _named(text: str, name: str) -> str:
    return text if text == quote(name) else f"{text} AS {quote(name)}"
