"""Bytes of pictures (or sounds, or arrays) inside the columns of a table: Hugging Face's and img2dataset's parquet.

Which columns hold some is told by their type, a struct of `bytes` and `path`, and for plain binary columns by the first
value: hashes and other short ones are not meant. The bytes are copied once into tars (see `unpack`), and the column
becomes one of pointers.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.sources.coerce import is_binary, is_file
from factory_lib.sources.entries import picture_format, split_path
from factory_lib.sources.shards import POINTER, ShardReport
from factory_lib.sources.unpack import Unpacking, UnpackNotes, told
from factory_lib.storage.store import FileInfo, store

IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "pixel_values", "image_bytes")
_SHORT_BYTES = 64
"""A binary value up to this size that is no picture is a hash or an identifier."""
_INDEX = "unpacked.arrow"


def may_hold_media(kind: pa.DataType) -> bool:
    """Whether a column of this type may hold the bytes of files."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return is_file(kind.value_type)
    return is_file(kind) or is_binary(kind)


def holds_media(column: pa.Array) -> bool:
    """Whether the first rows of a column hold the bytes of files."""
    if pa.types.is_struct(column.type):  # names of files that lie elsewhere are a text
        return bool(column.null_count == len(column) or column.field("bytes").null_count < len(column))
    if not is_binary(column.type):
        return True
    first = next((value.as_py() for value in column if value.is_valid), b"")
    return picture_format(first[:64]) is not None or len(first) > _SHORT_BYTES


def files_left_out(kind: pa.DataType) -> list[pa.Field]:
    """Fields of a column of files that become no column."""
    one = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    return [field for field in one if field.name not in ("bytes", "path")] if pa.types.is_struct(one) else []


def main_picture(names: list[str]) -> str | None:
    """Which of some columns becomes `image`."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in IMAGE_NAMES if name in lower), names[0] if len(names) == 1 else None)


@dataclass
class MediaRows:
    """Pointers to the bytes of a table's rows, which are copied on the way where they were not before.

    Args:
        file: the table.
        columns: what becomes a column of pointers -> name in the file.
        to: folder or bucket of unpacked copies.
    """

    file: FileInfo
    columns: Mapping[str, str]
    to: str

    def read(self, batches: Iterator[pa.RecordBatch], report: ShardReport) -> Iterator[pa.RecordBatch]:
        """One batch of pointer columns for each batch of the table's columns with bytes."""
        copy = Unpacking(self.file, self.to)
        if copy.is_done:
            yield from self._recorded(copy, report)
            return
        noted = UnpackNotes()
        row = 0
        written: list[pa.RecordBatch] = []
        with told(self.file) as progress:
            for batch in batches:
                arrays = {}
                for column, name in self.columns.items():
                    arrays[column] = self._copied(copy, column, batch.column(name), row, noted)
                row += len(batch)
                progress()
                written.append(pa.RecordBatch.from_pydict(arrays))
                yield written[-1]
        if copy.has_members:
            copy.end_part()
        sink = io.BytesIO()
        schema = pa.schema(dict.fromkeys(self.columns, POINTER))
        with pa.ipc.new_file(sink, schema) as writer:
            for batch in written:
                writer.write_batch(batch)
        store().write(f"{copy.folder}/{_INDEX}", sink.getvalue())
        store().sync(f"{copy.folder}/{_INDEX}")
        copy.finish(columns=dict(self.columns), **noted.record())
        noted.tell(report)

    def _recorded(self, copy: Unpacking, report: ShardReport) -> Iterator[pa.RecordBatch]:
        UnpackNotes.read(copy.recorded()).tell(report)
        index = pa.ipc.open_file(pa.BufferReader(store().read(f"{copy.folder}/{_INDEX}")))
        for number in range(index.num_record_batches):
            yield index.get_batch(number)

    def _copied(self, copy: Unpacking, column: str, values: pa.Array, row: int, noted: UnpackNotes) -> pa.Array:
        contents, paths = _files(values, column, noted)
        pointers: list[tuple[str, int, int]] = []
        for number, (content, path) in enumerate(zip(contents, paths, strict=True)):
            data = content.as_py()
            if data is None:
                pointers.append(("", 0, 0))
                if path.as_py():
                    noted.count("pictures_elsewhere")
                continue
            if copy.is_full:
                copy.end_part()
            extension = picture_format(data[:64]) or split_path(path.as_py() or "")[1] or "bin"
            name = f"{row + number:09d}.{extension if column == 'image' else f'{column}.{extension}'}"
            pointers.append(copy.add(name, data))
        uris, offsets, sizes = zip(*pointers, strict=True) if pointers else ((), (), ())
        return pa.StructArray.from_arrays(
            [pa.array(uris, pa.string()), pa.array(offsets, pa.uint64()), pa.array(sizes, pa.uint64())],
            fields=list(POINTER),
        )


def _files(values: pa.Array, column: str, noted: UnpackNotes) -> tuple[pa.Array, pa.Array]:
    """Bytes and paths of a column; of a list of files the first one."""
    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        sizes = pc.fill_null(pc.list_value_length(values), 0).to_numpy().astype(np.int64)
        starts = np.asarray(values.offsets)[:-1].astype(np.int64)
        more = int(np.maximum(sizes - 1, 0).sum())
        noted.count("extra_files", more)
        if more and len(noted.problems) < 10:
            noted.problems.append(f"{more} values of {column!r} are behind the first of their row: left out")
        values = values.values.take(pa.array(starts, mask=sizes == 0))
    if pa.types.is_struct(values.type):
        paths = values.field("path") if values.type.get_field_index("path") >= 0 else pa.nulls(len(values), pa.string())
        present = values.is_valid()
        contents = pc.if_else(present, values.field("bytes"), pa.scalar(None, values.field("bytes").type))
        return contents, paths
    return values, pa.nulls(len(values), pa.string())
