"""What is said of a published version, in a file of some kilobytes that any program can read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any
from uuid import UUID

from factory_lib.errors import PublicationError
from factory_lib.warehouse.remote_disk import Declaration

FORMAT = 1
"""The number of the format of what is published; raised when an earlier release could not read it."""


LONGEST = 16 << 20
"""Bytes of a manifest, at most: it has a line for each column, and none for shards or rows."""

_KINDS = {"str": str, "int": int, "list": list, "dict": dict}


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
        """What a file says. Whoever can write there may have written it: what is not as it is written here is refused.

        Args:
            data: its bytes; of one that is too large the first `LONGEST` + 1 are enough.
            address: of the version, `PLACE/laion.v3`, which it has to be about.

        Raises:
            PublicationError: a later release wrote it, or it says something else.
        """
        try:
            if len(data) > LONGEST:
                raise ValueError(f"more than {LONGEST:,} bytes")
            record: dict[str, Any] = json.loads(data)
            number = int(record.pop("format"))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _unreadable(address, error) from None
        if number > FORMAT:
            raise PublicationError(
                f"{address} was published by a later release of Dataset Factory ({record.get('software', 'unknown')}:"
                f" format {number}; this one knows {FORMAT}).",
                "Use that release, or a later one.",
            )
        try:
            known = {one.name: record[one.name] for one in fields(cls)}
            found = cls(**{**known, "declared": Declaration.read(known["declared"])})
            found.check(address)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _unreadable(address, error) from None
        return found

    def check(self, address: str) -> None:
        """Make sure that all is what it is called, and that no name leads elsewhere.

        Raises:
            ValueError: something is not.
        """
        for one in fields(self):
            kind = _KINDS.get(str(one.type).partition("[")[0])
            if kind is not None and type(getattr(self, one.name)) is not kind:
                raise ValueError(f"{one.name} is {getattr(self, one.name)!r:.80}")
        if self.version != address.rpartition("/")[2]:
            raise ValueError(f"it is about {self.version!r:.80}")
        if str(UUID(self.uuid)) != self.uuid or not re.fullmatch(r"[0-9a-f-]{36}-[0-9a-f]{8}", self.data):
            raise ValueError(f"it lies in {self.data!r:.80}")
        if not all(isinstance(parent["name"], str) for parent in self.parents):
            raise ValueError("its parents have no names")


def digest(of_shards: Mapping[str, str]) -> str:
    """One fingerprint of those of the shards: 32 hexadecimal digits."""
    text = "".join(f"{shard}\n{fingerprint}\n" for shard, fingerprint in sorted(of_shards.items()))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _unreadable(address: str, error: Exception) -> PublicationError:
    return PublicationError(
        f"{address} is not described as a published version is: {error!s:.200}.", "Is it the right place?"
    )
