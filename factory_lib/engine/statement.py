"""What the server must know of a statement's text: where inline data begins, and which output format it names.

The text is handled as latin-1, so that offsets are byte offsets and bytes that are no UTF-8 survive.
"""

from __future__ import annotations

from dataclasses import dataclass

from factory_lib.plan.sqltokens import Token, tokens

# After these a word is a name, whatever it spells: `INSERT INTO values …`, `db.format`.
_NAME_FOLLOWS = frozenset({"INTO", "TABLE", "FUNCTION", "."})


@dataclass(frozen=True)
class Insert:
    """An INSERT that takes its rows from data sent along.

    Attributes:
        head: the statement up to FORMAT or VALUES.
        format: the input format.
        data: byte offset at which inline data begins.
        settings: where in the head its SETTINGS clause begins; None where it has none.
    """

    head: str
    format: str
    data: int
    settings: int | None = None

    def piped(self, path: str) -> bytes:
        """The same statement with its data read from `path`, a frame of LZ4."""
        target, settings = self.head[: self.settings], self.head[len(self.head[: self.settings]) :]
        source = f"FROM INFILE '{path}' COMPRESSION 'lz4'"
        return f"{target}\n{source}\n{settings}\nFORMAT {self.format}".encode("latin-1")


@dataclass(frozen=True)
class Query:
    """Any other statement, split around its FORMAT clause.

    Attributes:
        keyword: its first word, in capitals.
        body: the statement up to FORMAT, without a final semicolon.
        format: the output format it names, or None.
        tail: what follows FORMAT (SETTINGS …).
        into_outfile: it says INTO OUTFILE, which a server refuses.
    """

    keyword: str
    body: str
    format: str | None
    tail: str
    into_outfile: bool

    def piped(self, path: str, default_format: str) -> str:
        """The same statement with its result written to `path` instead."""
        return f"{self.body}\nINTO OUTFILE '{path}' APPEND FORMAT {self.format or default_format} {self.tail}"


def parse(text: str) -> Insert | Query:
    """Tell an INSERT with data from everything else, without reading further than needed."""
    for token in tokens(text):
        if token.keyword == "INSERT":
            found = _insert(text)
            return found if found is not None else _query(text)
        if token.keyword != "(":
            break
    return _query(text)


def _insert(text: str) -> Insert | None:
    """The head and data of an INSERT; None when a SELECT or a file gives the rows."""
    before = ""
    pending: Token | None = None
    clause: int | None = None

    for token in tokens(text):
        if pending is not None:
            return Insert(text[: pending.start], token.text, _data_offset(text, token.end), clause)
        word = token.keyword
        named = before in _NAME_FOLLOWS
        before = word
        if named:
            continue
        if token.depth <= 1 and word in ("SELECT", "WITH", "WATCH"):
            return None
        if token.depth == 0:
            if word in ("INFILE", ";"):
                return None if word == "INFILE" else Insert(text[: token.start], "Values", len(text), clause)
            if word == "VALUES":
                return Insert(text[: token.start], "Values", token.end, clause)
            if word == "SETTINGS" and clause is None:
                clause = token.start
            if word == "FORMAT":
                pending = token
    return Insert(text, "Values", len(text), clause)


def _data_offset(text: str, end: int) -> int:
    """Inline data begins after blanks and one line break, as ClickHouse reads it."""
    while end < len(text) and text[end] in " \t\f":
        end += 1
    if text[end : end + 1] == "\r":
        end += 1
    if text[end : end + 1] == "\n":
        end += 1
    return end


def _query(text: str) -> Query:
    end = len(text)
    keyword = ""
    clause: tuple[Token, Token] | None = None
    previous = last = None
    outfile = False
    for token in tokens(text):
        keyword = keyword or token.keyword
        if token.depth == 0:
            if previous is not None and previous.keyword == "FORMAT" and token.kind == "word":
                clause = (previous, token)
            elif clause is not None and last is clause[1] and token.keyword not in ("SETTINGS", ";"):
                clause = None
            outfile = outfile or (token.keyword == "OUTFILE" and previous is not None and previous.keyword == "INTO")
        previous = last = token
    if last is not None and last.text == ";":
        end = last.start
    if clause is None:
        return Query(keyword, text[:end], None, "", outfile)
    return Query(keyword, text[: clause[0].start], clause[1].text, text[clause[1].end : end], outfile)
