"""WordNet: the first sense of a word, as NLTK finds it.

What `nltk.corpus.wordnet.synsets(word)[0].offset()` gives, from the files of WordNet itself: `index.noun` … have the
senses of each lemma, the most frequent one first, `noun.exc` … irregular forms. Debian's `wordnet-base` is WordNet 3.0.
File formats: https://wordnet.princeton.edu/documentation, wndb(5WN); how forms are reduced: morphy(7WN) and NLTK 3.8,
`corpus/reader/wordnet.py`. (NLTK from 3.9 on takes one ending off and no second one.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from factory_lib.errors import SignalError
from factory_lib.signals.given import GivenFile
from factory_lib.storage.store import store

DEBIAN_FOLDER = "/usr/share/wordnet"
"""Where Debian's `wordnet-base` puts the files."""

ENDINGS: Mapping[str, Sequence[tuple[str, str]]] = {
    "noun": (
        ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
        ("men", "man"), ("ies", "y"),
    ),
    "verb": (
        ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""),
    ),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}  # fmt: skip
"""Kind of word -> endings and what stands in their place; kinds and endings in the order in which they are tried."""


@dataclass(frozen=True)
class WordKind:
    """What WordNet knows of the words of one kind.

    Attributes:
        endings: endings that are taken off, and what is put in their place.
        senses: lemma -> offset of its first synset.
        irregular: form -> lemmas, of forms that follow no rule.
    """

    endings: Sequence[tuple[str, str]]
    senses: Mapping[str, int]
    irregular: Mapping[str, Sequence[str]]

    def first_sense(self, form: str) -> int | None:
        """Offset of the first synset of the first lemma that a form, in lower case, may be of."""
        if form in self.irregular:
            return self._first([form, *self.irregular[form]])
        forms = [form]
        found = self._first(forms)
        while found is None and forms:
            forms = [one.removesuffix(old) + new for one in forms for old, new in self.endings if one.endswith(old)]
            found = self._first(forms)
        return found

    def _first(self, lemmas: Iterable[str]) -> int | None:
        return next((self.senses[lemma] for lemma in lemmas if lemma in self.senses), None)


@dataclass(frozen=True)
class WordNet:
    """The first senses of words.

    Attributes:
        kinds: of words, in the order in which their senses come.
    """

    kinds: Sequence[WordKind]

    def first_synset(self, word: str) -> int | None:
        """Offset of the first synset of a word, in whatever form and case; None where WordNet does not know it.

        Of nouns, verbs, adjectives and adverbs the first that has any; offsets of different kinds of words may be the
        same number. Punctuation is part of the word: `dog,` is none.
        """
        form = word.lower()
        senses = (kind.first_sense(form) for kind in self.kinds)
        return next((sense for sense in senses if sense is not None), None)


@dataclass(frozen=True)
class WordNetFiles:
    """A folder with WordNet's files.

    Attributes:
        folder: a path or URI.
    """

    folder: str = DEBIAN_FOLDER

    def load(self) -> WordNet:
        """Read them.

        Raises:
            SignalError: there is no WordNet, or a file is none of its.
            StoreError: a file is not there, or cannot be read.
        """
        return WordNet(
            [
                WordKind(ENDINGS[kind], _senses(index), _irregular(exceptions))
                for kind, index, exceptions in self._files()
            ]
        )

    def __fingerprint__(self) -> dict[str, str]:
        """What the files hold.

        Raises:
            SignalError: there is no WordNet.
            StoreError: a file is not there, or cannot be read.
        """
        return {
            file.uri.rpartition("/")[2]: file.__fingerprint__()["sha256"]
            for _, *files in self._files()
            for file in files
        }

    def _files(self) -> Iterator[tuple[str, GivenFile, GivenFile]]:
        folder = self.folder.rstrip("/")
        if not store().exists(f"{folder}/index.noun"):
            raise SignalError(
                f"There is no WordNet in {folder}: it has no index.noun.",
                "Debian has it (apt install wordnet-base); another folder with its files is given as wordnet=….",
            )
        for kind in ENDINGS:
            yield kind, GivenFile(f"{folder}/index.{kind}"), GivenFile(f"{folder}/{kind}.exc")


def _senses(file: GivenFile) -> dict[str, int]:
    """Lemma -> its first offset: `lemma pos synsets pointers [pointer …] senses ranked offset …`."""
    found = {}
    for number, line in enumerate(file.text().splitlines(), start=1):
        if line.startswith(" "):  # the licence
            continue
        try:
            lemma, _, _, pointers, *rest = line.split()
            found[lemma] = int(rest[int(pointers) + 2])
        except (ValueError, IndexError):
            raise SignalError(
                f"{file.uri}, line {number}: {line[:40]!r} is no line of WordNet's index.",
                "Give the folder with WordNet 3.0's files, such as Debian's wordnet-base has.",
            ) from None
    return found


def _irregular(file: GivenFile) -> dict[str, list[str]]:
    lines = (line.split() for line in file.text().splitlines())
    return {form: lemmas for form, *lemmas in filter(None, lines)}
