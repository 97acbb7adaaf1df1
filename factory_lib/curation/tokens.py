"""How many words a caption has by the count of others, as SQL."""

from __future__ import annotations

from factory_lib.plan.expressions import C, fn
from factory_lib.plan.operators import Expr


def fasttext_tokens(caption: str = "caption") -> Expr:
    """What `len(fasttext.tokenize(text))` is, DataComp's number of words in its `image_based` filter.

    fastText ends words at blanks, tabs, vertical tabs, form feeds, carriage returns, line feeds and NUL bytes, and at
    no other white space of Unicode; each line feed is a word of its own, `</s>` (`Dictionary::readWord` in fastText's
    `dictionary.cc`). NULL where there is no caption.

    Args:
        caption: column of the texts.
    """
    text = C[caption]
    return fn.length(fn.splitByWhitespace(fn.replaceAll(text, fn.char(0), " "))) + fn.countSubstrings(text, "\n")


def split_words(caption: str = "caption") -> Expr:
    """What `len(text.split())` is, DataComp's number of words in its `basic_filter`: those between white space of any
    kind that Unicode has. NULL where there is no caption.

    Args:
        caption: column of the texts.
    """
    return fn.countMatches(C[caption], f"[^{_WHITE_SPACE}]+")


_WHITE_SPACE = "".join(f"\\x{{{code:x}}}" for code in range(0x3001) if chr(code).isspace())
