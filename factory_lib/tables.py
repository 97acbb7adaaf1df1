"""Rows as a table in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

_CELL = 48


def print_table(table: pa.Table, title: str = "") -> None:
    """Print an Arrow table: numbers to the right, long values shortened."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title or None, title_justify="left")
    for field in table.schema:
        numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        side: Any = "right" if numeric else "left"
        width = min(len(field.name), 10)
        shown.add_column(field.name, justify=side, overflow="ellipsis", no_wrap=True, min_width=width)
    for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
        shown.add_row(*map(cell, row))
    Console().print(shown)


def cell(value: Any) -> str:
    """A value in a few characters."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict) and set(value) == {"uri", "offset", "size"}:
        return f"{str(value['uri']).rsplit('/', 1)[-1]}@{value['offset']}+{value['size']}"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) > 3:
        return f"[{', '.join(cell(v) for v in value[:3])}, … {len(value)}]"
    if isinstance(value, list):
        return f"[{', '.join(map(cell, value))}]"
    if isinstance(value, dict):
        return ", ".join(f"{name} {cell(item)}" for name, item in value.items())
    text = str(value)
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"
