"""Versions in notebooks, and the first rows of whatever reads tables alone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from factory_lib.errors import EngineError, FactoryError
from factory_lib.plan.readable import readable
from factory_lib.plan.select import Select
from factory_lib.plan.sql import Rendering
from factory_lib.view.html import Markup, bad, counted, folded, head, note, page
from factory_lib.view.html import code as lines
from factory_lib.view.rows import SHOWN, rows_table
from factory_lib.warehouse.arrow_types import is_pointer
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.tags import tags_of

if TYPE_CHECKING:
    from factory_lib.warehouse.versions import Version

TOO_SLOW = 159
"""The engine's code of what took longer than `max_execution_time`."""
_SECONDS = 5
"""The engine gives up a query that is only to be shown after so long."""


def version_page(version: Version, earlier: Callable[[], Sequence[Version]]) -> str:
    """A version as HTML: what it is, what made it, its columns and first rows.

    Args:
        earlier: gives the versions of the dataset before it, the newest last.
    """
    try:
        known = tags_of(version.warehouse, version.dataset)
        tags = [f"@{tag}" for tag, one in known.items() if one.uuid == version.uuid]
        parts = [
            head("  ".join([str(version), *sorted(tags)])),
            note(f"{counted(version.rows, 'row')} in {counted(len(version.shards), 'shard')}"),
            *_made(version, earlier()),
            first_rows(version.warehouse, Select.over(version.source), version.columns),
        ]
    except FactoryError as error:
        parts = [head(str(version)), bad(error.message), note(error.hint)]
    return page(*parts)


def first_rows(warehouse: Warehouse, plan: Select, columns: Mapping[str, str]) -> Markup:
    """The first rows of a query, all of whose rows are in tables, as a table; or why they are not shown.

    Args:
        columns: column -> ClickHouse type.
    """
    rendering = Rendering()
    text = rendering.select(readable(plan.head(SHOWN).exposed()))
    limits: dict[str, Any] = {**rendering.settings, "max_execution_time": _SECONDS}
    try:
        rows = warehouse.query(text, rendering.params, limits).to_pylist()
    except EngineError as error:
        if error.code != TOO_SLOW:
            raise
        return bad(f"The first rows are not shown: they take longer than {_SECONDS} s. show() waits for them.")
    return rows_table(columns, rows, [name for name, kind in columns.items() if is_pointer(kind)])


def _made(version: Version, earlier: Sequence[Version]) -> list[Markup]:
    record = version.provenance
    if record is None:
        return []
    when = dt.datetime.fromisoformat(record.created).astimezone().strftime("%Y-%m-%d %H:%M")
    parents = ", ".join(parent["name"] for parent in record.parents)
    facts = f"made {when}{f' of {parents}' if parents else ''}, stored as {record.storage}"
    return [note(facts), folded("query", lines(record.python)), *_made_twice(version, earlier)]


def _made_twice(version: Version, before: Sequence[Version]) -> list[Markup]:
    """A word where the version before was made by the same query of the same versions: a cell that ran again."""
    record, earlier = version.provenance, before[-1].provenance if before else None
    if record is None or earlier is None or not record.parents:
        return []
    if (record.python, record.parents) != (earlier.python, earlier.parents):
        return []
    return [note(f"Made like {before[-1]}: refresh() in place of save() makes a version only where something changed.")]
