"""Answers to parents: the new sample that became of one, or why there is none; computed, or made before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from factory_lib.augmentation.applying import IMAGE, MADE
from factory_lib.build.made_tars import TarPart
from factory_lib.compute.reading import PREFIX, TASK_BYTES
from factory_lib.storage.store import store

Row = dict[str, Any]
FIELDS = ("extension", "width", "height", "caption")


@dataclass(frozen=True)
class KnownAnswer:
    """An answer of before.

    Attributes:
        part: where it is.
        row: its record.
    """

    part: TarPart
    row: Row


@dataclass(frozen=True)
class ParentAnswer:
    """What became of a parent.

    Attributes:
        content: hash of the bytes that were read of it; None where they are not known.
        inputs: hash of everything that it gave to read, where that is known already.
        data: the new picture; empty where there is none.
        row: what is known of it: `extension`, `width`, `height`, `caption`, `error`.
    """

    content: bytes | None
    inputs: bytes | None
    data: bytes | memoryview
    row: Row


def inputs_hash(content: bytes, given: str) -> bytes:
    """A hash of everything that a parent gives to read.

    Args:
        content: hash of its bytes.
        given: hash of the values of its columns.
    """
    return hashlib.sha256(content + given.encode()).digest()[:16]


def computed_answers(batches: Iterator[pa.RecordBatch]) -> Iterator[ParentAnswer]:
    """Computed answers one by one."""
    for batch in batches:
        made, errors, hashes = (batch.column(name) for name in (MADE, f"{MADE}_error", PREFIX + IMAGE))
        numbers = made.field("data")
        data = memoryview(numbers.values.to_numpy(zero_copy_only=False)) if len(numbers.values) else memoryview(b"")
        ends = numbers.offsets.to_pylist()
        fields = [made.field(name).to_pylist() for name in FIELDS]
        of_rows = zip(errors.to_pylist(), hashes.to_pylist(), *fields, strict=True)
        for i, (error, content, *values) in enumerate(of_rows):
            row = {**dict(zip(FIELDS, values, strict=True)), "error": error}
            yield ParentAnswer(content, None, data[ends[i] : ends[i + 1]], row)


def copied_answers(known: Sequence[KnownAnswer]) -> Iterator[ParentAnswer]:
    """Answers of before one by one; pictures that lie in one tar are read some at a time."""
    start = 0
    while start < len(known):
        end, size = start, 0
        while end < len(known) and known[end].part is known[start].part and size <= TASK_BYTES:
            size += known[end].row["size"] or 0
            end += 1
        some, tar = known[start:end], known[start].part.tar
        spans = [(one.row["offset"] or 0, one.row["size"] or 0) for one in some]
        read = store().read_ranges(tar.uri, spans, etag=tar.etag or None) if tar else [memoryview(b"")] * len(some)
        for one, data in zip(some, read, strict=True):
            yield ParentAnswer(None, one.row["inputs"], data, {name: one.row[name] for name in (*FIELDS, "error")})
        start = end
