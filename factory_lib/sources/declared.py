"""Several sources in one dataset: what is declared of each, in a TOML file or from Python.

[photos]
uri = "/data/photos"
license = "CC-BY-4.0"
weight = 2

[web]
uri = "s3://bucket/web"
format = "img2dataset"
caption = "blip.txt"
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from factory_lib.errors import FactoryError, SourceError, nearest
from factory_lib.redaction import redact
from factory_lib.storage.store import is_local, store

SUFFIX = ".toml"
SEPARATOR = ":"
"""Between the name of a source and that of its shard: no shard of a single source has it in its name."""
LONGEST_NAME = 60
_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_TEXTS = ("format", "metadata", "on", "image", "caption", "key", "key_pattern", "unpack_to")
_LISTS = ("vectors", "members", "columns", "drop_columns")
_NUMBERS = ("tars_per_shard", "schema_tars")
_PATTERN = "*{"
_PLACES = ("metadata", "unpack_to")
"""What is a path or URI, besides `uri`."""
OPTIONS = ("uri", *_TEXTS, *_LISTS, *_NUMBERS, "rename", "shards", "license", "weight")
"""What may be said of a source."""


@dataclass(frozen=True)
class DeclaredSource:
    """One of several sources.

    Attributes:
        name: of the source: what its samples have in the column `source`.
        uri: where it is.
        options: other arguments of `open_source`.
        shards: what stands before the names of its shards, the source's name where nothing is said; empty for shards
            that are called as they are when the source is the only one.
        license: of samples that have none of their own in a column `license`.
        weight: its share of what a loader reads; None where nothing is said.
    """

    name: str
    uri: str
    options: Mapping[str, Any] = field(default_factory=dict)
    shards: str = ""
    license: str | None = None
    weight: float | None = None

    @property
    def prefix(self) -> str:
        """What the names of its shards begin with."""
        return f"{self.shards}{SEPARATOR}" if self.shards else ""

    def words(self) -> dict[str, Any]:
        """What was said of it, as a file says it."""
        said: dict[str, Any] = {"uri": self.uri, **self.options}
        said |= {} if self.shards == self.name else {"shards": self.shards}
        said |= {} if self.license is None else {"license": self.license}
        return said | ({} if self.weight is None else {"weight": self.weight})


def is_sources_file(uri: str) -> bool:
    """Whether what is at a path or URI declares several sources."""
    return uri.lower().endswith(SUFFIX)


def folders_of(uri: str) -> list[str]:
    """The folders that a source reads: of a pattern the one before its first part, of a file of sources all of theirs.

    A single file stands for itself: nothing lies in it.
    """
    uri = store().resolve(uri)
    if not is_sources_file(uri):
        return ["/".join(takewhile(lambda part: not any(mark in part for mark in _PATTERN), uri.split("/")))]
    with suppress(FactoryError):  # gone, or broken since
        return [folder for one in read_sources(uri) for folder in folders_of(one.uri)]
    return []


def check_unsaid(uri: str, said: Mapping[str, Any]) -> None:
    """Raise where something is said of several sources together that holds for one.

    Args:
        said: arguments of `open_source`; those that are None were not given.

    Raises:
        SourceError: one was given.
    """
    for name, value in said.items():
        if value is not None:
            raise SourceError(f"{redact(uri)} declares several sources, and {name}={value!r} is said of all together.",
                              f"Say it in the file: {name} = … below the [name] of the source.")  # fmt: skip


def read_sources(uri: str) -> list[DeclaredSource]:
    """The sources that a file declares, in its order; paths in it are relative to its folder.

    Raises:
        FileMissing: there is no such file.
        SourceError: it is no TOML, or says something that cannot be.
    """
    uri = store().resolve(uri)
    try:
        said = tomllib.loads(store().read(uri).decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{redact(uri)} is no TOML: {error}.", _EXAMPLE) from None
    return declared(said, uri)


def declared(said: Mapping[str, Any], where: str) -> list[DeclaredSource]:
    """Sources, of what is said of each.

    Args:
        said: name -> what a file says of the source, or its path or URI alone.
        where: the file, for messages; relative paths are taken from its folder.

    Raises:
        SourceError: something said cannot be; the hint has the nearest that can.
    """
    if not said:
        raise SourceError(f"{redact(where)} declares no source.", _EXAMPLE)
    found = [
        _declared(name, {"uri": words} if isinstance(words, str) else words, where) for name, words in said.items()
    ]
    _check_different({one.name: one.uri for one in found}, "uri", where)
    _check_different({one.name: one.shards for one in found}, "shards", where)
    return found


def _check_different(said: Mapping[str, str], what: str, where: str) -> None:
    owners: dict[str, str] = {}
    for name, value in said.items():
        if (other := owners.setdefault(value, name)) != name:
            raise SourceError(
                f"{redact(where)}: the sources {other!r} and {name!r} have the same {what}, {redact(value)!r}.",
                "Samples that are there twice could not be told apart.",
            )


_EXAMPLE = 'It has a table for each source: [photos] and below it uri = "/data/photos".'


def _declared(name: str, words: Any, where: str) -> DeclaredSource:
    at = f"{redact(where)}: [{name}]"
    if not _is_name(name):
        better = re.sub(r"[^a-z0-9_-]+", "_", name.lower()).strip("_-")[:LONGEST_NAME]
        hint = f"Try {better!r}." if _NAME.fullmatch(better) else "Such as photos."
        raise SourceError(f"{at} cannot name a source: names are lower-case letters, digits, _ and -.", hint)
    if not isinstance(words, Mapping):
        raise SourceError(f"{at} is {words!r}.", _EXAMPLE)
    for word, value in words.items():
        _check(at, word, value)
    if "uri" not in words:
        raise SourceError(f"{at} has no uri.", _EXAMPLE)
    if is_sources_file(words["uri"]):
        raise SourceError(f"{at} is itself a file that declares sources.", "Declare them here.")
    places = {word: _place(words[word], where) for word in ("uri", *_PLACES) if word in words}
    options = {
        word: value for word, value in {**words, **places}.items() if word in (*_TEXTS, *_LISTS, *_NUMBERS, "rename")
    }
    weight = words.get("weight")
    return DeclaredSource(
        name,
        places["uri"],
        options,
        words.get("shards", name),
        words.get("license"),
        None if weight is None else float(weight),
    )


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text)) and len(text) <= LONGEST_NAME


def _check(at: str, word: str, value: Any) -> None:
    """Whether a word may be said, and with this value.

    Raises:
        SourceError: it may not.
    """
    if word not in OPTIONS:
        raise SourceError(
            f"{at} says {word!r}, which nothing is.", nearest(word, OPTIONS) or f"Known: {', '.join(OPTIONS)}."
        )
    if word in _LISTS:
        right, wanted = isinstance(value, list) and all(isinstance(one, str) for one in value), "a list of texts"
    elif word == "rename":
        right = isinstance(value, Mapping) and all(isinstance(one, str) for one in value.values())
        wanted = '{ new = "old" }'
    elif word in _NUMBERS:
        right, wanted = type(value) is int and value >= 1, "a whole number from 1 on"
    elif word == "weight":
        right = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
        wanted = "a number above 0"
    elif word == "shards":
        right = isinstance(value, str) and (not value or _is_name(value))
        wanted = "a name such as that of a source, or empty"
    else:
        right, wanted = isinstance(value, str) and bool(value), "a text"
    if not right:
        raise SourceError(f"{at} has {word} = {value!r}.", f"It is {wanted}.")


def _place(path: str, where: str) -> str:
    """A path or URI, a relative one from the folder of the file that has it."""
    if "://" in path or path.startswith(("/", "~")) or not is_sources_file(where):
        return store().resolve(path)
    folder = where.rpartition("/")[0]
    return store().resolve(f"{folder}/{path}" if is_local(where) else f"{folder}/{path.removeprefix('./')}")
