"""SQL is cut into tokens as the engine cuts it, in time in proportion to it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory_lib.errors import EngineError
from factory_lib.plan.sqltokens import as_bytes, as_text, tokens

PIECES = "a b ' '' \" ` \\ \\' -- /* */ // # #! $ $$ $t$ ‘ ’ “ ” é ( ) + 1 x' || , − / $a".split()
PIECES += ["\n", "# ", " ", "\u00a0"]
FRAMES = ("{}", "'{}'", "/*{}*/ 1", "$t${}$t$", "`{}`", "1{}+ 2", "‘{}’", "“{}”", "a /*{} */+ b")


@settings(deadline=None, max_examples=150)
@given(frame=st.sampled_from(FRAMES), pieces=st.lists(st.sampled_from(PIECES), max_size=8))
def test_tokens_are_those_of_the_engine(engine_for_all: None, frame: str, pieces: list[str]) -> None:
    """Written one a line, comments left out, they are parsed as the text was."""
    text = f"SELECT\n{frame.format(''.join(pieces))}\n"
    try:
        expected = _tree(text)
    except EngineError:
        return
    assert _tree("\n".join(as_text(token.text) for token in tokens(as_bytes(text)))) == expected


def test_names_are_what_their_quotes_mean() -> None:
    text = 'a "b c" `d\\`e` "f""g" “h” $t$ i $t$ \'j\' $k'
    assert [(t.kind, as_text(t.name)) for t in tokens(as_bytes(text))] == [
        ("word", "a"), ("quoted", "b c"), ("quoted", "d`e"), ("quoted", 'f"g'), ("quoted", "h"),
        ("heredoc", "$t$ i $t$"), ("string", "'j'"), ("word", "$k"),
    ]  # fmt: skip
    assert [t.depth for t in tokens("a(b[c], d)") if t.kind == "word"] == [0, 1, 2, 1]


@pytest.mark.parametrize("piece", ["$a$b", "/*", "'\\'", "‘", "\u00e2\u0080", "("])
def test_the_longest_statement_is_cut_once(piece: str) -> None:
    seen = as_bytes(piece * (250_000 // len(piece.encode())))
    assert sum(token.end - token.start for token in tokens(seen)) <= len(seen)


def _tree(sql: str) -> list[str]:
    from factory_lib.warehouse.client import warehouse

    return [re.sub(r"/dev/fd/\d+", "", line) for line in warehouse().syntax_tree(sql)]
