"""Names: of datasets, of versions, of tags, and what each may look like."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from factory_lib.errors import InvalidName

CATALOG = "factory"
"""Database of the warehouse that holds provenance."""

STAGING = "factory_staging"
"""Database of the warehouse that holds values computed by runs that have not committed yet."""

STAGE_PREFIX = "_stage_"
"""Prefix of tables that are being built, in the database of their dataset."""

VALUES_PREFIX = "values_"
"""Prefix of the tables of staged values."""

LONGEST = 200
"""Characters of a dataset's name, at most: its tables are files, and file systems end at 255."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED = frozenset({"system", "information_schema", "default", CATALOG, STAGING})
TAG = re.compile(r"[a-z0-9][a-z0-9_.-]*")
"""What a tag looks like."""

_REF = re.compile(rf"(?P<dataset>[^.@]+)(?:\.v(?P<number>[1-9]\d*)|@(?P<tag>{TAG.pattern}))?")


@dataclass(frozen=True)
class Ref:
    """How a version is named: `laion` (the latest), `laion.v3`, `laion@icml`."""

    dataset: str
    number: int | None = None
    tag: str | None = None

    def __str__(self) -> str:
        suffix = f".v{self.number}" if self.number else f"@{self.tag}" if self.tag else ""
        return self.dataset + suffix


def parse_ref(text: str) -> Ref:
    """The parts of a version's name.

    Raises:
        InvalidName: the text is not of the form `name`, `name.vN` or `name@tag`.
    """
    match = _REF.fullmatch(text)
    if match is None:
        raise InvalidName(
            f"{shortened(text)!r} does not name a dataset or version.", "Write laion, laion.v3 or laion@tag."
        )
    number = int(match["number"]) if match["number"] else None
    return Ref(check_dataset_name(match["dataset"]), number, match["tag"])


def check_dataset_name(name: str) -> str:
    """The name, when a dataset may have it.

    Raises:
        InvalidName: it may not.
    """
    if not _NAME.fullmatch(name):
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        suggestion = re.sub(r"[^a-z0-9_]+", "_", plain.lower()).strip("_")[:LONGEST]
        suggestion = suggestion if _NAME.fullmatch(suggestion) else f"d_{suggestion}".rstrip("_")
        raise InvalidName(
            f"{shortened(name)!r} cannot name a dataset: names are lower-case letters, digits and _, and begin with a"
            " letter.",
            f"Try {suggestion!r}." if plain else "Such as 'laion'.",
        )
    if len(name) > LONGEST:
        raise InvalidName(
            f"{shortened(name)!r} cannot name a dataset: it has {len(name):,} characters, and names {LONGEST} at most.",
            "Take a shorter one.",
        )
    if name in _RESERVED:
        raise InvalidName(f"{name!r} is a database of the warehouse itself.", f"Try '{name}_dataset'.")
    return name


def shortened(name: str) -> str:
    """A name as messages show it: of a very long one the beginning."""
    return name if len(name) <= LONGEST else f"{name[:40]}…"


def is_dataset_database(name: str) -> bool:
    """Whether a database of the warehouse may be a dataset."""
    return bool(_NAME.fullmatch(name)) and name not in _RESERVED


def is_version_name(name: str) -> bool:
    """Whether a table's name is that of a published version, such as `laion.v3`, and not of staging."""
    database, _, table = name.partition(".")
    return is_dataset_database(database) and version_number(table) is not None


def version_number(table: str) -> int | None:
    """3 for the table `v3`, None for a table that is no version."""
    match = re.fullmatch(r"v([1-9]\d*)", table)
    return int(match[1]) if match else None
