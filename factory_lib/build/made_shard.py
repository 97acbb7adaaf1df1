"""The new samples of one shard: taken over, copied or computed, and written into tars in the order of their parents."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa

from factory_lib.augmentation.applying import IMAGE
from factory_lib.build.made_answers import KnownAnswer, ParentAnswer, computed_answers, copied_answers, inputs_hash
from factory_lib.build.made_parts import PartWriter
from factory_lib.build.made_tars import MadeTars, ShardFolder, TarPart
from factory_lib.build.reuse.contents import hash_members
from factory_lib.compute.reading import PREFIX
from factory_lib.compute.run import compute
from factory_lib.signals.signal import Signal


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
    known: dict[int, KnownAnswer]


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
        answers: deque[ParentAnswer] = deque()

        def wanted() -> Iterator[pa.RecordBatch]:
            for shard in shards:
                task = self._task(shard)
                waiting.append(task)
                yield from _missing(task)

        computed = computed_answers(compute([self.signal], wanted(), ordered=True, etags=self.etags, hashes=True))
        while True:
            # Who computes asks for the next shards; those that lack nothing are passed by on the way.
            while not waiting and (answer := next(computed, None)) is not None:
                answers.append(answer)
            if not waiting:
                return
            task = waiting.popleft()
            yield task.shard, [*task.found, *self._parts(task, chain(_drained(answers), computed))]

    def _task(self, shard: ParentShard) -> _Task:
        folder, found = self.tars.taken_up(shard.name, shard.state)
        answered = sum(part.record.num_rows for part in found)
        known = {} if answered == shard.rows.num_rows else self._known(shard, folder, answered)
        rows = shard.rows.slice(answered)
        self.reused += answered + len(known)
        self.computed += rows.num_rows - len(known)
        self.progress(answered)
        return _Task(shard, folder, found, rows, known)

    def _parts(self, task: _Task, computed: Iterator[ParentAnswer]) -> list[TarPart]:
        """The parts that are missing, written.

        Args:
            computed: gives the answers to parents of which nothing is known, in order.
        """
        if task.folder.is_whole and not task.rows.num_rows:
            return []
        copied = copied_answers([task.known[p] for p in task.rows.column("position").to_pylist() if p in task.known])
        made: list[TarPart] = []
        with contextlib.closing(PartWriter(task.folder, len(task.found), self.suffix, self.operation)) as writing:
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

    def _known(self, shard: ParentShard, folder: ShardFolder, answered: int) -> dict[int, KnownAnswer]:
        """Position -> what was made before of a parent that gave the same to read.

        Where nothing was made before of the shard, no byte is read to know it.
        """
        before = {
            row["inputs"]: KnownAnswer(part, row)
            for earlier in self.tars.earlier(shard.name, folder)
            for part in earlier.parts()
            for row in part.record.filter(part.lasts).to_pylist()
            if row["inputs"] is not None
        }
        found: dict[int, KnownAnswer] = {}
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


def _missing(task: _Task) -> Iterator[pa.RecordBatch]:
    """What is to be computed of."""
    left = set(task.rows.column("position").to_pylist()) - task.known.keys()
    for batch in task.shard.read() if left else ():
        mask = [position in left for position in batch.column("position").to_pylist()]
        if any(mask):
            yield batch.filter(pa.array(mask))


def _drained(answers: deque[ParentAnswer]) -> Iterator[ParentAnswer]:
    while answers:
        yield answers.popleft()
