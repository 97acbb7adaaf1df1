"""Exports that become datasets again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from factory_lib import DatasetQuery, export, version
from factory_lib.errors import ExportError
from factory_lib.writing import CsvExport, HuggingFaceExport, ParquetExport, WebDatasetExport, import_samples
from tests.writing.exports import pool

__all__ = ["pool"]

COLUMNS = ["key", "caption", "uid", "width", "score"]


def told(name: str) -> pa.Table:
    return DatasetQuery(name).order_by("key").select(*COLUMNS).to_arrow()


def test_samples_and_pointers_come_back_with_what_they_were(pool: Path, tmp_path: Path) -> None:
    exported = version("pool")
    export("pool", str(tmp_path / "out"), ParquetExport(samples_per_file=40))
    made = import_samples(str(tmp_path / "out"))
    assert (str(made), list(made.shards)) == ("pool.v2", ["00000", "00001"])
    same = [*COLUMNS, "sample_id", "image"]
    before, after = (DatasetQuery(name).order_by("key").select(*same).to_arrow() for name in ("pool.v1", "pool.v2"))
    assert after == before
    assert made.provenance is not None
    assert exported.uuid in made.provenance.context["imported"]
    assert "pool.v1" in made.provenance.context["imported"]


@pytest.mark.parametrize("format", [HuggingFaceExport(), WebDatasetExport(samples_per_file=40)], ids=lambda f: f.name)
def test_formats_with_bytes_come_back(pool: Path, tmp_path: Path, format: Any) -> None:
    export("pool", str(tmp_path / "out"), format)
    import_samples(str(tmp_path / "out"), "again", unpack_to=str(tmp_path / "unpacked"))
    assert told("again") == told("pool")


def removed(out: Path) -> None:
    (out / "00000.parquet").unlink()


def cut(out: Path) -> None:
    (out / "00000.parquet").write_bytes((out / "00000.parquet").read_bytes()[:-1])


def not_whole(out: Path) -> None:
    (out / "provenance.json").unlink()


def edited(out: Path) -> None:
    (out / "provenance.json").write_text('{"samples": "many"}')


def fewer(out: Path) -> None:
    said = json.loads((out / "provenance.json").read_text())
    (out / "provenance.json").write_text(json.dumps(said | {"samples": 61}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (removed, "00000.parquet is not there"),
        (cut, r"00000.parquet has [\d,]+ bytes in place of"),
        (not_whole, "holds no whole export"),
        (edited, "is not what an export writes"),
        (fewer, "has 61 samples, and 60 are read"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_the_export_is_refused(
    pool: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    export("pool", str(tmp_path / "out"), ParquetExport())
    spoil(tmp_path / "out")
    with pytest.raises(ExportError, match=message):
        import_samples(str(tmp_path / "out"))
    assert version("pool").number == 1


def test_a_format_without_pictures_is_refused(pool: Path, tmp_path: Path) -> None:
    export("pool", str(tmp_path / "out"), CsvExport())
    with pytest.raises(ExportError, match="is an export as csv, which keeps no pointers"):
        import_samples(str(tmp_path / "out"))
