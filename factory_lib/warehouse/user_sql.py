"""SQL that people write: it may read, and nothing else."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from factory_lib.errors import ColumnNotFound, EngineError, FactoryError, QueryError, nearest
from factory_lib.names import TAG, Ref, check_dataset_name, is_dataset_database, is_version_name
from factory_lib.plan.sqltokens import Token, as_bytes, as_text, tokens
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.permitted import check_statement
from factory_lib.warehouse.versions import datasets, resolve

if TYPE_CHECKING:
    import pyarrow as pa

_SYNTAX, _UNKNOWN_IDENTIFIER, _UNKNOWN_TABLE, _UNKNOWN_DATABASE, _READONLY = 62, 47, 60, 81, 164
_HARMLESS = re.compile(
    r"Bool.*|U?Int.*|NonZero.*|Float.*|Double|Seconds|Milliseconds|MaxThreads|Overflow.*|Join.*|Totals.*|ShortCircuit.*"
    r"|SetOperation.*|DateTime.*|Timezone|Interval.*|Decorrelation.*|VectorSearch.*|GeoToH3.*"
)
"""Types of settings that hold a number, a switch, or one of a few words."""
_TEXTS = frozenset(["log_comment", "count_distinct_implementation", "ignore_data_skipping_indices"])
_READERS = "SELECT, WITH, SHOW, DESCRIBE, EXPLAIN or EXISTS"


def read(warehouse: Warehouse, sql: str, settings: Mapping[str, Any] | None = None) -> pa.RecordBatchReader:
    """The rows of a statement, as they come. The engine refuses whatever would change something.

    Args:
        sql: one statement, without a FORMAT clause; versions are tables, `laion.v3` or, by a tag, `laion@icml`.
        settings: ClickHouse settings: numbers, switches and choices.

    Raises:
        QueryError: the statement is not one that reads, or a setting is not for queries.
        ColumnNotFound, NotFound: it names what is not there; with the nearest name that is.
        EngineError: the engine refused it for another reason.
    """
    sql = _with_versions(warehouse, sql)
    words = list(tokens(as_bytes(sql)))
    try:
        check_statement(warehouse, sql)
        _check_settings(warehouse, settings or {})
        # 1, not 2: with 2 a statement could write files, by INSERT INTO FUNCTION file(…)
        return warehouse.stream(sql, settings={**(settings or {}), "readonly": 1})
    except EngineError as error:
        raise _translated(warehouse, words, error) from None


def _with_versions(warehouse: Warehouse, sql: str) -> str:
    """The statement with `laion@icml` as the table of the version that it means."""
    text = as_bytes(sql)
    words = list(tokens(text))
    parts, done = [], 0
    for dataset, at in itertools.pairwise(words):
        tag = TAG.match(text, at.end) if at.keyword == "@" and dataset.end == at.start else None
        if tag is None or dataset.kind not in ("word", "quoted"):
            continue
        version = resolve(warehouse, Ref(check_dataset_name(as_text(dataset.name)), tag=tag[0]))
        parts += [text[done : dataset.start], f"`{version.dataset}`.`v{version.number}`"]
        done = tag.end()
    return as_text("".join([*parts, text[done:]]))


def _check_settings(warehouse: Warehouse, settings: Mapping[str, Any]) -> None:
    """Refuse settings of text: among them are filters, dialects, addresses and files, and parameters of the request."""
    if not settings:
        return
    rows = warehouse.rows("SELECT name, type FROM system.settings WHERE NOT startsWith(name, 'param_')")
    types = {row["name"]: row["type"] for row in rows}
    for name in settings:
        if name not in types:
            raise QueryError(f"There is no setting {name!r}.", nearest(name, types))
        if name not in _TEXTS and not _HARMLESS.fullmatch(types[name]):
            raise QueryError(f"The setting {name!r} is not for queries.", "Numbers, switches and choices can be given.")


def _translated(warehouse: Warehouse, words: list[Token], error: EngineError) -> FactoryError:
    """An error of the engine with what to write instead, where that can be told."""
    if error.code == _READONLY:
        if found := re.search(r"Cannot modify '(\w+)'", error.message):
            return QueryError(
                f"The setting {found[1]!r} cannot be set in the query.",
                f"Give it beside the query: --setting {found[1]}=VALUE.",
            )
        return QueryError("This would change the warehouse: only reading is allowed.", f"Use {_READERS}.")
    if (error.code == _SYNTAX and "(FORMAT)" in error.message) or "ArrowStream" in error.message:
        return QueryError("One statement that returns rows is needed, without FORMAT.", f"Use {_READERS}.")
    if error.code == _UNKNOWN_IDENTIFIER and (found := re.search(r"identifier `([^`]+)`", error.message)):
        return _unknown_column(warehouse, words, found[1])
    if error.code in (_UNKNOWN_TABLE, _UNKNOWN_DATABASE):
        return _unknown_table(warehouse, words) or error
    return error


def tables_named(sql: str) -> list[str]:
    """Names of the form `a.b` in SQL: of tables, and of elements of tuples."""
    return _tables(list(tokens(as_bytes(sql))))


def _tables(words: list[Token]) -> list[str]:
    """Names of the form `a.b` among the tokens of a statement."""
    dotted = zip(words, words[1:], words[2:], strict=False)
    return [f"{as_text(a.name)}.{as_text(c.name)}" for a, dot, c in dotted if dot.keyword == "."]


def _unknown_column(warehouse: Warehouse, words: list[Token], name: str) -> FactoryError:
    columns: set[str] = set()
    for table in filter(is_version_name, _tables(words)):
        try:
            columns |= resolve(warehouse, table).columns.keys()
        except FactoryError:
            continue
    return ColumnNotFound(f"There is no column {name!r}.", nearest(name.rpartition(".")[2], columns))


def _unknown_table(warehouse: Warehouse, words: list[Token]) -> FactoryError | None:
    for table in filter(is_version_name, _tables(words)):
        try:
            resolve(warehouse, table)
        except FactoryError as error:
            return error
    known = datasets(warehouse)
    for word in (as_text(token.name) for token in words):
        if is_dataset_database(word) and word in known:
            return QueryError(f"{word!r} is a dataset; tables are its versions.", f"Write {known[word][-1]}.")
    return None
