"""What DataComp's programs read: subset files, and the tars that its resharder makes of a pool and a subset.

Format: https://github.com/mlfoundations/datacomp, `resharder.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from factory_lib.curation.subset import in_subset, missing_uids, write_subset
from factory_lib.errors import ColumnNotFound, ExportError, nearest
from factory_lib.query import DatasetQuery
from factory_lib.redaction import without_credentials
from factory_lib.storage.store import store
from factory_lib.writing.formats import ExportFormat, json_bytes, put
from factory_lib.writing.keys import SAMPLE_NAME
from factory_lib.writing.parts import ExportPart, PartReport, cuts, parts_of
from factory_lib.writing.rows import ExportRows, SampleBlock
from factory_lib.writing.webdataset import WebDatasetExport

_COPIES = "_copies"


@dataclass(frozen=True, kw_only=True)
class SubsetExport(ExportFormat):
    """`subset.npy`: the uids of the samples, as DataComp's programs take them (see `curation.subset`).

    Attributes:
        key: the column with the uids, of up to 32 hexadecimal digits.
    """

    name: ClassVar[str] = "subset"
    keys_are_paths: ClassVar[bool] = False
    takes_names_alone: ClassVar[bool] = True
    key: str = "uid"

    def chosen_members(self, kinds: Mapping[str, str]) -> list[str]:
        """None: uids are all."""
        return []

    def chosen_columns(self, kinds: Mapping[str, str]) -> list[str]:
        """None but the uid."""
        return []

    def parts(self, rows: ExportRows) -> list[ExportPart]:
        """One: the file is sorted."""
        return [ExportPart("subset", 0, rows.count)]

    def files(self, parts: Sequence[ExportPart]) -> list[str]:
        """One."""
        return ["subset.npy"]

    def write(self, part: ExportPart, rows: ExportRows, to: str, parts: int) -> PartReport:
        """The file."""
        uids = pa.Table.from_batches([batch.select([SAMPLE_NAME]) for _, batch in rows.columns(part)])
        uri = f"{to}/subset.npy"
        count = write_subset(DatasetQuery.from_arrow(uids), uri, SAMPLE_NAME)
        store().sync(uri)
        return PartReport(samples=count, files={"subset.npy": store().info(uri).size})


@dataclass(frozen=True, kw_only=True)
class ReshardedExport(WebDatasetExport):
    """The samples of a subset as the resharder writes them, 10,000 a tar.

    A sample that the subset names n times is there n times, as `{uid}-0` to `{uid}-{n - 1}`. There are `00000000.tar`
    with `00000000_stats.json` (`successes`), `sample_ids.npy`, the subset as it was, and `meta.json`.

    Attributes:
        subset: path or URI of the subset file.
        key: the column with the uids.
    """

    name: ClassVar[str] = "resharded"
    subset: str = ""
    key: str = "uid"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.subset:
            raise ExportError("The resharder needs a subset file.", "Name it: ReshardedExport(subset=…), --subset.")

    def rows(self, samples: DatasetQuery) -> tuple[DatasetQuery, str | None]:
        """The samples that the subset names, and how often."""
        if self.key not in samples.columns:
            raise ColumnNotFound(f"The samples have no column {self.key!r}.", nearest(self.key, samples.columns))
        named = in_subset(samples, self.subset, self.key, copies=_COPIES)
        return named.order_by("shard", "position"), _COPIES

    def depends_on(self) -> str:
        """A hash of the subset."""
        return hashlib.sha256(store().read(self.subset)).hexdigest()

    def chosen_columns(self, kinds: Mapping[str, str]) -> list[str]:
        """The attributes, `uid` always, as training looks for it."""
        found = [name for name in super().chosen_columns(kinds) if name != _COPIES]
        return list(dict.fromkeys([*found, *(["uid"] if "uid" in kinds else [])]))

    def parts(self, rows: ExportRows) -> list[ExportPart]:
        """Tars, named by numbers of eight digits."""
        sizes = rows.sizes() if self.bytes_per_file else range(rows.count)
        return parts_of(cuts(sizes, self.bytes_per_file, self.samples_per_file), "{:08d}")

    def names(self, block: SampleBlock, rows: ExportRows) -> list[str]:
        """`{uid}-{copy}`."""
        copies = rows.copy_numbers(block.positions).tolist()
        return [f"{key}-{copy}" for key, copy in zip(block.keys, copies, strict=True)]

    def files(self, parts: Sequence[ExportPart]) -> list[str]:
        """Two for each tar, and two of all."""
        names = [f"{part.name}{end}" for part in parts for end in (".tar", "_stats.json")]
        return [*names, "sample_ids.npy", "meta.json"]

    def write(self, part: ExportPart, rows: ExportRows, to: str, parts: int) -> PartReport:
        """A tar, and how many samples it has."""
        report = super().write(part, rows, to, parts)
        report.files |= put(to, f"{part.name}_stats.json", json_bytes({"successes": report.samples}))
        return report

    def finish(self, rows: ExportRows, parts: Mapping[ExportPart, PartReport], to: str) -> PartReport:
        """`sample_ids.npy` and `meta.json`, and how many uids of the subset no sample has."""
        meta = {
            "subset_file": without_credentials(self.subset),
            "output_dir": without_credentials(to),
            "shard_size": str(self.samples_per_file),
            "output_shard_format": "{:08d}.tar",
            "output_shard_stats_format": "{:08d}_stats.json",
            "processed_count": rows.asked.count(),
            "output_count": sum(report.samples for report in parts.values()),
            "output_shard_count": len(parts),
            "blur_count": 0,
        }
        report = PartReport(files=put(to, "sample_ids.npy", store().read(self.subset)))
        report.files |= put(to, "meta.json", json_bytes(meta))
        report.leaves_out("uids", missing_uids(rows.asked, self.subset, self.key))
        return report
