"""The new samples of one shard: taken over, copied or computed, and written into tars in the order of their parents."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa

from factory_lib.augmentation.applying import IMAGE, MADE
from factory_lib.build.made_tars import PART_BYTES, MadeTars, ShardFolder, TarPart
from factory_lib.build.reuse.contents import hash_members
from factory_lib.compute.reading import PREFIX, TASK_BYTES
from factory_lib.compute.run import compute
from factory_lib.errors import InvalidName
from factory_lib.plan.nodes import OPERATION, PARENT
from factory_lib.signals.signal import Signal
from factory_lib.storage.store import store
from factory_lib.storage.tars import TarWriter, check_key, writing_tar

Row = dict[str, Any]
_FIELDS = ("extension", "width", "height", "caption")


@dataclass(frozen=True)
class ParentShard:
    """The parents of a shard.

    Attributes:
        name: of the shard.
        state: hash of its name and of everything that its samples give to read.
        rows: `position`, `sample_id`, `key`, and `given`, a hash of the values that are read of each, in order.
        read: streams `position`, `shard` and what is read, in order.
    """

    name: str
    state: str
    rows: pa.Table
    read: Callable[[], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class _Task:
    """A shard on its way.

    Attributes:
        folder: where its new samples are, or will be.
        found: the parts that are there.
        rows: the parents behind those that these parts answer.
        known: position -> what was made before of a parent that gave the same to read.
    """

    shard: ParentShard
    folder: ShardFolder
    found: list[TarPart]
    rows: pa.Table
    known: dict[int, _Known]


@dataclass
class ShardMaker:
    """Makes the new samples of shards.

    Attributes:
        signal: computes one.
        operation: what is done, in words.
        tars: where they go.
        suffix: what goes behind the key of a parent.
        etags: uri -> etag that reads of parents are pinned to.
        progress: called with the number of parents that were answered.
        computed, reused: new samples that were computed, and that were there.
    """

    signal: Signal
    operation: str
    tars: MadeTars
    suffix: str
    etags: Mapping[str, str]
    progress: Callable[[int], None]
    computed: int = 0
    reused: int = 0

    def made(self, shards: Iterator[ParentShard]) -> Iterator[tuple[ParentShard, list[TarPart]]]:
        """The tars of shards, made where they are not there; of all of them in one computation."""
        waiting: deque[_Task] = deque()
        answers: deque[_Answer] = deque()

        def wanted() -> Iterator[pa.RecordBatch]:
            for shard in shards:
                task = self._task(shard)
                waiting.append(task)
                yield from _missing(task)

        computed = _answers(compute([self.signal], wanted(), ordered=True, etags=self.etags, hashes=True))
        while True:
            # Who computes asks for the next shards; those that lack nothing are passed by on the way.
            while not waiting and (answer := next(computed, None)) is not None:
                answers.append(answer)
            if not waiting:
                return
            task = waiting.popleft()
            yield task.shard, [*task.found, *self._parts(task, chain(_drained(answers), computed))]

    def _task(self, shard: ParentShard) -> _Task:
        folder = self.tars.folder(shard.name, shard.state)
        folder.take_up()
        found = list(folder.parts())
        answered = sum(part.record.num_rows for part in found)
        known = {} if answered == shard.rows.num_rows else self._known(shard, folder, answered)
        rows = shard.rows.slice(answered)
        self.reused += answered + len(known)
        self.computed += rows.num_rows - len(known)
        self.progress(answered)
        return _Task(shard, folder, found, rows, known)

    def _parts(self, task: _Task, computed: Iterator[_Answer]) -> list[TarPart]:
        """The parts that are missing, written.

        Args:
            computed: gives the answers to parents of which nothing is known, in order.
        """
        if task.folder.is_whole and not task.rows.num_rows:
            return []
        copied = _copies([task.known[p] for p in task.rows.column("position").to_pylist() if p in task.known])
        made: list[TarPart] = []
        with contextlib.closing(_Writing(task.folder, len(task.found), self.suffix, self.operation)) as writing:
            for parent in (one for batch in task.rows.to_batches(1024) for one in batch.to_pylist()):
                writing.add(parent, next(copied if parent["position"] in task.known else computed))
                self.progress(1)
                if writing.is_full:
                    made.append(writing.end_part())
            if writing.rows:
                made.append(writing.end_part())
        failed = sum(len(part.record) - part.record.column("error").null_count for part in (*task.found, *made))
        about = {"operation": self.operation, "fingerprint": self.tars.fingerprint, "shard": task.shard.name}
        task.folder.finish({**about, "parents": task.shard.rows.num_rows, "without": failed})
        return made

    def _known(self, shard: ParentShard, folder: ShardFolder, answered: int) -> dict[int, _Known]:
        """Position -> what was made before of a parent that gave the same to read.

        Where nothing was made before of the shard, no byte is read to know it.
        """
        before = {
            row["inputs"]: _Known(part, row)
            for earlier in self.tars.earlier(shard.name, folder)
            for part in earlier.parts()
            for row in part.record.filter(part.lasts).to_pylist()
            if row["inputs"] is not None
        }
        found: dict[int, _Known] = {}
        if not before:
            return found
        given = shard.rows.column("given").to_pylist()
        at = 0
        for batch in hash_members(shard.read(), [IMAGE], self.etags):
            for position, content in zip(
                *(batch.column(n).to_pylist() for n in ("position", PREFIX + IMAGE)), strict=True
            ):
                inputs = None if content is None else inputs_hash(content, given[at])
                if inputs in before and at >= answered:
                    found[position] = before[inputs]
                at += 1
        return found


@dataclass(frozen=True)
class _Known:
    """An answer of before.

    Attributes:
        part: where it is.
        row: its record.
    """

    part: TarPart
    row: Row


def _missing(task: _Task) -> Iterator[pa.RecordBatch]:
    """What is to be computed of."""
    left = set(task.rows.column("position").to_pylist()) - task.known.keys()
    for batch in task.shard.read() if left else ():
        mask = [position in left for position in batch.column("position").to_pylist()]
        if any(mask):
            yield batch.filter(pa.array(mask))


def _drained(answers: deque[_Answer]) -> Iterator[_Answer]:
    while answers:
        yield answers.popleft()


@dataclass(frozen=True)
class _Answer:
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


def _answers(batches: Iterator[pa.RecordBatch]) -> Iterator[_Answer]:
    """Computed answers one by one."""
    for batch in batches:
        made, errors, hashes = (batch.column(name) for name in (MADE, f"{MADE}_error", PREFIX + IMAGE))
        numbers = made.field("data")
        data = memoryview(numbers.values.to_numpy(zero_copy_only=False)) if len(numbers.values) else memoryview(b"")
        ends = numbers.offsets.to_pylist()
        fields = [made.field(name).to_pylist() for name in _FIELDS]
        of_rows = zip(errors.to_pylist(), hashes.to_pylist(), *fields, strict=True)
        for i, (error, content, *values) in enumerate(of_rows):
            row = {**dict(zip(_FIELDS, values, strict=True)), "error": error}
            yield _Answer(content, None, data[ends[i] : ends[i + 1]], row)


def _copies(known: Sequence[_Known]) -> Iterator[_Answer]:
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
            yield _Answer(None, one.row["inputs"], data, {name: one.row[name] for name in (*_FIELDS, "error")})
        start = end


class _Writing:
    """Writes answers into the parts of a folder.

    Args:
        number: of the first part.

    Attributes:
        rows: of the record of the part that is being written.
    """

    def __init__(self, folder: ShardFolder, number: int, suffix: str, operation: str) -> None:
        self._folder, self._number, self._suffix, self._operation = folder, number, suffix, operation
        self._open = contextlib.ExitStack()
        self._tar: TarWriter | None = None
        self.rows: list[Row] = []

    @property
    def is_full(self) -> bool:
        """Whether the part should end here."""
        return self._tar is not None and self._tar.size >= PART_BYTES

    def add(self, parent: Row, answer: _Answer) -> None:
        """Write an answer; a new sample that cannot be in a tar is none."""
        row = {**answer.row, "position": parent["position"], "inputs": answer.inputs, "offset": None, "size": None}
        if answer.content is not None:
            row["inputs"] = inputs_hash(answer.content, parent["given"])
        if row["error"] is None:
            try:
                row["offset"], row["size"] = self._put(parent, answer)
            except InvalidName as error:
                row |= {**dict.fromkeys(_FIELDS), "error": f"InvalidName: {error.message}"}
        self.rows.append(row)

    def _put(self, parent: Row, answer: _Answer) -> tuple[int, int]:
        key = parent["key"] + self._suffix
        check_key(key)
        if self._tar is None:
            self._tar = self._open.enter_context(writing_tar(self._folder.tar_uri(self._number)))
        caption = answer.row["caption"]
        about = {OPERATION: self._operation, "parent_key": parent["key"], PARENT: str(parent["sample_id"])}
        members: dict[str, bytes | memoryview] = {answer.row["extension"]: answer.data}
        if caption is not None:
            members["txt"] = caption.encode()
        members["json"] = json.dumps(about, ensure_ascii=False).encode()
        return self._tar.add(key, members)[answer.row["extension"]]

    def end_part(self) -> TarPart:
        """End the part: its tar, then its record."""
        self._open.close()
        part = self._folder.write_record(self._number, self.rows)
        self._number, self._tar, self.rows = self._number + 1, None, []
        return part

    def close(self) -> None:
        """Leave the part that is being written, if any, as if it had not been begun."""
        self._open.__exit__(GeneratorExit, GeneratorExit(), None)
