"""Words of captions that name a class: what DataComp's `text_based` filter asks of a caption, as a signal."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from factory_lib.errors import SignalError
from factory_lib.signals.given import GivenFile
from factory_lib.signals.signal import Signal, signal
from factory_lib.signals.wordnet import DEBIAN_FOLDER, WordNet, WordNetFiles

NAME = "wordnet_entity"
"""The column, unless another name is given."""
_WORDS = 1 << 18
"""Words that a process remembers: most of a caption are among the most frequent ones."""
_WNID = re.compile(r"[nvasr]\d{8}")


@dataclass(frozen=True)
class EntityFinder:
    """The first word of a caption whose first WordNet synset is one of some classes.

    Attributes:
        classes: a text file with a WordNet id (`n02084071`) in each line.
        wordnet: where WordNet is.
        names_a_class: set by `setup()`, once in each worker process.
    """

    classes: GivenFile
    wordnet: WordNetFiles
    names_a_class: Callable[[str], bool] | None = field(default=None, compare=False)

    def setup(self) -> None:
        """Read WordNet and the classes.

        Raises:
            SignalError: there is no WordNet, or a line is no WordNet id.
            StoreError: a file is not there, or cannot be read.
        """
        object.__setattr__(self, "names_a_class", _remembered(self.wordnet.load(), offsets_in(self.classes)))

    def __fingerprint__(self) -> dict[str, str]:
        """What the files hold."""
        return {"classes": self.classes.__fingerprint__()["sha256"], **self.wordnet.__fingerprint__()}

    def __call__(self, caption: list[str]) -> list[str]:
        """The word of each caption; empty where none names a class."""
        assert self.names_a_class is not None
        return [next(filter(self.names_a_class, text.split()), "") for text in caption]


def wordnet_entity(classes: str, *, wordnet: str = DEBIAN_FOLDER, name: str = NAME) -> Signal:
    """Signal: the first word of a caption that names one of some classes, empty where none does.

    A word, as `str.split` has them, names a class if the offset of its first synset is that of the class, whatever kind
    of word either is: `dogs` names `n02084071`, `dog,` names nothing. See `wordnet.WordNet.first_synset`.

    Args:
        classes: path or URI of a text file with a WordNet 3.0 id in each line; DataComp takes those of ImageNet-21k.
        wordnet: path or URI of the folder with WordNet 3.0's files.
        name: of the column; the text is that of the column `caption` (see `Signal.reading`).
    """
    return signal(EntityFinder(GivenFile(classes), WordNetFiles(wordnet)), name=name, batch=1024)


def offsets_in(file: GivenFile) -> frozenset[int]:
    """The offsets of the WordNet ids that a file lists; empty lines count for nothing.

    Raises:
        SignalError: a line is no WordNet id, or there is none at all.
        StoreError: the file is not there, or cannot be read.
    """
    lines = {number: line.strip() for number, line in enumerate(file.text().splitlines(), start=1)}
    ids = {number: line for number, line in lines.items() if line}
    wrong = next((number for number, line in ids.items() if not _WNID.fullmatch(line)), None)
    if wrong is not None or not ids:
        said = f"line {wrong}: {ids[wrong][:40]!r} is no WordNet id" if wrong is not None else "it lists no WordNet id"
        raise SignalError(f"{file.uri}, {said}.", "A line is such as n02084071: the kind of word, then 8 digits.")
    return frozenset(int(line[1:]) for line in ids.values())


def _remembered(wordnet: WordNet, offsets: frozenset[int]) -> Callable[[str], bool]:
    return lru_cache(_WORDS)(lambda word: wordnet.first_synset(word) in offsets)
