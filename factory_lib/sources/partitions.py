"""Columns in the names of folders: `lang=en/year=2024/part-0.parquet`, as Hive, Spark, Arrow and others write tables,
and people put tars and pictures.

Values are percent-encoded, and `__HIVE_DEFAULT_PARTITION__` is null. A column is of integers where all of its values
are such without zeros before them, else text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.sources.account import Account
from factory_lib.sources.columns import name_columns, shown_type
from factory_lib.sources.shards import POINTER, ShardReport, Source, SourceShard
from factory_lib.sources.tables import Partition, TablePair
from factory_lib.storage.files import path_of

_FOLDER = re.compile(r"([^=]+)=(.*)")
_NULL = "__HIVE_DEFAULT_PARTITION__"
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")


def partitioned(root: str, pairs: Sequence[TablePair]) -> list[TablePair]:
    """Tables with the columns that the folders of any of them name: null for those without.

    Args:
        root: what was listed. Folders below it count, and those that are right above.
    """
    found = [_values(root, pair.files[0].path.rpartition("/")[0]) for pair in pairs]
    kinds = _kinds(found)
    if not kinds:
        return list(pairs)
    return [
        replace(pair, partitions=tuple(Partition(name, one.get(name), kind) for name, kind in kinds.items()))
        for pair, one in zip(pairs, found, strict=True)
    ]


def placed(root: str, source: Source, account: Account) -> Source:
    """Samples with the columns that the folders of their files name, if any do.

    Args:
        root: as above.
        account: gets these columns.
    """
    folders = {file.path.rpartition("/")[0] for shard in source.shards() for file in shard.files}
    kinds = _kinds([_values(root, folder) for folder in sorted(folders)])
    named = {name: column for name, column in name_columns(kinds).items() if column not in source.schema.names}
    if not named:
        return source
    for name, column in named.items():
        account.use("columns", shown_type(kinds[name]), column, "in the names of folders")
    columns = pa.schema([(column, kinds[name]) for name, column in named.items()])
    return PlacedSource(source.uri, source, root, columns, tuple(named))


@dataclass(frozen=True)
class PlacedSource:
    """Samples of a source with the columns that the folders of their files name.

    Attributes:
        uri: of the whole.
        samples: the source.
        root: what was listed.
        columns: those that it gets.
        names: of these in the names of folders.
    """

    uri: str
    samples: Source
    root: str
    columns: pa.Schema
    names: tuple[str, ...]

    @property
    def format(self) -> str:
        """That of the samples."""
        return self.samples.format

    @property
    def schema(self) -> pa.Schema:
        """Columns of every batch."""
        return pa.schema([*self.samples.schema, *self.columns])

    def shards(self) -> list[SourceShard]:
        """Those of the samples."""
        return self.samples.shards()

    def read(self, shard: SourceShard, report: ShardReport) -> Iterator[pa.RecordBatch]:
        """Rows of a shard; null for what is not known, because it was unpacked elsewhere from several folders."""
        below = path_of(self.root).rstrip("/")
        of_files = [_values(self.root, file.path.rpartition("/")[0]) for file in shard.files]
        elsewhere = of_files[0] if all(one == of_files[0] for one in of_files) else {}
        for batch in self.samples.read(shard, report):
            folders = [path_of(uri).rpartition("/")[0] if uri else None for uri in _uris(batch).to_pylist()]
            there = {one: _values(self.root, one) for one in set(folders) if one and f"{one}/".startswith(f"{below}/")}
            rows = [there.get(one or "", elsewhere) for one in folders]
            arrays = [
                pa.array([row.get(name) for row in rows], pa.string()).cast(field.type)
                for name, field in zip(self.names, self.columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays([*batch.columns, *arrays], schema=self.schema)


def _uris(batch: pa.RecordBatch) -> pa.StringArray:
    """Where the first member of each sample that is anywhere is."""
    uris = [pc.struct_field(batch.column(f.name), "uri") for f in batch.schema if f.type == POINTER]
    nowhere = pa.nulls(len(batch), pa.string())
    return pc.coalesce(nowhere, *(pc.if_else(pc.equal(one, ""), nowhere, one) for one in uris))


def _values(root: str, folder: str) -> dict[str, str | None]:
    root = path_of(root).rstrip("/")
    root = root if folder.startswith(root) else folder
    above = takewhile(_FOLDER.fullmatch, reversed(root.split("/")))
    found: dict[str, str | None] = {}
    for part in (*reversed(list(above)), *folder.removeprefix(root).split("/")):
        if match := _FOLDER.fullmatch(part):
            value = unquote(match[2])
            found[unquote(match[1])] = None if value == _NULL else value
    return found


def _kinds(found: Sequence[Mapping[str, str | None]]) -> dict[str, pa.DataType]:
    """Name -> type of all that some folders name."""
    return {name: _type([one.get(name) for one in found]) for name in dict.fromkeys(n for one in found for n in one)}


def _type(values: Sequence[str | None]) -> pa.DataType:
    there = [value for value in values if value is not None]
    return pa.int64() if there and all(map(_INTEGER.fullmatch, there)) else pa.string()
