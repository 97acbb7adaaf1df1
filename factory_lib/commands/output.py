"""What commands print: tables for people on stdout, JSON for scripts, messages on stderr."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import math
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import click

from factory_lib.tables import fitting

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

_PIPED_WIDTH = 100_000
"""Columns of an output that is no terminal: nothing is cut."""


class RowPrinter(Protocol):
    """What prints results."""

    def print(self, what: RenderableType = "", /) -> None:
        """Print text, a table or a tree, and end the line."""


class _Piped:
    """Prints where there is no terminal: text as it is, so that quick commands do not load what draws."""

    def print(self, what: RenderableType = "", /) -> None:
        """Print text, a table or a tree."""
        if isinstance(what, str):
            click.echo(what)
        else:
            _drawing(_PIPED_WIDTH).print(what)


def console() -> RowPrinter:
    """Where results go: as wide as the terminal, or as wide as they are where there is none."""
    return _drawing(None) if sys.stdout.isatty() else _Piped()


def _drawing(width: int | None) -> Console:
    from rich.console import Console

    return Console(file=sys.stdout, width=width, highlight=False, soft_wrap=False, markup=False, emoji=False)


def say(text: str) -> None:
    """A message, on stderr."""
    click.echo(text, err=True)


def print_json(value: Any) -> None:
    """Print a value as JSON: dataclasses as objects, times in ISO format, what is no number as null."""
    click.echo(json_text(value, indent=2))


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON text."""
    return json.dumps(plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:
    """A value made of what JSON has."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, Iterable) and not isinstance(value, uuid.UUID):
        return [plain(item) for item in value]
    return str(value)


def print_rows(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "", numbers: Sequence[str] = ()
) -> None:
    """Print a table.

    Args:
        columns: headings.
        rows: cells; what is no text is written as `str` does.
        title: a line above.
        numbers: headings of the columns to be set to the right.
    """
    console().print(table(columns, rows, title=title, numbers=numbers))


def _lines(columns: Sequence[str], rows: Sequence[Sequence[str]], right: set[str]) -> list[str] | None:
    """The lines of a table as `_drawn` would give them where nothing has to be cut: a hundred times as fast.

    None where a cell has characters that are not one column wide each, as far as can be told.
    """
    texts = [list(columns), *(list(row) for row in rows)]
    if not all(
        cell.replace("…", "").replace("–", "").isascii() and cell.isprintable() for row in texts for cell in row
    ):
        return None
    widths = [max(map(len, cells)) for cells in zip(*texts, strict=True)]
    if sum(widths) + 3 * len(widths) > _PIPED_WIDTH:
        return None
    sides = [str.rjust if name in right else str.ljust for name in columns]
    lines = ["   ".join(side(c, w) for side, c, w in zip(sides, row, widths, strict=True)) for row in texts]
    return [lines[0], "─" * len(lines[0]), *lines[1:]]


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "", numbers: Sequence[str] = ()
) -> RenderableType:
    """A table to be printed; arguments as for `print_rows`."""
    listed = [[cell if isinstance(cell, str) else str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        return _drawn(columns, listed, title, set(numbers), _drawing(None).width)
    lines = None if title else _lines(columns, listed, set(numbers))
    return _drawn(columns, listed, title, set(numbers)) if lines is None else "\n".join(lines)


def facts(pairs: Iterable[tuple[str, str]]) -> RenderableType:
    """Names with what is said of each, to be printed; long texts go on below themselves."""
    shown = [(name, text) for name, text in pairs if text]
    width = max((len(name) for name, _ in shown), default=0)
    if not sys.stdout.isatty():
        return "\n".join(f"{name.ljust(width)}  {text}" for name, text in shown)
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for name, text in shown:
        made.add_row(name, Text(text))
    return made


def _drawn(
    columns: Sequence[str], rows: Sequence[Sequence[str]], title: str, right: set[str], width: int = _PIPED_WIDTH
) -> Table:
    """A table of as many columns, from the left, as have room: what has none is named below it."""
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    numbers = {i for i, name in enumerate(columns) if name in right}
    texts = zip(columns, *rows, strict=True)
    widths = [max(cell_len(line) for text in column for line in text.split("\n")) for column in texts]
    fit, least = fitting(widths, numbers, width)

    made = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )
    for i, name in enumerate(columns[:fit]):
        fixed = widths[i] == least[i]
        side: Literal["left", "right"] = "right" if i in numbers else "left"
        made.add_column(name, justify=side, overflow="fold", no_wrap=fixed, min_width=least[i])
    for row in rows:
        made.add_row(*map(Text, row[:fit]))
    if fit < len(columns):
        made.caption, made.caption_justify = Text(f"No room for {', '.join(columns[fit:])}."), "left"
    return made


def number(n: int | None) -> str:
    """12,345."""
    return "–" if n is None else f"{n:,}"


def size(n: int | None) -> str:
    """Bytes for people, powers of 1,000: 12.3 MB."""
    if n is None:
        return "–"
    value, unit = float(n), "B"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if abs(value) < 999.5 or unit == "PB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.3g} {unit}"


def seconds(value: float) -> str:
    """A duration for people: 0.25 s, 3 min 20 s, 2 h 5 min."""
    if value < 99.5:
        return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def when(iso: str) -> str:
    """A time in ISO format as date and minutes, in the time zone of this machine."""
    if not iso:
        return "–"
    return dt.datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M")
