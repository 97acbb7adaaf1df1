"""Fragments of HTML for notebooks: every text escaped, no script, and colours that fit light and dark pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_LONGEST = 2_000
"""Characters of a text, at most."""
_STYLE = """<style>
.factory {font-size: 13px; line-height: 1.4; color: inherit}
.factory-head {font-weight: 600}
.factory-note {opacity: .75}
.factory table {border-collapse: collapse; margin: .4em 0; background: transparent; width: max-content}
.factory th, .factory td {text-align: left; vertical-align: top; padding: 2px 10px 2px 0; max-width: 22em;
  overflow-wrap: break-word; border: 0; border-bottom: 1px solid rgba(128, 128, 128, .35); background: transparent}
.factory th {white-space: nowrap}
.factory th.number, .factory td.number {text-align: right; white-space: nowrap}
.factory th small {font-weight: 400; opacity: .7}
.factory img {display: block; max-width: 96px; max-height: 96px}
.factory .factory-bad {color: #e5484d; background: rgba(229, 72, 77, .1); padding: 1px 4px}
.factory pre {white-space: pre-wrap; margin: .3em 0; background: transparent; color: inherit}
.factory ul {margin: 0; padding-left: 1.4em}
.factory-wide {overflow-x: auto}
</style>"""


@dataclass(frozen=True)
class Markup:
    """HTML that was made here, and is taken as it is: whatever else is text, and escaped."""

    html: str


Text = str | Markup


def markup(text: Text) -> str:
    """A text as HTML."""
    if isinstance(text, Markup):
        return text.html
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return escape(shown.encode(errors="replace").decode())


def counted(n: int, thing: str) -> str:
    """`1 row`, `1,234 rows`."""
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"


def page(*parts: Markup) -> str:
    """What `_repr_html_` gives back: parts one below the other."""
    return f'{_STYLE}<div class="factory">{"".join(part.html for part in parts)}</div>'


def head(text: Text) -> Markup:
    """The first line."""
    return Markup(f'<div class="factory-head">{markup(text)}</div>')


def note(text: Text) -> Markup:
    """A line of lesser weight; nothing for an empty text."""
    return Markup(f'<div class="factory-note">{markup(text)}</div>' if text else "")


def bad(text: Text) -> Markup:
    """Something that is wrong."""
    return Markup(f'<span class="factory-bad">{markup(text)}</span>')


def code(text: Text) -> Markup:
    """Text in lines, as it is."""
    return Markup(f"<pre>{markup(text)}</pre>")


def picture(data_uri: str, title: str) -> Markup:
    """A picture that stands in the page itself."""
    return Markup(f'<img src="{escape(data_uri)}" alt="{escape(title)}" title="{escape(title)}">')


def folded(title: str, inside: Markup) -> Markup:
    """What opens by a click."""
    return Markup(f"<details><summary>{markup(title)}</summary>{inside.html}</details>")


def table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[Text]], numbers: Iterable[str] = ()) -> Markup:
    """A table.

    Args:
        columns: headings, each with what is written small below it, such as a type.
        numbers: headings of the columns to be set to the right.
    """
    right = set(numbers)
    marks = [' class="number"' if name in right else "" for name, _ in columns]
    heads = "".join(
        f"<th{mark}>{markup(name)}{f'<br><small>{markup(below)}</small>' if below else ''}</th>"
        for mark, (name, below) in zip(marks, columns, strict=True)
    )
    lines = ("".join(f"<td{mark}>{markup(cell)}</td>" for mark, cell in zip(marks, row, strict=True)) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return Markup(
        f'<div class="factory-wide"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def tree(line: Text, below: Iterable[Markup]) -> Markup:
    """A line with what hangs below it."""
    items = "".join(f"<li>{one.html}</li>" for one in below)
    return Markup(markup(line) + (f"<ul>{items}</ul>" if items else ""))
