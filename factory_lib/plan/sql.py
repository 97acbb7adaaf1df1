"""A plan becomes SQL: one flat SELECT with bound parameters, or with its values written out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from factory_lib.errors import QueryError
from factory_lib.plan.aggregates import is_ordered
from factory_lib.plan.nodes import ROW_ID, Join, Over, Plan, Table, Union
from factory_lib.plan.operators import Column, Expr, Literal, render_ordering
from factory_lib.plan.select import Select
from factory_lib.plan.sqltext import literal, quote

Params = dict[str, Any]


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

    def select(self, query: Select) -> str:
        """SQL of a SELECT."""
        scope = Scoped(self, query.source)
        if query.group_by is not None and any(is_ordered(e) for e in query.columns.values()):
            self.settings["max_threads"] = 1  # several would not keep the order of the rows
        columns = ", ".join(_named(e.render(scope), name) for name, e in query.columns.items()) or "1"
        parts = [f"SELECT {'DISTINCT ' if query.distinct else ''}{columns}", f"FROM {self._from(query.source)}"]
        where = [*_restriction(self, query.source), *(e.render(scope) for e in query.where)]
        if where:
            parts.append("WHERE " + " AND ".join(where))
        if query.group_by:
            parts.append("GROUP BY " + ", ".join(e.render(scope) for e in query.group_by))
        if query.order_by:
            parts.append("ORDER BY " + ", ".join(render_ordering(o, scope) for o in query.order_by))
        if query.limit_by:
            parts.append("LIMIT 1 BY " + ", ".join(e.render(scope) for e in query.limit_by))
        if query.limit is not None:
            parts.append(f"LIMIT {int(query.limit)}")
        if query.offset:
            parts.append(f"OFFSET {int(query.offset)}")
        return " ".join(parts)

    def expression(self, expr: Expr, source: Plan) -> str:
        """SQL of an expression over the columns of a source."""
        return expr.render(Scoped(self, source))

    def predicate(self, query: Select) -> str:
        """SQL of all predicates of a query as one, or an empty string."""
        return " AND ".join(self.expression(e, query.source) for e in query.where)

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

    def _from(self, source: Plan) -> str:
        """What stands behind FROM."""
        match source:
            case Table():
                return ".".join(quote(part) for part in source.name.split(".", 1))
            case Select():
                return f"({self.select(source)})"
            case Union():
                return f"({' UNION ALL '.join(map(self.select, _aligned(source)))})"
            case Join():
                return self._join(source)
            case Over() if self.inline:
                return f"({self.select(source.input)}) /* with {source.label} */"
        if self.inline:
            return f"/* {source.label} */"
        raise QueryError(f"The rows of {source.label} exist only once the query runs.", "Save it, or call a terminal.")

    def _join(self, source: Join) -> str:
        sides = {"l": source.left, "r": source.right}
        columns = ", ".join(f"{_joined(source, out)} AS {quote(out)}" for out in source.columns)
        on = " AND ".join(f"l.{quote(a)} = r.{quote(b)}" for a, b in source.on)
        left, right = (f"({self.select(sides[s])}) AS {s}" for s in "lr")
        # Without join_use_nulls a row without a partner gets zeros and empty strings that look like values.
        return f"(SELECT {columns} FROM {left} {source.how.upper()} JOIN {right} ON {on} SETTINGS join_use_nulls = 1)"


def _restriction(rendering: Rendering, source: Plan) -> list[str]:
    """The condition that only some shards of a table are read."""
    if not isinstance(source, Table) or source.shards is None:
        return []
    if not source.shards:
        return ["0"]
    return [f"shard IN ({', '.join(rendering.bind(s, 'String') for s in source.shards)})"]


def _joined(source: Join, out: str) -> str:
    """A column of a join; what says which row it is, and the keys, of the right where the left has no partner."""
    side, name = source.columns[out]
    own = f"{side}.{quote(name)}"
    if side == "r" or source.how not in ("right", "full") or name not in source.right.names:
        return own
    if name in (*ROW_ID, "sample_id", "key"):  # one of the two is there
        return f"ifNull({own}, assumeNotNull(r.{quote(name)}))"
    return f"ifNull({own}, r.{quote(name)})" if (name, name) in source.on else own


def _aligned(union: Union) -> Iterator[Select]:
    """The queries of a union, all with the same columns in the same order."""
    names = union.names
    for query in union.queries:
        whole = query.nested().with_columns({n: Literal(None) for n in names if n not in query.columns})
        yield whole.select({n: Column(n) for n in names})


@dataclass(frozen=True, eq=False)
class Scoped:
    """The scope of expressions over one source: types, unit vectors, parameters."""

    rendering: Rendering
    source: Plan

    def type_of(self, column: str) -> str:
        """ClickHouse type of a column where it is known without asking the engine."""
        return self.source.type_of(column)

    def is_unit(self, column: str) -> bool:
        """Whether a column holds unit vectors."""
        return self.source.is_unit(column)

    def bind(self, value: Any, ch_type: str) -> str:
        return self.rendering.bind(value, ch_type)

    def subquery(self, plan: Select) -> str:
        return self.rendering.select(plan)

    def places(self) -> Sequence[Expr]:
        return [Column(n) for n in ROW_ID] if self.source.has_places else []

    def lazily(self) -> bool:
        # What is written with its values stands alone: it is shown, or becomes a mutation, which runs without settings.
        if not self.rendering.inline:
            self.rendering.settings["short_circuit_function_evaluation"] = "force_enable"
        return not self.rendering.inline


def _named(text: str, name: str) -> str:
    return text if text == quote(name) else f"{text} AS {quote(name)}"
