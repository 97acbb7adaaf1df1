"""What a format of exports has to say: which columns it takes, how it is cut into parts, and how a part is written."""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from factory_lib.errors import ExportError, nearest
from factory_lib.storage.store import store
from factory_lib.warehouse.arrow_types import is_pointer
from factory_lib.writing.parts import ExportPart, PartReport, cuts, parts_of

if TYPE_CHECKING:
    from factory_lib.query import DatasetQuery
    from factory_lib.writing.rows import ExportRows

_VECTOR = re.compile(r"Array\((?:Float32|BFloat16)\)")
_NO_ATTRIBUTES = ("shard", "position", "sample_id")


@dataclass(frozen=True, kw_only=True)
class ExportFormat(ABC):
    """How samples are written.

    Attributes:
        members: columns of pointers whose bytes are written; None for all, and for tables none.
        columns: attributes that are written; None for all, without `shard`, `position`, `sample_id` and, where lists
            of numbers would be text, vectors.
        key: the column that names the samples, as text; each has one of its own.
        samples_per_file, bytes_per_file: at most so many samples and bytes of members a file.
        strict: a sample whose bytes cannot be read ends the export; else it is left out and counted.
    """

    name: ClassVar[str]
    """What the command line calls it."""
    keys_are_paths: ClassVar[bool] = True
    """Whether keys become names of files, so that they must be such, and unique."""
    takes_vectors: ClassVar[bool] = False
    """Whether vectors are among the attributes that are written unless others are chosen."""
    takes_names_alone: ClassVar[bool] = False
    """Whether there is something to write of samples without members and attributes."""

    members: Sequence[str] | None = None
    columns: Sequence[str] | None = None
    key: str = "key"
    samples_per_file: int = 10_000
    bytes_per_file: int | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        for name in ("samples_per_file", "bytes_per_file"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ExportError(f"{name}={value} cannot be.", "It is at least 1.")

    def rows(self, samples: DatasetQuery) -> tuple[DatasetQuery, str | None]:
        """The rows that are exported, and the column that says how often each comes, if there is one."""
        return samples, None

    def depends_on(self) -> str:
        """What the export depends on besides rows and arguments, as a text that changes with it."""
        return ""

    def chosen_members(self, kinds: Mapping[str, str]) -> list[str]:
        """The members that are written, by the ClickHouse types of the columns."""
        known = [name for name, kind in kinds.items() if is_pointer(kind)]
        return _chosen(self.members, known, known, "member")

    def chosen_columns(self, kinds: Mapping[str, str]) -> list[str]:
        """The attributes that are written, by the ClickHouse types of the columns."""
        known = [name for name, kind in kinds.items() if not is_pointer(kind)]
        vectors = [] if self.takes_vectors else [name for name in known if _VECTOR.fullmatch(kinds[name])]
        usual = [name for name in known if name not in (*_NO_ATTRIBUTES, *vectors)]
        return _chosen(self.columns, known, usual, "column")

    def parts(self, rows: ExportRows) -> list[ExportPart]:
        """What is written on its own."""
        sizes = rows.sizes() if self.bytes_per_file else range(rows.count)
        return parts_of(cuts(sizes, self.bytes_per_file, self.samples_per_file))

    @abstractmethod
    def files(self, parts: Sequence[ExportPart]) -> list[str]:
        """Names of all files that may be written, those of no part among them; one that ends with `/` is a folder."""

    @abstractmethod
    def write(self, part: ExportPart, rows: ExportRows, to: str, parts: int) -> PartReport:
        """Write a part.

        Args:
            to: URI of the target.
            parts: how many there are.
        """

    def finish(self, rows: ExportRows, parts: Mapping[ExportPart, PartReport], to: str) -> PartReport:
        """Write what belongs to all parts, and report that alone."""
        return PartReport()

    def describe(self, facts: Mapping[str, Any], total: PartReport, to: str) -> dict[str, int]:
        """Write what is said of the whole export; name -> bytes.

        Args:
            facts: what `provenance.json` says of where the samples come from.
            total: what became of all parts.
        """
        return {}


def _chosen(asked: Sequence[str] | None, known: Sequence[str], usual: Sequence[str], what: str) -> list[str]:
    if asked is None:
        return list(usual)
    for name in asked:
        if name not in known:
            raise ExportError(f"The samples have no {what} {name!r}.", nearest(name, known))
    return list(dict.fromkeys(asked))


def json_texts(columns: Mapping[str, Sequence[Any]]) -> list[bytes]:
    """A JSON object a row: numbers that are none are null, times in ISO format, bytes in hexadecimal digits."""
    names = list(columns)
    return [json_bytes(dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def json_bytes(value: Any) -> bytes:
    """A value as JSON, in UTF-8."""
    try:
        return _encoder.encode(value).encode()
    except ValueError:  # NaN and its like
        return _encoder.encode(_finite(value)).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_plain)


def put(to: str, name: str, data: bytes) -> dict[str, int]:
    """Write a file of an export; its name and bytes."""
    with store().writing(f"{to}/{name}") as file:
        file.write(data)
    return {name: len(data)}
