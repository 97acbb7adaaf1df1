"""Rows as a table for notebooks: numbers to the right, long values shortened, pictures where rows point at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from factory_lib.tables import cell
from factory_lib.view.html import Markup, Text, table
from factory_lib.view.thumbnails import thumbnails

SHOWN = 5
"""Rows that are shown."""
_COLUMNS = 40
_PICTURES = 2
"""Columns of pointers that are looked into."""
_NUMBER = ("Int", "UInt", "Float", "Decimal", "BFloat")


def rows_table(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]], pointers: Sequence[str]) -> Markup:
    """A table of rows.

    Args:
        columns: column -> ClickHouse type.
        rows: few of them.
        pointers: the columns that point at bytes.
    """
    shown = list(columns)[:_COLUMNS]
    looked_into = [name for name in pointers if name in shown][:_PICTURES]
    cells: dict[str, list[Text]] = {
        name: thumbnails([row[name] for row in rows]) if name in looked_into else [cell(row[name]) for row in rows]
        for name in shown
    }
    headings = [(name, _short(columns[name])) for name in shown]
    lines: list[list[Text]] = [[cells[name][i] for name in shown] for i in range(len(rows))]
    if len(columns) > _COLUMNS:
        headings.append((f"… {len(columns) - _COLUMNS} more", ""))
        lines = [[*line, ""] for line in lines]
    return table(headings, lines, [name for name in shown if _bare(columns[name]).startswith(_NUMBER)])


def _bare(kind: str) -> str:
    while kind.startswith(("Nullable(", "LowCardinality(")):
        kind = kind.partition("(")[2][:-1]
    return kind


def _short(kind: str) -> str:
    """A type in a few words: what may be NULL has a question mark, a pointer is one."""
    if kind.startswith("Tuple(uri "):
        return "pointer"
    bare = _bare(kind)
    return f"{bare}?" if "Nullable(" in kind else bare
