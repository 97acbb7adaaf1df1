"""`Select`: one SELECT of a query, and the verbs that make the next one.

Each verb gives a new one; where SQL's order of evaluation forbids to add to the same SELECT (a filter behind a limit,
say) it becomes the source of a new one. Expressions are substituted, never named and referred to: ClickHouse lets
aliases shadow columns, which gives wrong rows without an error, and a nested SELECT disables its vector index.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

from factory_lib.errors import ColumnNotFound, QueryError, nearest
from factory_lib.plan.aggregates import is_ordered
from factory_lib.plan.expressions import SqlText, spans_rows
from factory_lib.plan.nodes import ROW_ID, Plan
from factory_lib.plan.operators import Call, Column, Expr, Ordering, ordering

WHOLE_ROW = "sipHash128"
"""What orders rows that have no place of their own."""


@dataclass(frozen=True, eq=False)
class Select(Plan):
    """One SELECT: a source, output columns as expressions over the source's columns, and what comes after them."""

    source: Plan
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
    def over(source: Plan) -> Select:
        """All columns and rows of a source."""
        return Select(source, {name: Column(name) for name in source.names})

    # Verbs -----------------------------------------------------------------------------------------------------

    def nested(self) -> Select:
        """A SELECT that reads this one as a subquery, in the same order as far as the output columns can tell it."""
        names = {id(e): name for name, e in self.columns.items()}
        keys = takewhile(lambda key: id(key.expr) in names, self.order_by)
        order = tuple(Ordering(Column(names[id(key.expr)]), key.descending) for key in keys)
        return replace(Select.over(self), order_by=order)

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
            raise ColumnNotFound(f"There is no column {name!r} in {self.source.label}.", nearest(name, self.columns))
        return self.columns[name]

    def filter(self, predicate: Expr) -> Select:
        """Keep the rows for which the predicate holds; rows for which it is NULL go."""
        base = self if self._rows_are_plain() and not self.windowed else self.nested()
        bound = base.bind(predicate)
        if spans_rows(bound):
            base = replace(base.with_columns({"_keep": predicate}), windowed=True).nested()
            return base.filter(Column("_keep")).drop(["_keep"])
        return replace(base, where=(*base.where, bound))

    def with_columns(self, new: Mapping[str, Expr]) -> Select:
        """Add or replace columns; all new ones see the columns as they were before."""
        base = self.nested() if self.distinct or self.limit_by else self
        windowed = any(spans_rows(base.bind(e)) for e in new.values())
        if windowed and (base.limit is not None or base.offset or base.group_by is not None):
            base = base.nested()
        columns = {**base.columns, **{name: base.bind(e) for name, e in new.items()}}
        return replace(base, columns=columns, windowed=base.windowed or windowed)

    def select(self, new: Mapping[str, Expr]) -> Select:
        """Exactly these columns."""
        base = self.with_columns(new)
        return replace(base, columns={name: base.columns[name] for name in new})

    def drop(self, names: Iterable[str]) -> Select:
        """All columns but these."""
        gone = {name for name in names if self.column(name) is not None}
        base = self.nested() if self.distinct else self
        return replace(base, columns={n: e for n, e in base.columns.items() if n not in gone})

    def rename(self, names: Mapping[str, str]) -> Select:
        """Columns under new names, `{old: new}`, in their places."""
        for old in names:
            self.column(old)
        base = self.nested() if self.distinct else self
        renamed = {names.get(n, n): e for n, e in base.columns.items()}
        if len(renamed) != len(base.columns):
            raise QueryError(f"Renaming {dict(names)} would give two columns the same name.")
        return replace(base, columns=renamed)

    def sort(self, keys: Sequence[Any]) -> Select:
        """Order by these keys; ties keep the order there was."""
        plain = self.limit is None and not (self.offset or self.distinct or self.limit_by)
        base = self if plain else self.nested()
        bound = tuple(Ordering(base.bind(k.expr), k.descending) for k in map(ordering, keys))
        return replace(base, order_by=(*bound, *base.order_by))

    def head(self, n: int) -> Select:
        """The first n rows."""
        base = self.nested() if self.limit is not None else self
        return replace(base.in_row_order(), limit=n)

    def skip(self, n: int) -> Select:
        """All rows but the first n."""
        base = self.nested() if self.limit is not None or self.offset else self
        return replace(base.in_row_order(), offset=n)

    def unique(self, names: Sequence[str]) -> Select:
        """One row for each distinct row, or, with names, the first row for each distinct value of them."""
        base = self if self._rows_are_plain() else self.nested()
        if not names:
            return replace(base, distinct=True, order_by=())
        return replace(base.in_row_order(), limit_by=tuple(base.column(n) for n in names))

    def aggregate(self, keys: Mapping[str, Expr], values: Mapping[str, Expr]) -> Select:
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

    def in_row_order(self) -> Select:
        """The same rows in an order that leaves nothing open, where they have one.

        Where nothing else was said it is the order of the source's rows, and what an order leaves equal comes in it,
        too: which rows a limit keeps, which of several is the first, and where each is stored is always the same.
        """
        return self._ordered_by(self._tie_breakers(whole=True))

    def exposed(self) -> Select:
        """The SELECT as a terminal reads it: in row order.

        Rows of unions that share a place, as samples and what was made of them do, come by `sample_id`; the order of
        those that share that, too, is open.
        """
        return self._ordered_by(self._tie_breakers(whole=False))

    def _ordered_by(self, keys: Iterable[Expr]) -> Select:
        said = {repr(o.expr) for o in self.order_by}
        return replace(self, order_by=(*self.order_by, *(Ordering(k) for k in keys if repr(k) not in said)))

    def _tie_breakers(self, *, whole: bool) -> Sequence[Expr]:
        """What tells rows apart.

        Args:
            whole: any two that are not the same in all that the query sees of them, at the price of a hash of each row.
        """
        if self.group_by is not None:
            return self.group_by
        if self.distinct:
            return tuple(self.columns.values())
        names = self.source.names
        place = [Column(n) for n in ROW_ID if n in names]
        if self.source.has_places:
            return place
        if not whole:
            return (*place, *(Column(n) for n in ("sample_id",) if n in names))
        # A NULL would make the whole hash NULL, but for inside a tuple.
        return (*place, Call(WHOLE_ROW, tuple(Call("tuple", (Column(n),)) for n in names if n not in ROW_ID)))

    def expressions(self) -> Iterator[Expr]:
        """Everything that is evaluated in the SELECT."""
        yield from self.columns.values()
        yield from self.where
        yield from self.group_by or ()
        yield from (key.expr for key in self.order_by)
        yield from self.limit_by

    # As a plan -------------------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.columns)

    @property
    def label(self) -> str:
        return self.source.label

    @property
    def inputs(self) -> tuple[Plan, ...]:
        return (self.source,)

    @property
    def has_places(self) -> bool:
        return self.group_by is None and not self.distinct and self.keeps_places

    @property
    def keeps_places(self) -> bool:
        """Whether the rows have the shards and positions of the source, where no two of them have the same."""
        return self.has_row_id() and self.source.has_places

    def has_row_id(self) -> bool:
        """Whether shard and position of the source pass through unchanged."""
        return all(self.passed(name) == name for name in ROW_ID)

    def passed(self, name: str) -> str | None:
        """The column of the source that an output column is, unchanged; None where it is computed."""
        expr = self.columns.get(name)
        return expr.name if isinstance(expr, Column) else None

    def type_of(self, column: str) -> str:
        name = self.passed(column)
        return "" if name is None else self.source.type_of(name)

    def is_unit(self, column: str) -> bool:
        name = self.passed(column)
        return name is not None and self.source.is_unit(name)


def said_order(query: Select) -> list[Ordering]:
    """The keys of an order that were asked for: without those that only decide between equals."""
    return [
        key
        for key in query.order_by
        if not (isinstance(key.expr, Column) and key.expr.name in ROW_ID)
        and not (isinstance(key.expr, Call) and key.expr.name == WHOLE_ROW)
    ]
