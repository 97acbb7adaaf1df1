"""A folder of plain image files, with captions or JSON in files of the same name beside them.

A sample is a file name without its last extension. Each folder of images is a shard; `folder` says which one a sample
is in, which is its label in layouts such as ImageNet's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from factory_lib.sources.layout import IMAGES, Layout, LayoutBuilder
from factory_lib.sources.members import Members
from factory_lib.sources.shards import ShardReport, SourceShard, name_shards
from factory_lib.sources.tar import INLINE_BYTES
from factory_lib.sources.webdataset import build_samples
from factory_lib.storage.store import FileInfo, store

SIDECARS = ("txt", "caption", "json", "cls")
_FILES_AT_ONCE = 20_000
_SCHEMA_FILES = 200


@dataclass(frozen=True)
class ImageFolder:
    """Plain image files below a folder.

    Attributes:
        uri: the folder.
        files: images and their sidecars, sorted by uri.
        layout: what extensions and JSON fields become.
    """

    uri: str
    files: tuple[FileInfo, ...]
    layout: Layout
    format: str = "folder"

    @property
    def schema(self) -> pa.Schema:
        """Columns of every batch."""
        return self.layout.schema.append(pa.field("folder", pa.string()))

    def shards(self) -> list[SourceShard]:
        """One a folder that has files of its own."""
        by_folder: dict[str, list[FileInfo]] = {}
        for file in self.files:
            by_folder.setdefault(file.uri.rsplit("/", 1)[0], []).append(file)
        return name_shards(self.uri, [(folder, tuple(files)) for folder, files in by_folder.items()])

    def read(self, shard: SourceShard, report: ShardReport) -> Iterator[pa.RecordBatch]:
        """Rows of a folder, by file name."""
        files = shard.files
        start = 0
        while start < len(files):
            stop = min(start + _FILES_AT_ONCE, len(files))
            while stop < len(files) and _split(files[stop].uri)[0] == _split(files[stop - 1].uri)[0]:
                stop += 1
            batch = build_samples(self._members(files[start:stop]), "", self.layout, report)
            report.samples += len(batch)
            folder = files[start].uri.rsplit("/", 1)[0].removeprefix(self.uri).strip("/")
            yield batch.append_column("folder", pa.repeat(pa.scalar(folder), len(batch))).cast(self.schema)
            start = stop

    def _members(self, files: Sequence[FileInfo]) -> Members:
        codes = {extension: code for code, extension in enumerate(self.layout.extensions)}
        split = [_split(file.uri) for file in files]
        root = self.uri.rstrip("/") + "/"
        return Members(
            pa.array([key.removeprefix(root) for key, _ in split], pa.string()),
            np.array([codes.get(extension, -1) for _, extension in split], np.int32),
            np.zeros(len(files), np.uint64),
            np.array([file.size for file in files], np.uint64),
            [
                _content(file) if extension in self.layout.textual else None
                for file, (_, extension) in zip(files, split, strict=True)
            ],
            pa.array([file.uri for file in files], pa.string()),
        )


def open_folder(uri: str, files: Sequence[FileInfo]) -> ImageFolder | None:
    """The image files below a folder, or a single one; None when there are none. Other files are passed over."""
    split = [(file, *_split(file.uri)) for file in files]
    keys = {key for _, key, extension in split if extension in IMAGES}
    if not keys:
        return None
    kept = [
        (file, key, extension)
        for file, key, extension in split
        if extension in IMAGES or (extension in SIDECARS and key in keys)
    ]
    builder = LayoutBuilder()
    builder.extensions |= dict.fromkeys(extension for _, _, extension in kept)
    builder.add_images([key for _, key, _ in kept], [extension for _, _, extension in kept])
    documents = [file for file, _, extension in kept if extension == "json"][:_SCHEMA_FILES]
    builder.add_json([_content(file) for file in documents])
    if uri == files[0].uri:
        uri = uri.rsplit("/", 1)[0]
    return ImageFolder(uri, tuple(file for file, _, _ in kept), builder.build())


def _split(uri: str) -> tuple[str, str]:
    """Path without its last extension, and that extension in lower case."""
    folder, _, name = uri.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    return (f"{folder}/{stem}", extension.lower()) if dot and stem else (uri, "")


def _content(file: FileInfo) -> bytes | None:
    return store().read(file.uri, etag=file.etag or None) if file.size <= INLINE_BYTES else None
