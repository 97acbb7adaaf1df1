"""Samples as tables: Parquet, with or without bytes, the layout of Hugging Face's `datasets`, and CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.storage.store import store
from factory_lib.writing.cards import CARD, CROISSANT, card, croissant
from factory_lib.writing.formats import ExportFormat, json_bytes, put
from factory_lib.writing.parts import ExportPart, PartReport
from factory_lib.writing.rows import ExportRows, SampleBlock
from factory_lib.writing.webdataset import extension_of

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""How `datasets` stores a picture."""
_FRONT = """configs:
- config_name: default
  data_files:
  - split: {split}
    path: data/{split}-*.parquet
"""


@dataclass(frozen=True, kw_only=True)
class ParquetExport(ExportFormat):
    """Files `00000.parquet`, a row a sample, with a card and a Croissant file that describe them.

    Attributes:
        images: write the bytes of members in place of their pointers, as binary columns. Pointers are `uri`, `offset`,
            `size`, without credentials.
        compression: of the columns, as pyarrow names it.
    """

    name: ClassVar[str] = "parquet"
    keys_are_paths: ClassVar[bool] = False
    takes_vectors: ClassVar[bool] = True
    samples_per_file: int = 100_000
    images: bool = False
    compression: str = "snappy"

    def files(self, parts: Sequence[ExportPart]) -> list[str]:
        """Tables, card and Croissant file."""
        return [*(self.file(part, len(parts)) for part in parts), CARD, CROISSANT]

    def write(self, part: ExportPart, rows: ExportRows, to: str, parts: int) -> PartReport:
        """One file, a row group for each block."""
        import pyarrow.parquet

        report = PartReport()
        file = self.file(part, parts)
        writer: Any = None
        with store().writing(f"{to}/{file}") as out:
            for batch in self.batches(part, rows, report):
                if writer is None:
                    writer = pyarrow.parquet.ParquetWriter(out, batch.schema, compression=self.compression)
                writer.write_batch(batch, row_group_size=max(1, len(batch)))
            writer.close()
            report.files = {file: out.tell()}
        return report

    def describe(self, facts: Mapping[str, Any], total: PartReport, to: str) -> dict[str, int]:
        """The card and the Croissant file; of no table there is nothing to say."""
        import pyarrow.parquet

        tables = sorted(name for name in total.files if name.endswith(".parquet"))
        if not tables:
            return {}
        with store().open(store().info(f"{to}/{tables[0]}")) as file:
            schema = pyarrow.parquet.read_schema(file)
        pattern = f"{tables[0].rpartition('/')[0]}/*.parquet".removeprefix("/")
        return {
            **put(to, CARD, card(facts, schema, total.samples, self.front())),
            **put(to, CROISSANT, croissant(facts, schema, total.samples, pattern)),
        }

    def front(self) -> str:
        """What stands before the card, in YAML."""
        return ""

    def file(self, part: ExportPart, parts: int) -> str:
        """What a part is called."""
        return f"{part.name}.parquet"

    def batches(self, part: ExportPart, rows: ExportRows, report: PartReport) -> Iterator[pa.RecordBatch]:
        """The rows of a part."""
        if self.images and rows.members:
            for block in rows.blocks(part, report, strict=self.strict):
                columns = {name: block.columns.column(name) for name in rows.names}
                yield self.with_metadata(columns, {name: self.media(block, name) for name in rows.members})
            return
        for positions, batch in rows.columns(part):
            columns = {name: batch.column(name) for name in rows.names}
            pointers = {name: rows.pointers(rows.rows(positions), name) for name in rows.members}
            report.samples += len(batch)
            yield pa.RecordBatch.from_pydict({**pointers, **columns})

    def media(self, block: SampleBlock, member: str) -> pa.Array:
        """The bytes of a member as a column."""
        return pa.array(block.members[member], pa.binary())

    def with_metadata(self, columns: Mapping[str, pa.Array], media: Mapping[str, pa.Array]) -> pa.RecordBatch:
        """The columns of a file."""
        return pa.RecordBatch.from_pydict({**media, **columns})


@dataclass(frozen=True, kw_only=True)
class HuggingFaceExport(ParquetExport):
    """A folder for `datasets.load_dataset(path)`: `data/train-00000-of-00005.parquet`, pictures as `Image`, a card.

    `image` is decoded when a row is asked for; other members are bytes.

    Attributes:
        split: the name of the split.
    """

    name: ClassVar[str] = "huggingface"
    bytes_per_file: int | None = 500 * 10**6
    images: bool = True
    split: str = "train"

    def file(self, part: ExportPart, parts: int) -> str:
        """What a part is called."""
        return f"data/{self.split}-{part.name}-of-{parts:05d}.parquet"

    def media(self, block: SampleBlock, member: str) -> pa.Array:
        """The bytes of a member; of a picture with the name of a file."""
        found = super().media(block, member)
        if member != "image":
            return found
        names = [
            None if content is None else f"{key}.{extension_of(member, content)}"
            for key, content in zip(block.keys, block.members[member], strict=True)
        ]
        return pa.StructArray.from_arrays(
            [found, pa.array(names, pa.string())], fields=list(_IMAGE), mask=found.is_null()
        )

    def with_metadata(self, columns: Mapping[str, pa.Array], media: Mapping[str, pa.Array]) -> pa.RecordBatch:
        """The columns of a file, and which are pictures."""
        batch = super().with_metadata(columns, media)
        features = {name: {"_type": "Image"} for name in media if name == "image"}
        return batch.replace_schema_metadata({"huggingface": json_bytes({"info": {"features": features}})})

    def front(self) -> str:
        """Where `datasets` finds the tables."""
        return _FRONT.format(split=self.split)


@dataclass(frozen=True, kw_only=True)
class CsvExport(ExportFormat):
    """Files `00000.csv` in UTF-8 with a header; lists are JSON, the pointer `image` three columns, `image_uri` …"""

    name: ClassVar[str] = "csv"
    keys_are_paths: ClassVar[bool] = False
    samples_per_file: int = 1_000_000

    def files(self, parts: Sequence[ExportPart]) -> list[str]:
        """Tables."""
        return [f"{part.name}.csv" for part in parts]

    def write(self, part: ExportPart, rows: ExportRows, to: str, parts: int) -> PartReport:
        """One file."""
        import pyarrow.csv

        report = PartReport()
        file = f"{part.name}.csv"
        with store().writing(f"{to}/{file}") as out:
            for positions, batch in rows.columns(part):
                columns = {name: flat_column(batch.column(name)) for name in rows.names}
                numbers = rows.rows(positions)
                for member in rows.members:
                    pointer = rows.pointers(numbers, member)
                    columns |= {f"{member}_{one}": pointer.field(one) for one in ("uri", "offset", "size")}
                options = pyarrow.csv.WriteOptions(include_header=out.tell() == 0)
                pyarrow.csv.write_csv(pa.table(columns), out, options)
                report.samples += len(batch)
            report.files = {file: out.tell()}
        return report


def flat_column(column: pa.Array) -> pa.Array:
    """A column of values that have no parts: lists and their like as JSON, bytes as hexadecimal digits."""
    kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.array([None if one is None else one.hex() for one in column.to_pylist()], pa.string())
    if pa.types.is_nested(kind):
        return pa.array([None if one is None else json_bytes(one).decode() for one in column.to_pylist()], pa.string())
    return pc.cast(column, pa.string()) if pa.types.is_decimal(kind) else column
