"""The number of words in SQL, against a transcription of fastText's `Dictionary::readWord`."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from factory_lib import DatasetQuery
from factory_lib.curation.tokens import fasttext_tokens

BREAKS = " \n\r\t\v\f\0"


def tokenized(text: str) -> list[str]:
    """As fastText reads a stream of bytes: a line feed behind a word is put back, and is then `</s>`."""
    tokens, word, at = [], "", 0
    while at < len(text):
        letter = text[at]
        at += 1
        if letter not in BREAKS:
            word += letter
        elif word:
            tokens.append(word)
            word = ""
            at -= letter == "\n"
        elif letter == "\n":
            tokens.append("</s>")
    return [*tokens, word] if word else tokens


@pytest.mark.usefixtures("engine")
def test_fasttext_tokens() -> None:
    draw = random.Random(0)
    letters = [*BREAKS, "a", "b", ".", "é", "猫", "👗", "\u00a0", "\u2003", "\u0085"]
    texts = ["", "dog", "a dog", "dog\n", "\n\n", "a\u00a0dog", "a\0dog"]
    texts += ["".join(draw.choices(letters, k=draw.randrange(12))) for _ in range(2000)]
    pool = DatasetQuery.from_arrow(pa.table({"n": range(len(texts)), "caption": texts}))
    found = pool.mutate(tokens=fasttext_tokens()).order_by("n").to_arrow()["tokens"].to_pylist()
    assert found == [len(tokenized(text)) for text in texts]
    assert found[:7] == [0, 1, 2, 2, 2, 1, 2]


@pytest.mark.usefixtures("engine")
def test_no_caption_has_no_number() -> None:
    pool = DatasetQuery.from_arrow(pa.table({"caption": pa.array([None], pa.string())}))
    assert pool.mutate(tokens=fasttext_tokens()).to_arrow()["tokens"].to_pylist() == [None]
