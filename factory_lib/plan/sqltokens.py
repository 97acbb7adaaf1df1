"""SQL text cut into tokens exactly as the engine cuts it.

What is a comment, a string or a name decides what a statement does, so there is one reading of it. Text is looked at as
the engine sees it, as bytes, one character each (`as_bytes`): offsets are byte offsets, and bytes that are no UTF-8
survive. Time is in proportion to the text.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
      (?P<blank>   (?:\s|\xc2[\x85\xa0]|\xe1(?:\x9a\x80|\xa0\x8e)|\xe2\x80[\x80-\x8f\xa8\xa9\xaf]|\xe2\x81[\x9f\xa0]
                      |\xe3\x80\x80|\xef\xbb\xbf)+ | (?:--|//|\#[\ !])[^\n]* )
    | (?P<comment> /\* )
    | (?P<string>  [xXbB]?'(?:[^'\\]+|\\.|'')*'? | \xe2\x80\x98(?:[^\xe2]+|\xe2(?!\x80\x99))*(?:\xe2\x80\x99)? )
    | (?P<quoted>  "(?:[^"\\]+|\\.|"")*"? | `(?:[^`\\]+|\\.|``)*`?
                 | \xe2\x80\x9c(?:[^\xe2]+|\xe2(?!\x80\x9d))*(?:\xe2\x80\x9d)? )
    | (?P<heredoc> \$\w*\$ )
    | (?P<word>    [A-Za-z_$][\w$]* )
    | (?P<number>  \d[\w.]* )
    | (?P<mark>    -> | :: | \|\| | [<>=!]= | <> | @@ | \xe2\x88\x92 | . )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_COMMENT_MARK = re.compile(r"/\*|\*/")
_HEREDOC = re.compile(r"(?=(\$\w*\$))", re.ASCII)
_DOLLAR = re.compile(r"\$(?:\w[\w$]*)?", re.ASCII)
"""Of a tag that does not come again: a word."""
_OPEN, _CLOSE = frozenset("([{"), frozenset(")]}")
_ESCAPED = re.compile(r'\\(.)|""|``', re.DOTALL)
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "0": "\0", "a": "\a", "v": "\v"}


@dataclass(frozen=True)
class Token:
    """One token outside of comments; `depth` counts the brackets around it.

    Its kind is string, quoted (a name in quotes), heredoc, word, number or mark.
    """

    kind: str
    text: str
    start: int
    end: int
    depth: int

    @property
    def keyword(self) -> str:
        """The word in capitals; punctuation as it is; nothing for literals."""
        return self.text.upper() if self.kind in ("word", "mark") else ""

    @property
    def name(self) -> str:
        """What a word or a quoted name means."""
        if self.kind != "quoted":
            return self.text
        if self.text[0] == "\xe2":
            return self.text[3:-3]
        return _ESCAPED.sub(lambda m: _ESCAPES.get(m[1], m[1]) if m[1] else m[0][0], self.text[1:-1])


def as_bytes(text: str) -> str:
    """Text with one character for each byte of its UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def as_text(text: str) -> str:
    """What `as_bytes` made of a text, back."""
    return text.encode("latin-1").decode("utf-8", "surrogateescape")


def tokens(text: str) -> Iterator[Token]:
    """All tokens of a statement given as bytes, comments and blanks left out."""
    depth = place = 0
    heredocs: _Heredocs | None = None
    while match := _TOKEN.match(text, place):
        kind, start, place = match.lastgroup or "mark", place, match.end()
        if kind == "comment":
            place = _end_of_comment(text, place)
        elif kind == "heredoc":
            heredocs = heredocs or _Heredocs(text)
            end = heredocs.end(match.group(), place)
            if end is None and (word := _DOLLAR.match(text, start)):
                kind, end = "word", word.end()
            place = end or place
        if kind in ("blank", "comment"):
            continue
        token = text[start:place]
        if kind == "mark" and token in _CLOSE:
            depth = max(0, depth - 1)
        yield Token(kind, token, start, place, depth)
        if kind == "mark" and token in _OPEN:
            depth += 1


def _end_of_comment(text: str, place: int) -> int:
    """Comments nest."""
    level = 1
    for mark in _COMMENT_MARK.finditer(text, place):
        level += 1 if mark.group() == "/*" else -1
        if not level:
            return mark.end()
    return len(text)


class _Heredocs:
    """Where `$tag$` stands in a text, found once."""

    def __init__(self, text: str) -> None:
        self._places: dict[str, list[int]] = {}
        for mark in _HEREDOC.finditer(text):
            self._places.setdefault(mark[1], []).append(mark.start())

    def end(self, tag: str, start: int) -> int | None:
        """Where what a tag began ends; None where it does not."""
        found = self._places[tag]
        after = bisect_left(found, start)
        return found[after] + len(tag) if after < len(found) else None
