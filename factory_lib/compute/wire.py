"""What the engine and its worker processes say to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from factory_lib.signals.resources import ONE_CORE, Resources


@dataclass(frozen=True)
class LoadedModule:
    """A module as its file was when this process loaded it.

    Attributes:
        name: of the module.
        path: of its file.
        folders: where its submodules are, for a package.
        code: of the module, marshalled.
    """

    name: str
    path: str
    folders: tuple[str, ...]
    code: bytes


@dataclass(frozen=True)
class SentSignal:
    """A signal on its way to a worker.

    Attributes:
        key: digest of what was hashed and of the signal: a worker sets up a signal once for each.
        pickled: the signal, by value.
        components: what was hashed: what arrives has to be the same.
        of_files: components of which that does not hold: the files are where they were, and may have changed.
        name: of the signal.
        modules: module of the user that it imports when it runs -> digest of its state.
        changed: (module, name) of what is set in modules that are imported where it arrives.
        configured: (module, name) of what in these is not as importing them gives it.
        limit: seconds that a call may take.
        edited: modules of the user whose files were edited since they were loaded.
        lines: of cells, by their names, where code looks at them.
        file, sizes: where its large arrays are, one after the other, and how many bytes each has.
    """

    key: str
    pickled: bytes
    components: Mapping[str, str]
    of_files: frozenset[str]
    modules: Mapping[str, str]
    changed: frozenset[tuple[str, str]]
    configured: frozenset[tuple[str, str]]
    name: str
    limit: float
    edited: tuple[LoadedModule, ...] = ()
    lines: Mapping[str, Sequence[str]] = field(default_factory=dict)
    file: str = ""
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Program:
    """The signals of one computation, as sent to a worker.

    Attributes:
        id: digest of all that follows: a worker sets up a program once.
        signals: what to compute.
        members: pointer columns to read.
        etags: uri -> etag that its reads are pinned to.
        hashes: whether the bytes of the members are hashed, too.
        states: of the sending process, see `factory_lib.fingerprints.process`, pickled.
        resources: what a process that computes it has to itself.
        elsewhere: it was made on another machine, whose files are not those of this one.
    """

    id: str
    signals: tuple[SentSignal, ...]
    members: tuple[str, ...]
    etags: Mapping[str, str]
    hashes: bool = False
    states: bytes = b""
    resources: Resources = ONE_CORE
    elsewhere: bool = False


@dataclass(frozen=True)
class SentTask:
    """One task.

    Attributes:
        id: number of the task.
        program: what to compute.
        rows: the rows, as an Arrow IPC stream.
    """

    id: int
    program: str
    rows: bytes


@dataclass(frozen=True)
class ProgramReady:
    """Answer: all signals of a program are set up."""

    program: str


@dataclass(frozen=True)
class ProgramStale:
    """Answer: what arrived is not what was sent; names of the components that differ."""

    program: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class SetupFailed:
    """Answer: a program cannot be set up."""

    program: str
    message: str
    hint: str


@dataclass(frozen=True)
class TaskUnread:
    """Answer: storage fails for the time being, so that the rows of a task could not be read."""

    id: int
    message: str
    hint: str
    shard: str | None


@dataclass(frozen=True)
class TaskValues:
    """Answer: the values of a task as an Arrow IPC stream."""

    id: int
    values: bytes


def to_ipc(batch: pa.RecordBatch) -> bytes:
    """A record batch as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def from_ipc(data: bytes) -> pa.RecordBatch:
    """The record batch of an Arrow IPC stream; its buffers stay where they are."""
    return pa.ipc.open_stream(data).read_next_batch()
