"""What SQL that a person writes may do: read the warehouse's own tables, and compute.

The engine parses the text and this looks at its syntax tree (EXPLAIN AST), so that quoting, comments and spelling hide
nothing. Every function has to be one that the engine lists and that reads nothing but its arguments, every table one of
a dataset, the catalog, or a list of the engine's own; so what a later engine adds is refused until it is known here.
Statements that the library sends are not looked at.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from factory_lib.errors import EngineError, QueryError, nearest
from factory_lib.expressions import SqlText
from factory_lib.operators import Expr
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.client import warehouse as current
from factory_lib.warehouse.engine.statement import tokens

_STATEMENTS = frozenset(
    """SelectWithUnionQuery SelectIntersectExceptQuery SelectQuery DescribeQuery ShowTables ShowColumns ShowIndexes
    ShowFunctions ShowCreateTableQuery ShowCreateDatabaseQuery ExistsTableQuery ExistsDatabaseQuery Explain""".split()
)
_TABLE_FUNCTIONS = frozenset(
    """numbers numbers_mt zeros zeros_mt primes generateseries generate_series generaterandom values sqlstandardvalues
    null format view""".split()
)
"""Table functions that read nothing but their arguments; lower-case, as everything here that is compared."""

_CATEGORIES = frozenset(["AI", "Dictionary", "Embedded Dictionary", "Introspection", "Machine Learning"])
"""Kinds of functions that reach for models, services, dictionaries, or into the engine."""

_FUNCTIONS = frozenset(
    """file getclienthttpheader getserversetting getmacro getserverport tcpport showcertificate globalvariable
    currentrequesturl catboostevaluate filesystemavailable filesystemcapacity filesystemunreserved synonyms lemmatize
    stem zookeepersessionuptime serveruuid __getscalar _cast logtrace joinget joingetornull""".split()
)
"""Functions that read files, the server's settings or what others sent it."""

_SYNTAX_FUNCTIONS = frozenset(["lambda", "if", "in", "cast"])
_SYSTEM_TABLES = frozenset(
    """one numbers numbers_mt zeros zeros_mt tables columns databases parts parts_columns functions table_functions
    settings formats data_type_families aggregate_function_combinators data_skipping_indices projections""".split()
)
_SYSTEM = frozenset(["system", "information_schema"])
_OUTSIDE = frozenset(["Overlay", "Filesystem", "S3", "HDFS", "MySQL", "PostgreSQL", "SQLite", "Dictionary", "Memory"])
_IN = re.compile(r"(global)?(not)?(null)?in(ignoreset)?")
_PLAIN = re.compile(r"\w+")
_LINE = re.compile(r"( *)(\S+) ?(.*?)(?: \(alias .*\))?(?: \(children \d+\))?$", re.DOTALL)
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
    found = list(tokens(sql))
    body = found[:-1] if found and found[-1].text == ";" else found
    if any(token.text == ";" and token.kind == "mark" for token in body):
        raise QueryError("These are several statements.", "Give one at a time.")
    _check(warehouse, _parsed(warehouse, sql[: found[-1].start] if body != found else sql))


@functools.lru_cache(maxsize=1024)
def check_expression(warehouse: Warehouse, text: str) -> None:
    """Refuse text that is not one expression over columns.

    Raises:
        QueryError: it is several expressions, or a piece of a statement; or it reads outside of the warehouse.
    """
    if any(token.text == ";" and token.kind == "mark" for token in tokens(text)):
        raise _no_expression(text)
    try:
        nodes = _parsed(warehouse, f"SELECT\n{text}\n")
    except EngineError as error:
        raise _no_expression(text, error.message) from None
    lists = [node for node in nodes if node.depth == 3]
    if [node.kind for node in lists] != ["ExpressionList"] or sum(node.depth == 4 for node in nodes) != 1:
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


def _no_expression(text: str, why: str = "") -> QueryError:
    shown = text if len(text) <= 200 else text[:199] + "…"
    return QueryError(f"This is not one SQL expression: {shown!r}. {why}".strip(), 'Such as "width > 512".')


def _parsed(warehouse: Warehouse, sql: str) -> list[_Node]:
    # Line breaks inside of names come escaped: every line is a node.
    found = [_LINE.match(line) for line in warehouse.syntax_tree(sql)]
    return [_Node(len(m[1]), m[2], m[3]) for m in found if m is not None]


def _check(warehouse: Warehouse, nodes: list[_Node]) -> None:
    if not nodes or nodes[0].kind not in _STATEMENTS:
        raise QueryError("Only statements that read tables are run.", "Use SELECT, WITH, SHOW, DESCRIBE or EXISTS.")
    known = _functions(warehouse)
    for node in nodes:
        if node.kind == "Function" and not known.allow(node.text.lower()):
            raise QueryError(f"The function {node.text}() may read more than the warehouse.", _HINT)
    for name in [node.text for node in nodes if node.kind == "TableIdentifier"] + list(_behind_in(nodes)):
        _check_table(warehouse, name)
    if nodes[0].kind not in {"ShowTables", "ShowColumns"}:
        for node in nodes:
            if node.kind == "Identifier" and node.text.partition(".")[0].lower() in _SYSTEM and "." in node.text:
                _check_table(warehouse, node.text)


def _behind_in(nodes: list[_Node]) -> Iterator[str]:
    """Names on the right of IN: they are tables."""
    for place, node in enumerate(nodes):
        if node.kind != "Function" or not _IN.fullmatch(node.text.lower()):
            continue
        arguments = []
        for inner in nodes[place + 1 :]:
            if inner.depth <= node.depth:
                break
            if inner.depth == node.depth + 2:
                arguments.append(inner)
        if arguments and arguments[-1].kind == "Identifier":
            yield arguments[-1].text


def _check_table(warehouse: Warehouse, name: str) -> None:
    database, dot, table = name.partition(".")
    if not dot:
        # The name of a WITH, or of nothing: databases without files have no tables beside the datasets' ones.
        if not _PLAIN.fullmatch(name):
            raise QueryError(f"{name!r} is no table of the warehouse.", _HINT)
    elif database.lower() in _SYSTEM:
        if database.lower() == "system" and table.lower() not in _SYSTEM_TABLES:
            raise QueryError(f"The engine's table {name} is not for queries.", nearest(table, _SYSTEM_TABLES))
    elif database in _databases_outside(warehouse):
        raise QueryError(f"The database {database!r} is none of datasets.", _HINT)


def _databases_outside(warehouse: Warehouse) -> set[str]:
    rows = warehouse.rows("SELECT name, engine FROM system.databases")
    return {row["name"] for row in rows if row["engine"] in _OUTSIDE}


@dataclass(frozen=True)
class _Functions:
    """The functions of an engine that read nothing but their arguments; names in lower case."""

    names: frozenset[str]
    aggregates: tuple[str, ...]

    def allow(self, name: str) -> bool:
        """Whether a function may be used; of aggregates also with combinators, such as `sumIf`."""
        if name in self.names or name in _SYNTAX_FUNCTIONS or name in _TABLE_FUNCTIONS:
            return True
        return name not in _FUNCTIONS and name.startswith(self.aggregates) and _COMBINED.search(name) is not None


_COMBINED = re.compile(
    r"(if|array|map|simplestate|state|merge|mergestate|foreach|distinct|ordefault|ornull|resample|argmin|argmax)$"
)


@functools.lru_cache(maxsize=8)
def _functions(warehouse: Warehouse) -> _Functions:
    rows = warehouse.rows(
        "SELECT name, is_aggregate, alias_to, categories, toString(origin) AS origin FROM system.functions"
    )
    reading = {name.lower() for name in warehouse.query("SELECT name FROM system.table_functions")["name"].to_pylist()}
    refused = _FUNCTIONS | (reading - _TABLE_FUNCTIONS)
    refused |= {row["name"].lower() for row in rows if row["categories"] in _CATEGORIES or row["origin"] != "System"}
    names = {row["name"].lower() for row in rows if row["alias_to"].lower() not in refused} - refused
    return _Functions(frozenset(names), tuple(row["name"].lower() for row in rows if row["is_aggregate"]))
