"""Bytes that nobody can point at are copied once into tars of a store that the user names.

Compressed archives and bytes inside parquet have no byte ranges. Each such file becomes a folder of plain tars there,
`NAME-HASH/00000.tar` and so on; the hash is of the file's uri and etag, so that a changed file gets a folder of its own
and pointers of older versions stay good. Tars are cut by size between samples, the same every time: after a kill, what
is there is passed over, and `unpacked.json`, written last, says that the folder is whole.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from factory_lib.errors import FileMissing, SourceError
from factory_lib.progress import current, track
from factory_lib.redaction import redact
from factory_lib.sources.shards import ShardReport
from factory_lib.sources.tar import BLOCK, TarBlock
from factory_lib.storage.store import FileInfo, store

PART_BYTES = 64 * 2**20
"""A tar is ended behind the sample that makes it as large as this."""
_FORMAT = 1
_DONE = "unpacked.json"
HINT = (
    "Name a folder or bucket for unpacked copies with --unpack-to (unpack_to=…, or FACTORY_UNPACK_TO for the graph); "
    "what is there already is not copied again."
)


@dataclass
class Unpacking:
    """The unpacked copy of one file.

    Args:
        file: that is unpacked.
        to: folder or bucket of all unpacked copies.
    """

    file: FileInfo
    to: str
    parts: list[FileInfo] = field(default_factory=list)
    _data: bytearray = field(default_factory=bytearray)
    _members: list[tuple[str, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", self.file.path.rsplit("/", 1)[-1]).strip("._-") or "file"
        identity = f"{_FORMAT}\t{PART_BYTES}\t{self.file.uri}\t{self.file.etag}\t{self.file.size}"
        self.folder = f"{store().resolve(self.to)}/{name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
        try:
            self._there = {file.uri: file for file in store().list(self.folder)}
        except FileMissing:
            self._there = {}

    @property
    def is_done(self) -> bool:
        """Whether the copy is whole."""
        return f"{self.folder}/{_DONE}" in self._there

    def recorded(self) -> dict[str, Any]:
        """What `finish` was given when the copy became whole; fills `parts`."""
        found: dict[str, Any] = json.loads(store().read(f"{self.folder}/{_DONE}"))
        self.parts = [self._there[f"{self.folder}/{name}"] for name in found["parts"]]
        return found

    def add(self, name: str, data: bytes) -> tuple[str, int, int]:
        """Append one member; returns the uri, offset and size of its bytes."""
        about = tarfile.TarInfo(name)
        about.size = len(data)
        self._data += about.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        offset = len(self._data)
        self._data += data
        self._data += bytes(-len(data) % BLOCK)
        self._members.append((name, offset, len(data)))
        return self._next_uri, offset, len(data)

    @property
    def is_full(self) -> bool:
        """Whether the tar that is being made should end here."""
        return len(self._data) >= PART_BYTES

    @property
    def _next_uri(self) -> str:
        return f"{self.folder}/{len(self.parts):05d}.tar"

    @property
    def has_members(self) -> bool:
        """Whether a tar is being made."""
        return bool(self._members)

    def end_part(self) -> tuple[FileInfo, TarBlock]:
        """Write the tar that was being made, unless it is there; returns it and its members."""
        data = bytes(self._data) + bytes(2 * BLOCK)
        uri = self._next_uri
        there = self._there.get(uri)
        if there is None or there.size != len(data):
            store().write(uri, data)
            store().sync(uri)
            there = store().info(uri)
        self.parts.append(there)
        names = [readable(name) for name, _, _ in self._members]
        offsets = np.array([offset for _, offset, _ in self._members], np.int64)
        sizes = np.array([size for _, _, size in self._members], np.uint64)
        self._data, self._members = bytearray(), []
        return there, TarBlock(pa.array(names, pa.string()), offsets.astype(np.uint64), sizes, data, offsets)

    def finish(self, **record: Any) -> None:
        """Say that the copy is whole.

        Args:
            record: what whoever reads the copy next time should know.
        """
        uri = f"{self.folder}/{_DONE}"
        about = {"source": redact(self.file.uri), "etag": self.file.etag, "size": self.file.size}
        parts = [part.uri.rsplit("/", 1)[-1] for part in self.parts]
        store().write(uri, json.dumps({**about, "parts": parts, **record}, indent=1).encode())
        store().sync(uri)


def need_place(what: str, to: str | None) -> str:
    """Where unpacked copies go.

    Raises:
        SourceError: no place was named.
    """
    if to is None:
        raise SourceError(f"{what}: there are no byte ranges that could be pointed at.", HINT)
    return to


@dataclass
class UnpackNotes:
    """What was odd about a file while it was unpacked, kept with the copy and said at each reading."""

    counts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def count(self, kind: str, number: int = 1) -> None:
        """Add to a count."""
        if number:
            self.counts[kind] = self.counts.get(kind, 0) + number

    def tell(self, report: ShardReport) -> None:
        """Put it into the report of a shard."""
        for kind, number in self.counts.items():
            report.count(kind, number)
        for problem in self.problems:
            report.problem(problem)

    def record(self) -> dict[str, Any]:
        """As it is kept."""
        return {"counts": self.counts, "problems": self.problems[:50]}

    @classmethod
    def read(cls, record: dict[str, Any]) -> UnpackNotes:
        """As it was kept."""
        return cls(dict(record["counts"]), list(record["problems"]))


@contextmanager
def told(file: FileInfo) -> Iterator[Callable[[], None]]:
    """A function to be called for each sample of a file that is unpacked, where somebody wants to know."""
    if current() is None:
        yield lambda: None
        return
    with track(f"unpacking {redact(file.uri).rsplit('/', 1)[-1]}") as progress:
        yield progress.advance


def readable(name: str) -> str:
    """The name of a member as `TarReader` gives it: bytes that are no UTF-8 as escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def key_of(name: str) -> str:
    """What the members of one sample have in common: the path up to the first dot of the file name."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + (base.partition(".")[0] or base)


Samples = Iterator[list[tuple[str, bytes]]]
"""Members of one sample after another: name and bytes."""
