"""The rows of an export: in an order that is fixed once, their bytes read in large pieces, errors kept to the sample.

The order is that of the loader (`loading.order`): storage order, or the shuffle of a seed and an epoch, in which a
training over the same query reads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from factory_lib.compute.reading import Read, read_members
from factory_lib.loading.index import Index
from factory_lib.loading.order import Order, OrderKey, Rows, default_lanes, default_units
from factory_lib.query import DatasetQuery
from factory_lib.redaction import redact, without_credentials
from factory_lib.warehouse.arrow_types import POINTER
from factory_lib.writing.keys import SAMPLE_NAME
from factory_lib.writing.parts import NAMED, ExportPart, PartReport, cuts

BLOCK_BYTES = 32 * 2**20
"""Bytes of members that are held at once for each part that is being made."""
BLOCK_ROWS = 10_000
_PIECE = 1_000_000


class Stopped(BaseException):
    """Another part failed, or the user interrupts: what is being made is given up."""


@dataclass(frozen=True)
class SampleBlock:
    """Neighbouring samples of a part.

    Attributes:
        positions: in the order.
        columns: their names and attributes.
        members: name -> bytes of each sample, None where it has no such member.
    """

    positions: Rows
    columns: pa.RecordBatch
    members: dict[str, list[bytes | memoryview | None]]

    @property
    def keys(self) -> list[str]:
        """Keys of the samples."""
        keys: list[str] = self.columns.column(SAMPLE_NAME).to_pylist()
        return keys


class ExportRows:
    """The rows of an export in their order; from any thread.

    Args:
        index: of the rows: members, columns (`shard` and `SAMPLE_NAME` among them).
        order: of the index's rows.
        names: the columns that are exported.
        copies: how often each row comes, int64; None for once.
        asked: what was asked to be exported, of which a format may take only some.

    Attributes:
        count: samples in all.
        done: samples that were passed by, whatever part they are of.
        stopped: set to give up what is being made.
    """

    def __init__(
        self,
        index: Index,
        order: Order,
        names: Sequence[str],
        copies: NDArray[np.int64] | None,
        asked: DatasetQuery,
    ) -> None:
        self.index, self.names, self.asked = index, tuple(names), asked
        self.stopped = threading.Event()
        self._order, self._lock = order, threading.Lock()
        self._uris = pa.array([file.uri for file in index.files], pa.string())
        self._etags = {file.uri: file.etag for file in index.files if file.etag}
        self._ends = None if copies is None else np.cumsum(copies[self._rows(np.arange(index.rows))])
        self.count = index.rows if self._ends is None else int(self._ends[-1])
        self.done = 0

    @property
    def members(self) -> tuple[str, ...]:
        """The members that are exported."""
        return self.index.members

    def sizes(self) -> NDArray[np.int64]:
        """Bytes of the members of the samples, in the order: 8 bytes of memory a sample."""
        starts = range(0, self.count, _PIECE)
        pieces = (self.rows(np.arange(start, min(start + _PIECE, self.count))) for start in starts)
        return np.concatenate([self._bytes(rows) for rows in pieces])

    def copy_numbers(self, positions: Rows) -> Rows:
        """Which copy of its row each position is, from 0."""
        return self._at(positions)[1]

    def columns(self, part: ExportPart) -> Iterator[tuple[Rows, pa.RecordBatch]]:
        """Positions of a part and the columns there, block by block."""
        for positions in self._blocks(part, np.zeros(part.stop - part.start, np.int64)):
            yield positions, self._columns(self._at(positions)[0])
            self._advance(len(positions))

    def blocks(self, part: ExportPart, report: PartReport, *, strict: bool = False) -> Iterator[SampleBlock]:
        """Samples of a part with their bytes, block by block; those that cannot be read are left out and reported.

        Args:
            strict: raise instead.

        Raises:
            StorageAway: storage fails for the time being.
            StoreError: `strict`, and a sample cannot be read.
        """
        rows, _ = self._at(np.arange(part.start, part.stop))
        for positions in self._blocks(part, self._bytes(rows)):
            rows, _ = self._at(positions)
            batch = self._columns(rows)
            found = read_members(self._pointers(rows), self.members, self._etags)
            bad = {n: one for reads in found.values() for n, one in enumerate(reads) if isinstance(one, Exception)}
            if bad:
                if strict:
                    raise bad[min(bad)]
                keys = batch.column(SAMPLE_NAME).to_pylist()
                report.unreadable += len(bad)
                report.left += positions[sorted(bad)].tolist()
                for n in sorted(bad):
                    if len(report.named) < NAMED:
                        report.named[keys[n]] = redact(str(bad[n]))
            kept = np.setdiff1d(np.arange(len(positions)), list(bad))
            members = {name: [_bytes_of(reads[n]) for n in kept.tolist()] for name, reads in found.items()}
            for name, reads in members.items():
                report.lacks(name, sum(one is None for one in reads))
            report.samples += len(kept)
            yield SampleBlock(positions[kept], batch if not bad else batch.take(pa.array(kept)), members)
            self._advance(len(positions))

    def pointers(self, rows: Rows, member: str) -> pa.StructArray:
        """Where a member of some rows lies, without credentials."""
        found = self._pointers(rows).column(member)
        uris = found.field("uri").dictionary_encode()
        cut = pa.array([without_credentials(uri) for uri in uris.dictionary.to_pylist()], pa.string())
        plain = pa.DictionaryArray.from_arrays(uris.indices, cut).dictionary_decode()
        return pa.StructArray.from_arrays([plain, *found.flatten()[1:]], fields=list(POINTER))

    def rows(self, positions: Rows) -> Rows:
        """The row numbers at positions."""
        return self._at(positions)[0]

    def _advance(self, samples: int) -> None:
        with self._lock:
            self.done += samples

    def _blocks(self, part: ExportPart, sizes: NDArray[np.int64]) -> Iterator[Rows]:
        """Positions of a part in pieces of at most `BLOCK_BYTES`, or one."""
        for start, stop in pairwise(cuts(sizes, BLOCK_BYTES, BLOCK_ROWS)):
            if self.stopped.is_set():
                raise Stopped
            yield np.arange(part.start + start, part.start + stop)

    def _at(self, positions: Rows) -> tuple[Rows, Rows]:
        """Row numbers, and numbers of their copies, at positions."""
        if self._ends is None:
            return self._rows(positions), np.zeros(len(positions), np.int64)
        place = np.searchsorted(self._ends, positions, "right")
        begin = np.where(place > 0, self._ends[place - 1], 0)
        return self._rows(place), positions - begin

    def _rows(self, positions: Rows) -> Rows:
        with self._lock:
            return self._order.rows(positions)

    def _bytes(self, rows: Rows) -> NDArray[np.int64]:
        sizes = np.zeros(len(rows), np.int64)
        for member in self.members:
            sizes += self.index.pointers(member, rows).size
        return sizes

    def _columns(self, rows: Rows) -> pa.RecordBatch:
        names = [SAMPLE_NAME, *self.names]
        return pa.RecordBatch.from_arrays(self.index.take(rows, names), names=names)

    def _pointers(self, rows: Rows) -> pa.RecordBatch:
        """`shard`, and a pointer for each member, as `read_members` takes them."""
        columns = {"shard": self.index.take(rows, ["shard"])[0]}
        for member in self.members:
            found = self.index.pointers(member, rows)
            file = pa.array(found.file.astype(np.int64), mask=found.missing)
            parts = [
                self._uris.take(file).fill_null(""),
                pa.array(found.offset).cast(pa.uint64()),
                pa.array(found.size).cast(pa.uint64()),
            ]
            columns[member] = pa.StructArray.from_arrays(parts, fields=list(POINTER))
        return pa.RecordBatch.from_pydict(columns)


def order_of(index: Index, identity: str, picture_bytes: int, *, shuffle: bool, seed: int, epoch: int) -> Order:
    """The order in which `to_torch` reads these rows, with its default members and sizes of units.

    Args:
        identity: of the query, as the loader has it.
        picture_bytes: of all rows together, whether they are exported or not: the loader reads them.
    """
    lanes = default_lanes(index.rows)
    unit, window = default_units(index.rows, picture_bytes / index.rows, lanes)
    return Order(OrderKey(identity, index.rows, seed, unit, window, lanes, shuffle), epoch, index.cuts)


def _bytes_of(read: Read) -> bytes | memoryview | None:
    assert not isinstance(read, Exception)
    return read
