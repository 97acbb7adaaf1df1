"""What is said of a published version, in a file of some kilobytes that any program can read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from factory_lib.errors import PublicationError
from factory_lib.warehouse.remote_disk import Declaration

FORMAT = 1
"""The number of the format of what is published; raised when an earlier release could not read it."""


@dataclass(frozen=True)
class Manifest:
    """A published version.

    Attributes:
        dataset, number: its name in its place.
        uuid: of its table, in every engine that opens it.
        name: what it was called where it was made.
        created, published: when it was made and published, UTC, in ISO format.
        rows, size: of its table, in rows and bytes.
        shards: how many there are.
        fingerprint: of its content: the digest of those of its shards.
        files: digest of the checksums of its table's files.
        parents: versions that it was made of, `{"name", "uuid"}` each.
        sources: what was ingested for it, URI -> format.
        data: its folder below that of the dataset.
        declared: columns and indexes of its table.
        software: release that published it.
    """

    dataset: str
    number: int
    uuid: str
    name: str
    created: str
    published: str
    rows: int
    size: int
    shards: int
    fingerprint: str
    files: str
    parents: list[dict[str, str]]
    sources: dict[str, str]
    data: str
    declared: Declaration
    software: str

    @property
    def version(self) -> str:
        """`laion.v3`."""
        return f"{self.dataset}.v{self.number}"

    def to_json(self) -> bytes:
        """The file."""
        record = {"format": FORMAT, **asdict(self), "declared": self.declared.as_dict()}
        return json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def read(cls, data: bytes, address: str) -> Manifest:
        """What a file says.

        Args:
            address: of the version, for messages.

        Raises:
            PublicationError: a later release wrote it, or it says something else.
        """
        try:
            record: dict[str, Any] = json.loads(data)
            number = int(record.pop("format"))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _unreadable(address) from None
        if number > FORMAT:
            raise PublicationError(
                f"{address} was published by a later release of Dataset Factory ({record.get('software', 'unknown')}:"
                f" format {number}; this one knows {FORMAT}).",
                "Use that release, or a later one.",
            )
        try:
            known = {one.name: record[one.name] for one in fields(cls)}
            return cls(**{**known, "declared": Declaration.read(known["declared"])})
        except (KeyError, TypeError):
            raise _unreadable(address) from None


def digest(of_shards: Mapping[str, str]) -> str:
    """One fingerprint of those of the shards: 32 hexadecimal digits."""
    text = "".join(f"{shard}\n{fingerprint}\n" for shard, fingerprint in sorted(of_shards.items()))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _unreadable(address: str) -> PublicationError:
    return PublicationError(f"{address} is not described as a published version is.", "Is it the right place?")
