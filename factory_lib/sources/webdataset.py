"""WebDataset tars: samples are runs of members with one key; images are pointed at, small members become columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.sources.layout import Layout, MemberSlot
from factory_lib.sources.members import Members, members_of, split_names, whole_samples
from factory_lib.sources.packedtar import unpacked_blocks
from factory_lib.sources.shards import POINTER, ShardReport, SourceShard, group_files
from factory_lib.sources.sidecars import integer_column, json_columns, json_objects, text_column, where
from factory_lib.sources.surviving import surviving, without_the_bad
from factory_lib.sources.tar import CompressedTar, TarBlock, TarReader
from factory_lib.storage.files import path_of
from factory_lib.storage.store import FileInfo, Store, store


@dataclass(frozen=True)
class WebDataset:
    """A folder of WebDataset tars, or one of them.

    Attributes:
        uri: the folder or file.
        tars: sorted by uri.
        layout: what extensions and JSON fields become.
        tars_per_shard: how many consecutive tars make a shard.
        unpack_to: where compressed tars are unpacked to.
    """

    uri: str
    tars: tuple[FileInfo, ...]
    layout: Layout
    tars_per_shard: int = 1
    unpack_to: str | None = None
    format: str = "webdataset"

    @property
    def schema(self) -> pa.Schema:
        """Columns of every batch."""
        return self.layout.schema

    def shards(self) -> list[SourceShard]:
        """Groups of consecutive tars."""
        return group_files(self.uri, self.tars, self.tars_per_shard)

    def read(self, shard: SourceShard, report: ShardReport) -> Iterator[pa.RecordBatch]:
        """Rows of a shard in byte order."""
        for tar in shard.files:
            yield from read_tar(store(), tar, self.layout, report, self.unpack_to)


def read_tar(
    origin: Store, tar: FileInfo, layout: Layout, report: ShardReport, unpack_to: str | None = None
) -> Iterator[pa.RecordBatch]:
    """Samples of one tar, in one pass over its bytes; of a compressed one, out of its unpacked copy.

    What is wrong with the tar is reported and ends the pass; what was read before it is kept.
    """
    name = tar.path.rsplit("/", 1)[-1]

    def problem(message: str) -> None:
        report.problem(f"{name}: {message}", loses=reader.damaged or reader.unfinished)

    reader = TarReader(origin, tar, problem)
    parts = _members(_blocks(reader, tar, unpack_to, report), layout, report)
    for uri, members in surviving(parts, tar.uri, "unreadable_tars", report):
        for batch in built_samples(members, uri, layout, report):
            report.samples += len(batch)
            yield batch
    if reader.links:
        report.count("links", reader.links)
        problem(f"{reader.links} links are left out: they have no bytes of their own to point at")
    report.count("sparse_members", reader.sparse)
    report.count("damaged_tars", int(reader.damaged))
    report.count("unfinished_tars", int(reader.unfinished))


def _blocks(
    reader: TarReader, tar: FileInfo, unpack_to: str | None, report: ShardReport
) -> Iterator[tuple[str, TarBlock]]:
    """Members, and the tar that they are in: this one, or parts of its unpacked copy."""
    try:
        yield from ((tar.uri, block) for block in reader.blocks())
    except CompressedTar:
        if unpack_to is None:
            raise
        yield from ((part.uri, block) for part, block in unpacked_blocks(tar, unpack_to, report))


def _members(
    blocks: Iterator[tuple[str, TarBlock]], layout: Layout, report: ShardReport
) -> Iterator[tuple[str, Members]]:
    """Members of whole samples, and the tar that they are in."""
    for uri, some in groupby(blocks, key=lambda found: found[0]):
        parts = (_members_of(block, layout, report) for _, block in some)
        yield from ((uri, members) for members in whole_samples(parts))


def _members_of(block: TarBlock, layout: Layout, report: ShardReport) -> Members:
    """Members of a block; those whose names belong to no sample are counted."""
    found = members_of(block, layout.extensions, layout.textual, layout.key_pattern)
    if len(found) < len(block.names):
        keys, _ = split_names(block.names, layout.key_pattern)
        names = block.names.filter(keys.is_null()).to_pylist()
        hidden = [name for name in names if name.rpartition("/")[2].startswith(".")]
        report.count("hidden_members", len(hidden))
        report.count("nameless_members", len(names) - len(hidden))
        first = [name for name in names if name not in hidden][:3]
        if first:
            report.problem(f"members such as {', '.join(map(repr, first))} have no extension: they are in no sample")
    return found


def built_samples(members: Members, uri: str, layout: Layout, report: ShardReport) -> Iterator[pa.RecordBatch]:
    """The samples of `build_samples`, but for those that cannot be read, which are reported."""
    starts = [*members.group_starts().tolist(), len(members)]
    yield from without_the_bad(
        len(starts) - 1,
        lambda start, stop: build_samples(members.rows(starts[start], starts[stop]), uri, layout, report),
        lambda sample: str(members.keys[starts[sample]].as_py()),
        "unreadable_samples",
        report,
    )


def build_samples(members: Members, uri: str, layout: Layout, report: ShardReport) -> pa.RecordBatch:
    """One row a sample.

    Args:
        members: of whole samples.
        uri: of the file that holds their bytes, where they are in one.
    """
    starts = members.group_starts()
    sample = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(members)))
    keys = members.keys.take(pa.array(starts))
    first = _first_of_kind(members, sample, len(layout.slots), keys, report)
    repeated = len(keys) - pc.count_distinct(keys).as_py()
    if repeated:
        report.count("repeated_keys", repeated)
        name = path_of(uri).rsplit("/", 1)[-1]
        hint = "members of a sample stand together in a tar, each once"
        report.problem(f"{repeated} samples have a key that occurred before, in {name}: {hint}")
    columns: dict[str, pa.Array] = {"key": keys}
    columns |= _pointer_columns(members, sample, first, keys, uri, layout, report)
    for code, slot in enumerate(layout.slots):
        if slot.extension not in layout.textual:
            continue
        rows = np.flatnonzero(first & (members.codes == code))
        contents = _contents(members, rows, sample[rows], len(starts), slot, report)
        if slot.boxes is not None:
            for name, column in slot.boxes.read(contents, keys, report).items():
                columns[name] = pc.coalesce(columns[name], column) if name in columns else column
        elif slot.kind == "integer":
            columns[slot.column] = integer_column(contents, keys, report)
        elif slot.kind == "json":
            others: list[str | None] | None = [None] * len(starts) if slot.column else None
            objects = json_objects(contents, keys, report, others)
            if others is not None:
                columns[slot.column] = pa.array(others, pa.string())
            _compare_keys(objects, keys, report)
            fields = [(found.name, found.type) for found in layout.fields]
            for found, column in zip(layout.fields, json_columns(objects, fields, keys, report), strict=True):
                known = columns.get(found.column)
                columns[found.column] = column if known is None else pc.coalesce(known, column)
        else:
            texts = text_column(contents, keys, report)
            known = columns.get(slot.column)
            columns[slot.column] = texts if known is None else pc.coalesce(texts, known)
    schema = layout.schema
    for name in schema.names:
        if name not in columns:
            columns[name] = pa.nulls(len(starts), schema.field(name).type)
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _pointers(
    members: Members, rows: npt.NDArray[np.int64], at: npt.NDArray[np.int64], count: int, uri: str
) -> tuple[pa.StructArray, npt.NDArray[np.bool_]]:
    """Pointers to some members at some of `count` samples, `('', 0, 0)` at the others; and where they are."""
    row = np.full(count, -1, np.int64)
    row[at] = rows
    present = row >= 0
    offsets = np.where(present, members.offsets[row], np.uint64(0))
    sizes = np.where(present, members.sizes[row], np.uint64(0))
    if members.uris is not None:
        uris = pc.fill_null(members.uris.take(pa.array(row, mask=~present)), "")
    else:
        uris = pa.repeat(pa.scalar(uri), count) if present.all() else pc.if_else(pa.array(present), uri, "")
    return pa.StructArray.from_arrays([uris, pa.array(offsets), pa.array(sizes)], fields=list(POINTER)), present


def _pointer_columns(
    members: Members,
    sample: npt.NDArray[np.int64],
    first: npt.NDArray[np.bool_],
    keys: pa.StringArray,
    uri: str,
    layout: Layout,
    report: ShardReport,
) -> dict[str, pa.Array]:
    count = len(keys)
    found: dict[str, pa.Array] = {}

    chosen: list[npt.NDArray[np.int64]] = []
    taken = np.zeros(count, np.bool_)
    for code, slot in enumerate(layout.slots):
        if slot.kind not in {"image", "pointer"}:
            continue
        rows = np.flatnonzero(first & (members.codes == code))
        if slot.kind == "image":
            second = taken[sample[rows]]
            chosen.append(rows[~second])
            taken[sample[rows]] = True
            rows = rows[second]
        if slot.column:
            found[slot.column], _ = _pointers(members, rows, sample[rows], count, uri)
        elif len(rows):
            report.count("extra_images", len(rows))
    if layout.has_image:
        rows = np.concatenate(chosen)
        found["image"], present = _pointers(members, rows, sample[rows], count, uri)
        report.count("no_image", int((~present).sum()))
    return found


def _first_of_kind(
    members: Members, sample: npt.NDArray[np.int64], kinds: int, keys: pa.StringArray, report: ShardReport
) -> npt.NDArray[np.bool_]:
    """Which members count: of several with the same key and extension the first, and none of an unknown extension."""
    unknown = members.codes < 0
    if unknown.any():
        rows = np.flatnonzero(unknown)
        report.count("unknown_members", len(rows))
        report.problem(
            f"{len(rows)} members, of {where(keys, sample[rows].tolist())}, are in no column: the tars that settled "
            "the schema have none of their extension; open the source with schema_tars=… larger to look into more"
        )
    pairs = sample * (kinds + 1) + members.codes
    first = np.zeros(len(members), np.bool_)
    first[np.unique(pairs, return_index=True)[1]] = True
    repeated = np.flatnonzero(~first & ~unknown)
    if len(repeated):
        report.count("duplicate_members", len(repeated))
        report.problem(
            f"{len(repeated)} members, of {where(keys, sample[repeated].tolist())}, have the extension of one before "
            "them: the first counts"
        )
    return first & ~unknown


def _contents(
    members: Members,
    rows: npt.NDArray[np.int64],
    at: npt.NDArray[np.int64],
    count: int,
    slot: MemberSlot,
    report: ShardReport,
) -> list[bytes | None]:
    contents: list[bytes | None] = [None] * count
    texts = members.texts
    for row, position in zip(rows.tolist(), at.tolist(), strict=True):
        contents[position] = texts[row]
    missing = sum(texts[row] is None for row in rows.tolist())
    if missing:
        report.count("oversized_members", missing)
        report.problem(f"{missing} .{slot.extension} members are larger than 1 MiB and were not read")
    return contents


def _compare_keys(objects: list[dict[str, object]], keys: pa.StringArray, report: ShardReport) -> None:
    different = sum(1 for found, key in zip(objects, keys.to_pylist(), strict=True) if found.get("key", key) != key)
    if different:
        report.count("different_keys", different)
        report.problem(
            f"{different} samples have another key in their json than in the name of their members, which counts"
        )
