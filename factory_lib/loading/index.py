"""The index: what a loader knows of its rows, in memory-mapped files, so that workers need no warehouse.

The main process streams the rows of a query once, in storage order, into a folder of Arrow IPC files; workers map it.
All record batches but the last have the same number of rows, so a row is found by division.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from factory_lib.errors import LoaderError, nearest
from factory_lib.filelocks import exclusive
from factory_lib.home import private_folder
from factory_lib.loading.convert import is_list, to_arrow, to_numpy
from factory_lib.loading.order import Rows
from factory_lib.owners import building
from factory_lib.storage.store import FileInfo, store

MISSING = np.uint32(0xFFFFFFFF)  # file number of a member that a sample does not have
BATCH_BYTES = 64 << 20
KEEP_DAYS = 30
_FORMAT = 2

RowSource = Callable[[], pa.RecordBatchReader]


@dataclass(frozen=True)
class Pointers:
    """Where the bytes of one member lie, for n rows: file number (uint32), offset and size in bytes (int64)."""

    file: NDArray[np.uint32]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Which rows have no such member."""
        missing: NDArray[np.bool_] = self.file == MISSING
        return missing

    def at(self, index: NDArray[Any]) -> Pointers:
        """The pointers of some of the rows."""
        return Pointers(self.file[index], self.offset[index], self.size[index])


@dataclass
class Index:
    """An index folder, opened lazily in each process; pickles as its path.

    Attributes:
        path: the folder.
        identity: of the rows, as given to `build_index`.
        rows: how many.
        mean_bytes: of a sample, all members together.
        members, columns: names, in the order asked for.
        lengths: of the lists of a column, where all rows have lists of one length.
    """

    path: Path
    identity: str
    rows: int
    mean_bytes: float
    members: tuple[str, ...]
    columns: tuple[str, ...]
    lengths: dict[str, int] = field(default_factory=dict)
    _batches: list[pa.RecordBatch] = field(default_factory=list, repr=False, compare=False)
    _files: list[FileInfo] = field(default_factory=list, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_index, (self.path,)

    @property
    def cuts(self) -> Rows:
        """Row numbers (int64) at which a shard starts."""
        cuts: Rows = np.load(self.path / "cuts.npy")
        return cuts

    @property
    def files(self) -> list[FileInfo]:
        """The files that pointers number, with the etags that reads are pinned to."""
        if not self._files:
            with pa.memory_map(str(self.path / "files.arrow")) as source:
                table = pa.ipc.open_file(source).read_all().to_pylist()
            self._files = [FileInfo(**row) for row in table]
        return self._files

    @property
    def text_columns(self) -> list[str]:
        """The columns that hold strings."""
        schema = self._open()[0].schema
        return [c for c in self.columns if pa.types.is_string(schema.field(c).type)]

    def pointers(self, member: str, rows: Rows) -> Pointers:
        """Where a member's bytes of `rows` lie, in their order."""
        taken = self.take(rows, [f"{member}.{part}" for part in ("file", "offset", "size")])
        file, offset, size = map(to_numpy, taken)
        return Pointers(file, offset.astype(np.int64), size.astype(np.int64))

    def take(self, rows: Rows, names: Sequence[str]) -> list[pa.Array]:
        """The values of columns at `rows` (int64, any order), one array a name."""
        batches = self._open()
        if len(batches) == 1:
            chosen = to_arrow(rows)
            return [batches[0].column(name).take(chosen) for name in names]
        number, at = np.divmod(rows, batches[0].num_rows)
        order = np.argsort(number, kind="stable")
        edges = np.flatnonzero(np.diff(number[order], prepend=-1, append=-1))
        back = to_arrow(np.argsort(order, kind="stable"))
        parts: list[list[pa.Array]] = [[] for _ in names]
        for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            batch, chosen = batches[int(number[order[start]])], to_arrow(at[order[start:stop]])
            for part, name in zip(parts, names, strict=True):
                part.append(batch.column(name).take(chosen))
        return [pa.concat_arrays(part).take(back) for part in parts]

    def _open(self) -> list[pa.RecordBatch]:
        if not self._batches:
            reader = pa.ipc.open_file(pa.memory_map(str(self.path / "rows.arrow")))
            self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        return self._batches


def build_index(
    source: RowSource,
    identity: str,
    *,
    folder: Path,
    members: Sequence[str] = (),
    columns: Sequence[str] = (),
    etags: Mapping[str, str] | None = None,
    must_exist: bool = True,
) -> Index:
    """The index of some rows: opened where it exists, else written; processes that want the same one write it once.

    Args:
        source: makes a reader of the rows in storage order, with `shard`, a ``struct<uri, offset, size>`` for each
            member, and the columns. Called only when the index has to be written.
        identity: says which rows; other rows must have another identity.
        folder: where indexes are kept; those unused for 30 days are removed.
        etags: uri to etag as ingested; files that are not in it are pinned to the etag they have now.
        must_exist: False does not look at the files, whose sizes are 0 then: who reads them finds out.

    Raises:
        LoaderError: no rows, or a member or column that the rows lack.
        StoreError: a file of the rows does not exist.
    """
    wanted = repr((_FORMAT, identity, tuple(members), tuple(columns), *([] if must_exist else ["any"])))
    name = hashlib.blake2b(wanted.encode(), digest_size=16).hexdigest()
    path = folder / name
    private_folder(folder)
    with (folder / f"{name}.lock").open("w") as lock, exclusive(lock):
        if not (path / "index.json").exists():
            _sweep(folder)
            with building(path) as beside:
                described = partial(_pinned, etags=etags or {}, must_exist=must_exist)
                _write(beside, source(), identity, tuple(members), tuple(columns), described)
    os.utime(path)
    return open_index(path)


def open_index(path: Path) -> Index:
    """An index that was built before."""
    facts = json.loads((path / "index.json").read_text())
    return Index(
        path=path,
        identity=facts["identity"],
        rows=facts["rows"],
        mean_bytes=facts["mean_bytes"],
        members=tuple(facts["members"]),
        columns=tuple(facts["columns"]),
        lengths=facts["lengths"],
    )


def _write(
    path: Path,
    reader: pa.RecordBatchReader,
    identity: str,
    members: tuple[str, ...],
    columns: tuple[str, ...],
    described: Callable[[list[str]], list[dict[str, Any]]],
) -> None:
    for kind, name in [*(("member", m) for m in members), *(("column", c) for c in columns)]:
        if name not in reader.schema.names:
            raise LoaderError(f"The rows of {identity!r} have no {kind} {name!r}.", nearest(name, reader.schema.names))
    for member in members:
        if not pa.types.is_struct(reader.schema.field(member).type):
            structs = [f.name for f in reader.schema if pa.types.is_struct(f.type)]
            raise LoaderError(
                f"{member!r} of {identity!r} is not a member but a column.",
                nearest(member, structs) or f"Name it among columns: columns=[{member!r}].",
            )
    files: dict[str, int] = {}
    cuts: list[int] = []
    lengths: dict[str, set[int]] = {name: set() for name in columns}
    shard: str | None = None
    rows = total = 0
    writer: pa.ipc.RecordBatchFileWriter | None = None
    with reader:
        for batch in _evenly(_rows_of(reader, members, columns, files)):
            starts, shard = _shard_starts(batch.column("shard"), shard)
            cuts += (starts + rows).tolist()
            rows += batch.num_rows
            total += sum(int(to_numpy(batch.column(f"{m}.size")).sum()) for m in members)
            for name in columns:
                lengths[name] |= _lengths(batch.column(name), lengths[name])
            kept = batch.drop_columns(["shard"]) if "shard" not in columns else batch
            if writer is None:
                writer = pa.ipc.new_file(str(path / "rows.arrow"), kept.schema)
            writer.write_batch(kept)
    if writer is None:
        raise LoaderError(f"{identity!r} has no rows to load.", "Does a filter remove them all?")
    writer.close()
    np.save(path / "cuts.npy", np.array(cuts, np.int64))
    table = pa.Table.from_pylist(described(list(files)), schema=_FILES)
    with pa.ipc.new_file(str(path / "files.arrow"), _FILES) as out:
        out.write_table(table)
    facts = {
        "identity": identity,
        "rows": rows,
        "mean_bytes": total / rows,
        "members": list(members),
        "columns": list(columns),
        "lengths": {name: found.pop() for name, found in lengths.items() if len(found) == 1},
    }
    (path / "index.json").write_text(json.dumps(facts, indent=1))


_FILES = pa.schema([("uri", pa.string()), ("size", pa.int64()), ("etag", pa.string())])


def _rows_of(
    reader: pa.RecordBatchReader, members: tuple[str, ...], columns: tuple[str, ...], files: dict[str, int]
) -> Iterator[pa.RecordBatch]:
    """Batches with pointers taken apart and dictionaries resolved: shard, `<member>.file|offset|size`, columns."""
    for batch in reader:
        if not batch.num_rows:
            continue
        arrays = {"shard": _plain(batch.column("shard"))}
        for member in members:
            pointer = batch.column(member)
            uri, offset, size = (pa.compute.struct_field(pointer, part) for part in ("uri", "offset", "size"))
            arrays[f"{member}.file"] = to_arrow(_file_numbers(uri, files))
            arrays[f"{member}.offset"] = offset.fill_null(0).cast(pa.uint64())
            arrays[f"{member}.size"] = size.fill_null(0).cast(pa.uint64())
        for column in columns:
            arrays[column] = _plain(batch.column(column))
        yield pa.RecordBatch.from_pydict(arrays)


def _lengths(array: pa.Array, known: set[int]) -> set[int]:
    """The shortest and the longest list of a column, a null being empty; nothing for other columns."""
    if not is_list(array.type) or len(known) > 1:
        return set()
    if pa.types.is_fixed_size_list(array.type):
        return {array.type.list_size}
    found = pa.compute.min_max(array.value_lengths().fill_null(0)).as_py()
    return {int(found["min"]), int(found["max"])}


def _plain(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _file_numbers(uri: pa.Array, files: dict[str, int]) -> NDArray[np.uint32]:
    if not pa.types.is_dictionary(uri.type):
        uri = uri.dictionary_encode()
    numbers = [files.setdefault(u, len(files)) if u else int(MISSING) for u in uri.dictionary.to_pylist()]
    codes = to_numpy(uri.indices.cast(pa.int64()).fill_null(len(numbers)))
    result: NDArray[np.uint32] = np.array([*numbers, int(MISSING)], np.uint32)[codes]
    return result


def _evenly(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of one size, a power of two that makes about 64 MiB; the last one is smaller."""
    waiting: list[pa.RecordBatch] = []
    count = size = 0
    for batch in batches:
        if not size:
            row_bytes = max(1, batch.nbytes // batch.num_rows)
            size = 1 << min(20, max(10, (BATCH_BYTES // row_bytes).bit_length() - 1))
        waiting.append(batch)
        count += batch.num_rows
        while count >= size:
            table = pa.Table.from_batches(waiting)
            yield from table.slice(0, size).combine_chunks().to_batches()
            waiting, count = table.slice(size).to_batches(), count - size
    if count:
        yield from pa.Table.from_batches(waiting).combine_chunks().to_batches()


def _shard_starts(shard: pa.Array, before: str | None) -> tuple[Rows, str]:
    codes = shard.dictionary_encode()
    changes = np.flatnonzero(np.diff(to_numpy(codes.indices))) + 1
    if shard[0].as_py() != before:
        changes = np.concatenate([[0], changes])
    return changes.astype(np.int64), shard[-1].as_py()


def _pinned(uris: list[str], etags: Mapping[str, str], must_exist: bool) -> list[dict[str, Any]]:
    """Each file with the etag it is to have: the one given, or its own of now."""
    if not must_exist:
        return [{"uri": uri, "size": 0, "etag": etags.get(uri, "")} for uri in uris]
    with ThreadPoolExecutor(32) as pool:
        infos = pool.map(store().info, uris)
        return [
            {"uri": uri, "size": info.size, "etag": etags.get(uri, info.etag)}
            for uri, info in zip(uris, infos, strict=True)
        ]


def _sweep(folder: Path) -> None:
    oldest = time.time() - KEEP_DAYS * 86400
    for entry in folder.iterdir():
        try:
            if entry.is_dir() and entry.stat().st_mtime < oldest:
                shutil.rmtree(entry, ignore_errors=True)
        except FileNotFoundError:
            continue
