"""Tars of new samples in a store: where they are, what is recorded beside them, and what may be taken over.

`INTO/NAME-FINGERPRINT/SHARD-STATE/00000.tar` and so on: NAME and FINGERPRINT are those of the operations, STATE is a
hash of everything that the samples of a shard gave them to read. So tars of other code, or of other parents, never get
mixed. Beside each tar stands `00000.arrow`, written after it, with a row for each parent that it has an answer to:
where the new sample is, or why there is none. `made.json`, written last, says that the folder is whole. After a kill
the tars that are recorded stay; of a shard that changed, answers to parents that did not are copied from the tars of
before.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.augmentation.applying import IMAGE
from factory_lib.errors import FileMissing
from factory_lib.storage.store import FileInfo, store

PART_BYTES = 64 * 2**20
"""A tar is ended behind the sample that makes it as large as this."""
DONE = "made.json"
UNUSED = "unused.json"
"""File that says since when a folder was seen to be unused (see `unused_tars`)."""
_DIGITS = 16
_PASSING = ("WorkerDied:", "SignalTimeout:", "MemoryError")
"""Beginnings of reasons that may be gone at the next try, as all are of a picture that could not be read."""
_NO_PICTURE = f"no {IMAGE}"
"""Reason of a parent without a picture: it could not be read, and will not be while the parent is the same."""

RECORD = pa.schema(
    [
        ("position", pa.uint32()),
        ("inputs", pa.binary(16)),
        ("offset", pa.uint64()),
        ("size", pa.uint64()),
        ("extension", pa.string()),
        ("width", pa.uint32()),
        ("height", pa.uint32()),
        ("caption", pa.string()),
        ("error", pa.string()),
    ]
)
"""An answer to a parent: its position in its shard, a hash of what it gave to read (NULL where it could not be read),
the new sample's place in the tar and what is known of it; or the reason why there is none."""


@dataclass(frozen=True)
class TarPart:
    """A tar and its record.

    Attributes:
        tar: None where no parent in it became a new sample.
    """

    tar: FileInfo | None
    record: pa.Table

    @property
    def lasts(self) -> pa.ChunkedArray:
        """Which answers will be the same at the next try."""
        error = self.record.column("error")
        unread = pc.and_(pc.is_valid(error), pc.is_null(self.record.column("inputs")))
        passes = pc.and_(unread, pc.fill_null(pc.not_equal(error, _NO_PICTURE), False))
        for beginning in _PASSING:
            passes = pc.or_(passes, pc.fill_null(pc.starts_with(error, beginning), False))
        return pc.invert(passes)


@dataclass(frozen=True)
class ShardFolder:
    """The tars of one shard in one state.

    Attributes:
        uri: of the folder.
        files: what is in it, by name.
    """

    uri: str
    files: Mapping[str, FileInfo]

    @property
    def is_whole(self) -> bool:
        """Whether all parents have been answered."""
        return DONE in self.files

    def parts(self) -> Iterator[TarPart]:
        """What is recorded, in order, up to the first tar that is not as it was recorded."""
        for number in range(len(self.files)):
            if (recorded := self.files.get(f"{number:05d}.arrow")) is None:
                return
            record = pa.ipc.open_file(
                pa.BufferReader(store().read(recorded.uri, etag=recorded.etag or None))
            ).read_all()
            size = int(record.schema.metadata[b"tar_bytes"])
            tar = self.files.get(f"{number:05d}.tar")
            if size and (tar is None or tar.size != size):
                return
            yield TarPart(tar if size else None, record)

    def tar_uri(self, number: int) -> str:
        """Where a tar is."""
        return f"{self.uri}/{number:05d}.tar"

    def write_record(self, number: int, rows: list[dict[str, Any]]) -> TarPart:
        """Record a tar that is there; its record makes it count."""
        has_tar = any(row["error"] is None for row in rows)
        tar = store().info(self.tar_uri(number)) if has_tar else None
        size = str(tar.size if tar else 0).encode()
        record = pa.Table.from_pylist(rows, RECORD).replace_schema_metadata({b"tar_bytes": size})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, record.schema) as file:
            file.write_table(record)
        self._write(f"{number:05d}.arrow", sink.getvalue().to_pybytes())
        return TarPart(tar, record)

    def finish(self, about: Mapping[str, Any]) -> None:
        """Say that the folder is whole.

        Args:
            about: for people who look into it.
        """
        self._write(DONE, json.dumps(dict(about), indent=1).encode())

    def _write(self, name: str, data: bytes) -> None:
        store().write(f"{self.uri}/{name}", data)
        store().sync(f"{self.uri}/{name}")


@dataclass(frozen=True)
class MadeTars:
    """The tars of some operations.

    Attributes:
        into: folder or bucket of the store, resolved.
        name: of the operations.
        fingerprint: of their code and parameters.
    """

    into: str
    name: str
    fingerprint: str

    @property
    def uri(self) -> str:
        """Where they are."""
        return f"{self.into}/{self.name[:60]}-{self.fingerprint[:_DIGITS]}"

    @cached_property
    def _folders(self) -> dict[str, dict[str, FileInfo]]:
        """Folder -> name -> file, as they were when this was first asked for, or the folder was last looked at."""
        return _listed(self.uri)

    def taken_up(self, shard: str, state: str) -> tuple[ShardFolder, list[TarPart]]:
        """The folder of a shard, in use from now on, and its parts.

        It is one in which no parent is without a new sample for a reason that may be gone.

        Args:
            state: hash of what its samples give to read, and of its name.
        """
        folder = self._folder(shard, state)
        parts = list(folder.parts())
        while not all(pc.all(part.lasts).as_py() for part in parts):
            state = hashlib.sha256(f"{state}\nagain".encode()).hexdigest()
            folder = self._folder(shard, state)
            parts = list(folder.parts())
        return folder, parts

    def earlier(self, shard: str, now: ShardFolder) -> Iterator[ShardFolder]:
        """Folders of other states of a shard, or of one whose name looks like it."""
        for name in sorted(self._folders):
            if f"{self.uri}/{name}" != now.uri and name.rpartition("-")[0] == _readable(shard):
                yield self._in_use(name)

    def _folder(self, shard: str, state: str) -> ShardFolder:
        return self._in_use(f"{_readable(shard)}-{state[:_DIGITS]}")

    def _in_use(self, name: str) -> ShardFolder:
        """A folder that nobody removes from now on; until now somebody may have, so that it is looked at again."""
        uri, files = f"{self.uri}/{name}", self._folders.get(name, {})
        if UNUSED in files:
            store().remove(f"{uri}/{UNUSED}")
            files = self._folders[name] = _listed(uri).get(name, {})
        return ShardFolder(uri, files)


def _listed(uri: str) -> dict[str, dict[str, FileInfo]]:
    """Folder -> name -> file, of all that is below a URI."""
    found: dict[str, dict[str, FileInfo]] = {}
    try:
        files = store().list(uri)
    except FileMissing:
        return {}
    for file in files:
        folder, _, name = file.uri.rpartition("/")
        found.setdefault(folder.rpartition("/")[2], {})[name] = file
    return found


def _readable(shard: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", shard).strip("_") or "shard"
