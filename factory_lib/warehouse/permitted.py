"""What SQL that a person writes may do: read the warehouse's own tables, and compute.

The engine parses the text and this looks at its syntax tree (EXPLAIN AST), so that quoting, comments and spelling hide
nothing. Every part of the tree has to be of a known kind, every function one that reads nothing but its arguments,
every table one of a dataset, the catalog, or a list of the engine's own; so what a later engine adds is refused until
it is known here. Statements that the library sends are not looked at.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from factory_lib.errors import EngineError, QueryError, nearest
from factory_lib.plan.expressions import SqlText
from factory_lib.plan.operators import Expr
from factory_lib.plan.sqltext import literal
from factory_lib.plan.sqltokens import as_bytes, as_text, tokens
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.client import warehouse as current
from factory_lib.warehouse.deployment import OWN_DATABASES, OWN_TABLES
from factory_lib.warehouse.functions import permitted_functions

LONGEST = 1 << 18
"""Bytes of a statement or an expression: what the engine parses by default."""

_STATEMENTS = frozenset(
    """SelectWithUnionQuery SelectIntersectExceptQuery SelectQuery DescribeQuery ShowTables ShowColumns ShowIndexes
    ShowFunctions ShowCreateTableQuery ShowCreateDatabaseQuery ExistsTableQuery ExistsDatabaseQuery Explain""".split()
)
_PARTS = frozenset(
    """ExpressionList WithElement Subquery Identifier TableIdentifier Function Literal Asterisk QualifiedAsterisk
    ColumnsRegexpMatcher ColumnsListMatcher QualifiedColumnsRegexpMatcher QualifiedColumnsListMatcher
    ColumnsTransformerList ColumnsExceptTransformer ColumnsReplaceTransformer ColumnsReplaceTransformer::Replacement
    TablesInSelectQuery TablesInSelectQueryElement TableExpression TableJoin ArrayJoin OrderByElement WindowListElement
    WindowDefinition InterpolateElement SampleRatio Set""".split()
)
_SYSTEM_TABLES = frozenset(
    """one numbers numbers_mt zeros zeros_mt tables columns databases parts parts_columns functions table_functions
    settings formats data_type_families aggregate_function_combinators data_skipping_indices projections""".split()
)
_SYSTEM = frozenset(["system", "information_schema"])
_IN = re.compile(r"(global)?(not)?(null)?in(ignoreset)?")
_HINT = "Read tables of datasets, such as laion.v3, with functions that compute."


@dataclass(frozen=True)
class _Node:
    depth: int
    kind: str
    text: str


def check_statement(warehouse: Warehouse, sql: str) -> None:
    """Refuse a statement that is not one statement which reads tables of the warehouse.

    Raises:
        QueryError: it reads elsewhere, or does something else than reading.
        EngineError: it cannot be parsed.
    """
    _check_length(sql)
    seen = as_bytes(sql)
    found = list(tokens(seen))
    if found and found[-1].text == ";":
        seen = seen[: found.pop().start]
    if any(token.keyword == ";" for token in found):
        raise QueryError("These are several statements.", "Give one at a time.")
    # Options of EXPLAIN AST would stand here.
    if not found or (len(found) > 1 and found[1].keyword == "="):
        raise _does_not_read()
    if any(one.keyword == "INTO" and two.keyword == "OUTFILE" for one, two in itertools.pairwise(found)):
        raise QueryError("INTO OUTFILE is not allowed.", "Write the result with -o FILE.")
    nodes = _parsed(warehouse, as_text(seen))
    if not nodes or nodes[0].kind not in _STATEMENTS:
        raise _does_not_read()
    _check(warehouse, nodes)


@functools.lru_cache(maxsize=1024)
def check_expression(warehouse: Warehouse, text: str) -> None:
    """Refuse text that is not one expression over columns.

    Raises:
        QueryError: it is several expressions, or a piece of a statement; or it reads outside of the warehouse.
    """
    _check_length(text)
    words = [token.keyword for token in tokens(as_bytes(text))]
    # The engine's parse does not show a FORMAT.
    if ";" in words or (words[-2:-1] == ["FORMAT"] and words[-1].isalpha()):
        raise _no_expression(text)
    try:
        nodes = _parsed(warehouse, f"SELECT\n{text}\n")
    except EngineError as error:
        raise _no_expression(text, error.message) from None
    lists = [node.kind for node in nodes if node.depth == 3]
    settings = any(node.kind == "Set" for node in nodes)
    if lists != ["ExpressionList"] or sum(node.depth == 4 for node in nodes) != 1 or settings:
        raise _no_expression(text)
    _check(warehouse, nodes)


def checked(expr: Expr) -> Expr:
    """An expression, when whatever SQL is written in it is one expression over the warehouse's own tables.

    Raises:
        QueryError: as `check_expression`.
    """
    for part in expr.walk():
        if isinstance(part, SqlText):
            check_expression(current(), part.text)
    return expr


def _check_length(text: str) -> None:
    if len(text) > LONGEST or len(as_bytes(text)) > LONGEST:
        raise QueryError(f"This is longer than {LONGEST} bytes.", "Put long lists into a table, and join it.")


def _does_not_read() -> QueryError:
    return QueryError(
        "This does not read tables: only reading is allowed.", "Use SELECT, WITH, SHOW, DESCRIBE or EXISTS."
    )


def _no_expression(text: str, why: str = "") -> QueryError:
    shown = text if len(text) <= 200 else text[:199] + "…"
    return QueryError(f"This is not one SQL expression: {shown!r}. {why}".strip(), 'Such as "width > 512".')


def _parsed(warehouse: Warehouse, sql: str) -> list[_Node]:
    # Line breaks inside of names come escaped: every line is a node.
    return [_node(line) for line in warehouse.syntax_tree(sql) if line.strip()]


def _node(line: str) -> _Node:
    """A line such as `  Function plus (alias x) (children 1)`."""
    rest, _, number = line.rpartition(" (children ")
    body = (rest if number[:-1].isdigit() else line).partition(" (alias ")[0]
    kind, _, text = body.lstrip(" ").partition(" ")
    return _Node(len(body) - len(body.lstrip(" ")), kind, text)


def _check(warehouse: Warehouse, nodes: list[_Node]) -> None:
    known = permitted_functions(warehouse)
    for node in nodes:
        if node.kind == "ColumnsApplyTransformer":
            raise QueryError("APPLY does not show which function it calls.", "Write it out for each column.")
        if node.kind not in _PARTS and node.kind not in _STATEMENTS:
            raise QueryError(f"This holds what queries have no use for: {node.kind}.", _HINT)
        if node.kind == "Function" and not known.allow(node.text):
            if known.refuse(node.text):
                raise QueryError(f"The function {node.text}() may read more than the warehouse.", _HINT)
            raise QueryError(f"There is no function {node.text}() for queries.", nearest(node.text, known.names))
    for name in _taken_for_functions(nodes):
        if known.refuse(name):
            raise QueryError(f"{name!r} may be taken for the function of that name.", "Give the column another name.")
    _check_tables(warehouse, {*_tables(nodes)})


def _arguments(nodes: list[_Node], place: int) -> list[_Node]:
    """The arguments of the function at a place."""
    found = []
    for inner in nodes[place + 1 :]:
        if inner.depth <= nodes[place].depth:
            break
        if inner.depth == nodes[place].depth + 2:
            found.append(inner)
    return found


def _taken_for_functions(nodes: list[_Node]) -> Iterator[str]:
    """Names given to functions that call functions, and names that get another: `arrayMap(file, …)`."""
    for place, node in enumerate(nodes):
        if node.kind == "Function" and node.text.lower().startswith(("array", "map")) and node.text != "arrayElement":
            yield from (argument.text for argument in _arguments(nodes, place) if argument.kind == "Identifier")


def _tables(nodes: list[_Node]) -> Iterator[str]:
    """Names of tables: behind FROM and JOIN, on the right of IN, and what SHOW, DESCRIBE and EXISTS name."""
    first = nodes[0].kind
    if first in ("ShowCreateTableQuery", "ExistsTableQuery"):
        yield ".".join(node.text for node in nodes if node.kind == "Identifier" and node.depth == 1)
    for place, node in enumerate(nodes):
        if node.kind == "TableIdentifier":
            yield node.text
        elif node.kind == "Function" and _IN.fullmatch(node.text.lower()):
            arguments = _arguments(nodes, place)
            if arguments and arguments[-1].kind == "Identifier":
                yield arguments[-1].text
        elif node.kind == "Identifier" and node.text.lower().startswith("system."):
            yield node.text


def _check_tables(warehouse: Warehouse, names: Iterable[str]) -> None:
    """Refuse tables that are none of the warehouse. A name without a database is one of a WITH, or of nothing."""
    named = []
    for name in names:
        database, dot, table = name.partition(".")
        if database.lower() in _SYSTEM and dot:
            if database.lower() == "system" and table.lower() not in _SYSTEM_TABLES:
                raise QueryError(f"The engine's table {name} is not for queries.", nearest(table, _SYSTEM_TABLES))
        elif dot:
            named.append((database, table))
        elif not re.fullmatch(r"\w+", name):
            raise QueryError(f"{name!r} is no table of the warehouse.", _HINT)
    if not named:
        return
    databases = ", ".join(literal(database) for database in sorted({database for database, _ in named}))
    pairs = ", ".join(f"({literal(database)}, {literal(table)})" for database, table in named)
    rows = warehouse.rows(
        f"SELECT name, '' AS table, engine FROM system.databases WHERE name IN ({databases}) UNION ALL "
        f"SELECT database, name, engine FROM system.tables WHERE (database, name) IN ({pairs})"
    )
    for row in rows:
        engine = row["engine"]
        if not (engine.endswith(OWN_TABLES) if row["table"] else engine in OWN_DATABASES):
            shown = f"The table {row['name']}.{row['table']}" if row["table"] else f"The database {row['name']}"
            raise QueryError(f"{shown} is a {engine}: it may read more than the warehouse.", _HINT)
