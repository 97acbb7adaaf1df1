"""A query's Python, broken into lines that a person can read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

WIDTH = 88


def readable(code: str) -> str:
    """Code of one line as several: a line a verb, long lines broken behind commas and before operators.

    Args:
        code: a chain of calls, such as `DatasetQuery('a').filter(…).limit(5)`.
    """
    lines = list(_cut(code, _is_verb))
    shown = lines[:1] + [f"    {line}" for line in lines[1:]]
    return "\n".join(piece for line in shown for piece in _broken(line))


def _broken(line: str) -> Iterator[str]:
    """A line in pieces of about `WIDTH` characters: arguments apart, and conditions apart within those."""
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    held = ""
    for argument in _cut(line, _is_argument):
        pieces = _cut(argument, _is_condition) if len(argument) > WIDTH else [argument]
        for piece in pieces:
            if held.strip() and len(held) + len(piece) > WIDTH:
                yield held.rstrip()
                held = indent
            held += piece
    yield held


def _is_verb(text: str, index: int, level: int) -> bool:
    return level == 0 and text[index - 1 : index + 1] == ")."


def _is_argument(text: str, index: int, level: int) -> bool:
    return level == 1 and text[index - 2 : index] == ", "


def _is_condition(text: str, index: int, level: int) -> bool:
    return text[index : index + 2] in ("& ", "| ") and text[index - 1] == " "


def _cut(text: str, where: Callable[[str, int, int], bool]) -> Iterator[str]:
    """Pieces of a text, cut before the characters outside of quotes where `where(text, index, depth of brackets)`."""
    level, quote, start = 0, "", 0
    for index, character in enumerate(text):
        if quote:
            quote = "" if character == quote and text[index - 1] != "\\" else quote
            continue
        if index and where(text, index, level):
            yield text[start:index]
            start = index
        if character in "'\"":
            quote = character
        level += (character in "([{") - (character in ")]}")
    yield text[start:]
